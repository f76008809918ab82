"""The page's server: static files, one WebSocket a tab, recordings to take away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from stormrl.machine.system import usable_cores
from stormrl.play.packets import greeting
from stormrl.play.security import HEADERS, Guard
from stormrl.play.session import FAILED, TOO_MANY, PlaySession, close_reason, tell_failure
from stormrl.play.table import Table
from stormrl.play.tape import PlayFilm, save
from stormrl.runs.agent import Agent
from stormrl.seeds import GAME_SEED

"""Seed of the first game: no episode of training, evaluation or films has it."""
GAMES = 10_000
"""Seeds that a session has to itself."""
PLAY = "/play"
"""Where a tab's WebSocket connects to."""
STATIC = Path(__file__).parent / "static"

log = logging.getLogger(__name__)


class Server:
    """All that the tabs share: the agent, the threads that play, and where recordings go."""

    def __init__(
        self,
        agent: Agent,
        run: Path,
        recordings: Path,
        guard: Guard,
        context: int = 8,
        sessions: int = 8,
    ) -> None:
        self.agent, self.run, self.recordings = agent, run, recordings
        self.guard, self.context, self.limit = guard, context, sessions
        self.open: set[PlaySession] = set()
        self.waiting = 0
        self.numbers = itertools.count()
        self.saved: set[str] = set()
        # A thread for each game at a time: a step is too small to be worth more than one core.
        self.executor = ThreadPoolExecutor(usable_cores(), initializer=_one_thread)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._page),
                WebSocketRoute(PLAY, self._play),
                Route("/recordings/{name}", self._recording),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[Middleware(Gate, guard=self.guard)],
        )

    async def _page(self, _: HTTPConnection) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _recording(self, request: HTTPConnection) -> Response:
        name = request.path_params["name"]
        if name not in self.saved:
            return PlainTextResponse("there is no such recording\n", 404)
        return FileResponse(self.recordings / name, filename=name)

    async def _play(self, socket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):  # Before there was a game.
            await socket.accept()
            if not self._has_place():
                await socket.close(TOO_MANY, f"{self.limit} games are being played; close one")
                return
            if (table := await self._seated(socket)) is not None:
                await self._session(socket, table)

    def _has_place(self) -> bool:
        """Whether another may play; the tab that has been silent longest may have to go for it."""
        if len(self.open) + self.waiting < self.limit:
            return True
        silent = [session for session in self.open if session.silent]
        if not silent:
            return False
        longest = min(silent, key=lambda session: session.heard)
        longest.displaced.set()
        self.open.discard(longest)
        return True

    async def _seated(self, socket: WebSocket) -> Table | None:
        """A game for the newcomer, who is told if it cannot be begun."""
        seed = GAME_SEED + GAMES * next(self.numbers)
        loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            return await loop.run_in_executor(self.executor, self._table, seed)
        except Exception as error:
            tell_failure(error)
            await socket.close(FAILED, close_reason(str(error)))
            return None
        finally:
            self.waiting -= 1

    async def _session(self, socket: WebSocket, table: Table) -> None:
        session = PlaySession(socket, table, self.executor, partial(self._save, table))
        self.open.add(session)
        try:
            await session.run(greeting(self.agent, table, self.context))
        finally:
            self.open.discard(session)
            table.close()

    def _table(self, seed: int) -> Table:
        return Table(self.agent, seed, self.context)

    def _save(self, table: Table, film: PlayFilm) -> list[Path]:
        config = self.agent.config
        stem = self.recordings / f"play-{time.strftime('%Y%m%d-%H%M%S')}-{next(self.numbers)}"
        paths = save(film, stem, config.env, config.protocol, str(self.run), table.real.words)
        self.saved |= {path.name for path in paths}
        return paths


class Gate:
    """Lets nothing through that the guard refuses, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app, self.guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the opening of one WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        # Styles and scripts hold no secret, and their addresses bear no token.
        token = connection.query_params.get("token")
        if scope["path"].startswith("/static/"):
            token = self.guard.token
        refusal = self.guard.refusal(connection.headers, token)
        if scope["type"] == "websocket" and scope["path"] != PLAY:
            refusal = refusal or "no game is played here"  # Files know nothing of WebSockets.
        if refusal is None:
            await self._passed(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            await PlainTextResponse(refusal + "\n", 403)(scope, receive, _with_headers(send))

    async def _passed(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception:
            log.exception("a request has failed")
            raise


def _with_headers(send: Send) -> Send:
    extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return sending


def _one_thread() -> None:
    torch.set_num_threads(1)
