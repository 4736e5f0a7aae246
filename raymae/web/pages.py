"""What stands at each address: pages from templates, the same values as JSON, reports, and the files they need."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from raymae import __version__
from raymae.results.verdict.arms_table import mean_cells
from raymae.results.verdict.headline import synthetic
from raymae.results.verdict.numbers import column, duration, significant
from raymae.results.views import compare_text
from raymae.results.views.models import Use
from raymae.results.views.progress import Progress
from raymae.web.catalog import Catalog
from raymae.web.guard import REPORT_POLICY
from raymae.web.plot import color, palette
from raymae.web.trials import MAX_TRIALS, TrialRow, TrialView, listed, view

if TYPE_CHECKING:
    from aiohttp import web
    from jinja2 import Environment

Value = TypeVar("Value")

HERE = Path(__file__).parent
NUM_LATEST = 12  # trials on a sweep's own page
STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}


def templates() -> Environment:
    """The templates. Everything that is put into one is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "segment": partial(quote, safe=""), "shell": shlex.quote}
    environment.globals |= {"color": color, "column": column, "compare": compare_text, "mean_cells": mean_cells,
                            "significant": significant, "synthetic": synthetic, "version": __version__}
    return environment


class Pages:
    """The answers to requests.

    Args:
        root: A folder of sweeps, or one sweep; a path or a URI.
        render: From a sweep's folder to its report, an HTML page.

    Raises:
        ResultsError: No such folder.
    """

    def __init__(self, root: str, render: Callable[[str], str]) -> None:
        self._catalog, self._templates, self._render = Catalog(root), templates(), render

    def routes(self) -> list[web.RouteDef]:
        """Every address."""
        from aiohttp import web

        return [
            web.get("/", self._index), web.get("/compare", self._compare), web.get("/sweep/{name:[^/]+}", self._sweep),
            web.get("/sweep/{name:[^/]+}/trials", self._trials),
            web.get("/sweep/{name:[^/]+}/trial/{trial:[^/]+}", self._trial),
            web.get("/sweep/{name:[^/]+}/report", self._report), web.get("/api/sweeps", self._api),
            web.get("/api/sweeps/{name:[^/]+}", self._api_sweep), web.get("/static/{name}", self._static),
            web.get("/favicon.ico", self._static), web.get("/healthz", self._health),
        ]

    def refused(self, status: int, title: str, text: str) -> web.Response:
        """A page that says why there is no other."""
        return self._page("refused.html", status, title=title, text=text)

    def _page(self, template: str, status: int = 200, **values: object) -> web.Response:
        from aiohttp import web

        text = self._templates.get_template(template).render(root=self._catalog.root, **values)
        return web.Response(text=text, content_type="text/html", status=status)

    async def _look(self, request: web.Request) -> tuple[str, Progress]:
        """The sweep that a request names, and its progress."""
        name = request.match_info["name"]
        return name, _found(await asyncio.to_thread(self._catalog.look, name))

    async def _index(self, request: web.Request) -> web.Response:
        return self._page("index.html", sweeps=await asyncio.to_thread(self._catalog.all))

    async def _sweep(self, request: web.Request) -> web.Response:
        name, seen = await self._look(request)
        plots, trials = [], []
        models: tuple[Use, ...] = ()
        if seen.state != "unreadable":
            models = await asyncio.to_thread(self._catalog.models, name)
            plots = await asyncio.to_thread(self._catalog.plots, name)
            trials = await asyncio.to_thread(self._listed, name, NUM_LATEST)
        return self._page("sweep.html", name=name, seen=seen, plots=plots, trials=trials, models=models)

    def _listed(self, name: str, most: int) -> list[TrialRow]:
        rows = _found(self._catalog.rows(name))
        return listed(rows.store, rows.tables, rows.seen, most)

    async def _trials(self, request: web.Request) -> web.Response:
        name, seen = await self._look(request)
        trials = await asyncio.to_thread(self._listed, name, MAX_TRIALS)
        return self._page("trials.html", name=name, seen=seen, trials=trials, most=MAX_TRIALS)

    async def _trial(self, request: web.Request) -> web.Response:
        name, seen = await self._look(request)

        def find() -> TrialView | None:
            rows = _found(self._catalog.rows(name))
            return view(rows.store, rows.tables, rows.seen, request.match_info["trial"])

        return self._page("trial.html", name=name, seen=seen, trial=_found(await asyncio.to_thread(find)))

    async def _compare(self, request: web.Request) -> web.Response:
        sweeps, broken = await asyncio.to_thread(self._catalog.compared)
        return self._page("compare.html", sweeps=sweeps, broken=broken)

    async def _report(self, request: web.Request) -> web.Response:
        from aiohttp import web

        text = _found(await asyncio.to_thread(self._catalog.report, request.match_info["name"], self._render))
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    async def _api(self, request: web.Request) -> web.Response:
        seen = await asyncio.to_thread(self._catalog.all)
        return _as_json([_named(name, progress) for name, progress in seen.items()])

    async def _api_sweep(self, request: web.Request) -> web.Response:
        return _as_json(_named(*await self._look(request)))

    async def _static(self, request: web.Request) -> web.Response:
        from aiohttp import web

        name = "icon.svg" if request.path == "/favicon.ico" else request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        text = (HERE / "static" / name).read_text(encoding="utf-8") + (palette() if name == "style.css" else "")
        return web.Response(text=text, content_type=STATIC[name], charset="utf-8")

    async def _health(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(text="ok\n")


def _found(value: Value | None) -> Value:
    """What there is; 404 where there is nothing."""
    from aiohttp import web

    if value is None:
        raise web.HTTPNotFound
    return value


def _named(name: str, progress: Progress) -> dict[str, object]:
    return {**progress.to_json(), "name": name}


def _as_json(value: object) -> web.Response:
    from aiohttp import web

    return web.Response(text=json.dumps(value, indent=1), content_type="application/json")
