"""A run's demonstration: recorded episodes as a second replay, which never changes."""

from __future__ import annotations

from pathlib import Path

import torch

from stormrl.config.parts import AgentConfig
from stormrl.disk.run_directory import DEMONSTRATION, RunDirectory
from stormrl.errors import UserError
from stormrl.experience.episodes import Recording, read_recording
from stormrl.experience.replay import Replay
from stormrl.spaces import Spaces

FIELD = "demonstration.path"


def check_demonstration(config: AgentConfig, env_id: str, spaces: Spaces) -> None:
    """Raises `UserError` if the run's demonstration, where it has one, is of no use to it."""
    if config.demonstration.path:
        path = Path(config.demonstration.path)
        _check_fit(read_recording(path), config, env_id, spaces)


def load_demonstration(
    run: RunDirectory, spaces: Spaces, device: torch.device, final: bool = False
) -> Replay | None:
    """The run's own copy on `device`, or None for a run without demonstration.

    final: as of `demonstration_replay`. Raises `UserError` if the copy is missing, damaged, or
    does not fit the run.
    """
    if run.demonstration is None:
        return None
    path = run.path / DEMONSTRATION
    run.demonstration.verify(path)
    recording = read_recording(path)
    _check_fit(recording, run.config.agent, run.config.env, spaces)
    return demonstration_replay(recording, device, final)


def demonstration_replay(
    recording: Recording, device: torch.device | str = "cpu", final: bool = False
) -> Replay:
    """A replay that holds exactly the recorded steps, in their order.

    final: what an episode ended with is a row of its own (`World.keeps_final`).
    """
    rows = recording.rows(final)
    count = len(rows["action"])
    replay = Replay(count, recording.image_shape, device)
    for name, values in rows.items():
        getattr(replay, name).copy_(values)
    replay.moved_to(count)
    return replay


def _check_fit(recording: Recording, config: AgentConfig, env_id: str, spaces: Spaces) -> None:
    if _name(recording.env) != _name(env_id):
        raise UserError(FIELD, f"is of {recording.env}, not of {env_id}; give one of this game")
    image_shape = spaces.observation.shape
    if recording.actions != spaces.action.names:
        words = f"{', '.join(recording.actions)}, the game's {', '.join(spaces.action.names)}"
        raise UserError(FIELD, f"its actions are {words}; record it anew")
    if recording.image_shape != image_shape:
        shapes = f"{list(recording.image_shape)}, the game's {list(image_shape)}"
        raise UserError(FIELD, f"its images are {shapes}; record it anew")
    length = max(config.world_model.window, config.imagination.context)
    if recording.steps < length:
        problem = f"holds {recording.steps} steps, fewer than a window of {length}"
        raise UserError(FIELD, f"{problem}; record more episodes")


def _name(env_id: str) -> str:
    """Without the module that registers it."""
    return env_id.rpartition(":")[2]
