"""The mailbox between drivers and workers, without Ray: its methods are coroutines."""

from __future__ import annotations

import asyncio

import pytest

from raymae.search.engine.mailbox import GO_ON, LEAVE, MAX_ATTEMPTS, MAX_FRUITLESS, STOP, Mailbox
from raymae.search.engine.places import NodeStates
from raymae.search.messages import HANDED_BACK, NOT_STARTED, Job, Message
from raymae.spec.sweep import DataSpec
from raymae.spec.trial import ReportData, TrialConfig, TrialData


def job(trial_id: str) -> Job:
    config = TrialConfig("forecasting", "mae", {}, TrialData(DataSpec(name="ETTh1"), "real"), seed=0)
    return Job(trial_id, 0, config, "val_mse", "/nowhere")


def test_a_worker_that_died_while_it_waited_takes_no_job():
    async def scene():
        mailbox = Mailbox()
        first = await mailbox.hello("slot", [])
        waiting = asyncio.create_task(mailbox.take("slot", first))
        await asyncio.sleep(0)
        second = await mailbox.hello("slot", [])  # the first was killed, its call goes on in the mailbox
        taking = asyncio.create_task(mailbox.take("slot", second))
        await mailbox.assign("slot", job("t"))
        assert await asyncio.wait_for(waiting, 5) is None
        serial, taken = await asyncio.wait_for(taking, 5)
        assert (serial, taken.trial_id) == (1, "t")

    asyncio.run(scene())


def test_a_job_goes_to_the_next_incarnation_as_its_next_attempt_and_not_for_ever():
    async def scene():
        mailbox = Mailbox()
        await mailbox.assign("slot", job("t"))
        for attempt in range(MAX_ATTEMPTS):
            life = await mailbox.hello("slot", [])
            _, taken = await mailbox.take("slot", life)
            assert taken.attempt == attempt
        await mailbox.hello("slot", [])
        message = await asyncio.wait_for(mailbox.collect("slot"), 5)
        assert message.final
        assert f"died {MAX_ATTEMPTS} times" in message.failure
        assert message.attempt == MAX_ATTEMPTS - 1

    asyncio.run(scene())


def test_a_group_that_never_delivers_is_given_up():
    async def scene():
        mailbox = Mailbox()
        lives = [await mailbox.hello("slot", []) for _ in range(MAX_FRUITLESS + 1)]
        assert lives == [*range(1, MAX_FRUITLESS + 1), 0]

    asyncio.run(scene())


def test_a_job_is_taken_back_only_where_there_is_one():
    async def scene():
        mailbox = Mailbox()
        await mailbox.assign("slot", job("t"))
        await mailbox.take("slot", await mailbox.hello("slot", []))
        assert (await mailbox.abandon("slot")).trial_id == "t"
        await mailbox.assign("slot", job("u"))
        await mailbox.stop_waiting()  # its end waits to be collected
        assert await mailbox.abandon("slot") is None
        assert (await asyncio.wait_for(mailbox.collect("slot"), 5)).failure == NOT_STARTED

    asyncio.run(scene())


def test_jobs_that_wait_for_workers_end_with_the_sweep():
    async def scene():
        mailbox = Mailbox()
        await mailbox.assign("waits", job("t"))
        await mailbox.assign("runs", job("u"))
        serial, _ = await mailbox.take("runs", await mailbox.hello("runs", []))
        await mailbox.stop_waiting()
        ended = await asyncio.wait_for(mailbox.collect("waits"), 5)
        assert (ended.trial_id, ended.final, ended.failure) == ("t", True, NOT_STARTED)
        delivery = asyncio.create_task(mailbox.deliver("runs", serial, message(0, final=True)))
        assert (await asyncio.wait_for(mailbox.collect("runs"), 5)).report.step == 0
        await asyncio.wait_for(delivery, 5)

    asyncio.run(scene())


def message(step: int, *, final: bool = False) -> Message:
    return Message("t", 0, ReportData("finetune", step + 1, step, {}, {}, 1.0, 1, final))


