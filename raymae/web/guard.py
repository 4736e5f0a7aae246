"""Who may ask, and what a browser is told to forbid."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raymae.errors import ResultsError

if TYPE_CHECKING:
    from aiohttp import web

HEADERS = {
    "Server": "raymae",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
# A report is one self-contained file with its own script. Sandboxed, it is of no origin: it may draw, save a picture
# of a plot, and neither load nor send anything, nor read the other pages.
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]
Refuse = Callable[[int, str, str], "web.Response"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host name or address."""
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allows(host: str | None, bound: str) -> bool:
    """Whether a request's Host header names this server, and not a stranger's name that was made to point here.

    A page of `evil.example` whose name is rebound to 127.0.0.1 is of the same origin for the browser, but still says
    `Host: evil.example`. Addresses cannot be rebound.

    Args:
        host: The header.
        bound: What the server listens on.
    """
    try:
        name = urlsplit(f"//{host or ''}").hostname
    except ValueError:
        return False
    if not name:
        return False
    if is_loopback(name) or name == bound.lower():
        return True
    if is_loopback(bound):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in (socket.gethostname().lower(), socket.getfqdn().lower())
    return True


def guard(bound: str, refuse: Refuse) -> Any:
    """The middleware that every request passes: this server's name, reading only, errors as pages, safe headers.

    Args:
        bound: What the server listens on.
        refuse: From status, title and text to a page.
    """
    from aiohttp import web

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not allows(request.headers.get("Host"), bound):
            response: web.StreamResponse = refuse(421, "Not this server", "The Host header names another server.")
        elif request.method not in ("GET", "HEAD"):
            response = refuse(405, "Read-only", "Sweeps can be looked at here, not changed: GET and HEAD only.")
            response.headers["Allow"] = "GET, HEAD"
        else:
            response = await _answered(request, handler, refuse)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guarded


async def _answered(request: web.Request, handler: Handler, refuse: Refuse) -> web.StreamResponse:
    """What a handler answers, or a page that says why it cannot."""
    from aiohttp import web

    try:
        return await handler(request)
    except web.HTTPException as error:
        return refuse(error.status, error.reason, "There is nothing at this address.")
    except (ResultsError, OSError) as error:
        return refuse(503, "The results cannot be read", str(error))
    except Exception:
        logging.getLogger(__name__).exception("serving %s", request.path)
        return refuse(500, "An error in raymae", "Its traceback is on the server's terminal.")
