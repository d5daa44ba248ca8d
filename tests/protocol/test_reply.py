from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.protocol.command import ReceivedCommand
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.reply import Reply, decode_reply, encode_reply
from saga_engine.protocol.token import CommandRef, sign_token
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.vocabulary import Command, Direction, EngineFailureCode, Failure, Outcome
from tests.kit.messages import deliver, make_delivery

SETTINGS = Settings()
KEY = b"k" * 32
REF = CommandRef(str(UUID(int=7)), "charge", Direction.ACTION, 3)
TOKEN = sign_token(KEY, REF)
ASKED = ReceivedCommand(
    command=Command(
        run_id=REF.run_id,
        saga="place-order",
        version=1,
        step="charge",
        direction=Direction.ACTION,
        attempt=3,
        name="payment.charge",
        idempotency_key="key",
        payload={},
        deadline=datetime(2026, 1, 1, tzinfo=UTC),
    ),
    correlation_id=TOKEN,
    reply_to="saga.replies",
    message_id="m",
    traceparent="",
)


def unreadable(found):
    assert isinstance(found, UnreadableMessage), found
    return found.reason, found.command_ref


def test_success_arrives_with_its_result():
    message = encode_reply(ASKED, Outcome.SUCCEEDED, {"charge_id": "c-1"})
    assert (message.exchange, message.routing_key) == ("saga.replies", "saga.replies")
    assert message.headers == {"saga-outcome": "succeeded"}
    assert decode_reply(deliver(message), [KEY], SETTINGS) == Reply(
        command_ref=REF,
        outcome=Outcome.SUCCEEDED,
        body={"charge_id": "c-1"},
        failure=None,
        message_id=message.message_id,
        correlation_id=TOKEN,
    )


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.FAILED])
def test_rejection_arrives_with_its_failure(outcome):
    failure = Failure("declined", "The card was declined.", {"attempts_left": 2})
    message = encode_reply(ASKED, outcome, failure)
    assert decode_reply(deliver(message), [KEY], SETTINGS) == Reply(
        command_ref=REF,
        outcome=outcome,
        body=None,
        failure=failure,
        message_id=message.message_id,
        correlation_id=TOKEN,
    )


def decoded_failure(outcome, code):
    message = encode_reply(ASKED, outcome, Failure(code))
    reply = decode_reply(deliver(message), [KEY], SETTINGS)
    assert isinstance(reply, Reply)
    assert reply.failure is not None
    return reply.failure


def test_a_participant_reports_to_the_engine_that_it_cannot_decrypt():
    failure = decoded_failure(Outcome.FAILED, "decryption_failed")
    assert failure.engine_code is EngineFailureCode.DECRYPTION_FAILED
    assert decoded_failure(Outcome.REJECTED, "decryption_failed").engine_code is None


@pytest.mark.parametrize(
    "code", [each for each in EngineFailureCode if each != "decryption_failed"]
)
def test_no_other_code_of_a_participant_is_one_of_the_engine(code):
    assert decoded_failure(Outcome.FAILED, code.value).engine_code is None


def test_a_participant_cannot_write_an_engine_code():
    body = b'{"code": "no", "engine_code": "timeout"}'
    delivery = deliver(encode_reply(ASKED, Outcome.FAILED, body))
    reply = decode_reply(delivery, [KEY], SETTINGS)
    assert isinstance(reply, Reply)
    assert reply.failure == Failure("no")


def test_reply_of_a_plain_rpc_server_is_a_success():
    found = decode_reply(make_delivery(correlation_id=TOKEN, body=b'"done"'), [KEY], SETTINGS)
    assert isinstance(found, Reply)
    assert (found.outcome, found.body) == (Outcome.SUCCEEDED, "done")


def test_uncorrelated_reply_is_unreadable():
    for token in ("", "x", sign_token(b"other" * 8, REF)):
        found = decode_reply(make_delivery(correlation_id=token), [KEY], SETTINGS)
        assert unreadable(found) == (DeadLetterReason.UNCORRELATED_REPLY, None)


@pytest.mark.parametrize("outcome", ["unknown", "SUCCEEDED", "", 1, None, ["failed"], {"a": 1}])
def test_unknown_outcome_is_unreadable_and_keeps_its_command(outcome):
    found = decode_reply(
        make_delivery(correlation_id=TOKEN, headers={"saga-outcome": outcome}), [KEY], SETTINGS
    )
    assert unreadable(found) == (DeadLetterReason.BAD_OUTCOME, REF)


@pytest.mark.parametrize(
    "body",
    [b"null", b"[]", b"{}", b'{"code": ""}', b'{"code": 1}', b'{"code": "c", "message": 1}',
     b'{"code": "' + b"c" * 129 + b'"}'],
)  # fmt: skip
def test_failure_without_a_code_is_unreadable_and_keeps_its_command(body):
    found = decode_reply(
        make_delivery(correlation_id=TOKEN, headers={"saga-outcome": "failed"}, body=body),
        [KEY],
        SETTINGS,
    )
    assert unreadable(found) == (DeadLetterReason.BAD_FAILURE, REF)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body": b"{"}, DeadLetterReason.MALFORMED_JSON),
        ({"body_size": 20_000_000}, DeadLetterReason.TOO_LARGE),
        ({"content_encoding": "gzip"}, DeadLetterReason.UNSUPPORTED_ENCODING),
        ({"header_problem": "Its headers have 9 bytes."}, DeadLetterReason.BAD_HEADERS),
    ],
)
def test_unreadable_reply_with_a_valid_token_keeps_its_command(changes, reason):
    found = decode_reply(make_delivery(correlation_id=TOKEN, **changes), [KEY], SETTINGS)
    assert unreadable(found) == (reason, REF)


@given(
    st.binary(max_size=60),
    st.sampled_from([TOKEN, "", "a.b.c"]),
    st.dictionaries(st.sampled_from(["saga-outcome", "x"]), st.text() | st.integers()),
)
def test_no_reply_raises_an_error(body, token, headers):
    hostile = replace(make_delivery(body=body), correlation_id=token, headers=headers)
    decode_reply(hostile, [KEY], SETTINGS)


def test_repr_hides_result_and_failure():
    message = encode_reply(ASKED, Outcome.SUCCEEDED, {"card": "4242"})
    assert "4242" not in repr(decode_reply(deliver(message), [KEY], SETTINGS))
