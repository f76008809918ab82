"""A place for words that nobody may be there to read, and words that anybody may have written."""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any, TextIO, cast


def printable(text: str) -> str:
    """A text with a sign in the place of every character that cannot be printed.

    Names and messages come from files and games: what a terminal would obey is shown as what it is.
    """
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


class LenientStream:
    """A text stream that drops what it cannot write: its pipe or terminal is gone, its disk full.

    Letters that it has no code for are written as question marks.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written; the length of `text` either way."""
        with suppress(OSError, ValueError):
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "replace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand over what can be handed over."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def lenient(stream: TextIO) -> IO[str]:
    """The stream as one that drops what it cannot write."""
    return cast(IO[str], LenientStream(stream))
