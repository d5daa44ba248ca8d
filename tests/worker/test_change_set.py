"""The fates of a work item."""

from dataclasses import replace
from datetime import UTC, datetime

from saga_engine.decider.triggers import Start
from saga_engine.identifiers import uuid7
from saga_engine.protocol.answer import AnswerAddress, AnswerOutcome
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.telemetry.events import (
    MessageHeld,
)
from saga_engine.vocabulary import Failure, Status
from saga_engine.worker.change_set import ChangeSet
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import failing_parcels, parcels
from tests.kit.promises import check_promises
from tests.kit.work_items import stored_request

ANSWER_TO = AnswerAddress("client", "request-1")


async def test_a_reply_for_a_definition_that_is_not_loaded_waits_for_a_worker_with_it(engine):
    first = await engine.start_worker(parcels(version=1))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start(version=1)
    [command] = await participant.wait_for_commands("parcel.pack")
    await first.stop()
    second = await engine.start_worker(parcels(version=2))
    await participant.publish(*succeed(command))
    await second.events.wait_for(MessageHeld, run_id=run_id)
    third = await engine.start_worker(parcels(version=1), parcels(version=2))
    assert await third.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)


async def test_a_start_of_a_saga_that_is_not_loaded_waits_for_a_worker_with_it(engine):
    first = await engine.start_worker(failing_parcels(lambda _: None))
    await first.stop()
    second, client = await engine.start_worker(), await engine.connect_client()
    await engine.start_participant()
    run_id = str(uuid7())
    await client.send(("start", {"run_id": run_id, "saga": "fragile", "input": {}}))
    await second.events.wait_for(MessageHeld, run_id=run_id)
    third = await engine.start_worker(failing_parcels(lambda _: None))
    assert await third.events.wait_for_end(run_id) == Status.COMPLETED


def empty_change_set():
    return ChangeSet(datetime(2026, 11, 15, tzinfo=UTC), {})


def test_a_refused_request_answers_the_client_with_the_reason():
    changes = empty_change_set()
    request = replace(stored_request(), answer_to=ANSWER_TO, audit_id="a-1")
    changes.refuse(request, AnswerOutcome.REFUSED, "It is too late.")
    [sent] = changes.after_commit.answers
    assert (sent.address, sent.run_id) == (ANSWER_TO, request.run_id)
    assert sent.answer.outcome is AnswerOutcome.REFUSED
    assert sent.answer.refusal == Failure("refused", "It is too late.")
    [operator_answer] = changes.operator_answers
    assert (operator_answer.audit_id, operator_answer.accepted) == ("a-1", False)


def test_a_rejected_sender_is_answered_and_its_message_dead_lettered():
    changes = empty_change_set()
    request = replace(stored_request(), answer_to=ANSWER_TO)
    changes.reject_sender(request, "It came from user guest.")
    [dead_letter] = changes.after_commit.dead_letters
    assert dead_letter.reason is DeadLetterReason.UNAUTHORIZED_SENDER
    [sent] = changes.after_commit.answers
    assert sent.answer.refusal == Failure("unauthorized_sender", "It came from user guest.")


def test_an_accepted_start_is_dead_lettered_beyond_the_quota_unless_it_is_unreadable():
    changes = empty_change_set()
    start = stored_request(Start(str(uuid7()), None, {}), role="shop")
    for reason in (DeadLetterReason.INTERNAL_ERROR, DeadLetterReason.BAD_REQUEST):
        changes.dead_letter(start, reason, "It cannot be processed.")
    changes.dead_letter(stored_request(role="shop"), DeadLetterReason.INTERNAL_ERROR, "The same.")
    exempt = [each.quota_exempt for each in changes.after_commit.dead_letters]
    assert exempt == [True, False, False]


def test_every_start_that_is_stored_for_later_counts_as_queued():
    changes = empty_change_set()
    starts = [stored_request(Start(str(uuid7()), f"k-{n}", {})) for n in range(3)]
    changes.defer(starts[0])
    changes.await_definition(starts[1])
    changes.await_admission(starts[2])
    changes.defer(stored_request())
    queued = changes.queued_starts()
    assert queued.keys() == {each.run_id for each in starts}
    assert [queued[each.run_id].key for each in starts] == ["k-0", "k-1", "k-2"]
