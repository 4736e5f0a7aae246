"""The pages: routes, who may ask, and what a browser is told to forbid."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import shlex
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from raymae import __version__
from raymae.errors import ResourceError, ResultsError
from raymae.results.report.report import render_report
from raymae.results.verdict.headline import synthetic
from raymae.results.verdict.numbers import aligned, duration, number
from raymae.results.views.watch import running
from raymae.web.catalog import Catalog

if TYPE_CHECKING:
    from aiohttp import web
    from jinja2 import Environment

HERE = Path(__file__).parent
STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
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


def pages() -> Environment:
    """The templates. Everything that is put into one is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "segment": partial(quote, safe=""), "shell": shlex.quote}
    environment.globals |= {"aligned": aligned, "number": number, "running": running, "synthetic": synthetic,
                            "version": __version__}
    return environment


def make_app(root: str, bound: str = "127.0.0.1", render: Callable[[str], str] = render_report) -> web.Application:
    """The application over a folder of sweeps.

    Args:
        root: A folder of sweeps, or one sweep; a path or a URI.
        bound: What it will listen on.
        render: From a sweep's folder to its report, an HTML page.

    Raises:
        ResultsError: No such folder.
    """
    from aiohttp import web

    catalog, templates = Catalog(root), pages()

    def page(template: str, status: int = 200, **values: Any) -> web.Response:
        text = templates.get_template(template).render(root=catalog.root, **values)
        return web.Response(text=text, content_type="text/html", status=status)

    def refused(status: int, title: str, text: str) -> web.Response:
        return page("refused.html", status, title=title, text=text)

    def as_json(value: Any) -> web.Response:
        return web.Response(text=json.dumps(value, indent=1), content_type="application/json")

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        if not allows(request.headers.get("Host"), bound):
            response = refused(421, "Not this server", "The Host header names another server.")
        elif request.method not in ("GET", "HEAD"):
            response = refused(405, "Read-only", "Sweeps can be looked at here, not changed: GET and HEAD only.")
            response.headers["Allow"] = "GET, HEAD"
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = refused(error.status, error.reason, "There is nothing at this address.")
            except (ResultsError, OSError) as error:
                response = refused(503, "The results cannot be read", str(error))
            except Exception:
                logging.getLogger(__name__).exception("serving %s", request.path)
                response = refused(500, "An error in raymae", "Its traceback is on the server's terminal.")
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def index(request: web.Request) -> web.Response:
        return page("index.html", sweeps=await asyncio.to_thread(catalog.all))

    async def look(request: web.Request) -> dict[str, Any]:
        seen = await asyncio.to_thread(catalog.look, request.match_info["name"])
        if seen is None:
            raise web.HTTPNotFound
        return seen

    async def sweep(request: web.Request) -> web.Response:
        return page("sweep.html", seen=await look(request))

    async def report(request: web.Request) -> web.Response:
        text = await asyncio.to_thread(catalog.report, request.match_info["name"], render)
        if text is None:
            raise web.HTTPNotFound
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    async def api(request: web.Request) -> web.Response:
        return as_json(await asyncio.to_thread(catalog.all))

    async def api_sweep(request: web.Request) -> web.Response:
        return as_json(await look(request))

    async def static(request: web.Request) -> web.Response:
        name = "icon.svg" if request.path == "/favicon.ico" else request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        return web.Response(body=(HERE / "static" / name).read_bytes(), content_type=STATIC[name], charset="utf-8")

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(middlewares=[guarded], client_max_size=1024)
    app.add_routes([
        web.get("/", index), web.get("/sweep/{name:[^/]+}", sweep), web.get("/sweep/{name:[^/]+}/report", report),
        web.get("/api/sweeps", api), web.get("/api/sweeps/{name:[^/]+}", api_sweep),
        web.get("/static/{name}", static), web.get("/favicon.ico", static), web.get("/healthz", health),
    ])
    return app


def serve(
    root: str, *, host: str = "127.0.0.1", port: int = 8275, render: Callable[[str], str] = render_report,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        root: A folder of sweeps, or one sweep; a path or a URI.
        host: What to listen on.
        port: 0 is any free one.
        render: From a sweep's folder to its report, an HTML page.
        say: Told the address once it answers.

    Raises:
        ResultsError: No such folder.
        ResourceError: The address cannot be listened on.
    """
    app = make_app(root, host, render)
    asyncio.run(_serve(app, host, port, say))


async def _serve(app: web.Application, host: str, port: int, say: Callable[[str], None]) -> None:
    from aiohttp import web

    over, loop = asyncio.Event(), asyncio.get_running_loop()
    for number_ in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number_, over.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ResourceError(f"cannot listen on {host} port {port}: {reason}; choose another --port") from None
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{runner.addresses[0][1]}/")
        await over.wait()
    finally:
        await runner.cleanup()
