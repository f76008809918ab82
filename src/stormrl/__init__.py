"""World-model reinforcement learning in PyTorch, built around STORM.

The names below are loaded when they are first used, so that `import stormrl` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stormrl.acting.evaluate import random_scores
    from stormrl.config.parts import AgentConfig, RunConfig
    from stormrl.config.presets import agent_config
    from stormrl.envs import PROTOCOLS, make_env
    from stormrl.errors import UserError
    from stormrl.experience.replay import Replay
    from stormrl.learning.learner import Learner
    from stormrl.runs.agent import Agent
    from stormrl.runs.whole import agent_scores, resume, train
    from stormrl.worlds.latent import WorldModel

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
    "Agent": "runs.agent",
    "AgentConfig": "config.parts",
    "Learner": "learning.learner",
    "Replay": "experience.replay",
    "RunConfig": "config.parts",
    "UserError": "errors",
    "WorldModel": "worlds.latent",
    "agent_config": "config.presets",
    "agent_scores": "runs.whole",
    "make_env": "envs",
    "random_scores": "acting.evaluate",
    "resume": "runs.whole",
    "train": "runs.whole",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
