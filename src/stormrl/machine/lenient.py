"""A place for words that nobody may be there to read."""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any, TextIO, cast


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
