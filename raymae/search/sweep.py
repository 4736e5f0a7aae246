"""A sweep from file to verdict: plan it, check it, run it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymae.data.cache import Located
from raymae.errors import InterruptedSweepError, TrialError
from raymae.results.compare import conclude
from raymae.results.store import Store
from raymae.results.tensorboard import LiveEvents
from raymae.search.algorithms import contains
from raymae.search.cluster import Cluster, connected, local_resources, slots
from raymae.search.display import Display
from raymae.search.environment import describe_environment
from raymae.search.interrupt import interruptible
from raymae.search.watchdog import watched
from raymae.spec.resolve import ArmPlan, arm_plan, trial_config
from raymae.spec.space import combinations
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import TaskSchema, TrialConfig
from raymae.tasks import schema_of, task_class

if TYPE_CHECKING:
    from raymae.search.conductor import Conductor

# where data and results are; the right to read them is every machine's own
PASSED_ON = (
    "RAYMAE_DATA", "RAYMAE_CACHE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
)


@dataclass(frozen=True)
class Plan:
    """A sweep, resolved and found possible, before anything is started.

    Attributes:
        spec: The sweep.
        schema: Its task.
        arms: What each arm fixes and searches.
        data: Where the data is, and whether it is real.
        slots: Trials at once; on a cluster as many as the file asks for, or 1 until it has been joined.
        splits: One line on the data's splits.
        address: The running cluster to join; None for an embedded Ray on this machine.
    """

    spec: SweepSpec
    schema: TaskSchema
    arms: Mapping[str, ArmPlan]
    data: Located
    slots: int
    splits: str
    address: str | None = None


def make_plan(spec: SweepSpec, address: str | None = None) -> Plan:
    """Resolve a checked spec: find the data, read it as the most demanding trial would, count slots.

    Args:
        spec: The sweep.
        address: A running cluster to join.

    Raises:
        DataError: The data cannot be had or is too small.
        ResourceError: Not even one trial fits on this machine.
    """
    at_once = spec.search.max_concurrent or 1
    if address is None:
        cpus, gpus = local_resources()
        at_once = slots(spec.resources, cpus=cpus, gpus=gpus, max_concurrent=spec.search.max_concurrent)
    task, schema = task_class(spec.task), schema_of(spec.task)
    arms = {name: arm_plan(spec, schema, name) for name in spec.arms}
    located = task.locate(spec.data.model_dump())
    data = {**spec.data.model_dump(), "source": located.source}
    splits = ""
    for plan in arms.values():
        for sampled in filter(plan.admits, combinations(plan.space, {"arm": plan.name}, limit=256)):
            splits = task.validate(data, plan.params(sampled))
    return Plan(spec, schema, arms, located, at_once, splits, address)


def example_config(plan: Plan, arm: str) -> TrialConfig:
    """What would be run without a search: searched parameters at their default where the space holds it, or else at
    its first value."""
    arm_plan_ = plan.arms[arm]
    sampled: dict[str, Any] = {}
    for name, distribution in arm_plan_.space.items():
        if distribution.active({"arm": arm, **sampled}):
            default = arm_plan_.fixed[name]
            sampled[name] = default if contains(distribution, default) else distribution.probes()[0]
    return trial_config(
        plan.spec, arm_plan_, sampled, seed=plan.spec.search.seed, stage="search", source=plan.data.source
    )


def run_sweep(
    plan: Plan, *, fresh: bool = False, extend: bool = False, retry_failed: bool = False, display: Display | None = None
) -> dict[str, Any]:
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
    from raymae.search.conductor import Conductor
    from raymae.search.metrics import Metrics
    from raymae.search.pulse import beating
    from raymae.search.resume import restore, warm_start

    with store:
        conductor = Conductor(
            spec, plan.arms, plan.schema.objective, store, source=plan.data.source, slots=plan.slots
        )
        conductor.warn = display.warn
        for folder in spec.search.warm_start:
            display.warm_start(folder, warm_start(conductor, Store.open(folder)))
        kept = restore(conductor, retry_failed=retry_failed)
        columns = store.meta()["columns"]["trials"]
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

    from raymae.search.bridge import run_tune
    from raymae.search.hub import ClusterNodes, Hub
    from raymae.search.sharing import NAMESPACE, hub_name, shared
    from raymae.search.trainable import WarmTrial
    from raymae.search.workers import GroupOptions, bury

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
    path = store.log_path("driver.log")
    return None if "://" in path else Path(path)
