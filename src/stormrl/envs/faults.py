"""Exceptions of environments, told apart from everything else that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stormrl.errors import Fault


class EnvironmentFault(Fault):
    """An environment raised an exception, which is the cause of this one, or broke a rule."""


@contextmanager
def blaming(env: str, moment: str) -> Iterator[None]:
    """Turns whatever is raised inside into an `EnvironmentFault`, an exit of the program as well.

    env: its name. moment: what it was doing, such as "step 3 of the episode with seed 5".
    """
    try:
        yield
    except (EnvironmentFault, KeyboardInterrupt, GeneratorExit):
        raise
    # Panics of extension modules are no Exception.
    except BaseException as error:
        raise EnvironmentFault("env", f"{env} raised in {moment}: {raised_text(error)}") from error


def raised_text(error: BaseException) -> str:
    """What was raised, as Python would say it; a message that cannot be had is left out."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return name
    return f"{name}: {text}" if text else name
