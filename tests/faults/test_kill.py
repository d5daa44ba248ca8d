"""Worker and participants are killed again and again: every promise holds for every run."""

import asyncio
from collections import Counter, defaultdict
from functools import partial
from uuid import uuid4

import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic
from sqlalchemy import text

from saga_engine.broker.publisher import Publisher
from saga_engine.broker.request import StartRequest, encode_request
from saga_engine.broker.topology import CLIENT, DEAD_LETTERS, REPLIES, REQUESTS, participant_queue
from saga_engine.identifiers import uuid7
from saga_engine.saga.vocabulary import Status
from saga_engine.settings import Settings
from saga_engine.store import dead_letters, incidents, outbox
from saga_engine.store.database import Database
from tests.broker.links import link_to, raw_channel
from tests.faults.processes import eventually, program
from tests.worker.promises import check_promises

RUNS = 500
LIFE = 2.0  # Seconds from when the worker listens to its SIGKILL.
PORTION, PORTIONS = 6, 4  # Runs started at once, and how often in a life.
LAST = 36  # Runs started right before a kill; it comes when this many are in flight:
ENOUGH = 8
CARDS = ("ok", "ok", "ok", "declined", "flaky")
UNDONE_BY = {"reserve": "release", "charge": "refund", "confirm": "cancel"}
QUEUES = (
    *(REPLIES, REQUESTS, DEAD_LETTERS),
    *map(participant_queue, ("inventory", "payments", "orders")),
)


class Storm:
    """Starts runs and kills programs until all runs have ended."""

    def __init__(self, database, broker_url, publisher):
        self.cards = {}
        self.rubbish = set()
        self.in_flight_at_kills = []
        self._database, self._broker_url, self._publisher = database, broker_url, publisher

    async def rage(self, worker, participant):
        """Kill the worker at the end of each life, the participant at the end of every third."""
        while await self._unfinished() or len(self.cards) < RUNS:
            await eventually(partial(listens, self._broker_url))
            for _ in range(PORTIONS):
                await self._start(PORTION)
                await worker.survives(LIFE / PORTIONS)
            await self._throw_rubbish()
            await self._start(LAST)
            await eventually(self._is_busy)
            if in_flight := await self._in_flight():
                self.in_flight_at_kills.append(in_flight)
            await worker.kill()
            if worker.kills % 3 == 0:
                await participant.kill()

    async def calm(self):
        """
        Wait until the broker and the outbox have nothing left for anyone, and both programs work.

        A row that a killed worker had claimed is claimed again only when it has aged once more.
        """
        async with raw_channel(self._broker_url) as channel:

            async def is_calm():
                declared = [await channel.queue_declare(each, passive=True) for each in QUEUES]
                async with self._database.transaction() as tx:
                    left = (await outbox.backlog(tx)).pending
                quiet = all(not each.message_count and each.consumer_count for each in declared)
                return quiet and not left

            await eventually(is_calm)

    async def _start(self, number):
        requests = {}
        for _ in range(min(number, RUNS - len(self.cards))):
            order_id = f"o-{len(self.cards)}"
            card = self.cards[order_id] = CARDS[len(self.cards) % len(CARDS)]
            order = {"order_id": order_id, "sku": "A1", "quantity": 1, "amount": "9.90"}
            request = StartRequest(uuid7(), "place-order", {**order, "card": card}, key=order_id)
            requests[order_id] = encode_request(request)
        if requests:
            outcomes = await self._publisher.publish(list(requests.values()))
            assert set(outcomes) == {"confirmed"}, Counter(outcomes)

    async def _throw_rubbish(self):
        """P7: beside the runs, messages that nobody can handle."""
        async with raw_channel(self._broker_url) as channel:
            for exchange, key in ((REPLIES, REPLIES), (REQUESTS, "start")):
                self.rubbish.add(message_id := uuid4().hex)
                properties = Basic.Properties(
                    message_id=message_id, correlation_id="?", delivery_mode=2
                )
                await channel.basic_publish(
                    b'{"rubb', exchange=exchange, routing_key=key, properties=properties
                )

    async def _unfinished(self):
        """Runs that were asked for and have not ended; they may wait in the queue for requests."""
        return len(self.cards) - await self._count("finished_at IS NOT NULL")

    async def _is_busy(self):
        return not await self._unfinished() or await self._in_flight() >= ENOUGH

    async def _in_flight(self):
        """Runs that have begun and not ended."""
        return await self._count("finished_at IS NULL")

    async def _count(self, condition):
        async with self._database.transaction() as tx:
            found = await tx.execute(
                text(f"SELECT count(*) FROM saga_engine.run WHERE {condition}")
            )
            return found.scalar_one()