def test_a_group_whose_machine_is_taken_away_hands_its_job_back_after_a_report():
    async def scene():
        states = NodeStates(frozenset({"here", "there"}))
        mailbox = Mailbox(lambda: states)
        await mailbox.assign("slot", job("t"))
        life = await mailbox.hello("slot", [], nodes=frozenset({"here"}))
        serial, _ = await mailbox.take("slot", life)
        for step in range(2):
            delivering = asyncio.create_task(mailbox.deliver("slot", serial, message(step)))
            assert (await mailbox.collect("slot")).report.step == step
            assert await delivering == (LEAVE if step else GO_ON)
            states = NodeStates(frozenset({"here", "there"}), going=frozenset({"here"}))
        assert await mailbox.deliver("slot", serial, message(2)) == STOP, "what comes after is not listened to"
        life = await mailbox.hello("slot", [], nodes=frozenset({"there"}))
        serial, taken = await mailbox.take("slot", life)
        assert (taken.attempt, taken.next_step) == (1, 2)
        delivering = asyncio.create_task(mailbox.deliver("slot", serial, message(2)))
        await mailbox.collect("slot")
        assert await delivering == GO_ON, "the new machine stays"

    asyncio.run(scene())


def test_dying_with_its_machine_is_not_the_trial_s_fault():
    async def scene():
        alive = frozenset({"head"})
        mailbox = Mailbox(lambda: NodeStates(alive))
        await mailbox.assign("slot", job("t"))
        for attempt in range(3 * (MAX_ATTEMPTS + MAX_FRUITLESS)):
            life = await mailbox.hello("slot", [], nodes=frozenset({f"spot-{attempt}"}))
            assert life == attempt + 1
            _, taken = await mailbox.take("slot", life)
            assert taken.attempt == attempt
        alive = frozenset({"head", "stays"})
        await mailbox.hello("slot", [], nodes=frozenset({"stays"}))
        for _ in range(MAX_ATTEMPTS):
            life = await mailbox.hello("slot", [], nodes=frozenset({"stays"}))
            await mailbox.take("slot", life)
        await mailbox.hello("slot", [])
        last = await asyncio.wait_for(mailbox.collect("slot"), 5)
        assert "died" in last.failure, "on a machine that is still there it is"

    asyncio.run(scene())


def test_a_place_that_another_sweep_wants_is_given_back_after_a_report_and_taken_again_later():
    async def scene():
        mailbox = Mailbox()
        serials = {}
        for name in ("one", "two"):
            await mailbox.assign(name, job(name))
            serials[name], _ = await mailbox.take(name, await mailbox.hello(name, []))

        async def reports(name: str, step: int) -> str:
            delivering = asyncio.create_task(mailbox.deliver(name, serials[name], message(step)))
            await mailbox.collect(name)
            return await delivering

        await mailbox.allow(1)
        assert await reports("two", 0) == LEAVE, "the first to report"
        assert await reports("one", 0) == GO_ON
        assert (mailbox.may_start("one"), mailbox.may_start("two")) == (True, False)
        assert (await mailbox.states())["two"] == "waiting until a sweep of higher priority leaves it room"
        await mailbox.allow(0)
        assert await reports("one", 1) == LEAVE
        await mailbox.allow(1)
        assert [mailbox.may_start(name) for name in ("one", "two")].count(True) == 1
        await mailbox.allow(None)
        assert mailbox.may_start("one")
        assert mailbox.may_start("two")
        _, taken = await mailbox.take("two", await mailbox.hello("two", []))
        assert (taken.attempt, taken.next_step) == (1, 1)

    asyncio.run(scene())


def test_a_group_that_is_held_back_starts_where_another_ends():
    async def scene():
        mailbox = Mailbox()
        for name in ("one", "idle", "other"):
            await mailbox.hello(name, [])
        await mailbox.assign("one", job("t"))
        serial, _ = await mailbox.take("one", 1)
        await mailbox.allow(2)
        delivering = asyncio.create_task(mailbox.deliver("one", serial, message(0)))
        await mailbox.collect("one")
        assert await delivering == LEAVE
        assert not mailbox.may_start("one")
        await mailbox.close("idle")
        assert mailbox.may_start("one"), "the place that is free is its own"

    asyncio.run(scene())


def test_a_group_that_is_held_back_and_closed_never_starts():
    async def scene():
        mailbox = Mailbox()
        await mailbox.assign("slot", job("t"))
        serial, _ = await mailbox.take("slot", await mailbox.hello("slot", []))
        await mailbox.allow(0)
        delivering = asyncio.create_task(mailbox.deliver("slot", serial, message(0)))
        await mailbox.collect("slot")
        assert await delivering == LEAVE
        await mailbox.stop_waiting()  # the sweep's budget is spent
        assert (await mailbox.collect("slot")).failure == NOT_STARTED
        await mailbox.close("slot")
        for allowed in (0, None):  # not even where there is room for all
            await mailbox.allow(allowed)
            with pytest.raises(RuntimeError, match="not needed any more"):
                mailbox.may_start("slot")

    asyncio.run(scene())


