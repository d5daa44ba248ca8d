"""Keys change while runs are in flight; one that is missing holds up what needs it and no more."""

from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.cli.redrive import Redriver
from saga_engine.client import Client, start_in_transaction
from saga_engine.decider.triggers import ResolveIncident
from saga_engine.errors import Conflict, InvalidInput
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import input_associated_data
from saga_engine.protocol.reply import encode_reply
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, journal
from saga_engine.store.dead_letter_queries import DeadLetterFilter
from saga_engine.telemetry.events import IncidentOpened, MessageHeld, RunFinished, RunStarted
from saga_engine.vocabulary import ConnectionRole, Outcome, Resolution, Status
from tests.encryption.card_saga import (
    SECRET,
    CardParticipant,
    Order,
    all_written_rows,
    contains_secret,
    order_saga,
    record_all_writes,
)
from tests.kit.connections import open_connection
from tests.kit.encryption_keys import encryption_settings, payload_encryption
from tests.kit.engine import engine_harness
from tests.kit.participant_service import running_service
from tests.kit.promises import check_promises
from tests.worker.steps import record_operator_action


@pytest.fixture
async def engine(development_broker, migrated_url):
    async with engine_harness(development_broker.url, migrated_url) as engine:
        yield engine


@pytest.fixture
async def real_engine(rabbitmq_url, migrated_url):
    async with engine_harness(rabbitmq_url, migrated_url) as engine:
        yield engine


class RotatingServices:
    """A worker, a participant and a client, each replaced by one with other keys while it works."""

    def __init__(self, engine, owned):
        self.engine, self._owned = engine, owned
        self.shop = CardParticipant(engine.database_url)
        self._serving = AsyncExitStack()
        self._asking = AsyncExitStack()
        self.worker = None
        self.events = []

    async def restart_worker(self, *key_ids):
        before = self.worker
        self.worker = await self.engine.start_worker(order_saga(), **encrypted_with(*key_ids))
        self.events.append(self.worker.events)
        if before is not None:
            await before.stop()

    async def restart_participant(self, *key_ids):
        before, self._serving = self._serving, AsyncExitStack()
        serving = running_service(self.engine.broker_url, self.shop, **encrypted_with(*key_ids))
        service = await self._serving.enter_async_context(serving)
        self._owned.push_async_callback(self._serving.aclose)
        self._serving.push_async_callback(service.shut_down)
        await before.aclose()

    async def request(self, *key_ids):
        await self._asking.aclose()
        self._asking = AsyncExitStack()
        client = Client(settings=self.own(*key_ids))
        self.client = await self._asking.enter_async_context(client)
        self._owned.push_async_callback(self._asking.aclose)

    async def all(self, *key_ids):
        await self.restart_worker(*key_ids)
        await self.restart_participant(*key_ids)
        await self.request(*key_ids)

    def own(self, *key_ids):
        return Settings(broker_url=self.engine.broker_url, **encrypted_with(*key_ids))

    def of(self, kind):
        return [event for events in self.events for event in events.matching(kind)]


def encrypted_with(*key_ids):
    return encryption_settings(*key_ids) if key_ids else {}


@pytest.fixture
async def services(engine):
    async with AsyncExitStack() as owned:
        yield RotatingServices(engine, owned)


@pytest.fixture
async def real_services(real_engine):
    async with AsyncExitStack() as owned:
        yield RotatingServices(real_engine, owned)


@pytest.mark.long
async def test_row_65_keys_are_rotated_while_runs_are_in_flight(real_services):
    services = real_services
    handles = []

    async def more():
        handles.extend([await services.client.start("order", Order()) for _ in range(5)])

    await services.all()
    await more()
    # First every process can decrypt with the key, then it encrypts.
    for ring in (("none", "k1"), ("k1",), ("k1", "k2"), ("k2", "k1")):
        for change in (services.restart_worker, services.restart_participant, services.request):
            await change(*ring)
            await more()
    endings = [await services.client.result(each.run_id, timeout=60) for each in handles]
    assert {each.status for each in endings} == {Status.COMPLETED}
    assert all(each.result["charge"] == {"number": SECRET} for each in endings)
    await services.all("k2")  # no run needs the old one
    handle = await services.client.start("order", Order())
    assert (await services.client.result(handle.run_id)).status == Status.COMPLETED
    assert not services.of(IncidentOpened)
    assert len(services.shop.commands) == 2 * (len(handles) + 1)
    await check_promises(services.engine.database)


