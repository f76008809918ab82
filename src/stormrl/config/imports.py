"""Which code may be imported for an environment or a part: what a person names, or is installed.

A run directory is data that somebody else may have made. What it names, `module:Name`, must not
have a module run that lies beside it, or in the folder from which it is looked at.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class ForeignId(str):
    """A `module:Name` as a file gives it: only what is installed is imported for it."""

    source: Path
    """The folder in which it was read."""

    def __new__(cls, env_id: str, source: Path) -> ForeignId:
        """What was read in the folder `source`."""
        made = super().__new__(cls, env_id)
        made.source = source
        return made

    def __getnewargs__(self) -> tuple[str, Path]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return str(self), self.source  # So that it stays what it is when it is copied.


def read_id(env_id: str, source: Path, allowed: Sequence[str]) -> str:
    """What was read in the folder `source`; with a module that is allowed, like one typed.

    allowed: modules, each with all that lies in it.
    """
    module = env_id.rpartition(":")[0]
    if any(f"{module}.".startswith(f"{name}.") for name in allowed if name):
        return env_id
    return ForeignId(env_id, source)


def import_for(env_id: str, module: str) -> None:
    """Import the module that a `module:Name` names.

    A module that a person has named may lie in the working directory, wherever Python looks
    otherwise. Raises what the import raises, `ModuleNotFoundError` first of all.
    """
    with trusted_path(env_id):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if isinstance(env_id, ForeignId) or not is_missing(module, error):
                raise
            # For good: the environment may import its neighbours when it is first played.
            sys.path.append(str(Path.cwd()))
            importlib.invalidate_caches()
            importlib.import_module(module)


def is_missing(module: str, error: Exception) -> bool:
    """Whether the module itself, or a package that it lies in, has not been found."""
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


@contextmanager
def trusted_path(env_id: str) -> Iterator[None]:
    """While entered, nothing is imported for a foreign id that is not installed."""
    if not isinstance(env_id, ForeignId):
        yield
        return
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if not _lies_at_hand(entry, env_id.source)]
    try:
        yield
    finally:
        sys.path[:] = before


def _lies_at_hand(entry: str, source: Path) -> bool:
    """Whether a place to import from is the working directory, the run's, or one in the run's."""
    try:
        here, place = Path.cwd(), Path(entry).resolve()
    except FileNotFoundError:  # The working directory has been removed: nothing lies there.
        return not Path(entry).is_absolute()
    return place == here or place.is_relative_to(source.resolve())
