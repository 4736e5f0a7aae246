"""The mailbox between drivers and workers, without Ray: its methods are coroutines."""

from __future__ import annotations

import asyncio

from raymae.search.hub import MAX_ATTEMPTS, MAX_FRUITLESS, Hub


def job(trial_id: str) -> dict:
    return {"trial_id": trial_id, "attempt": 0, "next_step": 0}


def test_a_worker_that_died_while_it_waited_takes_no_job():
    async def scene():
        hub = Hub()
        first = await hub.hello("slot", [])
        waiting = asyncio.create_task(hub.take("slot", first))
        await asyncio.sleep(0)
        second = await hub.hello("slot", [])  # the first was killed, its call goes on in the hub
        taking = asyncio.create_task(hub.take("slot", second))
        await hub.assign("slot", job("t"))
        assert await asyncio.wait_for(waiting, 5) is None
        serial, taken = await asyncio.wait_for(taking, 5)
        assert (serial, taken["trial_id"]) == (1, "t")

    asyncio.run(scene())


def test_a_job_goes_to_the_next_incarnation_as_its_next_attempt_and_not_for_ever():
    async def scene():
        hub = Hub()
        await hub.assign("slot", job("t"))
        for attempt in range(MAX_ATTEMPTS):
            life = await hub.hello("slot", [])
            _, taken = await hub.take("slot", life)
            assert taken["attempt"] == attempt
        await hub.hello("slot", [])
        message = await asyncio.wait_for(hub.collect("slot"), 5)
        assert message["final"]
        assert f"died {MAX_ATTEMPTS} times" in message["error"]

    asyncio.run(scene())


def test_a_group_that_never_delivers_is_given_up():
    async def scene():
        hub = Hub()
        lives = [await hub.hello("slot", []) for _ in range(MAX_FRUITLESS + 1)]
        assert lives == [*range(1, MAX_FRUITLESS + 1), 0]

    asyncio.run(scene())


def test_a_dead_driver_s_slot_is_closed_and_names_what_it_holds():
    async def scene():
        hub = Hub()
        await hub.assign("a", job("t"))
        await hub.assign("b", job("u"))
        life = await hub.hello("a", [], reserved="its bundle")
        assert await hub.bury("t") == ["its bundle"]
        assert await hub.take("a", life) is None
        assert await hub.bury("t") == []
        assert (await hub.states())["b"].startswith("waiting")

    asyncio.run(scene())
