"""The messages for clients arrive as they were sent, only where a client bound its queue."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from saga_engine.protocol.answer import (
    MAX_PROBED_RUNS,
    Answer,
    AnswerAddress,
    AnswerOutcome,
    answer_address,
    decode_client_message,
    encode_answer,
    encode_listener_probes,
    encode_run_finished,
    run_finished_binding,
)
from saga_engine.protocol.open_incident import OpenIncident
from saga_engine.protocol.run_result import RunResult
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Direction, Failure, Status
from tests.kit.messages import deliver, make_delivery

SETTINGS = Settings()
RUN = UUID("0198c0de-0000-7000-8000-000000000001")


@pytest.mark.parametrize("reply_to", ["", "#", "a b", "x" * 201, "saga.client.1\n", "ü", "*"])
def test_invalid_reply_to_gets_no_answer(reply_to):
    assert answer_address(make_delivery(reply_to=reply_to, correlation_id="q")) is None


def test_forged_reply_to_does_not_reach_a_participant():
    hostile = make_delivery(reply_to="saga.participant.payment", correlation_id="q")
    named = answer_address(hostile)
    assert named is not None
    message = encode_answer(named, Answer(outcome=AnswerOutcome.ACCEPTED))
    assert message.exchange == "saga.events"
    assert message.routing_key == "answer.saga.participant.payment"


def test_answer_arrives_as_it_was_sent():
    answer = Answer(
        outcome=AnswerOutcome.EXISTING,
        run_id=RUN,
        run=RunResult(
            run_id=RUN,
            status=Status.COMPENSATED,
            error=Failure("declined", "no", [1]),
            saga="place-order",
            version=1,
            key="o-1",
        ),
    )
    message = encode_answer(AnswerAddress("saga.client.1", "q-1"), answer)
    assert message.correlation_id == "q-1"
    assert not message.mandatory
    assert decode_client_message(deliver(message), SETTINGS) == answer


def test_answer_has_the_open_incident_of_its_run():
    since = datetime(2026, 11, 28, 3, tzinfo=UTC)
    incident = OpenIncident(
        number=1, step="charge", direction=Direction.ACTION, cause="step_unknown", since=since
    )
    answer = Answer(
        outcome=AnswerOutcome.EXISTING,
        run_id=RUN,
        run=RunResult(
            run_id=RUN,
            status=Status.RUNNING,
            saga="place-order",
            version=1,
            key="o-1",
            open_incidents=2,
            incident=incident,
        ),
    )
    message = encode_answer(AnswerAddress("saga.client.1", "q-1"), answer)
    assert decode_client_message(deliver(message), SETTINGS) == answer


def test_answer_without_a_run_says_why_the_request_was_refused():
    answer = Answer(
        outcome=AnswerOutcome.CONFLICT, run_id=RUN, refusal=Failure("conflict", "Another input.")
    )
    message = encode_answer(AnswerAddress("saga.client.1", "q-1"), answer)
    assert json.loads(message.body)["error"]["code"] == "conflict"
    assert decode_client_message(deliver(message), SETTINGS) == answer


def test_finished_run_has_the_routing_key_that_its_client_bound():
    finished = RunResult(
        run_id=RUN,
        saga="place-order",
        version=1,
        key="o-1",
        status=Status.COMPLETED,
        result={"ok": True},
    )
    message = encode_run_finished(finished)
    assert message.routing_key == f"finished.{RUN}.place-order"
    assert run_finished_binding("q", RUN).binding_key == f"finished.{RUN}.#"
    assert decode_client_message(deliver(message), SETTINGS) == finished


def test_a_probe_has_the_routing_key_of_each_run_and_says_nothing_of_it():
    runs = [
        RunResult(run_id=UUID(int=number), saga="s", version=1, key="k", status=Status.COMPLETED)
        for number in range(MAX_PROBED_RUNS + 1)
    ]
    first, second = encode_listener_probes(runs)
    keys = (first.routing_key, *first.other_routing_keys, second.routing_key)
    assert keys == tuple(encode_run_finished(each).routing_key for each in runs)
    assert (first.body, first.headers) == (b"{}", {})
    assert isinstance(decode_client_message(deliver(first), SETTINGS), UnreadableMessage)


@pytest.mark.parametrize("kind", ["answer", "finished", ""])
@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"outcome": "x"}', b'{"outcome": 1}', b'{"run_id": 1, "version": 1}', b"[]",
     b'{"outcome": "accepted", "error": {}}',
     b'{"outcome": "accepted", "incident": {}}', b'{"outcome": "accepted", "incident": 1}',
     b'{"outcome": "existing", "status": "running", "saga": "s"}',
     b'{"outcome": "accepted", "open_incidents": "1"}', b'{"outcome": "accepted", "status": {}}'],
)  # fmt: skip
def test_malformed_client_message_is_unreadable(kind, body):
    assert isinstance(
        decode_client_message(make_delivery(type=kind, body=body), SETTINGS), UnreadableMessage
    )
