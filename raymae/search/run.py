"""Running a planned sweep on Ray, from its first trial to its verdict."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from raymae.errors import BudgetSpentError, EncoderError, InterruptedSweepError, ModelError, TrialError
from raymae.inference.encoders import EncoderShelf
from raymae.inference.shelf import ModelShelf
from raymae.results.store.folder import Folder
from raymae.results.store.layout import DRIVER_LOG, ENCODERS, TRIALS
from raymae.results.store.store import Store
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import conclude
from raymae.results.verdict.verdict import Verdict
from raymae.results.views.models import cell_of, in_one_cell, models_of
from raymae.results.views.tensorboard import LiveEvents, varied
from raymae.search.bisecting import is_through, open_cell
from raymae.search.decide.conductor import Conductor
from raymae.search.decide.encoders import Encoders
from raymae.search.decide.meter import Meter
from raymae.search.decide.resume import restore, warm_start
from raymae.search.engine.charges import NodePrices, Prices, charged, nodes_up
from raymae.search.engine.connection import Cluster, connected
from raymae.search.engine.interrupt import interruptible
from raymae.search.engine.places import ClusterNodes
from raymae.search.engine.sharing import LIFE, NAMESPACE, Rival, shared
from raymae.search.engine.watchdog import watched
from raymae.search.environment import describe_environment
from raymae.search.live.desk import obeying
from raymae.search.live.display import Display
from raymae.search.live.metrics import Metrics
from raymae.search.live.news import News
from raymae.search.live.recorded import Ending
from raymae.search.live.recorders import recorders
from raymae.search.live.recording import Recordings
from raymae.search.live.state_file import beating, spent_before
from raymae.search.plan import Plan, shelf_of, with_cells
from raymae.search.precision import computing_in, fastest, is_open
from raymae.search.timing import Measured, lengthened, measured
from raymae.spec.sweep import SweepSpec

# where data and results are; the right to read them is every machine's own
PASSED_ON = (
    "RAYMAE_DATA", "RAYMAE_CACHE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
)

TOGETHER_S = 0.25  # trials that last longer are written as each ends

_ENDINGS: dict[type[BaseException], Ending] = {
    InterruptedSweepError: "interrupted", KeyboardInterrupt: "interrupted", BudgetSpentError: "budget spent"}


def run_sweep(
    plan: Plan, *, fresh: bool = False, extend: bool = False, retry_failed: bool = False,
    display: Display | None = None, prices: Prices | None = None,
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
        prices: Reads off a cluster's file what its nodes cost, where a budget is in dollars and the sweep file does not
            say; the command line gives `raymae.launch.prices.by_type`.

    Raises:
        ResultsError: Another sweep's results lie there, or nothing can be written.
        SpecError: Nobody can be told of it by the URLs under `notify`, or by what `record` names.
        InterruptedSweepError: Ctrl-C; what has been done is kept, and the verdict so far is written.
        BudgetSpentError: The budget ended before every arm had its replicates; likewise.
    """
    news, recordings = News(plan.spec.name, plan.spec.notify), Recordings(recorders(plan.spec.record))
    try:
        verdict = _run(plan, news, recordings, display or Display.silent(), prices, fresh=fresh, extend=extend,
                       retry_failed=retry_failed)
    except BaseException as error:
        how, why = _ENDINGS.get(type(error), "failed"), str(error) or type(error).__name__
        recordings.over(how, why)
        news.over(how, why)
        raise
    recordings.over("finished", headline(verdict), verdict)
    news.over("finished", headline(verdict))
    return verdict


