"""The dashboard of an embedded Ray comes when there is something to see.

It is ten processes that import for seconds, and Ray waits for them. Two cores have better things to do until the first
trial has reported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from raymae.errors import one_line
from raymae.results.store.columns import Row
from raymae.results.views.progress import Progress
from raymae.search.engine.patience import impatient
from raymae.search.messages import Message

NEEDS = ("aiohttp", "aiohttp_cors", "grpc", "opentelemetry", "prometheus_client", "pydantic")


class LateDashboard:
    """Observes a sweep, and starts the dashboard after its first report."""

    def __init__(self) -> None:
        self._start: Callable[[], str] | None = None
        self._ready: Callable[[str], None] = lambda url: None
        self._failed: Callable[[str], None] = lambda why: None
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let Ray start without one for the length of a `with` block, and without importing here what it needs, which
        is how Ray finds out whether there could be one."""
        from ray._private import utils
        from ray._private.node import Node

        real, ask = Node.start_api_server, utils.get_dashboard_dependency_error

        def start(node: Any, options: dict[str, Any]) -> str:
            with impatient():
                real(node, **options)
            return str(node.webui_url)

        def later(node: Any, **options: Any) -> None:
            self._start = partial(start, node, options)

        Node.start_api_server = later
        if all(map(find_spec, NEEDS)):
            utils.get_dashboard_dependency_error = lambda: None
        try:
            yield
        finally:
            Node.start_api_server, utils.get_dashboard_dependency_error = real, ask

    def tell(self, ready: Callable[[str], None], failed: Callable[[str], None]) -> None:
        """Who is to be told its address, or why there is none; in a thread of its own."""
        self._ready, self._failed = ready, failed

    def start(self) -> None:
        """Start it, unless that was done."""
        if self._start is not None and self._thread is None:
            # Ray's processes die with the thread that started them: this one lives as long as Ray
            self._thread = threading.Thread(target=self._run, args=(self._start,), daemon=True, name="dashboard")
            self._thread.start()

    def _run(self, start: Callable[[], str]) -> None:
        try:
            url = start()
        except Exception as error:  # whatever Ray raises: a sweep does without
            self._failed(f"the dashboard could not be started: {one_line(error)}")
        else:
            self._ready(f"http://{url}")
        self._begun.set()
        self._over.wait()

    def wait(self, timeout_s: float) -> None:
        """Wait until it has started, if it is starting: Ray cannot be ended meanwhile."""
        if self._thread is not None:
            self._begun.wait(timeout_s)

    def end(self) -> None:
        """Let its thread go, and with it what that started."""
        self._over.set()

    # -- as an observer of a sweep -------------------------------------------------------------------------------------

    def reported(self, row: Row, message: Message) -> None:
        """The first report: the workers have started."""
        self.start()

    def warned(self, text: str) -> None:
        """Nothing."""

    def ended(self, row: Row, progress: Progress) -> None:
        """Nothing."""

    def beat(self, progress: Progress) -> None:
        """Nothing."""
