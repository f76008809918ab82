"""One tab: its game runs at its own pace, and it is told as much as it can take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from stormrl.errors import UserError
from stormrl.play.messages import Command, parse
from stormrl.play.packets import Pace, Point, packet, point
from stormrl.play.table import Table
from stormrl.play.tape import PlayFilm

UNSEEN = 3
"""Frames on their way to the page, at most; those that come meanwhile are dropped."""
POINTS = 300
"""Steps of a page that cannot keep up whose numbers are kept for its curves."""
MISTAKES = 100
"""Messages that mean nothing, after which a connection is closed."""
MESSAGES, WITHIN_S = 500, 1.0
"""Messages in a time, after which a connection is closed."""
PAUSE_S = 0.01
"""Time in which messages are collected before they are obeyed."""
SILENT_S = 10.0
"""After so long without a message a tab gives its place to one that asks for it; a page says what
it has seen every three seconds."""
POLICY, FAILED, TOO_MANY = 1008, 1011, 1013
"""WebSocket close codes."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Save = Callable[[PlayFilm], list[Path]]


class Closed(Exception):
    """The connection is to be closed, with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


class PlaySession:
    """Reads messages, runs the game and sends frames, side by side, until the page goes away."""

    def __init__(
        self,
        socket: WebSocket,
        table: Table,
        executor: Executor,
        save: Save,
    ) -> None:
        self.socket, self.table = socket, table
        self.executor, self.save = executor, save
        self.commands: dict[str, Any] = {}
        self.points: deque[tuple[int, Point]] = deque(maxlen=POINTS)
        self.packet: tuple[int, bytes] | None = None
        """What is to be sent next, and the last step that it tells of."""
        self.frame, self.sent, self.seen = 0, 0, 0
        self.step, self.told = 0, 0
        self.ticks: deque[float] = deque(maxlen=30)
        self.step_ms = 0.0
        self.changed, self.asked = asyncio.Event(), asyncio.Event()
        self.displaced = asyncio.Event()
        self.heard = time.monotonic()
        """When the last message came."""
        self.job: asyncio.Future[Any] | None = None

    async def run(self, hello: dict[str, Any]) -> None:
        """Until the page goes away or the connection has to be closed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._tell(self.socket.send_json({**hello, "unseen": UNSEEN}))
                for part in (self._read, self._play, self._send, self._leave):
                    tasks.create_task(part())
        except* WebSocketDisconnect:
            pass
        except* Closed as group:
            await self._close(group.exceptions[0])
        except* Exception as group:
            tell_failure(group.exceptions[0])
            await self._close(Closed(FAILED, str(group.exceptions[0])))
        finally:
            # The step that is being played must not find the game taken away.
            if self.job is not None:
                await asyncio.wait([self.job])

    @property
    def silent(self) -> bool:
        """Whether nobody seems to look at the page."""
        return time.monotonic() - self.heard > SILENT_S

    async def _leave(self) -> None:
        await self.displaced.wait()
        raise Closed(TOO_MANY, "another tab plays now: nothing was heard from this one")

    async def _read(self) -> None:
        arrivals: deque[float] = deque(maxlen=MESSAGES)
        mistakes = 0
        while True:
            message = await self.socket.receive()
            if message["type"] != "websocket.receive":
                raise WebSocketDisconnect(message.get("code", 1000))
            self.heard = time.monotonic()
            if len(arrivals) == MESSAGES and self.heard - arrivals[0] < WITHIN_S:
                raise Closed(POLICY, "too many messages at once")
            arrivals.append(self.heard)
            try:
                self._take(parse(message.get("text"), len(self.table.real.words)))
            except ValueError:
                mistakes += 1
                if mistakes > MISTAKES:
                    raise Closed(POLICY, "too many messages that mean nothing") from None

    def _take(self, command: Command) -> None:
        if command.name == "seen":
            self.seen = max(self.seen, min(command.value, self.sent))
            self.changed.set()
        else:
            self.commands[command.name] = command.value
            self.asked.set()

    async def _play(self) -> None:
        """A step whenever one is due; what is asked for between two is done at once."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            is_due = loop.time() >= due
            commands, self.commands = self.commands, {}
            news = await self._work(partial(self._advance, commands, is_due))
            if news is not None:
                self.packet = news
                self.changed.set()
            await self._save_recordings()
            if is_due:  # What has taken too long is not made up for.
                due = max(due + 1 / self.table.settings.speed, loop.time())
            await self._asked_or(due)

    async def _asked_or(self, due: float) -> None:
        await asyncio.sleep(min(PAUSE_S, max(due - asyncio.get_running_loop().time(), 0)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self.asked.wait()
        self.asked.clear()

    def _advance(self, commands: dict[str, Any], due: bool) -> tuple[int, bytes] | None:
        """One step of the game; what there is to tell of it. Runs outside of the event loop."""
        began, steps = time.perf_counter(), (self.table.real.steps, self.table.dream.steps)
        if not self.table.advance(commands, due) and self.frame:
            return None
        if steps != (self.table.real.steps, self.table.dream.steps):
            self.step += 1
            self.ticks.append(began)
            self.points.append((self.step, point(self.table)))
        self.frame += 1
        untold = [numbers for step, numbers in self.points if step > self.told]
        pace = Pace(self._fps(), self.step_ms)
        news = packet(self.frame, self.table, self.step, untold, pace)
        self.step_ms += 0.1 * ((time.perf_counter() - began) * 1000 - self.step_ms)
        return self.step, news

    def _fps(self) -> float:
        """Steps a second, over the last ones."""
        if len(self.ticks) < 2:
            return 0.0
        return (len(self.ticks) - 1) / (self.ticks[-1] - self.ticks[0])

    async def _send(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            if self.packet is not None and self.sent - self.seen < UNSEEN:
                (self.told, news), self.packet = self.packet, None
                self.sent += 1
                await self._tell(self.socket.send_bytes(news))

    async def _save_recordings(self) -> None:
        while self.table.finished:
            film = self.table.finished.popleft()
            try:
                paths = await self._work(partial(self.save, film))
                message = {"type": "saved", "files": [str(path) for path in paths]}
            except OSError as error:
                message = {"type": "problem", "text": f"not saved: {error.strerror or error}"}
            await self._tell(self.socket.send_json(message))

    async def _work(self, function: Callable[[], Result]) -> Result:
        """What takes long, outside of the event loop."""
        loop = asyncio.get_running_loop()
        self.job = loop.run_in_executor(self.executor, function)
        return await asyncio.shield(self.job)

    async def _tell(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except RuntimeError:  # Sent after the connection's end, which has not been read yet.
            raise WebSocketDisconnect from None

    async def _close(self, why: Exception) -> None:
        assert isinstance(why, Closed)
        if self.socket.client_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self.socket.close(why.code, close_reason(why.reason))


def tell_failure(error: Exception) -> None:
    """An environment's fault is one line, our own a traceback."""
    if isinstance(error, UserError):
        log.error("a game has failed: %s", error)
    else:
        log.error("a game has failed", exc_info=error)


def close_reason(text: str) -> str:
    """As much of a text as a WebSocket's end has room for: 123 bytes."""
    return text.encode(errors="replace")[:120].decode(errors="ignore")
