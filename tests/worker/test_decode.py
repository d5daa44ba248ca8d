"""Invalid deliveries are dead-lettered or open an incident, and stop nothing else."""

from contextlib import suppress

import pytest
from aiormq.exceptions import ChannelPreconditionFailed
from sqlalchemy import text

from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, runs
from saga_engine.telemetry.events import MessageDeadLettered
from saga_engine.vocabulary import Status
from tests.kit.engine import forge_token, no_reply, succeed
from tests.worker.steps import check_a_run_completes


async def in_flight(engine):
    """Start a worker and a run whose second command is not answered; return the command."""
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    return worker, participant, client, run_id, command


async def letters(engine):
    async with engine.database.transaction() as tx:
        return [each.message for each in await dead_letter_queries.read_page(tx, limit=100)]


async def test_an_uncorrelated_reply_reaches_no_run(engine_on_any_broker):
    worker, participant, client, run_id, command = await in_flight(engine_on_any_broker)
    await engine_on_any_broker.publish_raw(
        b'{"did":"evil"}', correlation_id=forge_token(command), message_id="evil"
    )
    await worker.events.wait_for_dead_letter("uncorrelated_reply", message_id="evil")
    [letter] = await letters(engine_on_any_broker)
    assert (letter.body, letter.correlation_id) == (b'{"did":"evil"}', forge_token(command))
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await check_a_run_completes(engine_on_any_broker, worker, participant, client)


async def kept(engine, run_id):
    """The reply that is stored with the run's only incident."""
    async with engine.database.transaction() as tx:
        run = (await runs.read(tx, [run_id]))[run_id].run
    [incident] = run.incidents.values()
    assert incident.kept_reply is not None
    return incident.kept_reply.body, incident.kept_reply.outcome, incident.kept_reply.unreadable


async def test_a_reply_with_a_valid_token_that_is_not_json_opens_an_incident(
    engine_on_any_broker,
):
    worker, participant, client, run_id, command = await in_flight(engine_on_any_broker)
    await engine_on_any_broker.publish_raw(b'{"did": \xff', correlation_id=command.correlation_id)
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.cause) == ("send", "reply_unreadable")
    assert await kept(engine_on_any_broker, run_id) == ('{"did": \\xff', "succeeded", True)
    [letter] = await letters(engine_on_any_broker)
    assert (letter.reason, letter.run_id) == ("malformed_json", run_id)
    assert letter.body == b'{"did": \xff'
    await participant.publish(*succeed(command))  # a valid reply resolves it
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await check_a_run_completes(engine_on_any_broker, worker, participant, client)


async def test_a_body_of_20_megabytes_is_refused_and_one_of_15_is_truncated(engine_on_any_broker):
    worker, participant, client, run_id, command = await in_flight(engine_on_any_broker)
    with suppress(ChannelPreconditionFailed):  # RabbitMQ 4 accepts at most 16 MiB
        await engine_on_any_broker.publish_raw(b" " * 20 * 1024 * 1024, correlation_id="?")
    size = 15 * 1024 * 1024
    await engine_on_any_broker.publish_raw(b" " * size, correlation_id=command.correlation_id)
    await worker.events.wait_for_dead_letter("too_large", run_id=run_id)
    await worker.events.wait_for_incident(run_id)
    [letter] = [each for each in await letters(engine_on_any_broker) if each.run_id]
    assert letter.body_size == size
    assert len(letter.body) == Settings().max_dead_letter_body_bytes
    await check_a_run_completes(engine_on_any_broker, worker, participant, client)


