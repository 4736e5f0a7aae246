"""Warm Ray Train worker groups: started once, handed one configuration after another.

Starting a trainer costs seconds of process starts and imports. A `WorkerGroup` starts one and keeps it: its
workers run `serve`, which takes jobs from the mailbox, iterates `run_trial`, and delivers a message per report.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import ray

from raymae.errors import CheckpointError, EncoderError, RayMAEError, one_line
from raymae.inference.encoders import EncoderShelf
from raymae.results.store.shelf import PATIENCE_S
from raymae.search.checkpoints import TrialFiles
from raymae.search.engine.mailbox import LEAVE, STOP
from raymae.search.engine.watch import Reclaimed, Unwanted, Watch
from raymae.search.messages import Job, Message, Worker
from raymae.spec.trial import ReportData

if TYPE_CHECKING:
    import torch

    from raymae.train.trial import Report

KEPT_EVERY_S = 1.0  # of training that a later attempt at a trial may have to repeat


@dataclass(frozen=True)
class GroupOptions:
    """What every worker group of a sweep is made of.

    Attributes:
        workers: Ranks per group.
        cpus_per_worker: CPUs reserved per rank; also its torch threads.
        gpus_per_worker: GPUs, or the share of one, reserved per rank.
        storage: Local folder for Ray Train's own bookkeeping.
        report_timeout_s: A trial whose next report takes longer is failed and its workers are replaced; None waits.
        recycle_after: The workers are replaced after so many trials; 0 is never.
        checkpoint_s: Seconds after which the state of a trial is written inside an epoch; 0 is never.
    """

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    storage: str
    report_timeout_s: float | None = None
    recycle_after: int = 0
    checkpoint_s: float = 0.0


class Recycled(Exception):  # noqa: N818
    """Not an error: a group's workers have trained as many trials as they should, and are replaced."""


class WorkerGroup:
    """One long-lived Ray Train worker group, driven through the mailbox. Its thread waits until it ends.

    Args:
        slot: Its name at the mailbox, and in Ray's dashboard.
        options: What it is made of.
        trainer: A class of Ray Train's trainers.
        mailbox: Handle of the mailbox.
        ended: Told why the group is gone, in the group's thread.
        may_start: Whether its workers may be started, or started again, now.
    """

    def __init__(
        self, slot: str, options: GroupOptions, trainer: Any, mailbox: Any, ended: Callable[[str], None],
        may_start: Callable[[], bool],
    ) -> None:
        self._slot, self._trainer_class, self._mailbox, self._ended = slot, trainer, mailbox, ended
        self._may_start = may_start
        self._thread = threading.Thread(target=self._fit, args=(options,), daemon=True, name=f"group-{slot}")
        self._thread.start()

    def _fit(self, options: GroupOptions) -> None:
        try:
            self._trainer(options).fit()
        except Exception as error:  # whatever ends the group must reach the trial that waits for it
            self._ended(f"the worker group ended: {one_line(error, -1)}")
        else:
            self._ended("the worker group died again and again before its first report; see logs/driver.log")

    def _trainer(self, options: GroupOptions) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        resources = {"CPU": options.cpus_per_worker}
        if options.gpus_per_worker:
            resources["GPU"] = options.gpus_per_worker
        trainer = self._trainer_class(
            serve,
            train_loop_config={"slot": self._slot, "mailbox": self._mailbox, "recycle_after": options.recycle_after,
                               "checkpoint_s": options.checkpoint_s, "threads": max(1, int(options.cpus_per_worker))},
            scaling_config=ScalingConfig(
                num_workers=options.workers, use_gpu=options.gpus_per_worker > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=self._slot, storage_path=options.storage,
                # how often is the mailbox's decision: it knows which deaths were in vain
                failure_config=FailureConfig(max_failures=-1, controller_failure_limit=3),
            ),
        )
        trainer.may_start = self._may_start
        return trainer

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)


