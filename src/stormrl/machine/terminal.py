"""Console on which a text is never more than a text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from stormrl.machine.lenient import printable


class TextConsole(Console):
    """Colours and cursor are what rich makes of them; no character of a text moves either."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments of which whatever is printed consists."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _plain(segment)


def _plain(segment: Segment) -> Segment:
    if segment.text.isprintable():
        return segment
    return segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))
