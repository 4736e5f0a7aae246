"""A folder of sweeps, one of them with hostile texts, and a server over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served_folder import ERROR, HOSTILE, Served, add_report, add_trial, make_sweep, start


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`raymae serve` in a process of its own over four sweeps and things that are none."""
    top = tmp_path_factory.mktemp("serve")
    folder = top / "results"
    running = {"trial_id": "mae-0001", "arm": "mae", "stage": "search", "attempt": 0, "phase": "finetune", "epoch": 1,
               "epochs": 4, "wall_s": 3.0, "best": 0.5}
    alive = make_sweep(folder / "alive", {"mae-0000": 0.5}, word="running", running=[running])
    alive.write_config("mae-0000", {"arm": "mae", "stage": "search", "seed": 7, "params": {"lr": 1e-3, "epochs": 4}})
    add_report(alive, "mae-0001", 1, 0.75)
    (folder / "alive" / "logs" / "driver.log").write_text(f"started\n\x1b[31mmae-0000: {ERROR}\x1b[0m\nmae-00001 no\n")
    make_sweep(folder / "done", {"mae-0000": 0.25, "scratch-0000": 0.5}, word="ended")
    hostile = make_sweep(folder / HOSTILE, {"mae-0000": 0.5}, word="failed", error=ERROR)
    add_trial(hostile, "scratch-0000", None, status="failed", error=ERROR)
    make_sweep(top / "secret", {"mae-0000": 0.5}, word="ended")
    (folder / "link").symlink_to(top / "secret")
    (folder / "broken").mkdir()
    (folder / "broken" / "sweep.json").write_text("{")
    (folder / "no-sweep").mkdir()
    process = start(folder)
    try:
        yield Served(folder, process.stdout.readline().split()[0])  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()
