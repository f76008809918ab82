"""Published reference scores, which come with the package."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

PREFIX = "ALE/"
BENCHMARK = "atari100k"


class Reference(NamedTuple):
    """Mean returns that a game's scores are measured by."""

    random: float
    human: float


def benchmark() -> list[str]:
    """The 26 games of the Atari 100k benchmark, named as in `Pong`."""
    return list(_tables()["games"])


def reference(game: str) -> Reference | None:
    """References of an Atari game, named as in `Pong` or `ALE/Pong-v5`; None if there are none."""
    name = game.removeprefix(PREFIX).partition("-v")[0]
    tables = _tables()
    if name not in tables["games"]:
        return None
    return Reference(tables["random"][name], tables["human"][name])


def human_normalised(game: str, score: float) -> float | None:
    """`score` on the scale where random play is 0 and a human 1; None for other games."""
    scale = reference(game)
    if scale is None:
        return None
    return (score - scale.random) / (scale.human - scale.random)


@cache
def _tables() -> dict[str, Any]:
    file = resources.files("stormrl") / "data" / "atari100k.json"
    return json.loads(file.read_text())
