"""A run's demonstration: recorded episodes as a second replay, which never changes."""

from __future__ import annotations

from pathlib import Path

import torch

from stormrl.config.parts import AgentConfig
from stormrl.disk.run_directory import DEMONSTRATION, RunDirectory
from stormrl.disk.tensor_files import stretches
from stormrl.errors import UserError
from stormrl.experience.episodes import Contents, check_recording
from stormrl.experience.replay import Replay
from stormrl.experience.store import CHUNK_STEPS, FIELDS
from stormrl.spaces import Spaces, bytes_of

FIELD = "demonstration.path"


def check_demonstration(config: AgentConfig, env_id: str, spaces: Spaces) -> int:
    """Bytes of what is shown in the run's demonstration, 0 where it has none.

    Raises `UserError` if it is of no use to the run.
    """
    if not config.demonstration.path:
        return 0
    contents = check_recording(config.demonstration.path)
    _check_fit(contents, config, env_id, spaces)
    return contents.steps * bytes_of(contents.seen)


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
    contents = check_recording(path)
    _check_fit(contents, run.config.agent, run.config.env, spaces)
    return _filled(path, contents, device, final)


def demonstration_replay(
    path: Path, device: torch.device | str = "cpu", final: bool = False
) -> Replay:
    """A replay that holds exactly the steps recorded in a file, in their order.

    final: what an episode ended with is a row of its own (`World.keeps_final`). Raises `UserError`
    as `check_recording` does.
    """
    return _filled(path, check_recording(path), device, final)


def _filled(path: Path, contents: Contents, device: torch.device | str, final: bool) -> Replay:
    """Piece by piece: a demonstration may take as much memory as replay, but only once."""
    more = torch.full((len(contents.lengths),), int(final))
    lengths = torch.tensor(contents.lengths)
    # Each step moves on by the rows that earlier episodes have more than steps.
    slots = torch.arange(contents.steps) + (more.cumsum(0) - more).repeat_interleave(lengths)
    replay = Replay.of(contents.steps + int(more.sum()), contents.seen, device)
    for name in FIELDS:
        first = 0
        for rows in stretches(path, name, CHUNK_STEPS):
            getattr(replay, name)[slots[first : first + len(rows)]] = rows.to(device)
            first += len(rows)
    if final:
        ends = (lengths + more).cumsum(0) - 1
        replay.obs[ends] = torch.cat(list(stretches(path, "final_obs", CHUNK_STEPS))).to(device)
    replay.moved_to(replay.capacity)
    return replay


def _check_fit(contents: Contents, config: AgentConfig, env_id: str, spaces: Spaces) -> None:
    if _name(contents.env) != _name(env_id):
        raise UserError(FIELD, f"is of {contents.env}, not of {env_id}; give one of this game")
    if contents.actions != spaces.action.names:
        words = f"{', '.join(contents.actions)}, the game's {', '.join(spaces.action.names)}"
        raise UserError(FIELD, f"its actions are {words}; record it anew")
    if contents.seen != spaces.observation:
        shows = f"{contents.seen}, the game {spaces.observation}"
        raise UserError(FIELD, f"it shows {shows}; record it anew")
    length = max(config.world_model.window, config.imagination.context)
    if contents.steps < length:
        problem = f"holds {contents.steps} steps, fewer than a window of {length}"
        raise UserError(FIELD, f"{problem}; record more episodes")


def _name(env_id: str) -> str:
    """Without the module that registers it."""
    return env_id.rpartition(":")[2]
