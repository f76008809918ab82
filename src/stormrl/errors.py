"""The one exception that stands for a user's mistake."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave; the command line shows it as one line and exits with 2.

    `field` names what was given (a flag, a config field, a file), `message` says what is wrong
    with it and how to put it right.
    """

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = " ".join(message.split())  # Foreign messages may span lines.
        super().__init__(f"{field}: {self.message}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        return type(self), (self.field, self.message)  # So that it travels between processes.


class Fault(UserError):
    """What keeps a run from going on and is no mistake in what it was given: it is saved first."""
