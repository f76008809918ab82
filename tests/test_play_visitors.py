"""The page's server and visitors of every kind: whatever they do, the next one is served."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

pytest.importorskip("starlette", reason="pip install 'stormrl[play]'")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from playing import miniature_agent
from stormrl.play import patience
from stormrl.play.patience import CONNECTIONS, PATIENCE_S, UNREAD_BYTES, Places

DESCRIPTORS = 1024
SOON_S = 15
"""Within which an ordinary visitor is served, on a busy machine."""


# Places


class Visitor:
    """A connection as `Places` sees it, which owes what the test says."""

    def __init__(self, owes: Any = "request", unread: int = 0) -> None:
        self.owes, self.unread, self.ended = owes, unread, False
        self.transport = self

    def abort(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return self.unread


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    """An empty house whose clock the test sets: `places.now`."""
    monkeypatch.setattr(patience, "owed", lambda visitor: visitor.owes)
    made = Places(lambda: made.now)  # pyright: ignore[reportAttributeAccessIssue]
    made.now = 0.0  # pyright: ignore[reportAttributeAccessIssue]
    return made


def after(places: Any, seconds: float) -> None:
    places.now += seconds
    places.look()


def test_who_owes_the_same_for_too_long_has_to_go(places: Places) -> None:
    silent, asking, playing = Visitor(), Visitor(("request", 0)), Visitor(None)
    places.update([silent, asking, playing])
    for count in range(3):
        asking.owes = "request", count
        after(places, PATIENCE_S * 0.4)
    assert not silent.ended
    asking.owes = "request", 3
    after(places, PATIENCE_S * 0.4)
    assert (silent.ended, asking.ended, playing.ended) == (True, False, False)
    assert places == {asking, playing}
    places.remove(silent)  # as its protocol does when it hears of its end


def test_who_does_not_read_has_to_go_at_once(places: Places) -> None:
    flood = Visitor(("reading", UNREAD_BYTES + 1), UNREAD_BYTES + 1)
    places.add(flood)
    places.look()
    assert flood.ended


def test_a_newcomer_gets_the_place_of_the_one_waited_for_longest(places: Any) -> None:
    playing = [Visitor(None) for _ in range(CONNECTIONS - 2)]
    first, second, newcomer = Visitor(), Visitor(), Visitor()
    for visitor in [*playing, first, second, newcomer]:
        places.now += 0.001
        places.add(visitor)
        places.make_room()
    assert [v.ended for v in (first, second, newcomer)] == [True, False, False]
    second.owes = newcomer.owes = None
    places.add(last := Visitor())
    places.make_room()
    assert last.ended, "nobody who plays is sent away"
    assert len(places) == CONNECTIONS


# The command


class Page(NamedTuple):
    """`stormrl play` in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    stderr: Path

    @property
    def descriptors(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def silent(self) -> socket.socket:
        """A connection that has sent nothing so far."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, *pieces: bytes) -> socket.socket:
        """A connection that has sent what it is given."""
        opened = self.silent()
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                opened.sendall(piece)
        return opened

    def tab(self) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.port}/play"
        return connect(url, compression=None, proxy=None, open_timeout=30)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    miniature_agent(folder / "run")
    command = [sys.executable, "-m", "stormrl", "play", str(folder / "run"), "--port", "0"]
    limited = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *command, "--json"]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=stderr, text=True)
    with process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield Page(process, int(told["url"].rstrip("/").rpartition(":")[2]), folder / "stderr")
        process.terminate()


def assert_served(page: Page, within_s: float = SOON_S) -> None:
    """An ordinary visitor gets the page, its scripts and a game; nothing was complained of."""
    began = time.monotonic()
    url = f"http://127.0.0.1:{page.port}"
    for path in ("/", "/static/main.js"):
        assert httpx.get(url + path, trust_env=False, timeout=within_s).status_code == 200
    played = False
    while not played:
        with page.tab() as socket:
            played = plays(socket)
        assert time.monotonic() - began < within_s, "no place was given back"
    assert page.stderr.read_text() == ""
    assert page.process.poll() is None


def plays(socket: ClientConnection) -> bool:
    """Whether there is a place; if so, three frames of a game come."""
    try:
        assert json.loads(socket.recv(timeout=30))["type"] == "hello"
        for seen in range(1, 4):
            assert isinstance(socket.recv(timeout=30), bytes)
            socket.send(json.dumps({"name": "seen", "value": seen}))
    except ConnectionClosed as closed:
        if closed.rcvd is None or closed.rcvd.code != 1013:
            raise
        return False
    return True


DIGITS = "9" * 100_000
LONG = "9" * 5_000
UPGRADE = (
    b"GET /play HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MALFORMED = [
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /%00%ff%2e%2e HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /static/%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /static/" + b"a" * 5000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /static/..%2f..%2fserver.py HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /?token=%ff%00&" + b"a=1&" * 3000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    REQUEST + b"Host: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:" + LONG.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\xfe\xe9\r\n\r\n",
    REQUEST + b"Origin: http://[\r\n\r\n",
    REQUEST + b"Origin: http://127.0.0.1:" + LONG.encode() + b"\r\n\r\n",
    REQUEST + b"Origin: \xff\xe9\r\n\r\n",
    REQUEST + b"Content-Length: " + LONG.encode() + b"\r\n\r\n",
    REQUEST + b"Content-Length: -1\r\n\r\n",
    REQUEST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    REQUEST + b"Transfer-Encoding: chunked\r\n\r\n" + LONG.encode() + b"\r\n",
    REQUEST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
    REQUEST + b"Range: bytes=" + LONG.encode() + b"-\r\n\r\n",
    REQUEST + b"Range: bytes=0-" + LONG.encode() + b"\r\n\r\n",
    REQUEST + b"Range: bytes=" + b"0-1," * 3000 + b"\r\n\r\n",
    REQUEST + b"Range: bytes=a-b,--\r\n\r\n",
    REQUEST + b"If-Modified-Since: " + LONG.encode() + b"\r\n\r\n",
    REQUEST.replace(b" / ", b" /static/main.js ") + b"If-Modified-Since: 99999999999\r\n\r\n",
    REQUEST + b"X: " + DIGITS.encode() + b"\r\n\r\n",
    REQUEST + b"".join(b"X%d: 1\r\n" % n for n in range(1500)) + b"\r\n",
    REQUEST + b"no colon\r\n\r\n",
    REQUEST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    REQUEST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000),
    UPGRADE + b"\r\n",
    UPGRADE + b"Sec-WebSocket-Key: %%%\r\n\r\n",
    UPGRADE + KEY + b"Sec-WebSocket-Version: " + LONG.encode() + b"\r\n\r\n",
    UPGRADE + KEY + b"Sec-WebSocket-Protocol: \xff,,\xe9\r\n\r\n",
    UPGRADE + KEY + b"Origin: http://[\r\n\r\n",
    UPGRADE + KEY + b"X: \xff\xfe\r\n\r\n",
    UPGRADE + KEY + b"X: " + b"a" * 12_000 + b"\r\n\r\n",
    UPGRADE + KEY + b"".join(b"X%d: 1\r\n" % n for n in range(500)) + b"\r\n",
    UPGRADE.replace(b"/play", b"/nowhere") + KEY + b"\r\n",
    UPGRADE.replace(b"/play", b"/static/main.js") + KEY + b"\r\n",
]
FRAMES = [
    b"\x81\xfe\xff\xff",
    b"\x81\xff" + b"\xff" * 8,
    b"\x81\x82\0\0\0\0\xff\xfe",
    b"\xf3\x80\0\0\0\0",
    b"\x88\x81\0\0\0\0\x01",
    b"\x88\x84\0\0\0\0\x03\xe8\xff\xfe",
    b"\x81\x01a",
    b"\x80\x81\0\0\0\0a",
]


def test_malformed_requests_hurt_nobody(page: Page) -> None:
    for request in MALFORMED:
        with page.raw(request) as opened:
            answer(opened)
    assert_served(page)


def test_malformed_frames_hurt_nobody(page: Page) -> None:
    for frame in FRAMES:
        with page.raw(UPGRADE + KEY + b"\r\n") as opened:
            assert b"101" in answer(opened)
            opened.sendall(frame)
            while answer(opened):
                pass
    assert_served(page)


def answer(opened: socket.socket, within_s: float = 0.1) -> bytes:
    """What comes back, nothing where nothing does."""
    opened.settimeout(within_s)
    with contextlib.suppress(ConnectionError, TimeoutError):
        return opened.recv(2**16)
    return b""


@pytest.mark.parametrize("value", [LONG[:400], "-" + LONG[:400], "1e400", "NaN", "Infinity"])
def test_numbers_of_any_length_are_no_more_than_wrong(page: Page, value: str) -> None:
    with page.tab() as tab:
        tab.recv(timeout=30)
        for name in ("action", "speed", "temperature", "seen", "paused", "view", "step"):
            tab.send(f'{{"name": "{name}", "value": {value}}}')
        assert json.loads(tab_header(tab))["settings"]["speed"] == 15
    assert_served(page)


@pytest.mark.parametrize("value", [DIGITS, LONG])
def test_messages_of_any_length_end_their_own_connection(page: Page, value: str) -> None:
    with page.tab() as tab:
        tab.send(f'{{"name": "speed", "value": {value}}}')
        with pytest.raises(ConnectionClosed):
            read_all(tab)
    assert_served(page)


def read_all(tab: ClientConnection) -> None:
    """Whatever comes, up to the end of the connection."""
    for _ in range(1000):
        tab.recv(timeout=30)


def tab_header(tab: ClientConnection) -> bytes:
    """The header of the second frame from now."""
    frames = [tab.recv(timeout=30) for _ in range(2)]
    assert isinstance(frames[-1], bytes)
    length = int.from_bytes(frames[-1][:4], "big")
    return frames[-1][4 : 4 + length]


def test_rude_ends_give_their_places_back(page: Page) -> None:
    """A hundred tabs, some over the limit, that vanish at one moment or another."""
    reset = struct.pack("ii", 1, 0)
    for count in range(100):
        with page.raw(UPGRADE + KEY + b"\r\n") as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            if count % 3:
                answer(opened, 0.05 * (count % 3))
    assert_served(page)


@pytest.mark.slow
def test_fifteen_hundred_silent_connections(page: Page) -> None:
    with contextlib.ExitStack() as opened:
        for count in range(1500):
            piece = [b"", b"GET / HT", REQUEST, UPGRADE + KEY][count % 4]
            opened.enter_context(page.raw(piece))
            if count % 300 == 299:
                assert_served(page)
        assert page.descriptors < DESCRIPTORS / 2
        assert_served(page)
        time.sleep(PATIENCE_S + 3)
        assert page.descriptors < 100
    assert_served(page)


@pytest.mark.slow
def test_three_hundred_tabs_that_never_say_anything(page: Page) -> None:
    """They shake hands, and neither read nor answer; all that have a game lose it."""
    with contextlib.ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(page.raw(UPGRADE + KEY + b"\r\n"))
        assert page.descriptors < DESCRIPTORS / 2
        assert_served(page, within_s=PATIENCE_S + SOON_S)
        time.sleep(20)
        assert page.descriptors < 100
    assert_served(page)


@pytest.mark.slow
def test_a_request_that_comes_in_drops_is_not_waited_for(page: Page) -> None:
    with page.raw(REQUEST) as first, page.raw(REQUEST + b"\r\n" + REQUEST) as second:
        ends = time.monotonic() + PATIENCE_S + 5
        dropping = {first, second}
        while dropping:
            assert time.monotonic() < ends, "it is still waited for"
            for opened in list(dropping):
                if not drips(opened):
                    dropping.remove(opened)
            time.sleep(0.2)
    assert_served(page)


def drips(opened: socket.socket) -> bool:
    """Send one letter more; whether the connection is still there."""
    try:
        opened.sendall(b"X")
        if select.select([opened], [], [], 0)[0]:
            return opened.recv(2**16) != b""
    except ConnectionError:
        return False
    return True


def flood(opened: socket.socket, content: bytes) -> None:
    """Send it again and again, up to the end of the connection."""
    while True:
        opened.sendall(content)


PING = b"\x89\xfd\0\0\0\0" + bytes(125)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (UPGRADE + KEY + b"\r\n", PING * 500),
        (b"", (REQUEST.replace(b" / ", b" /static/main.js ") + b"\r\n") * 100),
    ],
)
def test_answers_that_nobody_reads_are_not_kept(page: Page, first: bytes, rest: bytes) -> None:
    """Pings and requests, as fast as they go."""
    process = psutil.Process(page.process.pid)
    before = process.memory_info().rss
    with page.raw(first) as opened:
        opened.settimeout(PATIENCE_S + 5)
        with pytest.raises(OSError):  # noqa: PT011 - whichever way it ends
            flood(opened, rest)
    assert process.memory_info().rss - before < 100 * 2**20
    assert_served(page)


@pytest.mark.slow
def test_a_silent_tab_gives_its_place_to_another(page: Page) -> None:
    """Clients that answer pings, which their library does, and nothing else."""
    with contextlib.ExitStack() as opened:
        tabs = [opened.enter_context(page.tab()) for _ in range(8)]
        for tab in tabs:
            tab.recv(timeout=30)
        time.sleep(11)
        assert_served(page)
        with pytest.raises(ConnectionClosed) as closed:
            read_all(tabs[0])
    assert closed.value.rcvd is not None
    assert "nothing was heard" in closed.value.rcvd.reason
