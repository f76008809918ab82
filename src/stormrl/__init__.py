"""World-model reinforcement learning in PyTorch, built around STORM.

The names below are loaded when they are first used, so that `import stormrl` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stormrl.agent import Agent
    from stormrl.config import AgentConfig, RunConfig
    from stormrl.envs import PROTOCOLS, make_env
    from stormrl.errors import UserError
    from stormrl.evaluate import random_scores
    from stormrl.learner import Learner
    from stormrl.presets import agent_config
    from stormrl.replay import Replay
    from stormrl.runs import agent_scores, resume, train
    from stormrl.world_model import WorldModel

__version__ = "0.1.0"

__all__ = [
    "PROTOCOLS",
    "Agent",
    "AgentConfig",
    "Learner",
    "Replay",
    "RunConfig",
    "UserError",
    "WorldModel",
    "__version__",
    "agent_config",
    "agent_scores",
    "make_env",
    "random_scores",
    "resume",
    "train",
]

_HOMES = {
    "PROTOCOLS": "envs",
    "Agent": "agent",
    "AgentConfig": "config",
    "Learner": "learner",
    "Replay": "replay",
    "RunConfig": "config",
    "UserError": "errors",
    "WorldModel": "world_model",
    "agent_config": "presets",
    "agent_scores": "runs",
    "make_env": "envs",
    "random_scores": "evaluate",
    "resume": "runs",
    "train": "runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
