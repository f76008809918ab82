"""A page's server for tests, on a port of its own, with a miniature agent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from miniature import shrunk
from stormrl.commands.play import address, listen, web_server
from stormrl.config.parts import RunConfig
from stormrl.play.security import Guard
from stormrl.play.server import Server
from stormrl.runs import whole
from stormrl.runs.agent import Agent
from stormrl.worlds.latent import WorldModel

CONTEXT = 3


def miniature_agent(path: Path) -> Agent:
    """An agent of Catch that has hardly learnt anything; its dreams do not end."""
    config = RunConfig(
        env="stormrl/Catch-v0", steps=17, evaluation_episodes=0, compile="off", agent=shrunk()
    )
    whole.train(config, path)
    agent = Agent.load(path, device="cpu")
    world = agent.world_model
    assert isinstance(world, WorldModel)
    with torch.no_grad():
        last = list(world.continues_head.parameters())[-1]
        last.fill_(20)
    return agent


class Serving(NamedTuple):
    """A server that runs."""

    url: str
    port: int
    server: Server

    @property
    def socket_url(self) -> str:
        """Where a tab's WebSocket connects to."""
        return f"ws://127.0.0.1:{self.port}/play"


@contextmanager
def serving(
    agent: Agent, recordings: Path, port: int = 0, host: str = "127.0.0.1", sessions: int = 8
) -> Iterator[Serving]:
    """The server in a thread; gone when the context is left."""
    guard = Guard.of(host)
    server = Server(agent, Path("run"), recordings, guard, CONTEXT, sessions)
    listening = listen(host, port)
    web = web_server(server.app())
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]})
    thread.start()
    port = listening.getsockname()[1]
    try:
        yield Serving(address("127.0.0.1", port, guard.token), port, server)
    finally:
        web.should_exit = True
        thread.join()
        server.executor.shutdown()
