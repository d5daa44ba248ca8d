from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.protocol.command import (
    IDEMPOTENCY_KEY_HEADER,
    SAGA_HEADER,
    STEP_HEADER,
    TRACEPARENT_HEADER,
    ReceivedCommand,
    decode_command,
    encode_command,
)
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command, Direction
from tests.kit.messages import deliver

SETTINGS = Settings()
RUN = UUID("0198c0de-0000-7000-8000-000000000001")
COMMAND = Command(
    run_id=str(RUN),
    saga="place-order",
    version=1,
    step="reserve",
    direction=Direction.ACTION,
    attempt=2,
    name="inventory.reserve",
    idempotency_key=f"{RUN}/reserve/action/1",
    payload={"sku": "A1", "quantity": 1},
    deadline=datetime(2026, 11, 23, 12, 0, 30, 500_000, tzinfo=UTC),
)
HEADERS = {
    "saga-run-id": str(RUN),
    "saga-name": "place-order",
    "saga-version": 1,
    "saga-step": "reserve",
    "saga-attempt": 2,
    "saga-direction": "action",
    "saga-deadline": "2026-11-23T12:00:30.500Z",
    "idempotency-key": f"{RUN}/reserve/action/1",
}


def test_encoded_command_follows_the_contract():
    message = encode_command(COMMAND, "the-token", traceparent="00-a-b-01")
    assert message.exchange == "saga.commands"
    assert message.routing_key == message.type == "inventory.reserve"
    assert message.body == b'{"sku":"A1","quantity":1}'
    assert message.correlation_id == "the-token"
    assert message.reply_to == "saga.replies"
    assert message.mandatory
    assert message.headers == {**HEADERS, "traceparent": "00-a-b-01"}


def test_command_arrives_as_it_was_sent():
    message = encode_command(COMMAND, "the-token")
    assert decode_command(deliver(message), SETTINGS) == ReceivedCommand(
        command=COMMAND,
        correlation_id="the-token",
        reply_to="saga.replies",
        message_id=message.message_id,
        traceparent="",
    )


def test_deadline_is_sent_in_utc():
    east = timezone(timedelta(hours=2))
    command = Command(
        run_id=str(RUN),
        saga="s",
        version=1,
        step="a",
        direction=Direction.COMPENSATION,
        attempt=1,
        name="c",
        idempotency_key="k",
        payload={"raw": 1},
        deadline=datetime(2026, 11, 23, 14, tzinfo=east),
    )
    message = encode_command(command, "t")
    assert message.body == b'{"raw":1}'
    assert message.headers["saga-deadline"] == "2026-11-23T12:00:00.000Z"


@pytest.mark.parametrize(
    "moment",
    ["2028-02-29T23:59:59.999Z", "2038-01-19T03:14:08.000Z", "9999-12-31T23:59:59.999Z"],
)
def test_any_deadline_arrives_as_it_was_sent(moment):
    command = replace(COMMAND, deadline=datetime.fromisoformat(moment))
    message = encode_command(command, "t")
    assert message.headers["saga-deadline"] == moment
    found = decode_command(deliver(message), SETTINGS)
    assert isinstance(found, ReceivedCommand)
    assert found.command == command


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "10000-01-01T00:00:00Z"],
)
def test_deadline_outside_the_calendar_is_unreadable(moment):
    message = encode_command(COMMAND, "t")
    message = replace(message, headers={**message.headers, "saga-deadline": moment})
    assert isinstance(decode_command(deliver(message), SETTINGS), UnreadableMessage)


def test_every_message_has_its_own_id():
    ids = {encode_command(COMMAND, "t").message_id for _ in range(100)}
    assert len(ids) == 100


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("value", [None, "", [], {}, -1, 2**31, True, "x\n", "2024-02-30"])
def test_command_with_a_bad_header_is_unreadable_and_names_it(name, value):
    delivery = replace(deliver(encode_command(COMMAND, "t")), headers={**HEADERS, name: value})
    found = decode_command(delivery, SETTINGS)
    text = name in ("saga-name", "saga-step", "idempotency-key") and isinstance(value, str)
    if not (text and value):
        assert isinstance(found, UnreadableMessage)
        assert found.reason is DeadLetterReason.BAD_COMMAND
        assert name in found.explanation


@given(st.dictionaries(st.sampled_from(list(HEADERS)), st.none() | st.text() | st.integers()))
def test_no_headers_raise_an_error(headers):
    decode_command(replace(deliver(encode_command(COMMAND, "t")), headers=headers), SETTINGS)


def test_command_without_reply_to_or_correlation_id_is_unreadable():
    found = decode_command(deliver(encode_command(COMMAND, "")), SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.BAD_COMMAND


def test_command_with_undecodable_headers_is_unreadable():
    delivery = replace(
        deliver(encode_command(COMMAND, "t")), header_problem="Its headers cannot be decoded."
    )
    found = decode_command(delivery, SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.BAD_HEADERS


def test_repr_hides_the_payload():
    assert "A1" not in repr(COMMAND)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {SAGA_HEADER: "x" * 256}},
        {"headers": {STEP_HEADER: "\u20ac" * 86}},
        {"headers": {IDEMPOTENCY_KEY_HEADER: "k" * 3000}},
        {"correlation_id": "\ufffd" * 200},
        {"reply_to": "\ufffd" * 200},
        {"type": "\ufffd" * 200},
    ],
)
def test_name_that_exceeds_the_limit_is_unreadable(changes):
    valid = deliver(encode_command(COMMAND, "t"))
    changes = {**changes, "headers": {**valid.headers, **changes.get("headers", {})}}
    found = decode_command(replace(valid, **changes), SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.BAD_COMMAND
    assert "max_name_bytes" in found.explanation


@pytest.mark.parametrize("sent", ["", 7, "x" * 9000, "00-zz-1-1", "00", "00-\n-1-1", ["00-a-b-c"]])
def test_invalid_traceparent_is_dropped(sent):
    valid = deliver(encode_command(COMMAND, "t"))
    headers = {**valid.headers, TRACEPARENT_HEADER: sent}
    found = decode_command(replace(valid, headers=headers), SETTINGS)
    assert isinstance(found, ReceivedCommand)
    assert found.traceparent == ""
