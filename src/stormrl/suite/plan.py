"""What a suite consists of: one run for each game, preset and seed, each in its own directory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stormrl.config.parts import RunConfig, leaves, to_dict
from stormrl.envs import find_protocol, make_env
from stormrl.errors import UserError
from stormrl.runs.whole import run_name
from stormrl.scores import published
from stormrl.suite.standing import Standing

_VERSION = re.compile(r"-v[0-9]+$")


@dataclass(frozen=True)
class Task:
    """One run of a suite."""

    name: str
    """Of its directory."""
    config: RunConfig


@dataclass(frozen=True)
class SuitePlan:
    """Every run of a suite, and how far each is."""

    standings: Mapping[Task, Standing]

    @property
    def left(self) -> list[Task]:
        """Runs that have steps to go; those already begun come first."""
        open_tasks = [task for task, at in self.standings.items() if not _finished(task, at)]
        return sorted(open_tasks, key=lambda task: self.standings[task].saved == 0)

    @property
    def finished(self) -> list[Task]:
        """Runs of which nothing is left to do."""
        return [task for task, at in self.standings.items() if _finished(task, at)]


def named_games(games: Sequence[str]) -> list[str]:
    """The games that are meant, the name of a benchmark replaced by its games."""
    whole = {published.BENCHMARK: published.games()}
    return [name for game in games for name in whole.get(game, [game])]


def env_id(game: str) -> str:
    """The Gymnasium id of a game that is given by name alone, as in `Boxing`."""
    return game if "/" in game or ":" in game or _VERSION.search(game) else f"ALE/{game}-v5"


def tasks(
    games: Sequence[str], seeds: Sequence[int], configs: Mapping[str, RunConfig]
) -> list[Task]:
    """One task for each game, preset and seed; `configs` holds a preset's config.

    Seeds come last in the order of games and presets, so that every game has a first result early.
    Raises `UserError` if two of them would share a directory.
    """
    planned = [
        replace(config, env=env_id(game), seed=seed)
        for seed in seeds
        for game in named_games(games)
        for config in configs.values()
    ]
    names = Counter(map(run_name, planned))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError("games", f"two runs would both be {twice[0]}; give every one once")
    return [Task(run_name(config), config) for config in planned]


def check_games(planned: Sequence[Task]) -> None:
    """Raises `UserError` if a game cannot be made or trained on here, or an agent not trained."""
    for task in planned:
        task.config.check_trains()
    for agent in {task.config.agent for task in planned}:
        agent.check_positions()
    games = {(c.env, c.protocol, repr(c.env_kwargs)): c for c in (t.config for t in planned)}
    for _, config in sorted(games.items()):
        protocol = find_protocol(config.protocol)
        make_env(config.env, protocol, kwargs=config.env_kwargs).close()


def refuse_others(task: Task, config: Mapping[str, Any] | None) -> None:
    """Raises `UserError` if the directory holds a run of another configuration.

    `config` is what its config.json says. The number of steps may have grown, and a precision that
    was left open has been settled when the run began.
    """
    if config is None:
        return
    wanted, found = dict(leaves(to_dict(task.config))), dict(leaves(config))
    steps = found.get("steps", wanted["steps"])
    if not isinstance(steps, int):
        raise UserError("steps", f"of {task.name} are {steps!r}; give another --out")
    if steps > wanted["steps"]:
        remedy = f"give --steps {steps} or another --out"
        raise UserError("steps", f"{task.name} is set to {steps} steps; {remedy}")
    settled = {"precision"} if wanted["precision"] == "auto" else set()
    for field in wanted.keys() - {"steps"} - settled:
        if field in found and found[field] != wanted[field]:
            began = f"{task.name} began with {found[field]!r}, not {wanted[field]!r}"
            raise UserError(field, f"{began}; go on with the same flags or give another --out")


def _finished(task: Task, standing: Standing) -> bool:
    scored = standing.scored or task.config.evaluation_episodes == 0
    return standing.saved > task.config.steps or (standing.saved == task.config.steps and scored)
