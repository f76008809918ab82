"""The web server's patience with its connections.

uvicorn waits for ever for a request that never comes or comes in pieces, and for an answer to be
read; and it takes connections until the system has no descriptors left. Here each connection has
a time to do what it owes, and whoever comes when all places are taken gets that of the one that
has been waited for longest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 128
"""At a time. Of the 256 descriptors that some systems allow, half are left for everything else."""
ACCEPTED_AT_ONCE = 32
"""Connections that are taken before any of them is looked at."""
PATIENCE_S = 10.0
"""How long a connection may owe the same."""
UNREAD_BYTES = 2**22
"""Of answers that are not read; a connection with more ends at once."""
AHEAD_BYTES = 2**16
"""Of requests that come before the last one is answered: a page sends none."""
TICKS = 10
"""Of uvicorn's, a tenth of a second each, between two looks at the connections."""


class Places(set[Any]):
    """The open connections, and since when each has been waited for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self._waits: dict[Any, tuple[Hashable, float]] = {}

    def make_room(self) -> None:
        """End the connection that has been waited for longest, if there are too many."""
        self._note()
        if len(self) > CONNECTIONS and self._waits:
            self._end(min(self._waits, key=lambda connection: self._waits[connection][1]))

    def look(self) -> None:
        """End what has been waited for too long, or reads nothing of much that it has asked for."""
        self._note()
        now = self.clock()
        for connection, (_, since) in list(self._waits.items()):
            if now - since > PATIENCE_S or unread(connection) > UNREAD_BYTES:
                self._end(connection)

    def remove(self, connection: Any) -> None:
        """As `discard`: a connection that was ended has left already when its protocol hears it."""
        self.discard(connection)

    def _note(self) -> None:
        owing = {connection: owed(connection) for connection in self}
        self._waits = {c: (what, self._since(c, what)) for c, what in owing.items() if what}

    def _since(self, connection: Any, what: Hashable) -> float:
        before, since = self._waits.get(connection, (None, 0.0))
        return since if before == what else self.clock()

    def _end(self, connection: Any) -> None:
        connection.transport.abort()
        self.discard(connection)
        self._waits.pop(connection, None)


class Http(H11Protocol):
    """A connection that takes a place when it is made."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's, and the limit."""
        super().connection_made(transport)
        cast(Places, self.connections).make_room()

    def data_received(self, data: bytes) -> None:
        """uvicorn's, which keeps whatever is sent ahead."""
        super().data_received(data)
        if len(self.conn.trailing_data[0]) > AHEAD_BYTES:
            self.transport.abort()


class PatientServer(uvicorn.Server):
    """uvicorn's server with a limited number of places, looked at every second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.places = Places()
        self.server_state.connections = self.places

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, for uvicorn: whether to end."""
        if counter % TICKS == 0:
            self.places.look()
        return await super().on_tick(counter)


def owed(connection: Any) -> Hashable:
    """What a connection keeps the server waiting for, None where it is the server's turn.

    A connection owes the reading of what was sent to it, the next request, or its part of a
    WebSocket's end. After each progress it is another value.
    """
    if unread(connection) or connection.transport.is_closing():
        return "reading", unread(connection)
    if isinstance(connection, H11Protocol):
        cycle = connection.cycle
        return ("request", cycle) if cycle is None or cycle.response_complete else None
    return "end" if connection.close_sent else None


def unread(connection: Any) -> int:
    """Bytes that wait here because the other side does not take them."""
    return connection.transport.get_write_buffer_size()
