"""The application and its server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from raymae.errors import ResourceError
from raymae.results.report.report import render_report
from raymae.web.guard import guard
from raymae.web.pages import Pages

if TYPE_CHECKING:
    from aiohttp import web


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

    pages = Pages(root, render)
    app = web.Application(middlewares=[guard(bound, pages.refused)], client_max_size=1024)
    app.add_routes(pages.routes())
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
