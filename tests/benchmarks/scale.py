"""Does the cost of a trial grow with their number? 2,000 simulated trials through Tune, conductor and store.

    python -m tests.benchmarks.scale [--trials 2000]

The trainable is simulated: it hands back two reports at once, so everything measured is the driver's. One slot: trials
this short end while a second slot's actor is still starting, Tune then gives that one's trial the actor that is free,
and starting actors that nobody needs would be what is measured. Printed: trials
per second and memory of the driver at a tenth and at the end, and the time of a query over all trials. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

import psutil

from raymae.results.views.progress import Progress

SPEC = """
name: scale
task: tests.benchmarks.trivial:Trivial
size: debug
data: {{name: nothing}}
arms: [scratch]
space: {{x: {{uniform: [0, 1]}}}}
search: {{num_trials: {trials}, algorithm: random, scheduler: asha, grace_epochs: 1}}
replicates: 0
"""


class Marks:
    """Observes a conductor: the time and the driver's memory when so many trials have ended."""

    def __init__(self, counts: tuple[int, ...]) -> None:
        self.counts = counts
        self.at: dict[int, tuple[float, float]] = {}

    def ended(self, row: object, progress: Progress) -> None:
        if progress.num_ended in self.counts:
            self.at[progress.num_ended] = (time.monotonic(), psutil.Process().memory_info().rss / 1e6)

    def warned(self, text: str) -> None:
        print(text)

    def reported(self, row: object, message: object) -> None:
        pass

    def beat(self, progress: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    trials = parser.parse_args().trials

    from raymae.search.engine.connection import connected, set_environment

    set_environment()
    from ray import tune

    from raymae.results.store.store import Store
    from raymae.results.views.query import query
    from raymae.search.decide.conductor import Conductor
    from raymae.search.engine.trainable import result_of
    from raymae.search.engine.tune import run_tune
    from raymae.search.messages import Job, Message
    from raymae.spec.load import parse_sweep
    from raymae.spec.resolve import arm_plan
    from raymae.spec.trial import ReportData
    from raymae.tasks import schema_of

    class Simulated(tune.Trainable):
        """Two reports, at once."""

        def setup(self, config: dict[str, Any]) -> None:
            self.epoch = 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.epoch = 0
            return True

        def step(self) -> dict[str, Any]:
            self.epoch += 1
            job: Job = self.config["job"]
            scores = {"val_loss": job.config.params["x"] / self.epoch}
            report = ReportData("finetune", self.epoch, self.epoch - 1, scores, scores, 0.0, 1, self.epoch == 2)
            return result_of(Message(job.trial_id, job.attempt, report), job.objective)

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

        def load_checkpoint(self, checkpoint: Any) -> None:
            pass

    marks = Marks((20, trials // 10, trials - trials // 10, trials))
    with tempfile.TemporaryDirectory() as folder:
        spec = parse_sweep(SPEC.format(trials=trials), "scale", [f"results={folder}"], schema_of=schema_of)
        schema = schema_of(spec.task)
        store = Store.create(Store.root_of(spec), spec, schema, environment={},
                             data={"name": "nothing", "source": "synthetic", "fingerprint": "none"})
        with store:
            conductor = Conductor(spec, {"scratch": arm_plan(spec, schema, "scratch")}, schema.objective, store,
                                  source="synthetic", slots=1, observers=[marks])
            with connected() as cluster:
                run_tune(conductor, Simulated, str(cluster.scratch / "tune"), cluster.driver)
            started = time.monotonic()
            store.compact()
            compact_s = time.monotonic() - started
        started = time.monotonic()
        count = query(store.root, "SELECT count(*) AS n, min(val_loss) FROM trials")["n"].iloc[0]
        query_s = time.monotonic() - started
    assert count == trials, f"{count} rows for {trials} trials"

    def rate(first: int, last: int) -> float:
        return (last - first) / (marks.at[last][0] - marks.at[first][0])

    tenth = trials // 10
    early, late = rate(20, tenth), rate(trials - tenth, trials)
    print(f"trials/s up to {tenth}: {early:.1f}; the last {tenth} of {trials}: {late:.1f}; ratio {late / early:.2f}")
    print(f"driver memory at {tenth}: {marks.at[tenth][1]:.0f} MB; at {trials}: {marks.at[trials][1]:.0f} MB")
    print(f"compaction {compact_s:.2f} s; a query over all trials {query_s:.2f} s")
    print(json.dumps({"benchmark": "scale", "num_trials": trials, "early_per_s": early, "late_per_s": late,
                      "memory_mb": {str(tenth): marks.at[tenth][1], str(trials): marks.at[trials][1]},
                      "compact_s": compact_s, "query_s": query_s}))


if __name__ == "__main__":
    main()