@pytest.mark.rabbitmq
@pytest.mark.timeout(240)
async def test_500_runs_survive_a_worker_that_is_killed_every_2_seconds(
    rabbitmq_url, migrated_url, tmp_path, record_property
):
    environment = {
        "SAGA_ENGINE_DATABASE_URL": migrated_url,
        "SAGA_ENGINE_BROKER_URL": rabbitmq_url,
        "PLACE_ORDER_DATABASE_URL": migrated_url,
        "SAGA_ENGINE_LOG_LEVEL": "warning",
        "SAGA_ENGINE_BROKER_CONFIRM_TIMEOUT": "2",
        "SAGA_ENGINE_OUTBOX_AGE": "3",
    }
    serving = ("participant", "examples.place_order.services", "--port", "0")
    working = ("worker", "examples.place_order.sagas", "--port", "0")
    began = asyncio.get_running_loop().time()
    async with (
        Database(migrated_url, Settings()) as database,
        program(*serving, environment=environment, log=tmp_path / "services") as participant,
        program(*working, environment=environment, log=tmp_path / "worker") as worker,
        link_to(rabbitmq_url, "publish", topology=CLIENT) as link,
    ):
        storm = Storm(database, rabbitmq_url, Publisher(link))
        await eventually(partial(listens, rabbitmq_url))
        await storm.rage(worker, participant)
        await storm.calm()
        assert await worker.drain() == 0
        assert await participant.drain() == 0
        runs = await check_promises(database)  # P1, P2, P3 and P5
        await _check_the_ledger(database, runs, storm.cards)  # P4
        await _check_what_left(database, runs, storm.cards)  # P6
        await _check_the_rubbish(database, storm.rubbish)  # P7
    took = asyncio.get_running_loop().time() - began
    told = (
        f"{len(runs)} runs, {worker.kills} kills of the worker, {participant.kills} of the"
        f" participant, in flight at the kills {storm.in_flight_at_kills}, {took:.0f} s"
    )
    record_property("storm", told)
    print(told)  # noqa: T201 - the figures, with pytest -s
    assert len(runs) == RUNS
    assert worker.kills >= 5
    assert participant.kills >= 1
    assert len(storm.in_flight_at_kills) >= 5
    assert max(storm.in_flight_at_kills) >= ENOUGH


async def _check_the_ledger(database, runs, cards):
    """P4, by what the services wrote down themselves."""
    effects = defaultdict(Counter)
    async with database.transaction() as tx:
        rows = await tx.execute(text("SELECT order_id, effect FROM place_order_ledger"))
        for order_id, effect in rows:
            effects[order_id][effect] += 1
    statuses = Counter()
    for detail in runs.values():
        run = detail.stored.run
        done, card = effects.pop(run.input["order_id"], Counter()), cards[run.input["order_id"]]
        statuses[card, run.status] += 1
        assert set(done.values()) <= {1}, f"P4: doubled: {run.run_id} {done}"
        if run.status is Status.COMPLETED:
            assert set(done) == set(UNDONE_BY), f"P4: {run.run_id} {done}"
        else:
            assert run.status is Status.COMPENSATED, run
            for effect, undone_by in UNDONE_BY.items():
                assert done[effect] == done[undone_by], f"P4: {run.run_id} {done}"
        if card == "declined":
            assert set(done) == {"reserve", "release"}, f"P4: {run.run_id} {done}"
    assert not effects, f"P4: effects of no run: {effects}"
    assert statuses["ok", Status.COMPLETED] > RUNS / 2, statuses


async def _check_what_left(database, runs, cards):
    """P6: every start that was confirmed to us is a run, and nothing is left to be sent."""
    assert {detail.stored.run.input["order_id"] for detail in runs.values()} == set(cards)
    async with database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 0
        rows = await tx.execute(text("SELECT DISTINCT order_id, effect FROM place_order_ledger"))
        acted = {(order_id, effect) for order_id, effect in rows}
    ordered = set()
    names = {"action": {each: each for each in UNDONE_BY}, "compensation": UNDONE_BY}
    for detail in runs.values():
        for event in detail.journal:
            if event.type == "attempt_started":
                effect = names[event.data["direction"]][event.data["step"]]
                ordered.add((detail.stored.run.input["order_id"], effect))
    assert acted <= ordered, f"P6: nobody decided {acted - ordered}"


async def _check_the_rubbish(database, rubbish):
    """P7: set aside to the last piece, and nothing else was."""
    async with database.transaction() as tx:
        letters = await dead_letters.listing(tx, limit=10_000)
        assert {each.letter.message_id for each in letters} == rubbish
        assert not await incidents.listing(tx, limit=10)


async def listens(broker_url):
    """Whether a worker has declared its queues."""
    try:
        async with raw_channel(broker_url) as channel:
            return (await channel.queue_declare(REQUESTS, passive=True)).consumer_count
    except ChannelNotFoundEntity:
        return False
