"""Who may talk to the server: the same machine, or whoever has been told the token."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with every answer: nothing may be loaded from elsewhere, nor the page shown elsewhere."""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Guard(NamedTuple):
    """Decides by a request's headers and its `token`."""

    token: str | None
    """None where the server can be reached from this machine alone."""

    @classmethod
    def of(cls, host: str) -> Guard:
        """For a server that listens on `host`; a new token where others can reach it."""
        return cls(None if is_loopback(host) else secrets.token_urlsafe(24))

    def refusal(self, headers: Mapping[str, str], token: str | None) -> str | None:
        """Why a request is refused, None if it is not.

        A page from elsewhere that a person visits must not reach the server through their browser:
        its requests carry its own `Origin`, or, if its name was pointed at this machine afterwards
        (DNS rebinding), its own `Host`.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.token is None and _name(host) not in LOCAL_NAMES:
            return "this server answers to the names of this machine only"
        if origin is not None and _place(origin) != host:
            return "this page comes from elsewhere"
        if self.token is not None and not _same(self.token, token or ""):
            return "the address lacks the token that stormrl play has printed"
        return None


def _place(origin: str) -> str:
    """Host and port of an origin, the whole of what is none."""
    try:
        return urlsplit(origin).netloc or origin
    except ValueError:
        return origin


def _name(host: str) -> str:
    """Without the port."""
    return host[: host.rindex(":")] if host.rpartition(":")[2].isdigit() and ":" in host else host


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))
