"""What a field's type says of its values: `Annotated[int, Positive]`, `Annotated[int, AtLeast(2)]`.

Whether a number is finite is asked of every field, after its constraint: a range tells more.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


class Constraint(ABC):
    """One rule about one value, in the type of its field."""

    @abstractmethod
    def check(self, value: Any) -> str | None:
        """What to give instead of a value that breaks the rule; None for one that keeps it."""


@dataclass(frozen=True)
class Above(Constraint):
    """A number above a bound."""

    bound: float

    def check(self, value: float) -> str | None:
        """What to give instead, if it is not above."""
        return f"give a number above {self.bound}" if value <= self.bound else None


@dataclass(frozen=True)
class AtLeast(Constraint):
    """A number that is a bound or above it."""

    bound: float

    def check(self, value: float) -> str | None:
        """What to give instead, if it is below."""
        return f"give {self.bound} or more" if value < self.bound else None


@dataclass(frozen=True)
class Within(Constraint):
    """A number between two bounds, or one of them."""

    low: float
    high: float

    def check(self, value: float) -> str | None:
        """What to give instead, if it lies outside or is no number at all."""
        inside = self.low <= value <= self.high
        return None if inside else f"give a number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Arguments(Constraint):
    """Arguments by keyword that JSON can keep, just as they are."""

    def check(self, value: Any) -> str | None:
        """What to give instead of a name that is none, or a value that JSON has no word for."""
        if not all(isinstance(name, str) and name.isidentifier() for name in value):
            return "give names as Python has them"
        try:
            kept = json.loads(json.dumps(dict(value), allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            kept = None
        return None if kept == dict(value) else "give texts, numbers, true, false, null and lists"


# Written like types: they stand where types stand.
Positive = Above(0)
Fraction = Within(0, 1)
