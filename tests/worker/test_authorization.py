"""Sender authorization: which RabbitMQ users may reply to a command or request a run."""

import json

import pytest
from sqlalchemy import text

from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.store import dead_letter_queries, journal
from saga_engine.store.journal import StoredEvent
from saga_engine.telemetry.events import (
    IncidentOpened,
    MessageDeadLettered,
    MessageHeld,
)
from saga_engine.vocabulary import Status
from saga_engine.worker.authorization import refusal_for
from tests.kit.engine import no_reply, reject, succeed
from tests.kit.parcels import failing_parcels
from tests.kit.programs import wait_until_true

OURS = {"parcel.*": ["guest"]}


THEIRS = {"parcel.send": ["warehouse"], "parcel.*": ["guest"]}


async def letters(engine):
    async with engine.database.transaction() as tx:
        return [each.message for each in await dead_letter_queries.read_page(tx, limit=100)]


async def waiting_for_send(engine):
    """Start a run whose second command is not answered; return its id and the command."""
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    return participant, client, run_id, command


async def test_runs_complete_and_compensate_with_replies_from_authorized_users(
    engine_on_any_broker,
):
    worker = await engine_on_any_broker.start_worker(authorized_reply_users={**OURS, "*": []})
    participant, client = (
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED
    participant.reply_makers["parcel.notify"] = reject
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPENSATED
    assert not worker.events.matching(MessageDeadLettered)


async def test_a_reply_without_a_user_is_rejected_where_a_rule_applies(engine_on_any_broker):
    worker = await engine_on_any_broker.start_worker(authorized_reply_users=OURS)
    participant, _, run_id, command = await waiting_for_send(engine_on_any_broker)
    await engine_on_any_broker.publish_raw(
        b'{"did":"evil"}', correlation_id=command.correlation_id, message_id="evil"
    )
    dead_letter = await worker.events.wait_for_dead_letter(
        "unauthorized_sender", message_id="evil", run_id=run_id
    )
    assert dead_letter.problem == (
        "parcel.send may be answered by guest only, and this came without a user_id."
    )
    [letter] = await letters(engine_on_any_broker)
    assert (letter.body, letter.run_id) == (b'{"did":"evil"}', run_id)
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED


async def test_a_reply_from_an_unauthorized_user_is_rejected(engine_on_any_broker):
    worker = await engine_on_any_broker.start_worker(authorized_reply_users=THEIRS)
    participant, _, run_id, command = await waiting_for_send(engine_on_any_broker)
    await participant.publish(*succeed(command))
    dead_letter = await worker.events.wait_for_dead_letter("unauthorized_sender", run_id=run_id)
    assert dead_letter.problem == (
        "parcel.send may be answered by warehouse only, and this came from user guest."
    )
    [letter] = await letters(engine_on_any_broker)
    assert letter.properties["user_id"] == "guest"


async def test_the_app_id_of_a_message_does_not_authorize_it(engine_on_any_broker):
    worker = await engine_on_any_broker.start_worker(authorized_reply_users=OURS)
    participant, _, run_id, command = await waiting_for_send(engine_on_any_broker)
    await engine_on_any_broker.publish_raw(
        b'{"did":"evil"}',
        correlation_id=command.correlation_id,
        message_id="evil",
        app_id="saga-engine",
        headers={"user_id": "guest", "CC": ["saga.requests"]},
    )
    await worker.events.wait_for_dead_letter(
        "unauthorized_sender", message_id="evil", run_id=run_id
    )
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED


async def test_a_malformed_reply_from_an_unauthorized_user_opens_no_incident(engine):
    worker = await engine.start_worker(authorized_reply_users=OURS)
    participant, _, run_id, command = await waiting_for_send(engine)
    await engine.publish_raw(b"{", correlation_id=command.correlation_id)
    await worker.events.wait_for_dead_letter("malformed_json", run_id=run_id)
    await worker.events.wait_for_ignored("unauthorized_sender", run_id=run_id)
    assert not worker.events.matching(IncidentOpened)
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED


async def test_without_a_rule_senders_are_not_checked(engine):
    worker = await engine.start_worker(authorized_reply_users={"payment.*": ["bank"]})
    _, _, run_id, command = await waiting_for_send(engine)
    await engine.publish_raw(b'{"did":"sent"}', correlation_id=command.correlation_id)
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED


async def test_a_reply_to_a_compensation_is_checked_by_its_own_command(engine):
    worker = await engine.start_worker(
        authorized_reply_users={"parcel.unpack": ["warehouse"], "*": ["guest"]}
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = reject
    run_id = await client.start()
    dead_letter = await worker.events.wait_for_dead_letter("unauthorized_sender", run_id=run_id)
    assert dead_letter.problem.startswith("parcel.unpack may be answered by warehouse only")


async def test_a_reply_that_awaited_its_definition_is_still_checked(engine):
    knowing = await engine.start_worker()
    participant, _, run_id, command = await waiting_for_send(engine)
    await knowing.stop()
    ignorant = await engine.start_worker(failing_parcels(print))
    await participant.publish(*succeed(command))
    await ignorant.events.wait_for(MessageHeld, run_id=run_id)
    strict = await engine.start_worker(authorized_reply_users=THEIRS)
    dead_letter = await strict.events.wait_for_dead_letter("unauthorized_sender", run_id=run_id)
    assert dead_letter.problem.endswith("this came from user guest.")
    [letter] = await letters(engine)
    assert json.loads(letter.body) == {"did": "parcel.send"}
    assert letter.headers == {"saga-outcome": "succeeded"}


@pytest.mark.parametrize(
    ("rules", "verb", "fields"),
    [
        ({"start *": ["desk"]}, "start", {"saga": "parcel", "input": {}}),
        ({"cancel parcel": ["desk"]}, "cancel", {"reason": "a whim", "operator": "a clerk"}),
    ],
)
async def test_a_request_from_an_unauthorized_user_is_refused_and_dead_lettered(
    engine_on_any_broker, rules, verb, fields
):
    worker = await engine_on_any_broker.start_worker(authorized_request_users=rules)
    participant, client = (
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = str(uuid7()) if verb == "start" else await client.start()
    answer = await client.call(verb, run_id=run_id, **fields)
    assert (answer.outcome, answer.refusal.code) == (AnswerOutcome.INVALID, "unauthorized_sender")
    dead_letter = await worker.events.wait_for_dead_letter("unauthorized_sender", run_id=run_id)
    assert (
        dead_letter.problem
        == f"{verb} parcel may be sent by desk only, and this came from user guest."
    )


@pytest.mark.parametrize(
    ("name", "user", "refused"),
    [
        ("payment.charge", "bank", False),
        ("payment.refund", "bank", True),
        ("payment.refund", "clerk", False),
        ("payment.refund.partial", "clerk", False),
        ("Payment.refund", "clerk", True),
        ("stock.take", "", True),
        ("stock.take", "another", True),
    ],
)
def test_the_first_matching_pattern_decides(name, user, refused):
    rules = {"payment.charge": ["bank"], "payment.*": ["clerk"], "*": []}
    assert bool(refusal_for(rules, name, user, permission="be answered")) is refused


def test_a_name_that_matches_no_pattern_is_not_checked():
    assert refusal_for({"payment.*": []}, "stock.take", "", permission="be answered") == ""


@pytest.mark.parametrize("special", ["stock.?", "stock.[a-z]", "stock.[!y]"])
def test_only_the_star_of_a_pattern_is_special(special):
    assert refusal_for({special: []}, "stock.x", "", permission="be answered") == ""
    assert refusal_for({special: []}, special, "", permission="be answered")
    assert refusal_for({f"{special}*": []}, f"{special}.\nagain", "", permission="be answered")


async def test_an_unauthorized_cancel_is_not_stored_with_a_queued_start(engine):
    worker = await engine.start_worker(
        max_concurrent_runs=1, authorized_request_users={"cancel parcel": ["desk"]}
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.start()
    await participant.wait_for_commands("parcel.pack")
    waits = await client.start()
    answer = await client.call("cancel", run_id=waits, reason="a whim", operator="a clerk")
    assert (answer.outcome, answer.refusal.code) == (AnswerOutcome.INVALID, "unauthorized_sender")
    await worker.events.wait_for_dead_letter("unauthorized_sender", run_id=waits)
    async with engine.database.transaction() as tx:
        kinds = list(
            (await tx.execute(text("SELECT kind FROM saga_engine.pending_request"))).scalars()
        )
    assert kinds == ["start"]


async def test_an_unauthorized_cancel_is_not_stored_for_another_worker(engine):
    knowing = await engine.start_worker()
    _, client, run_id, _ = await waiting_for_send(engine)
    await knowing.stop()
    await engine.start_worker(
        failing_parcels(print), authorized_request_users={"cancel parcel": ["desk"]}
    )
    answer = await client.call("cancel", run_id=run_id, reason="a whim", operator="a clerk")
    assert (answer.outcome, answer.refusal.code) == (AnswerOutcome.INVALID, "unauthorized_sender")


async def test_the_journal_records_the_verified_sender_of_a_cancel(
    engine_on_any_broker,
):
    worker = await engine_on_any_broker.start_worker()
    participant, client = (
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    await engine_on_any_broker.publish_raw(
        json.dumps({"run_id": run_id, "reason": "a whim", "operator": "the-chief"}).encode(),
        exchange="saga.requests",
        routing_key="cancel",
        user_id="guest",
    )

    async def stopping() -> list[StoredEvent]:
        async with engine_on_any_broker.database.transaction() as tx:
            entries = await journal.read(tx, run_id)
        return [each for each in entries if each.type == "run_stopping"]

    await wait_until_true(stopping)  # else the run may be complete when the cancel is processed
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    [event] = await stopping()
    assert event.metadata["sender"] == "guest"
