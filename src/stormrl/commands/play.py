"""`stormrl play`: a local page on which a game and its dream are played."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from stormrl.commands.flags import AllowImport, MaxSize, parse
from stormrl.commands.output import messages, print_json, say, warn
from stormrl.config.limits import MAX_SIZE
from stormrl.errors import UserError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp


@dataclass(frozen=True)
class PlayOptions:
    """Serve a page on which a game is played beside the world model's dream of it.

    Left the real game, right the dream, from the same moment and under the same keys; or the agent
    plays, in either. Ctrl-C ends it.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run, or pretrained:NAME."""
    port: int = 8000
    """Port to listen on; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on. With any but this machine's own, the page's address holds a random
    token without which nothing is answered."""
    context: int = 8
    """Real frames that a dream begins with."""
    step: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step of the checkpoint; by default the newest."""
    recordings: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Directory for what is recorded; by default RUN/recordings."""
    sessions: int = 8
    """Tabs that can play at a time."""
    device: str = "cpu"
    """auto, cpu, cuda or cuda:N. One game's steps are too small to gain from a GPU."""
    allow_import: AllowImport = ()
    max_size: MaxSize = MAX_SIZE
    json: bool = False
    """Print nothing but one JSON object, with the page's address, on standard output."""


def main(args: Sequence[str]) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    options = parse(PlayOptions, args, "stormrl play")
    _check(options)
    _require_extra()
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.envs import find_protocol
    from stormrl.play.security import Guard
    from stormrl.play.server import Server
    from stormrl.runs.agent import Agent

    agent = Agent.load(
        options.run, options.step, options.device, options.allow_import, options.max_size
    )
    warn(agent.warnings)
    agent.check_game(find_protocol(agent.config.protocol))  # Else its page should not open.
    guard = Guard.of(options.host)
    recordings = options.recordings or agent.path / "recordings"
    server = Server(agent, options.run, recordings, guard, options.context, options.sessions)
    listening = listen(options.host, options.port)
    url = address(options.host, listening.getsockname()[1], guard.token)
    if options.json:
        print_json({"env": agent.config.env, "step": agent.step, "url": url})
        sys.stdout.flush()
    else:
        say(messages(), f"{agent.config.env}, step {agent.step:,}; Ctrl-C ends it")
        say(messages(), url)
    with contextlib.suppress(KeyboardInterrupt):
        web_server(server.app()).run(sockets=[listening])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound. Raises `UserError` if the address cannot be had."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise UserError("host", f"{host!r} is no address here: {error.strerror}") from None
    except OSError as error:
        message = f"{port} on {host} cannot be had: {error.strerror}; give another"
        raise UserError("port", message) from None


def address(host: str, port: int, token: str | None) -> str:
    """What to type into a browser."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def web_server(app: ASGIApp) -> uvicorn.Server:
    """The server with its limits; its log does not tell addresses, which may hold the token."""
    import uvicorn

    from stormrl.play.messages import LARGEST
    from stormrl.play.patience import ACCEPTED_AT_ONCE, Http, PatientServer

    config = uvicorn.Config(
        app,
        http=Http,
        ws="websockets-sansio",
        ws_max_size=LARGEST,
        ws_max_queue=16,
        ws_ping_interval=10,
        ws_ping_timeout=10,
        ws_per_message_deflate=False,
        backlog=ACCEPTED_AT_ONCE,
        access_log=False,
        # All that it says below that is about what visitors send; our own mistakes the gate logs.
        log_level="critical",
        timeout_graceful_shutdown=2,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
    )
    return PatientServer(config)


def _check(options: PlayOptions) -> None:
    for name in ("context", "sessions"):
        if not 1 <= getattr(options, name) <= 64:
            raise UserError(name, f"is {getattr(options, name)}; give 1 to 64")
    if not 0 <= options.port < 2**16:
        raise UserError("port", f"is {options.port}; give 0 to 65535")


def _require_extra() -> None:
    for name in ("starlette", "uvicorn", "websockets"):
        if importlib.util.find_spec(name) is None:
            raise UserError("play", f"needs the package {name}: pip install 'stormrl[play]'")
