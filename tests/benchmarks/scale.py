"""What breaks first when slots and trials are many? Simulated training, real messages.

    python -m tests.benchmarks.scale [--slots 1] [--trials 2000] [--groups 100]

Everything is the service's own but for the training: Tune, conductor and store in this process, the keeper of slots in
its actor, and in a few more actors workers that take jobs from it and deliver two reports each, at once. So all that is
measured is the head's. Printed: trials and reports a second, early and late; memory and processor time of the driver
and of the keeper, per slot, per trial and per report; the time of a query over all trials; and what a worker group
costs the keeper that waits for its workers (`--groups` of them, which ask for what no machine has). The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
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
search: {{num_trials: {trials}, algorithm: random, scheduler: asha, grace_epochs: 1, max_concurrent: {slots}}}
replicates: 0
"""
REPORTS = 2  # a trial
CROWD = 250  # simulated workers in a process


class Marks:
    """Observes a conductor: the time, and the driver's and the keeper's usage, when so many trials have ended."""

    def __init__(self, counts: tuple[int, ...]) -> None:
        self.counts = counts
        self.keeper: psutil.Process | None = None
        self.at: dict[int, dict[str, float]] = {}

    def ended(self, row: object, progress: Progress) -> None:
        if progress.num_ended in self.counts:
            self.at[progress.num_ended] = {"s": time.monotonic(), **usage("driver", psutil.Process()),
                                           **usage("keeper", self.keeper)}
            print(f"{progress.num_ended} trials", flush=True)

    def warned(self, text: str) -> None:
        print(text)

    def reported(self, row: object, message: object) -> None:
        pass

    def beat(self, progress: object) -> None:
        pass


