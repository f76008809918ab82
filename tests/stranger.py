"""Strangers' environments for tests: each of tests/cases changes one thing about a good game."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium

CASES = Path(__file__).parent / "cases"


@contextmanager
def cases() -> Iterator[None]:
    """While entered, the modules of tests/cases can be imported and their games be made."""
    before = set(gymnasium.registry)
    sys.path.insert(0, str(CASES))
    try:
        yield
    finally:
        sys.path.remove(str(CASES))
        for name in set(gymnasium.registry) - before:
            del gymnasium.registry[name]
        for file in CASES.glob("*.py"):
            sys.modules.pop(file.stem, None)


def game(module: str, name: str) -> Any:
    """A class of one of the modules."""
    return getattr(importlib.import_module(module), name)
