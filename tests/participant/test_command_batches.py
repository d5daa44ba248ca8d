"""Commands that arrive together form a batch; a batch holds no other commands back for long."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant.command_batches import CommandBatches
from saga_engine.settings import Settings
from saga_engine.telemetry.events import MessageDeadLettered
from saga_engine.vocabulary import Outcome
from tests.kit.batches import batch_runner, received
from tests.kit.connections import raw_channel
from tests.kit.misbehaving_participant import HandlerChoice, MisbehavingParticipant
from tests.kit.participant_service import engine_stub, running_service
from tests.kit.payments_participant import PaymentsParticipant, booking_rows, make_command


class CountingParticipant(MisbehavingParticipant):
    """
    A participant that counts its commands by the transaction that executed them.

    A command with the card `slow` sets `entered` and waits for `may_finish`; `local` changes a
    setting.
    """

    def __init__(self, database_url):
        self.commands_by_transaction: Counter[str] = Counter()
        self.entered = asyncio.Event()
        self.may_finish = asyncio.Event()

        async def handle(asked: HandlerChoice, tx: AsyncConnection) -> str:
            transaction = await tx.scalar(text("SELECT pg_current_xact_id()::text"))
            self.commands_by_transaction[transaction] += 1
            if asked.card == "local":
                await tx.execute(text("SET LOCAL lock_timeout = '9s'"))
            if asked.card == "slow":
                self.entered.set()
                await self.may_finish.wait()
            return asked.order_id

        super().__init__(handle, database_url)

    @property
    def sizes(self):
        """How many commands each transaction executed, in the order of the transactions."""
        return [*self.commands_by_transaction.values()]


NO_WAIT_ENDS = {"participant_batch_wait": 60.0}


@pytest.fixture
def batches(database_url):
    """Open the batches of a CountingParticipant, with a number of slots."""

    @asynccontextmanager
    async def open_batches(slots=1, **changes):
        participant = CountingParticipant(database_url)
        async with (
            batch_runner(participant, database_url, **changes) as runner,
            asyncio.TaskGroup() as group,
        ):
            semaphore = asyncio.Semaphore(slots)
            settings = Settings(**changes)
            opened = CommandBatches(runner.executor.batch_executor, semaphore, settings)
            opened.start(group, lambda _: semaphore.release())

            def send(card="", *, can_start=lambda: True):
                command = make_command(payload={"order_id": "o-1", "card": card})
                return group.create_task(opened.execute(received(command), can_start))

            yield participant, send

    return open_batches


async def replies(tasks):
    results = [await each for each in tasks]
    return [each.outcome if each else None for each in results]


async def test_commands_that_arrive_together_share_a_transaction(batches):
    async with batches() as (participant, send):
        assert await replies([send() for _ in range(10)]) == [Outcome.SUCCEEDED] * 10
        assert participant.sizes == [10]


async def test_a_batch_has_a_limited_number_of_commands(batches):
    async with batches(participant_batch_size=4) as (participant, send):
        assert await replies([send() for _ in range(10)]) == [Outcome.SUCCEEDED] * 10
        assert participant.sizes == [4, 4, 2]


async def test_commands_that_arrive_during_a_batch_form_the_next_one(batches):
    async with batches(slots=5, **NO_WAIT_ENDS) as (participant, send):
        slow = send("slow")
        await participant.entered.wait()
        others = [send() for _ in range(5)]
        participant.may_finish.set()
        assert await replies([slow, *others]) == [Outcome.SUCCEEDED] * 6
        assert participant.sizes == [1, 5]


@pytest.mark.parametrize("reason", ["they fill a batch", "they have waited long enough"])
async def test_a_slow_batch_does_not_hold_other_commands_back(batches, reason):
    full = reason == "they fill a batch"
    changes = NO_WAIT_ENDS | {"participant_batch_size": 3} if full else {}
    async with batches(slots=2, **changes) as (participant, send):
        slow = send("slow")
        await participant.entered.wait()
        assert await replies([send() for _ in range(3)]) == [Outcome.SUCCEEDED] * 3
        assert not slow.done()
        participant.may_finish.set()
        assert await replies([slow]) == [Outcome.SUCCEEDED]


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_slow_batch_does_not_hold_back_what_arrived_with_it(batches, size):
    async with batches(slots=5, participant_batch_size=size) as (participant, send):
        slow, *others = [send("slow"), *(send() for _ in range(4))]
        await participant.entered.wait()
        # All but those in the batch of the slow one.
        assert await replies(others[size - 1 :]) == [Outcome.SUCCEEDED] * (5 - size)
        assert not slow.done()
        participant.may_finish.set()
        assert await replies([slow, *others]) == [Outcome.SUCCEEDED] * 5


async def test_full_batches_that_arrive_together_are_executed_at_once(batches):
    async with batches(slots=5, participant_batch_size=2, **NO_WAIT_ENDS) as (participant, send):
        slow, *others = [send("slow"), *(send() for _ in range(5))]
        assert await replies(others[1:]) == [Outcome.SUCCEEDED] * 4
        assert not slow.done()
        participant.may_finish.set()
        assert await replies([slow, others[0]]) == [Outcome.SUCCEEDED] * 2


async def test_a_command_that_must_not_start_any_more_is_not_executed(batches):
    async with batches() as (participant, send):
        assert await replies([send(can_start=lambda: False), send()]) == [None, Outcome.SUCCEEDED]
        assert participant.sizes == [1]


async def test_commands_behind_one_that_ends_its_batch_join_the_next_one(batches):
    async with batches() as (participant, send):
        tasks = [send("local"), send(), send("local"), send(), send()]
        assert await replies(tasks) == [Outcome.SUCCEEDED] * 5
        # The second one calls its two handlers twice: without savepoints, then with them.
        assert participant.sizes == [1, 2, 2, 1, 2]


async def test_no_batch_starts_when_the_process_is_killed(batches):
    problems: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    entered = asyncio.Event()

    async def run():
        async with batches(**NO_WAIT_ENDS) as (participant, send):
            send("slow")
            await participant.entered.wait()
            for _ in range(3):
                send()
            entered.set()
            await participant.may_finish.wait()

    running = asyncio.ensure_future(run())
    await entered.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert problems == []


async def test_a_service_with_batches_answers_each_command_with_its_own_reply(
    broker_url, database_url, user_engine
):
    commands = [make_command(payload={"order_id": f"o-{number}"}) for number in range(100)]
    payments = PaymentsParticipant(database_url, batch=True)
    async with (
        engine_stub(broker_url) as engine,
        raw_channel(broker_url) as channel,
        running_service(broker_url, payments) as running,
    ):
        for asked in commands:
            await engine.send(asked)
            if asked is commands[50]:
                await channel.basic_publish(
                    b"{", exchange="saga.commands", routing_key="payment.charge"
                )
        answered = await engine.take_replies(len(commands))
        ids = {each.command_ref.run_id: each.body["charge_id"] for each in answered}
        for asked in commands:
            assert ids[asked.run_id].startswith(asked.payload["order_id"] + "-")
        assert len(running.events.matching(MessageDeadLettered)) == 1
        for asked in commands[:10]:
            await engine.send(asked)
        for each in await engine.take_replies(10):
            assert each.body["charge_id"] == ids[each.command_ref.run_id]
        await running.shut_down()
    assert len(await booking_rows(user_engine)) == len(commands)


async def test_a_killed_service_repeats_no_effect_of_a_batch(broker_url, database_url, user_engine):
    payments = PaymentsParticipant(database_url, batch=True)
    slow = {"order_id": "o-1", "card": "slow"}
    async with engine_stub(broker_url) as engine:
        async with running_service(broker_url, payments) as running:
            for card in ("ok", "ok", "slow"):
                await engine.send(make_command(payload=slow | {"card": card}))
            await payments.entered.wait()
            await running.kill()
        payments.may_finish.set()
        async with running_service(broker_url, payments):
            outcomes = {each.outcome for each in await engine.take_replies(3)}
    assert outcomes == {Outcome.SUCCEEDED}
    assert len(await booking_rows(user_engine)) == 3
