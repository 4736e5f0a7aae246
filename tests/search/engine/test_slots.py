"""What Tune takes for actors, and the keeper behind them, without a cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.tune.execution import tune_controller

from raymae.search.engine import keeper as keeper_module
from raymae.search.engine.keeper import Keeper
from raymae.search.engine.places import NodeStates
from raymae.search.engine.slots import Slots, placed
from raymae.search.engine.workers import GroupOptions

from .test_mailbox import job, message

OPTIONS = GroupOptions(workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0, storage="/nowhere", report_timeout_s=0.01)


class Remote:
    """An actor's handle that notes what is called."""

    def __init__(self, *, dead: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.dead = dead

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any) -> tuple[Any, ...]:
            self.calls.append((name, *args))
            return self.calls[-1]

        def options(**named: Any) -> Any:
            self.calls.append(("named", named["name"]))
            return method

        method = SimpleNamespace(remote=remote, options=options)
        return method


def test_a_slot_is_what_tune_calls_an_actor() -> None:
    keeper = Remote()
    slots = Slots(lambda life: keeper, first=1)
    request = slots.request_resources
    assert request(None) is None  # type: ignore[arg-type, func-returns-value]
    assert slots.has_resources_ready(None)  # type: ignore[arg-type]
    handles = [slots.acquire_resources(None).annotate_remote_entities([object])[0] for _ in range(2)]  # type: ignore[arg-type]
    actors = [handle.remote(config={"job": job(trial)}, storage=None)
              for handle, trial in zip(handles, "tu", strict=True)]
    assert [actor.name for actor in actors] == ["slot-0001", "slot-0002"], "the first is one whose group starts already"
    for actor in actors:
        actor.__ray_ready__.remote()
    actors[1].train.remote()
    actors[1].reset.remote({"job": job("v")}, storage=None)
    actors[1].train.remote()
    actors[1].stop.remote()
    told = [call[:2] if call[0] != "start" else (*call[:2], call[2].trial_id) for call in keeper.calls]
    assert told == [
        ("open", "slot-0001"), ("start", "slot-0001", "t"), ("start", "slot-0002", "u"), ("named", "mae: u"),
        ("step", "slot-0002"), ("start", "slot-0002", "v"), ("named", "mae: v"), ("step", "slot-0002"),
        ("close", "slot-0002")]


def test_a_dead_keeper_is_replaced_and_a_living_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    keepers = {1: Remote(dead=True), 2: Remote()}
    slots = Slots(keepers.pop, first=2)
    first = slots.keeper

    def get(call: Any) -> None:
        if slots.keeper.dead:
            raise ray.exceptions.RayActorError

    released: list[Any] = []
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr("raymae.search.engine.slots._release", released.append)
    slots.revive()
    assert slots.keeper is not first
    second = slots.keeper
    slots.revive()
    assert slots.keeper is second
    assert released == [first]
    assert slots.handle().name == "slot-0003", "what the dead one had begun is gone"


def test_tune_has_its_own_resource_manager_back_afterwards() -> None:
    before = tune_controller.PlacementGroupResourceManager
    slots = Slots(lambda life: Remote())

    def use() -> None:
        with placed(slots):
            assert tune_controller.PlacementGroupResourceManager() is slots
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert tune_controller.PlacementGroupResourceManager is before


class Worker:
    """A worker that answers, or does not, or is dead."""

    def __init__(self, state: str) -> None:
        self.state = state

        async def ready() -> None:
            if state == "dead":
                raise ray.exceptions.RayActorError
            await asyncio.sleep(60 if state == "busy" else 0)

        self.__ray_ready__ = SimpleNamespace(remote=ready)


@pytest.mark.parametrize("state", ["slow", "busy"])
def test_workers_that_are_late_are_killed_and_their_trial_fails(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Worker] = []
    monkeypatch.setattr(ray, "kill", lambda worker, no_restart: killed.append(worker))
    monkeypatch.setattr(keeper_module, "ALIVE_TIMEOUT_S", 0.01)

    async def scene() -> dict[str, Any]:
        keeper = Keeper(OPTIONS, 1, NodeStates)
        await keeper.assign("slot", job("t"))
        await keeper.take("slot", await keeper.hello("slot", [Worker(state)]))
        return await asyncio.wait_for(keeper.step("slot", "val_mse"), 5)

    result = asyncio.run(scene())
    assert result["done"]
    assert "no report for 0.01 s (resources.report_timeout_s)" in result["message"].failure
    assert len(killed) == 1


def test_workers_that_are_dead_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "kill", lambda *_, **__: pytest.fail("killed"))

    async def scene() -> dict[str, Any]:
        keeper = Keeper(OPTIONS, 1, NodeStates)
        await keeper.assign("slot", job("t"))
        await keeper.take("slot", await keeper.hello("slot", [Worker("dead")]))
        step = asyncio.create_task(keeper.step("slot", "val_mse"))
        await asyncio.sleep(0.1)
        assert not step.done()
        serial, taken = await keeper.take("slot", await keeper.hello("slot", [Worker("slow")])) or (0, None)
        assert taken is not None
        assert taken.attempt == 1, "Ray Train has brought another"
        delivery = asyncio.create_task(keeper.deliver("slot", serial, message(0, final=True)))
        result = await asyncio.wait_for(step, 5)
        await delivery
        return result

    result = asyncio.run(scene())
    assert (result["done"], result["report"], result["training_iteration"]) == (True, 0, 1)


def test_a_group_that_is_gone_is_an_error_for_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Any] = []
    monkeypatch.setattr(keeper_module, "WorkerGroup", lambda *made: ends.append(made[4]))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(current_actor=None))

    async def scene() -> None:
        keeper = Keeper(OPTIONS, 1, NodeStates)
        await keeper.start("slot", job("t"))
        await keeper.start("slot", job("u"))
        assert len(ends) == 1, "one group a slot"
        step = asyncio.create_task(keeper.step("slot", "val_mse"))
        await asyncio.to_thread(ends[0], "the worker group ended: out of luck")
        with pytest.raises(RuntimeError, match="out of luck"):
            await asyncio.wait_for(step, 5)

    asyncio.run(scene())
