"""Published reference scores, which come with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

STORM = "STORM"
"""The released runs of the paper, none of them with a demonstration."""
PRESET, SIZE, PROTOCOL, STEPS = "official", "base", "official", 100_000
"""How those runs are made here."""
STORM_RERUN = "STORM-2026-rerun"
"""The same authors' later runs of it, under another protocol."""

PREFIX = "ALE/"
BENCHMARK = "atari100k"


class Reference(NamedTuple):
    """Mean returns that a game's scores are measured by."""

    random: float
    human: float

    def normalised(self, score: float) -> float:
        """`score` on the scale where random play is 0 and a human 1."""
        return (score - self.random) / (self.human - self.random)


@dataclass(frozen=True)
class PublishedAgent:
    """What is known of an agent's scores in the Atari 100k benchmark."""

    name: str
    source: str
    """Where the scores come from."""
    status: str
    """What they were checked against; without that they are not `verified`."""
    protocol: str
    """How they were obtained, in words; empty where that is not known."""
    seeds: Mapping[str, tuple[float, ...]]
    """Returns of the single runs, by game; empty where only means are known."""
    means: Mapping[str, float]
    """Mean returns by game; empty where only aggregates are known."""
    demonstrated: Mapping[str, float]
    """Mean returns that the paper gives instead of these: they were got with a demonstration."""
    printed: Mapping[str, float]
    """Aggregates as the paper prints them."""
    recomputed: Mapping[str, float]
    """Aggregates of the scores here; `iqm` and `optimality_gap` only where runs are known."""

    @property
    def verified(self) -> bool:
        """Whether the scores stand in a file that was released, and are not recalled."""
        return self.status.startswith("verified")


def agent_names() -> list[str]:
    """Every agent that there are scores of."""
    return list(_tables()["published"])


def published_agent(name: str) -> PublishedAgent:
    """The scores of an agent. Raises `KeyError` for a name that is not in `agent_names()`."""
    record = _tables()["published"][name]
    return PublishedAgent(
        name=name,
        source=record["source"],
        status=record["status"],
        protocol=record.get("protocol", ""),
        seeds={game: tuple(map(float, runs)) for game, runs in _table(record, "per_seed").items()},
        means=_table(record, "per_game_mean"),
        demonstrated={
            game: score
            for game, score in _table(record, "with_demo_freeway").items()
            if game in _tables()["games"]
        },
        printed=_table(record, "published_aggregate"),
        recomputed=_table(record, "recomputed"),
    )


def games() -> list[str]:
    """The 26 games of the Atari 100k benchmark, named as in `Pong`."""
    return list(_tables()["games"])


def game_of(env_id: str) -> str:
    """Name of a game in the tables, as in `Pong` for `ALE/Pong-v5`."""
    return env_id.removeprefix(PREFIX).partition("-v")[0]


def normalised(scores: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Returns of runs by game on the human-normalised scale; games without a scale are left out."""
    scales = {game: reference(game) for game in scores}
    return {
        game: [scale.normalised(score) for score in scores[game]]
        for game, scale in scales.items()
        if scale is not None
    }


def reference(game: str) -> Reference | None:
    """References of an Atari game, named as in `Pong` or `ALE/Pong-v5`; None if there are none."""
    name = game_of(game)
    tables = _tables()
    if name not in tables["games"]:
        return None
    return Reference(tables["random"][name], tables["human"][name])


def human_normalised(game: str, score: float) -> float | None:
    """`score` on the scale where random play is 0 and a human 1; None for other games."""
    scale = reference(game)
    return None if scale is None else scale.normalised(score)


@cache
def _tables() -> dict[str, Any]:
    file = resources.files("stormrl") / "data" / "atari100k.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _table(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A table that some agents lack."""
    return record.get(key) or {}
