"""What the page's server is made of: keys, messages, the guard, the game, its protocol."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="pip install 'stormrl[play]'")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from miniature import memory_in
from playing import CONTEXT, Serving, miniature_agent, serving
from stormrl.commands.play import listen
from stormrl.envs import PROTOCOLS, make_env
from stormrl.errors import UserError
from stormrl.experience.episodes import read_recording
from stormrl.play.keys import buttons, idle
from stormrl.play.messages import LARGEST, parse
from stormrl.play.security import Guard, is_loopback
from stormrl.play.session import UNSEEN
from stormrl.play.table import Table
from stormrl.play.tape import Played, PlayFilm, Tape, save
from stormrl.runs.agent import Agent
from stormrl.types import View
from stormrl.worlds.latent import WorldModel

SEED = 17
FUZZED = 10_000


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return miniature_agent(tmp_path_factory.mktemp("runs") / "catch")


@pytest.fixture(scope="module")
def served(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(agent, tmp_path_factory.mktemp("recordings"), sessions=3) as server:
        yield server


@pytest.fixture
def table(agent: Agent) -> Iterator[Table]:
    table = Table(agent, SEED, CONTEXT)
    yield table
    table.close()


# Keys


def test_buttons_follow_the_words_of_the_actions() -> None:
    words = ["NOOP", "FIRE", "UP", "DOWNLEFT", "UPRIGHTFIRE", "PICKUP", "7"]
    held = [button.held for button in buttons(words)]
    assert held == [
        (), ("FIRE",), ("UP",), ("DOWN", "LEFT"), ("UP", "RIGHT", "FIRE"), ("1",), ("2",)
    ]  # fmt: skip
    assert (idle(words), idle(["LEFT", "STAY", "RIGHT"]), idle(["0", "1"])) == (0, 1, 0)


@pytest.mark.parametrize("game", ["ALE/Boxing-v5", "ALE/Freeway-v5"])
def test_every_action_of_a_game_has_a_key_of_its_own(game: str) -> None:
    env = make_env(game, PROTOCOLS["atari100k"])
    words = env.unwrapped.get_action_meanings()  # pyright: ignore[reportAttributeAccessIssue]
    env.close()
    held = [frozenset(button.held) for button in buttons(words)]
    assert len(set(held)) == len(words)
    assert held[idle(words)] == frozenset()


# Messages


@pytest.mark.parametrize(
    ("name", "value"),
    [("action", 2), ("paused", True), ("recording", False), ("view", "dream"), ("real", "agent"),
     ("dream", "real"), ("speed", 1), ("speed", 59.5), ("temperature", 0), ("seen", 9)],
)  # fmt: skip
def test_a_message_means_what_it_says(name: str, value: Any) -> None:
    assert parse(json.dumps({"name": name, "value": value}), 3) == (name, value)


@pytest.mark.parametrize("name", ["step", "reset", "sync"])
def test_an_order_has_no_value(name: str) -> None:
    assert parse(json.dumps({"name": name}), 3) == (name, True)
    with pytest.raises(ValueError, match="message"):
        parse(json.dumps({"name": name, "value": 1}), 3)


@pytest.mark.parametrize(
    "text",
    [None, "", "null", "[]", "{}", "{", "[" * 500, '"step"', '{"name": null}', '{"name": []}',
     '{"name": "action", "value": 3}', '{"name": "action", "value": true}',
     '{"name": "action", "value": 1.0}', '{"name": "action", "value": -1}',
     '{"name": "paused", "value": 1}', '{"name": "speed", "value": NaN}',
     '{"name": "speed", "value": 1e999}', '{"name": "speed", "value": 0}',
     '{"name": "speed", "value": true}', '{"name": "view", "value": "real"}',
     '{"name": "view", "value": ["both"]}', '{"name": "real", "value": "real"}',
     '{"name": "__class__", "value": 1}', '{"name": "step", "more": 1}',
     '{"name": "paused", "value": true, "more": 1}', " " * LARGEST + '{"name": "step"}',
     '{"name": "seen", "value": ' + "9" * 400 + "}"],
)  # fmt: skip
def test_anything_else_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        parse(text, 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text() | JSON.map(json.dumps))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        parse(text, 3)


# The guard


def test_loopback_is_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.2", "::", "example.org", "")))


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "127.0.0.1:8000"}, True),
        ({"host": "localhost:9000", "origin": "http://localhost:9000"}, True),
        ({"host": "[::1]:8000", "origin": "http://[::1]:8000"}, True),
        ({"host": "localhost"}, True),
        ({"host": "127.0.0.1:8000", "origin": "http://evil.example"}, False),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8001"}, False),
        ({"host": "127.0.0.1:8000", "origin": "null"}, False),
        ({"host": "127.0.0.1:8000", "origin": ""}, False),
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, False),
        ({"host": "evil.example"}, False),
        ({"host": "127.0.0.1.evil.example:8000"}, False),
        ({"host": ""}, False),
        ({}, False),
    ],
)
def test_only_this_machine_and_its_own_page_are_answered(
    headers: dict[str, str], allowed: bool
) -> None:
    assert (Guard.of("127.0.0.1").refusal(headers, None) is None) == allowed


def test_elsewhere_it_takes_the_token() -> None:
    guard = Guard.of("0.0.0.0")
    assert guard.token is not None
    assert len(guard.token) >= 32
    assert Guard.of("0.0.0.0").token != guard.token
    headers = {"host": "box.lan:8000"}
    assert guard.refusal(headers, guard.token) is None
    for token in (None, "", guard.token[:-1], guard.token + "x", "\udcff"):
        assert guard.refusal(headers, token) is not None
    foreign = {**headers, "origin": "http://evil.example"}
    assert guard.refusal(foreign, guard.token) is not None


# The game


def test_both_sides_start_at_one_frame_under_one_seed(agent: Agent, table: Table) -> None:
    np.testing.assert_array_equal(table.real.obs, table.dream.obs)
    start = table.real.context()
    assert len(start.obs) == CONTEXT == len(start.action) + 1
    np.testing.assert_array_equal(start.obs[-1], table.real.obs)
    again = Table(agent, SEED, CONTEXT)
    for _ in range(5):
        table.advance({})
        again.advance({})
        np.testing.assert_array_equal(table.real.obs, again.real.obs)
        np.testing.assert_array_equal(table.dream.obs, again.dream.obs)
    again.close()


def test_a_context_is_what_was_played(table: Table) -> None:
    """The real game, asked again, shows the same frames under the same actions."""
    table.advance({"action": 2})
    frames, actions = [table.real.obs], []
    env = make_env("stormrl/Catch-v0", PROTOCOLS["atari100k"])
    for _ in range(CONTEXT + 1):
        table.advance({"action": 0})
        frames.append(table.real.obs)
        actions.append(0)
        if table.real.over:
            return
    start = table.real.context()
    np.testing.assert_array_equal(start.obs, frames[-CONTEXT:])
    assert start.action.tolist() == actions[-CONTEXT + 1 :]
    env.close()


def test_the_agent_sees_reality_as_it_does_when_it_plays(agent: Agent, table: Table) -> None:
    """What is kept of earlier frames gives the state that encoding them anew gives."""
    for _ in range(6):
        table.advance({"action": 2})
    real, actor = table.real, agent.actor
    real.rng = np.random.default_rng(3)
    real.step(1)
    world = agent.world_model
    assert isinstance(world, WorldModel)
    shape = 1, world.acting.context + 1, world.config.latent.categoricals
    # The step itself draws nothing before it looks.
    uniform = torch.from_numpy(np.random.default_rng(3).random(shape, np.float32))
    image = torch.from_numpy(real.obs).permute(2, 0, 1)[None]
    with torch.no_grad():
        memory = memory_in(real.carry)
        anew = memory._replace(posterior=world.encode(memory.obs))
        view = View(*world.state(world.encode(image), anew, uniform))
        expected, _ = actor.behaviour.opinion(view, ())
    np.testing.assert_allclose(real.info["policy"], expected.probabilities[0], atol=1e-5)


def test_commands_are_obeyed(table: Table) -> None:
    table.advance({"paused": True})
    assert not table.advance({})
    before = table.real.steps
    assert table.advance({"step": True})
    assert (table.real.steps, table.dream.steps) == (before + 1, before + 1)
    table.advance({"view": "dream", "step": True})
    assert (table.real.steps, table.dream.steps) == (before + 1, before + 2)
    table.advance({"temperature": 0.25, "dream": "agent", "speed": 30.0, "action": 2})
    settings = table.settings
    assert (settings.temperature, settings.dream, settings.speed) == (0.25, "agent", 30.0)
    table.advance({"step": True, "view": "both", "dream": "real", "real": "agent"})
    assert table.dream.action == table.real.action
    table.advance({"reset": True})
    assert (table.real.steps, table.dream.steps) == (0, 0)


def test_a_game_that_is_over_rests_and_another_begins(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("stormrl.play.table.time.monotonic", lambda: now[0])
    while not table.real.over:
        table.advance({})
    steps = table.real.steps
    table.advance({})
    assert table.real.steps == steps
    now[0] += 10
    table.advance({})
    assert table.real.steps == 0
    assert not table.real.over
    table.advance({})
    assert table.real.steps == 1


# Recordings


def step(number: int, end: Any = None) -> Played:
    return Played(number % 3, float(number), 0.9, np.full((64, 64, 3), number, np.uint8), end)


def test_a_tape_holds_whole_episodes(tmp_path: Path) -> None:
    tape = Tape()
    tape.begin(np.full((64, 64, 3), 10, np.uint8))
    for number in (1, 2):
        tape.add(step(number))
    tape.add(step(3, "terminated"))
    tape.add(step(4))  # What is over goes on only after a new beginning.
    tape.begin(np.full((64, 64, 3), 20, np.uint8))
    tape.add(step(5))
    tape.begin(np.full((64, 64, 3), 30, np.uint8))
    frames = [{"real": step(n).obs, "dream": step(n + 1).obs} for n in range(3)]
    film = PlayFilm({"real": tape, "dream": Tape()}, frames, 15.0)
    paths = save(
        film, tmp_path / "new" / "a", "stormrl/Catch-v0", "atari100k", "x", ["L", "S", "R"]
    )
    assert [path.name for path in paths] == ["a-real.safetensors", "a.mp4"]
    one, other = read_recording(paths[0]).episodes
    assert one.obs[:, 0, 0, 0].tolist() == [10, 1, 2, 3]
    assert (one.action.tolist(), one.reward.tolist()) == ([1, 2, 0], [1, 2, 3])
    assert (one.continues.tolist(), one.end, one.seed) == ([1, 1, 0], "terminated", None)
    assert other.obs[:, 0, 0, 0].tolist() == [20, 5]
    assert other.end == "truncated"


# The server


def opened(served: Serving, **options: Any) -> ClientConnection:
    return connect(served.socket_url, compression=None, proxy=None, **options)


class Tab:
    """A client that says what it has seen."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.received = socket, 0
        self.hello = json.loads(socket.recv(timeout=30))

    def frame(self, seen: bool = True) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The next frame's header and parts."""
        data = self.socket.recv(timeout=30)
        while isinstance(data, str):
            data = self.socket.recv(timeout=30)
        self.received += 1
        if seen:
            self.say("seen", self.received)
        length = int.from_bytes(data[:4], "big")
        header, parts, offset = json.loads(data[4 : 4 + length]), {}, 4 + length
        for name, size in header["parts"]:
            parts[name] = data[offset : offset + size]
            offset += size
        assert offset == len(data)
        return header, parts

    def say(self, *message: Any) -> None:
        self.socket.send(json.dumps(dict(zip(("name", "value"), message, strict=False))))

    def until(self, holds: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The first frame whose header is as wanted."""
        for _ in range(1000):
            header, parts = self.frame()
            if holds(header):
                return header, parts
        raise AssertionError("no such frame")


def test_a_tab_is_greeted_and_sent_frames(served: Serving, agent: Agent) -> None:
    with opened(served) as socket:
        tab = Tab(socket)
        assert (tab.hello["game"], tab.hello["idle"], tab.hello["latent"]) == (
            "stormrl/Catch-v0", 1, [3, 4]
        )  # fmt: skip
        assert [action["word"] for action in tab.hello["actions"]] == ["LEFT", "STAY", "RIGHT"]
        tab.say("paused", True)
        tab.until(lambda header: header["settings"]["paused"])
        tab.say("reset")
        header, parts = tab.until(lambda header: header["real"]["steps"] == 0)
        real, dream = (image(parts[side]) for side in ("real", "dream"))
        np.testing.assert_array_equal(real, dream)
        assert real.shape == (64, 64, 3)
        assert len(parts["dream_latent"]) == 3 * 4 + 3
        assert sum(header["real"]["policy"]) == pytest.approx(1, abs=1e-3)
        (session,) = served.server.open
        np.testing.assert_array_equal(real, session.table.real.obs)


def image(content: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1]


def test_a_tab_that_sees_nothing_is_sent_little_and_misses_no_number(served: Serving) -> None:
    with opened(served) as socket:
        tab = Tab(socket)
        tab.say("speed", 60)
        headers = [tab.frame(seen=False)[0] for _ in range(UNSEEN)]
        with pytest.raises(TimeoutError):
            socket.recv(timeout=1)
        told = sum(len(header["points"]) for header in headers)
        before = headers[-1]["step"]
        tab.say("seen", UNSEEN)
        for header in (tab.frame()[0] for _ in range(8)):
            # Frames were dropped; the numbers of their steps were not.
            assert len(header["points"]) == header["step"] - before
            told, before = told + len(header["points"]), header["step"]
        assert told == before > UNSEEN + 20, "the game went on meanwhile"


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/recordings/x", "/play"])
@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_foreign_requests_are_refused(served: Serving, path: str, headers: dict[str, str]) -> None:
    assert (
        httpx.get(served.url.rstrip("/") + path, headers=headers, trust_env=False).status_code
        == 403
    )


def test_a_foreign_page_gets_no_connection(served: Serving) -> None:
    for options in ({"origin": "http://evil.example"}, {"origin": "http://127.0.0.1:1"}):
        refused = pytest.raises((InvalidStatus, ConnectionClosed))
        with refused, opened(served, **options) as socket:
            socket.recv(timeout=10)


def test_answers_forbid_what_comes_from_elsewhere(served: Serving) -> None:
    answer = httpx.get(served.url, trust_env=False)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "http" not in answer.text.replace("http-equiv", "")


@pytest.mark.parametrize("name", ["../config.json", "..%2Fconfig.json", "play.mp4", "%00", ""])
def test_only_recordings_can_be_taken_away(served: Serving, name: str) -> None:
    url = f"{served.url}recordings/{name}"
    assert httpx.get(url, trust_env=False).status_code in (400, 404)


def test_with_a_token_nothing_goes_without(agent: Agent, tmp_path: Path) -> None:
    with serving(agent, tmp_path, host="0.0.0.0") as served:
        bare, _, query = served.url.partition("?")
        assert httpx.get(bare, trust_env=False).status_code == 403
        assert httpx.get(f"{bare}?token=x", trust_env=False).status_code == 403
        assert httpx.get(served.url, trust_env=False).status_code == 200
        refused = pytest.raises((InvalidStatus, ConnectionClosed))
        with refused, opened(served) as socket:
            socket.recv(timeout=10)
        with connect(f"{served.socket_url}?{query}", compression=None, proxy=None) as socket:
            assert Tab(socket).hello["type"] == "hello"


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    miniature_agent(tmp_path / "run")
    command = [sys.executable, "-m", "stormrl", "play", str(tmp_path / "run"), "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--json"], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = json.loads(process.stdout.readline())
        assert (told["env"], told["step"]) == ("stormrl/Catch-v0", 17)
        assert httpx.get(told["url"], trust_env=False).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == process.stderr.read() == ""


def test_a_port_in_use_is_told_in_one_line(served: Serving) -> None:
    with pytest.raises(UserError, match=r"port: .*give another"):
        listen("127.0.0.1", served.port)


def test_there_are_no_more_sessions_than_allowed(served: Serving) -> None:
    settle(served)
    with contextlib.ExitStack() as sockets:
        for _ in range(3):
            Tab(sockets.enter_context(opened(served)))
        with opened(served) as fourth, pytest.raises(ConnectionClosed) as closed:
            fourth.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
    settle(served)
    with opened(served) as socket:
        assert Tab(socket).hello["type"] == "hello"


def settle(served: Serving) -> None:
    """Wait until tabs that have gone are forgotten."""
    deadline = time.monotonic() + 20
    while served.server.open:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_oversized_message_ends_its_own_connection(served: Serving) -> None:
    with opened(served) as other:
        tab = Tab(other)
        with opened(served) as socket:
            socket.send("x" * 100_000)
            with pytest.raises(ConnectionClosed) as closed:
                read_all(socket)
        assert closed.value.rcvd is None or closed.value.rcvd.code in (1008, 1009)
        assert tab.frame()[0]["frame"] > 0


def read_all(socket: ClientConnection) -> None:
    """Frames up to the end of the connection, or a thousand."""
    for _ in range(1000):
        socket.recv(timeout=30)


def test_ten_thousand_strange_messages_hurt_nobody_else(served: Serving) -> None:
    settle(served)
    rng = np.random.default_rng(0)
    with opened(served) as other:
        tab = Tab(other)
        begun = tab.frame()[0]["step"]
        sent = connections = 0
        while sent < FUZZED:
            connections += 1
            with opened(served) as socket:
                sent += flood(socket, rng, FUZZED - sent)
            if connections % 10 == 0:
                tab.frame()
        assert connections > 1, "who floods is cut off"
        assert [session for session in served.server.open if session.table.settings.paused] == []
        # The other tab still plays, and still does what it is told.
        tab.say("action", 2)
        header, _ = tab.until(lambda header: header["real"]["action"] == 2)
        assert header["step"] > begun
    settle(served)
    with opened(served) as socket:
        assert Tab(socket).frame()[0]["frame"] > 0


def flood(socket: ClientConnection, rng: np.random.Generator, most: int) -> int:
    """Send strange messages until the connection is closed; how many were sent."""
    for sent in range(most):
        try:
            if sent % 200 == 199:  # Not faster than the answer can come back.
                socket.ping().wait(0.1)
            socket.send(strange(rng))
        except ConnectionClosed:
            return sent
    return most


def strange(rng: np.random.Generator) -> str | bytes:
    """Broken, valid and nearly valid messages; now and then a large one."""
    names = ["action", "reset", "sync", "step", "speed", "seen", "view", "temperature", "__init__"]
    values = [0, 1, -1, 10**30, 0.5, None, True, "both", "agent", [], {}, "x" * 100]
    kind = rng.integers(12)
    if kind < 3:
        return rng.bytes(int(rng.integers(200)))
    if kind < 5:
        return "".join(map(chr, rng.integers(32, 0xD000, 40)))
    if kind == 5 and rng.random() < 0.02:
        return "[" * 200_000
    message = {"name": rng.choice(names), "value": values[rng.integers(len(values))]}
    text = json.dumps(message)
    return text[: int(rng.integers(len(text)))] if kind == 6 else text