def _run(
    plan: Plan, news: News, recordings: Recordings, display: Display, prices: Prices | None, *, fresh: bool,
    extend: bool, retry_failed: bool,
) -> Verdict:
    spec = plan.spec
    store = Store.create(
        Store.root_of(spec), spec, plan.schema, environment=describe_environment(), fresh=fresh, extend=extend,
        data={"name": plan.data.name, "source": plan.data.source, "fingerprint": plan.data.fingerprint,
              "pretrains_on": "\n".join(plan.pretrains_on)},
        together_s=TOGETHER_S, on_warning=display.warned,
    )
    with ExitStack() as stack:
        stack.enter_context(store)
        plan = with_cells(plan, store.manifest.opened)
        spec = plan.spec
        conductor = Conductor(
            spec, plan.arms, plan.schema.objective, store, source=plan.data.source, slots=plan.slots,
            observers=[display, news], encoders=_encoders(plan, store), extended=extend,
        )
        if plan.address is not None and spec.budget.dollars is not None:
            conductor.budget.meter = Meter(conductor.clock, spent_before(store))
        news.follow(conductor.budget.share_spent, conductor.warn)
        if store.manifest.precision is not None:
            conductor.use_plans(computing_in(conductor.plans, store.manifest.precision))
        conductor.use_plans(lengthened(
            conductor.plans, Measured(store.manifest.times_epochs or {}, store.manifest.epoch_costs)))
        for folder in spec.search.warm_start:
            display.warm_start(folder, warm_start(conductor, Store.open(folder)))
        ended, interrupted = restore(conductor, retry_failed=retry_failed)
        stack.enter_context(beating(conductor))
        stack.enter_context(obeying(conductor, plan.schema))
        columns = store.manifest.columns[TRIALS]
        conductor.add_observer(stack.enter_context(
            LiveEvents(store.location, plan.schema.objective.val, columns, varied(spec), conductor.warn)))
        recordings.follow(conductor)
        if ended or interrupted:
            display.continuing(ended, interrupted)
        if not is_through(conductor):
            _run_trials(conductor, plan, display, prices)
        conductor.close()
        verdict = conclude(store, searched=conductor.finished() and not conductor.interrupted)
        if verdict.complete and spec.keep == "best":
            _leave_best(store, verdict, conductor)
    if not verdict.complete and conductor.budget.time_is_up() and not conductor.interrupted:
        raise BudgetSpentError(_spent(conductor))
    if conductor.interrupted:
        raise InterruptedSweepError("interrupted; run the same command again to go on")
    if spec.arms and not any(trial.status == "completed" for trial in conductor.trials):
        reasons = sorted({trial.error for trial in conductor.trials if trial.error})
        raise TrialError(f"{store.root}: no trial completed" + "".join(f"\n  {reason}" for reason in reasons[:5]))
    return verdict


def _encoders(plan: Plan, store: Store) -> Encoders:
    """The encoders of a sweep: its own, or those of a folder that several sweeps share."""
    shared, shelf = plan.spec.encoders, shelf_of(plan.spec)
    for arm, given in plan.given.items():
        before = shelf.given_of(given.source)
        if shared is None and before not in (None, given.sha256):
            raise EncoderError(f"arms.{arm}.encoder: {given.source} holds other weights ({given.sha256[:16]}) than "
                               f"when the sweep began ({str(before)[:16]}); bring those back, or start over with "
                               "--fresh")
        shelf.give(given, plan.data.fingerprint)
    others = [EncoderShelf(Folder(folder).uri(ENCODERS)) for folder in plan.spec.search.warm_start]
    return Encoders(plan.schema, shelf, plan.data.fingerprint, others=others, shared=shared is not None)


def _leave_best(store: Store, verdict: Verdict, conductor: Conductor) -> None:
    """Delete all models of a finished sweep but that of each arm's replicate which is best on validation, in every cell
    of the sweep's factors."""
    shelf = ModelShelf.of_sweep(store.location)
    try:
        models = models_of(store, verdict)
        factors = conductor.spec.factors
        best = {in_one_cell(cards, factors, cell_of(card, factors))[0].trial_id
                for cards in models.by_arm.values() for card in cards}
        for trial_id in (shelf.ids() if best else set()) - best:
            shelf.forget(trial_id)
    except (OSError, ModelError) as error:  # they take space, no more
        conductor.warn(f"models that `keep: best` leaves out could not be deleted: {error}")


def _spent(conductor: Conductor) -> str:
    """That the budget is spent, what is missing, and how to go on."""
    spec, root = conductor.spec, conductor.store.location
    limits = {name: value for name in ("wall_minutes", "gpu_hours", "dollars")
              if (value := getattr(spec.budget, name)) is not None}
    missing = [f"{lane} has {min(have, wanted)} of {wanted}" for lane, wanted in conductor.replicates.items()
               if (have := conductor.trials.counts(lane, "replicate").get("completed", 0)) < wanted]
    more = " ".join(f"--set budget.{name}={2 * value:g}" for name, value in limits.items())
    return (f"{root}: the budget is spent ({', '.join(f'budget.{name}={value:g}' for name, value in limits.items())}) "
            f"and no verdict is reached: of the replicates, {', '.join(missing) or 'none is missing'}. What was done "
            f"is kept. The same command goes on with as much again, or with more: {more}. An arm whose replicates have "
            f"begun is searched no more; `raymae extend {root} --num-trials N` searches on")


