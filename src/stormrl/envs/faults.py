"""Exceptions of environments, told apart from everything else that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stormrl.errors import Fault


class EnvironmentFault(Fault):
    """An environment raised an exception, which is the cause of this one, or broke a rule."""


@contextmanager
def blaming(env: str, moment: str) -> Iterator[None]:
    """Turns whatever is raised inside into an `EnvironmentFault`.

    env: its name. moment: what it was doing, such as "step 3 of the episode with seed 5".
    """
    try:
        yield
    except EnvironmentFault:
        raise
    except Exception as error:
        raised = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise EnvironmentFault("env", f"{env} raised in {moment}: {raised}") from error
