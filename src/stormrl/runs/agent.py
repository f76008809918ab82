"""The trained agent, to take into your own program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stormrl.config.parts import RunConfig
from stormrl.disk import checkpoint
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS, game_sizes, make_env
from stormrl.learning.learner import Learner
from stormrl.learning.state import largest_state, restore_models
from stormrl.machine.device import Backend, choose_device
from stormrl.types import Memory


class Agent:
    """World model and policy of a run at one of its checkpoints."""

    def __init__(self, config: RunConfig, learner: Learner, step: int, path: Path) -> None:
        self.config = config
        self.step = step
        self.path = path
        """Directory of the run."""
        self.warnings: tuple[str, ...] = ()
        """Why a checkpoint that seemed newer is not the one."""
        self.world_model = learner.world_model
        self.actor_critic = learner.actor_critic
        self.device = learner.backend.device
        self.actor = learner.actor()

    @classmethod
    def load(
        cls,
        run: str | Path,
        step: int | None = None,
        device: str = "auto",
        allow_import: Sequence[str] = (),
    ) -> Agent:
        """The agent of a run directory, at its newest checkpoint or at a given one.

        `pretrained:NAME` is an agent that comes with the package. allow_import: modules of the
        run's environment that may be imported though they are not installed.
        Raises `UserError` if the run or the checkpoint cannot be read.
        """
        directory = RunDirectory.open(run, allow_import)
        config = directory.config
        env = make_env(config.env, PROTOCOLS[config.protocol])
        actions, _ = game_sizes(env)
        env.close()
        learner = Learner(config.agent, actions, Backend(choose_device(device)))
        saved = checkpoint.load(directory.path, step, limit=largest_state(learner))
        restore_models(learner, saved.tensors)
        agent = cls(config, learner, saved.step, directory.path)
        agent.warnings = saved.warnings
        return agent

    def act(
        self, obs: np.ndarray, memory: Memory | None = None, greedy: bool = False
    ) -> tuple[int, Memory]:
        """Choose an action for one uint8 image [height, width, channels].

        Pass the memory that the last call returned, and None at the start of an episode.
        """
        image = torch.from_numpy(obs).to(self.device).permute(2, 0, 1).unsqueeze(0)
        is_first = torch.tensor([memory is None], device=self.device)
        memory = memory or self.actor.begin(1, image.shape[1:])
        action, memory = self.actor.act(image, memory, is_first, greedy)
        return int(action), memory