def _run_trials(conductor: Conductor, plan: Plan, display: Display, prices: Prices | None) -> None:
    """Start or join Ray, and run on it everything that the conductor proposes."""
    spec = plan.spec
    with (
        interruptible(conductor.interrupt),
        display.live(conductor.progress),
        connected(_log_file(conductor.store), _worker_environment(spec), plan.address, _about(conductor)) as cluster,
        ExitStack() as stack,
    ):
        if conductor.budget.meter is not None:
            costs = NodePrices(spec.budget, cluster.file, prices(cluster.file) if prices and cluster.file else None)
            stack.enter_context(charged(conductor, costs, partial(nodes_up, cluster.gcs_address)))
            display.charging(costs.told(), conductor.budget.meter.spent)
        if plan.address:
            conductor.use_slots(cluster.slots(spec.resources, spec.search.max_concurrent))
            display.waiting(cluster.room(spec.resources), conductor.slots)
        conductor.connected(cluster.dashboard)
        display.connected(cluster.dashboard, conductor.store.location, later=cluster.late is not None)
        if cluster.late is not None:
            def seen(url: str) -> None:
                conductor.connected(url)
                display.dashboard(url)

            cluster.late.tell(seen, conductor.warn)
            conductor.add_observer(cluster.late)
        _measure(conductor, plan, display)
        conductor.add_observer(Metrics(spec.name, conductor.warn))
        _tune(conductor, cluster, plan, display)


def _measure(conductor: Conductor, plan: Plan, display: Display) -> None:
    """Find out and keep what a sweep's file leaves open: what is computed in, and how many epochs make arms equal."""
    store = conductor.store
    if is_open(conductor.plans):
        display.timing()
        precision, times = fastest(plan, conductor.warn)
        store.keep_found(replace(store.manifest, precision=precision))
        conductor.use_plans(computing_in(conductor.plans, precision))
        display.computing_in(precision, times)
    if plan.spec.fair.by != "epochs" and store.manifest.times_epochs is None:
        display.equalising(plan.spec.fair.by)
        found = measured(replace(plan, arms=conductor.plans), conductor.warn)
        store.keep_found(replace(store.manifest, times_epochs=found.times_epochs, epoch_costs=found.epoch_costs))
        conductor.use_plans(lengthened(conductor.plans, found))
        display.equalised(found.times_epochs)


def _tune(conductor: Conductor, cluster: Cluster, plan: Plan, display: Display) -> None:
    """Run everything the conductor proposes on warm worker groups, cell after cell where a factor is bisected; sweeps
    that are not alone share the cluster."""
    from raymae.search.engine.slots import Slots  # only now: Ray reads its variables once, when it is imported

    mine, alone = Rival.of(plan.spec.resources, conductor.slots), plan.address is None
    planned = conductor.progress()
    # on a cluster a sweep takes what it needs when it needs it: it may not be the only one
    slots = Slots(partial(_start_keeper, conductor, cluster, mine.name),
                  first=min(conductor.slots, planned.num_planned - planned.num_ended) if alone else 0)
    from raymae.search.engine.tune import run_tune

    with ExitStack() as stack:
        stack.enter_context(watched(conductor, slots))
        if not alone:
            capacity = partial(cluster.capacity, plan.spec.resources)
            stack.enter_context(shared(conductor, mine, capacity, slots.allow))
            stack.callback(slots.shut)
        wider: Plan | None = plan
        while wider is not None:
            if not conductor.finished():
                run_tune(conductor, slots, str(cluster.scratch / "tune"))
            wider = open_cell(conductor, wider, display)


def _start_keeper(conductor: Conductor, cluster: Cluster, name: str, life: int) -> Any:
    """Start the actor that keeps the worker groups, where drivers live."""
    import ray

    from raymae.search.engine.keeper import Keeper
    from raymae.search.engine.workers import GroupOptions

    asked = conductor.spec.resources
    options = GroupOptions(asked.workers, asked.cpus_per_worker, asked.gpus_per_worker, str(cluster.scratch / "train"),
                           asked.report_timeout_s, asked.recycle_after, 60 * asked.checkpoint_minutes)
    # of every slot two calls wait at any time, Tune's and a worker's
    return ray.remote(Keeper).options(
        num_cpus=0, resources=dict(cluster.driver), name=f"{name}{LIFE}{life}", namespace=NAMESPACE,
        max_concurrency=100 + 10 * conductor.slots,
    ).remote(options, conductor.slots, ClusterNodes())


def _about(conductor: Conductor) -> dict[str, str]:
    """The sweep, as the dashboard's list of jobs shows it."""
    name = conductor.spec.name  # the list's column Name shows `job_name`
    return {"job_name": name, "sweep": name, "task": conductor.spec.task, "results": conductor.store.location}


def _worker_environment(spec: SweepSpec) -> dict[str, str]:
    threads = str(max(1, int(spec.resources.cpus_per_worker)))
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **passed}


def _log_file(store: Store) -> Path | None:
    """Where this process's log goes: beside the results if they are on this machine."""
    path = Folder(store.location).uri(DRIVER_LOG)
    return None if "://" in path else Path(path)