async def test_row_65_a_reply_whose_key_is_missing_is_kept_until_the_key_is_back(services):
    await services.restart_worker("k1")
    await services.restart_participant("k2", "k1")
    await services.request("k1")
    handle = await services.client.start("order", Order())
    incident = await services.worker.events.wait_for_incident(str(handle.run_id))
    assert (incident.step, incident.cause) == ("charge", "decryption_failed")
    asked = len(services.shop.commands)
    await services.restart_worker("k1", "k2")
    await record_operator_action(
        services.engine,
        str(handle.run_id),
        ResolveIncident(
            incident_number=1, resolution=Resolution.RETRY, operator="ada", reason="back"
        ),
    )
    await services.request("k1", "k2")
    ending = await services.client.result(handle.run_id, timeout=30)
    assert ending.result == {"reserve": {"number": SECRET}, "charge": {"number": SECRET}}
    assert len(services.shop.commands) == asked + 1  # only the charge: nothing is done twice
    await check_promises(services.engine.database)


async def test_row_65_a_participant_without_the_key_makes_an_incident_and_does_nothing(services):
    await services.restart_worker("k2")
    await services.restart_participant("k1")
    await services.request("k2")
    handle = await services.client.start("order", Order())
    incident = await services.worker.events.wait_for_incident(str(handle.run_id))
    assert (incident.step, incident.cause) == ("reserve", "decryption_failed")
    assert services.shop.commands == []
    await services.restart_participant("k1", "k2")
    await services.restart_worker("k2", "k1")
    await record_operator_action(
        services.engine,
        str(handle.run_id),
        ResolveIncident(
            incident_number=1, resolution=Resolution.RETRY, operator="ada", reason="back"
        ),
    )
    assert (await services.client.result(handle.run_id, timeout=30)).status == Status.COMPLETED
    await check_promises(services.engine.database)


async def test_row_65_a_start_whose_key_is_missing_is_dead_lettered_and_redriven(services):
    await services.restart_worker("k1")
    await services.restart_participant("k1")
    await services.request("k2", "k1")
    with pytest.raises(InvalidInput, match="key 'k2' is not in the key ring"):
        await services.client.start("order", Order(), key="o-1")
    await services.worker.events.wait_for_dead_letter("input_undecryptable")
    await services.restart_worker("k1", "k2")
    engine = services.engine
    async with engine.database.transaction() as tx:
        [letter] = await dead_letter_queries.read_page(
            tx, DeadLetterFilter(reason="input_undecryptable"), limit=10
        )
    assert SECRET.encode() not in letter.message.body
    async with open_connection(engine.broker_url, ConnectionRole.PUBLISH) as link:
        again = Redriver(
            engine.database, SinglePublisher(link), operator="ada", reason="the key is back"
        )
        assert await again.send([letter.id]) == {}
    [event] = await services.worker.events.wait_for(RunFinished)
    assert event.status == Status.COMPLETED


@pytest.mark.parametrize("before", [(), ("k1",)])
async def test_a_start_repeated_after_a_rotation_is_the_same_run(services, before):
    await services.all(*before)
    first = await services.client.start("order", Order(), key="o-1")
    await services.client.result(first.run_id, timeout=30)
    await services.all("k2", "k1")
    again = await services.client.start("order", Order(), key="o-1")
    assert (again.run_id, again.existing) == (first.run_id, True)
    async with services.engine.database.transaction() as tx:
        own = services.own("k2", "k1")
        recorded = await start_in_transaction(
            tx.connection, "order", Order(), key="o-1", settings=own
        )
        assert (recorded.run_id, recorded.existing) == (first.run_id, True)
        with pytest.raises(Conflict, match="with another input"):
            await start_in_transaction(
                tx.connection, "order", Order(scenario="declined"), key="o-1", settings=own
            )
    with pytest.raises(Conflict, match="with another input"):
        await services.client.start("order", Order(scenario="declined"), key="o-1")
    assert len(services.of(RunStarted)) == 1


