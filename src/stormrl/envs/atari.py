"""Atari 2600 games from the Arcade Learning Environment, under a protocol."""

from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import AtariPreprocessing

from stormrl.envs.protocols import Protocol
from stormrl.errors import UserError


def is_atari(spec: EnvSpec) -> bool:
    """Whether `spec` is an emulated game, whichever of its registered names was used."""
    return spec.entry_point == "ale_py.env:AtariEnv"


def make_atari(
    spec: EnvSpec,
    protocol: Protocol,
    size: int,
    render_mode: str | None,
    kwargs: Mapping[str, Any],
) -> gymnasium.Env:
    """The game as uint8 RGB [size, size, 3] with its minimal action set and unclipped rewards.

    A step is `protocol.frame_skip` emulator frames: rewards are summed, the picture is the maximum
    of the last two frames, then resized by area. The picture after a reset is one frame.
    kwargs: arguments of the emulator, such as `mode` and `difficulty`. Raises `UserError` for one
    that is not theirs to choose.
    """
    decided = {
        "disable_env_checker": True,
        "render_mode": render_mode,
        "obs_type": "rgb",
        "frameskip": 1,
        "full_action_space": False,
        "repeat_action_probability": protocol.sticky_actions,
        "max_num_frames_per_episode": protocol.max_frames,
    }
    for name in decided.keys() & kwargs.keys():
        problem = f"{name} is decided by the protocol {protocol.name}"
        raise UserError("env_kwargs", f"{problem}; leave it out, or choose another --protocol")
    emulator = gymnasium.make(spec, **{**kwargs, **decided})
    return AtariPreprocessing(
        emulator,
        noop_max=protocol.noop_max,
        frame_skip=protocol.frame_skip,
        screen_size=size,
        terminal_on_life_loss=False,
        grayscale_obs=False,
    )
