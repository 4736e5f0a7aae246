"""How much of a sweep's time is training: seconds of training / (wall time x slots), after start-up.

    python -m tests.benchmarks.sweep_efficiency [DIR] [--slots 2]

Reads a finished sweep's folder; without one it runs a short version of the ETTh1 sweep (real data if $RAYMAE_DATA has
it). Wall time runs from the first trial's first moment of training to the last trial's end; start-up, from the command
to that first moment, is printed beside. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from raymae.results.store.store import Store

ROOT = Path(__file__).parents[2]


def run(folder: str) -> tuple[Store, int, float]:
    """A short ETTh1 sweep; returns its store, its slots, and when it was started."""
    from raymae.search.plan import make_plan
    from raymae.search.run import run_sweep
    from raymae.spec.load import load_sweep
    from raymae.tasks import schema_of

    overrides = [f"results={folder}", "search.num_trials=4", "replicates=2", "budget.wall_minutes=null"]
    spec = load_sweep(ROOT / "sweeps" / "timeseries_mask.yaml", overrides, schema_of=schema_of)
    started = time.time()
    plan = make_plan(spec)
    run_sweep(plan)
    return Store.open(Store.root_of(spec)), plan.slots, started


def efficiency(store: Store, slots: int) -> dict[str, float]:
    """Training seconds, wall seconds after start-up, and their ratio over all slots."""
    trials, reports = store.trials(), store.reports()
    first = (reports["time"] - reports["wall_s"].map(lambda s: __import__("pandas").Timedelta(seconds=s))).min()
    wall = (trials["ended_at"].max() - first).total_seconds()
    training = float(trials["wall_s"].sum())
    return {"training_s": training, "wall_s": wall, "slots": slots, "efficiency": training / (wall * slots),
            "first_training": first.timestamp()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", help="a finished sweep's folder")
    parser.add_argument("--slots", type=int, default=2, help="trials at once in that sweep")
    arguments = parser.parse_args()
    if arguments.directory:
        result = efficiency(Store.open(arguments.directory), arguments.slots)
    else:
        with tempfile.TemporaryDirectory() as folder:
            store, slots, started = run(folder)
            result = efficiency(store, slots)
            result["startup_s"] = result["first_training"] - started
            print(f"start-up to the first moment of training {result['startup_s']:.1f} s")
    print(f"{result['training_s']:.0f} s of training in {result['wall_s']:.0f} s on {result['slots']} slots: "
          f"efficiency {result['efficiency']:.2f}")
    print(json.dumps({"benchmark": "sweep_efficiency", **result}))


if __name__ == "__main__":
    main()
