"""The trained agent, a policy to take into your own program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stormrl.acting.actor import Acting
from stormrl.config.limits import MAX_SIZE
from stormrl.config.parts import RunConfig
from stormrl.disk import checkpoint
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import Protocol, make_env, spaces_of
from stormrl.errors import UserError
from stormrl.learning.learner import Learner
from stormrl.learning.size import check_size
from stormrl.learning.state import largest_state, restore_models
from stormrl.machine.device import Backend, choose_device
from stormrl.spaces import MOST_ACTIONS, DiscreteSpace, ImageSpace, Spaces
from stormrl.types import obs_tensor

_BIASES = re.compile(r"actor\.[0-9]{1,9}\.bias")


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
        self.spaces = learner.world_model.spaces
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
        max_size: int = MAX_SIZE,
    ) -> Agent:
        """The agent of a run directory, at its newest checkpoint or at a given one.

        `pretrained:NAME` is an agent that comes with the package. allow_import: modules of the
        run's environment that may be imported though they are not installed. max_size: numbers that
        a part of it may hold.
        Raises `UserError` if the run or the checkpoint cannot be read, or asks for more.
        """
        directory = RunDirectory.open(run, allow_import)
        config = directory.config
        spaces = directory.spaces or spaces_by_weights(directory.path)
        check_size(config.agent, spaces, max_size)
        learner = Learner(config.agent, spaces, Backend(choose_device(device)))
        saved = checkpoint.load(directory.path, step, limit=largest_state(learner))
        restore_models(learner, saved.tensors)
        agent = cls(config, learner, saved.step, directory.path)
        agent.warnings = saved.warnings
        return agent

    def check_game(self, protocol: Protocol) -> None:
        """Raises `UserError` if its game cannot be made, or is not the one it was trained on."""
        env = make_env(self.config.env, protocol, kwargs=self.config.env_kwargs)
        try:
            self.spaces.check_same(spaces_of(env), self.config.env)
        finally:
            env.close()

    def act(
        self, obs: np.ndarray, carry: Acting | None = None, greedy: bool = False
    ) -> tuple[int, Acting]:
        """Choose an action for one observation: uint8 [height, width, channels] or float32 [V].

        Pass the carry that the last call returned, and None at the start of an episode.
        """
        seen = obs_tensor(obs, self.device).unsqueeze(0)
        is_first = torch.tensor([carry is None], device=self.device)
        carry = carry or self.actor.begin(1)
        action, carry = self.actor.act(seen, carry, is_first, greedy)
        return int(action), carry


def spaces_by_weights(run: Path) -> Spaces:
    """Spaces of a run of format 1, which did not write them down.

    Its pictures were always the same, and its policy's last layer has a row for each action.
    Raises `UserError` if it has no usable checkpoint yet.
    """
    layouts = checkpoint.layouts(run, "actor_critic")
    biases = {name: layout for name, layout in layouts.items() if _BIASES.fullmatch(name)}
    last = max(biases, key=lambda name: int(name.split(".")[1]), default=None)
    shape = () if last is None else biases[last].shape
    if len(shape) != 1 or not 0 < shape[0] <= MOST_ACTIONS:
        raise UserError("run_dir", f"{run} holds no policy; give the directory of a stormrl run")
    return Spaces(ImageSpace(64, 64, 3), DiscreteSpace(shape[0]))