def test_a_job_is_handed_back_from_inside_an_epoch_where_its_machine_goes():
    async def scene():
        states = NodeStates(frozenset({"here", "there"}))
        mailbox = Mailbox(lambda: states)
        await mailbox.assign("slot", job("t"))
        serial, _ = await mailbox.take("slot", await mailbox.hello("slot", [], nodes=frozenset({"here"})))
        assert await mailbox.ask("slot", serial) == GO_ON
        states = NodeStates(frozenset({"here", "there"}), going=frozenset({"here"}))
        assert await mailbox.ask("slot", serial) == LEAVE
        assert await mailbox.ask("slot", serial) == LEAVE, "asking changes nothing"
        assert await mailbox.hand_back("slot", serial) == LEAVE
        assert await mailbox.ask("slot", serial) == await mailbox.hand_back("slot", serial) == STOP, "it is over here"
        life = await mailbox.hello("slot", [], nodes=frozenset({"there"}))
        serial, taken = await mailbox.take("slot", life)
        assert (taken.attempt, taken.next_step) == (1, 0)
        assert await mailbox.ask("slot", serial) == GO_ON

    asyncio.run(scene())


def test_jobs_are_handed_back_from_inside_an_epoch_for_another_run_of_the_sweep():
    async def scene():
        mailbox = Mailbox()
        await mailbox.assign("slot", job("t"))
        serial, _ = await mailbox.take("slot", await mailbox.hello("slot", []))
        await mailbox.recall()
        await mailbox.recall()
        assert await mailbox.ask("slot", serial) == LEAVE
        assert await mailbox.hand_back("slot", serial) == STOP, "the workers need not go"
        ended = await asyncio.wait_for(mailbox.collect("slot"), 5)
        assert (ended.trial_id, ended.final, ended.failure) == ("t", True, HANDED_BACK)

    asyncio.run(scene())


def test_a_job_that_nobody_waits_for_is_left_inside_its_epoch():
    async def scene():
        mailbox = Mailbox()
        await mailbox.assign("slot", job("t"))
        serial, _ = await mailbox.take("slot", await mailbox.hello("slot", []))
        assert await mailbox.ask("slot", serial) == GO_ON
        await mailbox.abandon("slot")
        assert await mailbox.ask("slot", serial) == STOP
        await mailbox.assign("slot", job("u"))
        serial, _ = await mailbox.take("slot", 1)
        await mailbox.close("slot")
        assert await mailbox.ask("slot", serial) == STOP

    asyncio.run(scene())


def test_a_place_that_another_sweep_wants_is_given_back_from_inside_an_epoch_and_no_more_than_it_wants():
    async def scene():
        mailbox = Mailbox()
        serials = {}
        for name in ("one", "two"):
            await mailbox.assign(name, job(name))
            serials[name], _ = await mailbox.take(name, await mailbox.hello(name, []))
        await mailbox.allow(1)
        assert [await mailbox.ask(name, serials[name]) for name in ("one", "two")] == [LEAVE, LEAVE]
        assert await mailbox.hand_back("two", serials["two"]) == LEAVE, "the first whose state is saved"
        assert await mailbox.hand_back("one", serials["one"]) == GO_ON
        assert await mailbox.ask("one", serials["one"]) == GO_ON
        assert (mailbox.may_start("one"), mailbox.may_start("two")) == (True, False)

    asyncio.run(scene())


def test_a_trial_that_is_often_handed_back_inside_one_epoch_is_not_given_up():
    async def scene():
        mailbox = Mailbox()
        await mailbox.assign("slot", job("t"))
        for attempt in range(3 * MAX_FRUITLESS):
            await mailbox.allow(None)
            life = await mailbox.hello("slot", [])
            assert life == attempt + 1
            serial, taken = await mailbox.take("slot", life)
            assert taken.attempt == attempt
            await mailbox.allow(0)
            assert await mailbox.hand_back("slot", serial) == LEAVE

    asyncio.run(scene())
