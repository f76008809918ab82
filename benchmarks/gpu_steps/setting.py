"""What every step starts from: a learner and random experience, the same at every call."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stormrl.bench.timing import seconds
from stormrl.config.parts import AgentConfig
from stormrl.config.presets import agent_config
from stormrl.experience.replay import Replay
from stormrl.learning.learner import Learner
from stormrl.learning.state import learner_tensors
from stormrl.machine.device import Backend, choose_device, choose_precision
from stormrl.machine.provenance import commit, hardware, versions
from stormrl.machine.random_state import seed_all
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces

Finding = tuple[str, Any]
Findings = Iterator[Finding]
State = Mapping[str, Tensor]

ACTIONS = 6
SPACES = Spaces(ImageSpace(64, 64, 3), DiscreteSpace(ACTIONS))
STEPS = 4096
NEEDS_CUDA = "skipped: needs CUDA"


class Setting(NamedTuple):
    """Where to measure, and how large."""

    backend: Backend
    size: str
    updates: int

    @classmethod
    def of(cls, device: str, size: str, updates: int) -> Setting:
        place = choose_device(device)
        return cls(Backend(place, choose_precision("auto", place)), size, updates)

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def config(self) -> AgentConfig:
        return agent_config("paper", self.size)

    def compiled(self) -> Setting:
        return self._replace(backend=replace(self.backend, compiled=True))


class Subject(NamedTuple):
    """A learner with experience."""

    learner: Learner
    replay: Replay

    def update(self) -> None:
        self.learner.update_world_model(self.replay)
        self.learner.update_agent(self.replay)

    def state(self) -> State:
        groups = learner_tensors(self.learner)
        return {
            f"{group}.{name}": tensor.detach().clone()
            for group, tensors in groups.items()
            for name, tensor in tensors.items()
        }


def subject(setting: Setting, config: AgentConfig | None = None) -> Subject:
    """A fresh learner; parameters, experience and random streams follow from one seed."""
    seed_all(0)
    learner = Learner(config or setting.config, SPACES, setting.backend)
    replay = Replay(STEPS, (64, 64, 3), setting.device)
    replay.obs.random_(0, 256)
    replay.action.random_(0, ACTIONS)
    replay.reward.normal_()
    replay.is_first[::100] = True
    replay.moved_to(STEPS)
    seed_all(1)
    return Subject(learner, replay)


def median_ms(work: Callable[[], object], setting: Setting) -> float:
    """Milliseconds of one call, after one that is not counted."""
    return 1000 * statistics.median(seconds(work, max(2, setting.updates), setting.device))


def difference(one: State, other: State) -> dict[str, Any]:
    """How far two states are apart, relative to the size of each tensor; the worst is named."""
    distances = {
        name: float((one[name].double() - other[name].double()).norm())
        / max(float(one[name].double().norm()), 1e-12)
        for name in one
    }
    worst = max(distances, key=lambda name: distances[name])
    equal = all(torch.equal(one[name], other[name]) for name in one)
    return {"bit_equal": equal, "largest_relative": distances[worst], "in": worst}


def circumstances(setting: Setting, given_commit: str) -> dict[str, Any]:
    return {
        "versions": {**versions(), "cuda": torch.version.cuda},
        "device": str(setting.device),
        "device_name": torch.cuda.get_device_name(setting.device) if setting.on_cuda else None,
        "hardware": hardware(),
        "precision": str(setting.backend.dtype).removeprefix("torch."),
        "size": setting.size,
        "commit": given_commit or commit(),
    }