async def test_a_reply_of_the_wrong_type_opens_an_incident(engine):
    worker, participant, client, run_id, command = await in_flight(engine)
    await engine.publish_raw(b'{"did": 7}', correlation_id=command.correlation_id)
    assert (await worker.events.wait_for_incident(run_id)).cause == "reply_invalid"
    assert await kept(engine, run_id) == ({"did": 7}, "succeeded", False)
    await check_a_run_completes(engine, worker, participant, client)


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({"saga-outcome": "maybe"}, b"{}", "bad_outcome"),
        pytest.param({"saga-outcome": 7}, b"{}", "bad_outcome", marks=pytest.mark.long),
        ({"saga-outcome": "rejected"}, b'"no"', "bad_failure"),
        pytest.param({"saga-outcome": "failed"}, b"{}", "bad_failure", marks=pytest.mark.long),
        pytest.param({}, b"", "malformed_json", marks=pytest.mark.long),
        pytest.param({}, b"[" * 5000, "malformed_json", marks=pytest.mark.long),
        ({}, b"[" * 500 + b"]" * 500, "too_deep"),
        ({}, b'"\\u0000"', "not_storable"),
        pytest.param({}, b'"\\ud800"', "malformed_json", marks=pytest.mark.long),
        ({}, b"NaN", "malformed_json"),
    ],
)
async def test_a_malformed_reply_with_a_valid_token_opens_an_incident(
    engine, headers, body, reason
):
    worker, participant, client, run_id, command = await in_flight(engine)
    await engine.publish_raw(body, correlation_id=command.correlation_id, headers=headers)
    letter = await worker.events.wait_for(MessageDeadLettered, run_id=run_id)
    assert letter[0].reason in (reason, "too_deep")
    assert (await worker.events.wait_for_incident(run_id)).cause == "reply_unreadable"
    await check_a_run_completes(engine, worker, participant, client)


async def test_a_reply_for_a_run_that_does_not_exist_is_dead_lettered(engine):
    worker, participant, client, run_id, command = await in_flight(engine)
    async with engine.database.transaction() as tx:
        for table in ("journal", "outbox", "run"):
            await tx.execute(
                text(f"DELETE FROM saga_engine.{table} WHERE run_id = CAST(:run_id AS uuid)"),
                {"run_id": run_id},
            )
    await participant.publish(*succeed(command))
    await worker.events.wait_for_dead_letter("unknown_run", run_id=run_id)
    await check_a_run_completes(engine, worker, participant, client)


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("start", b"{"),
        pytest.param("start", b"[]", marks=pytest.mark.long),
        ("start", b'{"run_id": "no", "saga": "parcel", "input": {}}'),
        pytest.param(
            "start",
            b'{"run_id": "0198c0de-0000-7000-8000-000000000001", "saga": "parcel"}',
            marks=pytest.mark.long,
        ),
        pytest.param(
            "start",
            b'{"run_id": "0198c0de-0000-7000-8000-000000000001", "saga": 1, "input": 1}',
            marks=pytest.mark.long,
        ),
        ("cancel", b'{"run_id": "0198c0de-0000-7000-8000-000000000001"}'),
        ("drop.all.tables", b"{}"),
    ],
)
async def test_an_unreadable_request_is_answered_invalid_and_dead_lettered(engine, verb, body):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    request = client.request(verb)
    await engine.publish_raw(
        body,
        exchange="saga.requests",
        routing_key=verb,
        correlation_id=request.correlation_id,
        reply_to=request.reply_to,
    )
    answer = await client.wait_for_answer(request.correlation_id)
    assert (answer.outcome, answer.run_id) == ("invalid", None)
    assert answer.refusal.message
    [event] = await worker.events.wait_for(MessageDeadLettered, queue="saga.requests")
    assert event.problem == answer.refusal.message
    await check_a_run_completes(engine, worker, participant, client)


async def test_a_key_too_long_for_an_index_is_answered_and_dead_lettered(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    key = "".join(chr(0x10000 + 7919 * n % 60_000) for n in range(1000))
    run_id = str(uuid7())
    answer = await client.call("start", run_id=run_id, saga="parcel", input={}, key=key)
    assert (answer.outcome, "max_request_text_bytes" in answer.refusal.message) == ("invalid", True)
    await worker.events.wait_for_dead_letter("bad_request", queue="saga.requests")
    await check_a_run_completes(engine, worker, participant, client)


async def test_a_flood_of_malformed_messages_stops_no_run(
    engine_on_any_broker,
):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    runs = []
    for number in range(10):
        await engine_on_any_broker.publish_raw(
            b"malformed", message_id=f"r-{number}", correlation_id="?"
        )
        await engine_on_any_broker.publish_raw(
            b"malformed", exchange="saga.requests", routing_key="x", reply_to="#"
        )
        runs.append(await client.start())
    for run_id in runs:
        assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await worker.events.wait_for(MessageDeadLettered, 20)
    assert len(await letters(engine_on_any_broker)) == 20
    await check_a_run_completes(engine_on_any_broker, worker, participant, client)