async def test_a_run_id_repeated_after_a_rotation_is_the_same_run(services):
    await services.all("k1")
    asker, run_id = await services.engine.connect_client(), str(uuid7())
    body = {"run_id": run_id, "saga": "order"}
    place = input_associated_data("order", run_id)

    async def ask(given, *key_ids):
        given = payload_encryption(*key_ids).encrypt(given, place) if key_ids else given
        return (await asker.call("start", **body, input=given)).outcome

    assert await ask({"card": SECRET}, "k1") == "accepted"
    await services.restart_worker("k2", "k1")
    assert await ask({"card": SECRET}, "k1") == "existing"
    assert await ask({"card": SECRET}, "k2") == "existing"
    assert await ask({"card": SECRET}) == "existing"
    assert await ask({"card": "another"}, "k2") == "conflict"


async def test_without_the_key_a_repeated_input_is_not_compared(services):
    await services.all("k1")
    first = await services.client.start("order", Order(), key="o-1")
    await services.client.result(first.run_id, timeout=30)
    await services.restart_worker("k2")
    await services.request("k2")
    with pytest.raises(InvalidInput, match=f"run {first.run_id}, whose input cannot be decrypted"):
        await services.client.start("order", Order(), key="o-1")
    await services.worker.events.wait_for_dead_letter("input_undecryptable")
    async with services.engine.database.transaction() as tx:
        with pytest.raises(Conflict, match="key 'k1' is not in the key ring"):
            await start_in_transaction(
                tx.connection, "order", Order(), key="o-1", settings=services.own("k2")
            )
    unread = await services.client.status(first.run_id)
    assert unread.status == Status.COMPLETED
    assert unread.result["charge"].keys() == {"$encrypted"}


async def test_a_plain_payload_is_encrypted_before_it_is_stored(services):
    await record_all_writes(services.engine.database)
    await services.restart_worker("k1")
    shop = await services.engine.start_participant(["stock.reserve", "card.charge"])
    shop.reply_makers["stock.reserve"] = shop.reply_makers["card.charge"] = answered
    asker = await services.engine.connect_client()
    run_id = await asker.start("order", input={"card": SECRET})
    assert await services.worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert [each.command.payload.keys() for each in shop.received] == [{"$encrypted"}] * 2
    for table, rows in (await all_written_rows(services.engine.database)).items():
        assert not contains_secret(rows), table


async def test_a_plain_recorded_start_is_encrypted_when_it_is_accepted(services):
    await services.all("k1")
    async with services.engine.database.transaction() as tx:
        handle = await start_in_transaction(
            tx.connection, "order", Order(), key="o-1", settings=services.own()
        )
    ending = await services.client.result(handle.run_id, timeout=30)
    assert ending.status == Status.COMPLETED
    async with services.engine.database.transaction() as tx:
        recorded = [entry.data for entry in await journal.read(tx, str(handle.run_id))]
        again = await start_in_transaction(
            tx.connection, "order", Order(), key="o-1", settings=services.own("k1")
        )
        columns = await tx.execute(text("SELECT r::text FROM saga_engine.run AS r"))
        assert not contains_secret([*map(repr, recorded), *columns.scalars()])
    assert again.existing


def answered(command):
    return [encode_reply(command, Outcome.SUCCEEDED, {"number": SECRET})]


async def test_a_message_held_for_another_worker_is_encrypted(services):
    await services.restart_worker("k1")
    await services.worker.stop()  # the saga is known now, and no worker has it
    await record_all_writes(services.engine.database)
    other = await services.engine.start_worker(**encrypted_with("k1"))
    asker = await services.engine.connect_client()
    run_id = str(uuid7())
    start = {"run_id": run_id, "saga": "order", "input": {"card": SECRET}}
    await asker.send(("start", start))
    await other.events.wait_for(MessageHeld, run_id=run_id)
    written = await all_written_rows(services.engine.database)
    assert written["saga_engine.pending_request"]
    assert not contains_secret(written["saga_engine.pending_request"])
