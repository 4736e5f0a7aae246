"""Seconds per trial that are not training: this engine, Tune + a TorchTrainer per trial, and a plain Tune function.

    python -m tests.benchmarks.trial_overhead [--trials 40] [--vanilla 6] [--workers 1]

Every trial is trivial (three reports of one weight). Each engine runs in a process of its own on an embedded Ray, with
as many trials at once as two cores have room for: two of one worker, one of two. Seconds per trial are taken between
the end of the first trial and the end of the last, so start-up is not in them; it is printed beside. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

CORES = 2
SPEC = """
name: overhead
task: tests.benchmarks.trivial:Trivial
size: debug
data: {{name: nothing}}
arms: [scratch]
space: {{x: {{uniform: [0, 1]}}}}
search: {{num_trials: {trials}, algorithm: random, scheduler: none, max_concurrent: {slots}}}
replicates: 0
resources: {{workers: {workers}, cpus_per_worker: 0.9}}
"""


def engine(trials: int, workers: int) -> dict[str, float]:
    """This project's engine, as `raymae sweep` runs it."""
    from raymae.search.plan import make_plan
    from raymae.search.run import run_sweep
    from raymae.spec.load import parse_sweep
    from raymae.tasks import schema_of

    class Times:
        """Stands in for the display: notes when trials ended."""

        def __init__(self) -> None:
            from raymae.search.live.display import Display

            self.ended = Ends()
            self.display = Display.silent()
            self.display.ended = lambda row, progress: self.ended.add()  # type: ignore[method-assign]

    with tempfile.TemporaryDirectory() as folder:
        text = SPEC.format(trials=trials, workers=workers, slots=CORES // workers)
        spec = parse_sweep(text, "overhead", [f"results={folder}"], schema_of=schema_of)
        times = Times()
        started = time.monotonic()
        run_sweep(make_plan(spec), display=times.display)
    return times.ended.summary(started)


def tune_run(trials: int, function: object, cpus: float, slots: int) -> dict[str, float]:
    """Any Tune trainable, so many at a time."""
    import ray
    from ray import tune

    ended = Ends()

    class Note(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[object], trial: object, **info: object) -> None:
            ended.add()

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ray.init(address="local", num_cpus=CORES, log_to_driver=False, logging_level="ERROR")
        tune.Tuner(
            tune.with_resources(function, {"CPU": cpus}), param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=slots),
            run_config=tune.RunConfig(name="t", storage_path=folder, verbose=0, callbacks=[Note()]),
        ).fit()
        ray.shutdown()
    return ended.summary(started)


def vanilla(trials: int, workers: int) -> dict[str, float]:
    """A TorchTrainer launched anew in each trial, as Ray's guides show."""

    def loop(config: dict[str, float]) -> None:
        import torch
        from ray import train

        weight = torch.zeros(1)
        for step in range(3):
            train.report({"loss": float((weight - config["x"]) ** 2) + step})

    def trial(config: dict[str, float]) -> None:
        from ray import train, tune
        from ray.train.torch import TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        TorchTrainer(
            loop, train_loop_config=config,
            scaling_config=train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.8}),
            run_config=train.RunConfig(
                name=tune.get_context().get_trial_id(), storage_path=tempfile.mkdtemp(),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    return tune_run(trials, trial, 0.1, CORES // workers)


def plain(trials: int, workers: int) -> dict[str, float]:
    """A Tune function without Ray Train: the floor for anything that starts a process per trial."""

    def trial(config: dict[str, float]) -> None:
        import torch
        from ray import tune

        weight = torch.zeros(1)
        for step in range(3):
            tune.report({"loss": float((weight - config["x"]) ** 2) + step})

    return tune_run(trials, trial, 1.0, CORES)


class Ends:
    """When trials ended, and what all processes had used when the first did."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.first: dict[str, float] = {}

    def add(self) -> None:
        """A trial has ended."""
        self.at.append(time.monotonic())
        if not self.first:
            mine = psutil.Process()
            used = [times for one in (mine, *mine.children(recursive=True)) if (times := _cpu_s(one)) is not None]
            self.first = {"startup_cpu_s": sum(used), "startup_processes": len(used)}

    def summary(self, started: float) -> dict[str, float]:
        """Start-up to the first trial's end, and seconds per trial after it."""
        return {"startup_s": self.at[0] - started, "per_trial_s": (self.at[-1] - self.at[0]) / (len(self.at) - 1),
                "num_trials": len(self.at), **self.first}


def _cpu_s(process: psutil.Process) -> float | None:
    """Seconds of processor time so far, its dead children's with it; None if it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return times.user + times.system + times.children_user + times.children_system


ENGINES = {"engine": engine, "vanilla": vanilla, "plain": plain}


def measure(name: str, trials: int, workers: int) -> dict[str, float]:
    """Run one engine in a process of its own."""
    environment = {**os.environ, "RAY_TRAIN_V2_ENABLED": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.trial_overhead", "--only", name, "--trials", str(trials),
         "--workers", str(workers)], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2],
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40, help="trials of this engine and of plain Tune")
    parser.add_argument("--vanilla", type=int, default=6, help="trials of vanilla Tune + TorchTrainer")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="Ray Train workers per trial")
    parser.add_argument("--only", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(ENGINES[arguments.only](arguments.trials, arguments.workers[0])))
        return
    result: dict[str, object] = {}
    floor = measure("plain", arguments.trials, 1)
    print(f"{'':34}{'start-up':>10}{'per trial':>12}{'x engine':>10}")
    for workers in arguments.workers:
        ours, theirs = measure("engine", arguments.trials, workers), measure("vanilla", arguments.vanilla, workers)
        for name, row in ((f"engine, {workers} worker(s)", ours), (f"Tune + TorchTrainer, {workers} worker(s)", theirs),
                          ("plain Tune function", floor)):
            ratio = row["per_trial_s"] / ours["per_trial_s"]
            print(f"{name:34}{row['startup_s']:>8.1f} s{row['per_trial_s']:>10.3f} s{ratio:>10.1f}")
        result[f"workers_{workers}"] = {"engine": ours, "vanilla": theirs,
                                        "ratio": theirs["per_trial_s"] / ours["per_trial_s"]}
    print(json.dumps({"benchmark": "trial_overhead", "plain": floor, **result}))


if __name__ == "__main__":
    main()
