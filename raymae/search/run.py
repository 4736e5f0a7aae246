"""Running a planned sweep on Ray, from its first trial to its verdict."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raymae.errors import InterruptedSweepError, TrialError
from raymae.results.store.layout import DRIVER_LOG, TRIALS
from raymae.results.store.store import Store
from raymae.results.verdict.judge import conclude
from raymae.results.verdict.verdict import Verdict
from raymae.results.views.tensorboard import LiveEvents
from raymae.search.engine.connection import Cluster, connected
from raymae.search.engine.interrupt import interruptible
from raymae.search.engine.watchdog import watched
from raymae.search.environment import describe_environment
from raymae.search.live.display import Display
from raymae.search.plan import Plan
from raymae.spec.sweep import SweepSpec

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor

# where data and results are; the right to read them is every machine's own
PASSED_ON = (
    "RAYMAE_DATA", "RAYMAE_CACHE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
)


def run_sweep(
    plan: Plan, *, fresh: bool = False, extend: bool = False, retry_failed: bool = False, display: Display | None = None
) -> Verdict:
    """Run a planned sweep on Ray and return the verdict, which is also in the results folder.

    Where an earlier run of the same sweep left results, only what is missing is done: trials that ended are kept, those
    that were under way continue from their last checkpoint.

    Args:
        plan: What `make_plan` made.
        fresh: Move existing results of the same name aside.
        extend: Go on with existing results although the spec asks for more trials or replicates now.
        retry_failed: Run failed trials of existing results again, with the identical configuration.
        display: Shows progress; silent by default.

    Raises:
        ResultsError: Another sweep's results lie there, or nothing can be written.
        InterruptedSweepError: Ctrl-C; what has been done is kept, and the verdict so far is written.
    """
    spec = plan.spec
    display = display or Display.silent()
    store = Store.create(
        Store.root_of(spec), spec, plan.schema, environment=describe_environment(), fresh=fresh, extend=extend,
        data={"name": plan.data.name, "source": plan.data.source, "fingerprint": plan.data.fingerprint},
        on_warning=display.warn,
    )
    from raymae.search.decide.conductor import Conductor
    from raymae.search.decide.resume import restore, warm_start
    from raymae.search.live.metrics import Metrics
    from raymae.search.live.state_file import beating

    with store:
        conductor = Conductor(
            spec, plan.arms, plan.schema.objective, store, source=plan.data.source, slots=plan.slots
        )
        conductor.warn = display.warn
        for folder in spec.search.warm_start:
            display.warm_start(folder, warm_start(conductor, Store.open(folder)))
        kept = restore(conductor, retry_failed=retry_failed)
        columns = store.manifest.columns[TRIALS]
        with beating(conductor) as pulse, LiveEvents(store.location, conductor.metric, columns, display.warn) as events:
            conductor.recorders.append(events)
            if kept or conductor.num_interrupted:
                display.continuing(kept, conductor.num_interrupted)
            if not conductor.finished():
                with (
                    interruptible(lambda: _interrupt(conductor)),
                    display.live(conductor),
                    connected(_log_file(store), _worker_environment(spec), plan.address) as cluster,
                ):
                    if plan.address:
                        conductor.use_slots(cluster.slots(spec.resources, spec.search.max_concurrent))
                        display.waiting(cluster.room(spec.resources), conductor.slots)
                    display.connected(cluster)
                    metrics = Metrics(conductor)
                    conductor.recorders.append(metrics)
                    pulse.dashboard, pulse.also = cluster.dashboard, metrics.beat
                    _tune(conductor, cluster, spec, alone=plan.address is None)
            conductor.close()
            verdict = conclude(store)
    if spec.arms and not any(trial.status == "completed" for trial in conductor.trials.values()):
        reasons = sorted({trial.error for trial in conductor.trials.values() if trial.error})
        raise TrialError(f"{store.root}: no trial completed" + "".join(f"\n  {reason}" for reason in reasons[:5]))
    if conductor.interrupted:
        raise InterruptedSweepError("interrupted; run the same command again to go on")
    return verdict


def _interrupt(conductor: Conductor) -> None:
    conductor.interrupted = True
    conductor.warn("interrupted: trials under way end at their next report; again to end at once")


def _tune(conductor: Conductor, cluster: Cluster, spec: SweepSpec, *, alone: bool) -> None:
    """Run everything the conductor proposes on warm worker groups; sweeps that are not alone share the cluster."""
    import ray
    from ray import tune

    from raymae.search.engine.mailbox import ClusterNodes, Hub
    from raymae.search.engine.sharing import NAMESPACE, hub_name, shared
    from raymae.search.engine.trainable import WarmTrial
    from raymae.search.engine.tune import run_tune
    from raymae.search.engine.workers import GroupOptions, bury

    name = hub_name(spec.resources)
    hub = ray.remote(Hub).options(
        num_cpus=0, resources=dict(cluster.driver), name=name, namespace=NAMESPACE
    ).remote(ClusterNodes())
    sharing = nullcontext() if alone else shared(conductor, name, partial(cluster.capacity, spec.resources))
    options = GroupOptions(
        hub, spec.resources.workers, spec.resources.cpus_per_worker, spec.resources.gpus_per_worker,
        str(cluster.scratch / "train"), spec.resources.report_timeout_s, spec.resources.recycle_after,
    )
    with watched(conductor, hub), sharing:
        trainable = tune.with_parameters(WarmTrial, options=options)
        run_tune(conductor, trainable, str(cluster.scratch / "tune"), cluster.driver, partial(bury, hub))


def _worker_environment(spec: SweepSpec) -> dict[str, str]:
    threads = str(max(1, int(spec.resources.cpus_per_worker)))
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **passed}


def _log_file(store: Store) -> Path | None:
    """Where this process's log goes: beside the results if they are on this machine."""
    path = store.path(DRIVER_LOG)
    return None if "://" in path else Path(path)