def usage(name: str, process: psutil.Process | None) -> dict[str, float]:
    """Memory in MB and seconds of processor time of a process so far."""
    if process is None:
        return {}
    times = process.cpu_times()
    return {f"{name}_mb": process.memory_info().rss / 1e6, f"{name}_cpu_s": times.user + times.system}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=100)
    asked = parser.parse_args()

    from raymae.search.engine.connection import connected, set_environment

    set_environment()
    import ray

    from raymae.results.store.store import Store
    from raymae.results.views.query import query
    from raymae.search.decide.conductor import Conductor
    from raymae.search.engine.slots import Slots
    from raymae.search.engine.tune import run_tune
    from raymae.search.run import TOGETHER_S
    from raymae.spec.load import parse_sweep
    from raymae.spec.resolve import arm_plan
    from raymae.tasks import schema_of

    slots, trials = asked.slots, asked.trials
    first, tenth = max(20, 2 * slots), max(trials // 10, 4 * slots)
    late = max(trials - tenth, tenth + 1)
    marks = Marks((first, tenth, late, trials))
    with tempfile.TemporaryDirectory() as folder:
        spec = parse_sweep(SPEC.format(trials=trials, slots=slots), "scale", [f"results={folder}"],
                           schema_of=schema_of)
        schema = schema_of(spec.task)
        store = Store.create(Store.root_of(spec), spec, schema, environment={}, together_s=TOGETHER_S,
                             data={"name": "nothing", "source": "synthetic", "fingerprint": "none"})
        with store:
            conductor = Conductor(spec, {"scratch": arm_plan(spec, schema, "scratch")}, schema.objective, store,
                                  source="synthetic", slots=slots, observers=[marks])
            with connected() as cluster:
                group = waiting_groups(str(cluster.scratch), asked.groups)
                places = Slots(partial(simulated, slots))
                marks.keeper = psutil.Process(ray.get(places.keeper.pid.remote()))
                run_tune(conductor, places, str(cluster.scratch / "tune"))
            started = time.monotonic()
            store.compact()
            compact_s = time.monotonic() - started
        started = time.monotonic()
        count = query(store.root, "SELECT count(*) AS n, min(val_loss) FROM trials")["n"].iloc[0]
        query_s = time.monotonic() - started
    assert count == trials, f"{count} rows for {trials} trials"

    def between(one: int, other: int, what: str) -> float:
        return marks.at[other][what] - marks.at[one][what]

    early_per_s, late_per_s = ((b - a) / between(a, b, "s") for a, b in ((first, tenth), (late, trials)))
    some = trials - tenth or 1
    found = {
        "benchmark": "scale", "slots": slots, "num_trials": trials, "early_per_s": early_per_s,
        "late_per_s": late_per_s, "reports_per_s": REPORTS * late_per_s,
        "driver_cpu_ms_a_report": 1e3 * between(tenth, trials, "driver_cpu_s") / some / REPORTS,
        "keeper_cpu_ms_a_report": 1e3 * between(tenth, trials, "keeper_cpu_s") / some / REPORTS,
        "driver_kb_a_trial": 1e3 * between(tenth, trials, "driver_mb") / some,
        "driver_mb": marks.at[trials]["driver_mb"], "keeper_mb": marks.at[trials]["keeper_mb"],
        "compact_s": compact_s, "query_s": query_s, **group,
    }
    print(f"trials/s up to {tenth}: {early_per_s:.1f}; the last {trials - late} of {trials}: {late_per_s:.1f}; ratio "
          f"{late_per_s / early_per_s:.2f}")
    for name, value in found.items():
        print(f"  {name:24} {value:.4g}" if isinstance(value, float) else f"  {name:24} {value}")
    print(json.dumps(found))


def simulated(slots: int, life: int) -> Any:
    """A keeper whose worker groups are coroutines in a few actors: they call it as workers do."""
    import ray

    from raymae.search.engine.keeper import Keeper
    from raymae.search.engine.mailbox import STOP
    from raymae.search.engine.places import NodeStates
    from raymae.search.engine.workers import GroupOptions
    from raymae.search.messages import Job, Message
    from raymae.spec.trial import ReportData

    class Crowd:
        async def serve(self, keeper: Any, name: str) -> None:
            life = await keeper.hello.remote(name, [])
            while (taken := await keeper.take.remote(name, life)) is not None:
                serial, job = taken
                for epoch in range(1, REPORTS + 1):
                    if await keeper.deliver.remote(name, serial, report(job, epoch)) == STOP:
                        break

    def report(job: Job, epoch: int) -> Message:
        scores = {"val_loss": job.config.params["x"] / epoch}
        return Message(job.trial_id, job.attempt,
                       ReportData("finetune", epoch, epoch - 1, scores, scores, 0.0, 1, epoch == REPORTS))

    class Simulated(Keeper):
        async def open(self, name: str) -> None:
            if name not in self._groups:
                crowd = crowds[len(self._groups) % len(crowds)]
                me = ray.get_runtime_context().current_actor
                self._groups[name] = crowd.serve.remote(me, name)  # type: ignore[assignment]

        async def pid(self) -> int:
            return os.getpid()

    crowds = [ray.remote(Crowd).options(num_cpus=0, max_concurrency=2 * CROWD).remote()
              for _ in range(-(-slots // CROWD))]
    options = GroupOptions(1, 1.0, 0.0, "/nowhere")
    return ray.remote(Simulated).options(num_cpus=0, max_concurrency=100 + 10 * slots).remote(
        options, slots, NodeStates)


def waiting_groups(scratch: str, number: int) -> dict[str, float]:
    """What a worker group costs the keeper: Ray Train's controller in its thread, which waits for its workers."""
    import ray

    from raymae.search.engine.keeper import Keeper
    from raymae.search.engine.places import NodeStates
    from raymae.search.engine.workers import GroupOptions

    class Measured(Keeper):
        async def look(self) -> dict[str, float]:
            process = psutil.Process()
            return {**usage("keeper", process), "threads": process.num_threads(), "files": process.num_fds()}

    if not number:
        return {}
    never = GroupOptions(1, 1e6, 0.0, str(Path(scratch) / "train"))
    keeper = ray.remote(Measured).options(num_cpus=0).remote(never, number, NodeStates)

    async def look() -> dict[str, float]:
        found: dict[str, float] = await keeper.look.remote()
        return found

    def settled(groups: range) -> dict[str, float]:
        ray.get([keeper.open.remote(f"slot-{index}") for index in groups])
        before = -1.0
        while (now := asyncio.run(look()))["threads"] != before:
            before = now["threads"]
            time.sleep(3)
        return now

    one, all_ = settled(range(1)), settled(range(1, number + 1))
    time.sleep(10)
    later = asyncio.run(look())
    ray.kill(keeper)
    return {
        "group_mb": (all_["keeper_mb"] - one["keeper_mb"]) / number,
        "group_threads": (all_["threads"] - one["threads"]) / number,
        "group_files": (all_["files"] - one["files"]) / number,
        "group_cpu_share": (later["keeper_cpu_s"] - all_["keeper_cpu_s"]) / 10 / number,
    }


if __name__ == "__main__":
    main()
