"""ale-py's vector environment, set up to play by a protocol as far as it can."""

import numpy as np
from ale_py.vector_env import AtariVectorEnv

from stormrl.envs import Protocol


def vector_env(rom: str, protocol: Protocol, envs: int = 1, threads: int = 1) -> AtariVectorEnv:
    """Several of its defaults are traps: clipped rewards, FIRE at a reset, four stacked frames."""
    return AtariVectorEnv(
        rom,
        envs,
        num_threads=threads,
        img_height=64,
        img_width=64,
        grayscale=False,
        stack_num=1,
        frameskip=protocol.frame_skip,
        noop_max=protocol.noop_max,
        reward_clipping=False,
        use_fire_reset=False,
        repeat_action_probability=protocol.sticky_actions,
        max_num_frames_per_episode=protocol.max_frames,
    )


def emulator_seed(seed: int) -> int:
    """What the Python environment gives the emulator for a reset with `seed`: any 32 bits."""
    return int(np.random.SeedSequence(seed).generate_state(2)[1].astype(np.int32))