def serve(config: dict[str, Any]) -> None:
    """The loop of every rank of a group: take a job, run it, report, until there are no more."""
    import torch
    import torch.distributed as dist
    from ray import train

    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    slot, mailbox = config["slot"], config["mailbox"]
    torch.set_num_threads(config["threads"])

    def agree(value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    here = ray.get_runtime_context()
    ranks = [(here.current_actor, here.get_node_id())]
    if world > 1:
        gathered: list[Any] = [None] * world
        dist.all_gather_object(gathered, ranks[0])
        ranks = gathered
    handles, nodes = [handle for handle, _ in ranks], frozenset(node for _, node in ranks)
    life = agree(ray.get(mailbox.hello.remote(slot, handles, nodes)) if rank == 0 else None)
    if not life:
        return
    done = 0
    while True:
        taken = agree(ray.get(mailbox.take.remote(slot, life)) if rank == 0 else None)
        if taken is None:
            return
        serial, job = taken
        print(f"{job.trial_id} (arm {job.config.arm}, attempt {job.attempt}) begins", flush=True)  # in the actor's log
        files = TrialFiles(job.root, job.trial_id, every_s=KEPT_EVERY_S)
        watch = _watch(config, files, serial, (rank, world), agree)
        with closing(run_job(job, rank, files, watch)) as messages:  # what it has begun to write is on storage then
            for message in messages:
                reply = agree(ray.get(mailbox.deliver.remote(slot, serial, message)) if rank == 0 else None)
                if reply == LEAVE:
                    files.catch_up()
                    raise Reclaimed("its place is taken away; the trial goes on elsewhere, or later, from the report "
                                    "just made")
                if reply == STOP:
                    break
        done += 1
        if done == config["recycle_after"]:
            raise Recycled(f"replaced after {done} trials")


def _watch(
    config: dict[str, Any], files: TrialFiles, serial: int, ranks: tuple[int, int], agree: Callable[[Any], Any]
) -> Watch | None:
    """What looks after a trial inside its epochs, where the sweep file has it so."""
    slot, mailbox = config["slot"], config["mailbox"]
    if not config["checkpoint_s"]:
        return None

    def leave() -> Any:
        files.settle()
        return ray.get(mailbox.hand_back.remote(slot, serial))

    return Watch(ranks, agree, ask=lambda: ray.get(mailbox.ask.remote(slot, serial)), keep=files.keep_state,
                 leave=leave, checkpoint_s=config["checkpoint_s"])


def run_job(
    job: Job, rank: int = 0, files: TrialFiles | None = None, watch: Watch | None = None
) -> Generator[Message, None, None]:
    """Run one trial, as messages: one per report, the last one `final`; a failure is one, too.

    A checkpoint is written, or has been begun, before a report is handed over, where `files` find it worth the while. A
    later attempt continues from the latest there is and repeats the reports that nobody has recorded; a damaged or
    missing one only costs the work before it.

    Args:
        job: The trial.
        rank: This process's.
        files: Keep what it leaves; closed at the end.
        watch: Looks after it inside its epochs.

    Raises:
        Reclaimed: See `Watch`.
        Exception: Anything unexpected, after its message, so that Ray Train replaces the group.
    """
    from raymae.search.environment import versions
    from raymae.train.device import describe_device, give_back, isolated, pick_device

    device = pick_device()
    files = files or TrialFiles(job.root, job.trial_id)
    worker = Worker(os.uname().nodename, os.getpid(), describe_device(device))
    try:
        with isolated():
            for report in _reports(job, device, files, watch):
                if report.step < job.next_step:
                    continue  # trained again for want of a checkpoint; recorded already
                warning = None
                if rank == 0:  # the scores first: once the checkpoint is there, they are not computed again
                    if report.final and job.config.stage == "pretrain" and job.encoder is not None:
                        EncoderShelf(job.encoder.shelf).keep(
                            job.encoder, job.config, report, versions("raymae", "torch"))
                    found = (files.keep_scores(report, job.config), _keep_model(job, report),
                             files.keep(report, job.milestones))
                    warning = "; ".join(filter(None, found)) or None
                if watch is not None:
                    watch.kept()
                yield Message(job.trial_id, job.attempt, _sent(report), worker=worker, warning=warning)
    except Reclaimed:
        raise
    except Unwanted:
        return
    except EncoderError as error:
        yield Message.failed(job, str(error), worker, lost_encoder=True)
    except RayMAEError as error:
        yield Message.failed(job, str(error), worker)
    except Exception as error:  # whatever a task raises: the trial fails by it, and its group is replaced
        yield Message.failed(job, f"{type(error).__name__}: {error}", worker)
        raise
    finally:
        files.close()
        give_back(device)


def _keep_model(job: Job, report: Report) -> str | None:
    """Keep the network that a replicate was scored with, before anybody hears of its score.

    Returns:
        Why it could not be kept, or None: that costs the replicate its model and not its score.
    """
    if job.model is None or report.phase != "test":
        return None
    from raymae.inference.shelf import ModelShelf
    from raymae.search.environment import versions

    shelf, limit_s = ModelShelf.of_sweep(job.root), (job.model.timeout_s or math.inf) / 2
    encoder_id = None if job.encoder is None else job.encoder.encoder_id
    waits_s = [wait_s for wait_s, in_all in zip(PATIENCE_S, accumulate(PATIENCE_S), strict=True) if in_all <= limit_s]
    try:
        shelf.keep(job.trial_id, job.config, report, fingerprint=job.model.fingerprint, encoder_id=encoder_id,
                   versions=versions("raymae", "torch"), waits_s=waits_s)
    except Exception as error:  # the storage's, or of a task that says what no file can hold
        return f"its model could not be kept: {type(error).__name__}: {one_line(error)}"
    return None


def _sent(report: Report) -> ReportData:
    return ReportData(**{field.name: getattr(report, field.name) for field in fields(ReportData)})


def _reports(job: Job, device: torch.device, files: TrialFiles, watch: Watch | None) -> Iterator[Report]:
    """The trial from the best place there is: its own checkpoint, its parent's, or the start.

    A parent's state at the epoch where its child changed parameters is what the child's own training from the start
    would have led to, so a lost checkpoint costs work and changes no result.
    """
    from raymae.train.trial import run_trial

    config, parent, run = job.config, job.parent, partial(run_trial, job.config, device=device, watch=watch)
    if job.attempt:
        with files.latest() as checkpoint:
            if checkpoint is not None:
                try:
                    yield from run(resume=checkpoint, replay_from=job.next_step)
                except CheckpointError:
                    files.remove()
                else:
                    return
    if parent:
        with TrialFiles(job.root, parent.trial_id).milestone(parent.epoch) as checkpoint:
            if checkpoint is not None:
                try:
                    yield from run(resume=checkpoint, written_by=parent.config_id)
                except CheckpointError:
                    pass
                else:
                    return
    encoder, given = None, None
    if job.encoder is not None:
        shelf = EncoderShelf(job.encoder.shelf)
        if config.stage != "pretrain":
            encoder = shelf.load(job.encoder.encoder_id)
        elif config.weights:
            given = shelf.given(config.weights)
    yield from run(encoder=encoder, given=given)
