"""Constant-action baseline: what a held joystick reaches in some games, the least to be beaten.

The episodes come with the package; benchmarks/held_actions.py plays them.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from stormrl.scores.published import game_of


class HeldAction(NamedTuple):
    """The best policy of a game among those that hold one action, whatever they see."""

    action: str
    """As in `RIGHT`."""
    share: float
    """Of the steps in which it is held; in the others an action is drawn uniformly."""
    mean: float
    stderr: float
    """Standard error of the mean."""
    episodes: int
    returns: tuple[float, ...]
    """Of these episodes."""

    @property
    def name(self) -> str:
        """As in `RIGHT, 80 %`."""
        return f"{self.action}, {100 * self.share:.0f} %"


def held_action(env_id: str, protocol: str) -> HeldAction | None:
    """The best held action of `ALE/Pong-v5` under a protocol; None where nobody has looked."""
    record = _table()
    found = record["games"].get(game_of(env_id))
    if found is None or record["protocol"] != protocol:
        return None
    return HeldAction(**found | {"returns": tuple(found["returns"])})


@cache
def _table() -> dict[str, Any]:
    file = resources.files("stormrl") / "data" / "held_actions.json"
    return json.loads(file.read_text(encoding="utf-8"))
