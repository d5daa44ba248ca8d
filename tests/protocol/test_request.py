from uuid import UUID

import orjson
import pytest

from saga_engine.protocol.answer import (
    AnswerAddress,
    answer_address,
)
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.request import (
    CancelRequest,
    StartRequest,
    StatusRequest,
    decode_request,
    encode_request,
)
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from tests.kit.messages import deliver, make_delivery

SETTINGS = Settings()
RUN = UUID("0198c0de-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    "request_",
    [
        StartRequest(
            run_id=RUN, saga="place-order", input={"order_id": "o-1"}, version=2, key="o-1"
        ),
        StartRequest(run_id=RUN, saga="place-order", input=None),
        CancelRequest(RUN, "changed my mind", "ann"),
        StatusRequest(RUN),
    ],
)
def test_request_arrives_as_it_was_sent(request_):
    message = encode_request(request_, reply_to="saga.client.1", correlation_id="q-1")
    assert message.exchange == "saga.requests"
    assert decode_request(deliver(message), SETTINGS) == request_
    assert answer_address(deliver(message)) == AnswerAddress("saga.client.1", "q-1")


@pytest.mark.parametrize(
    "change",
    [{"run_id": None}, {"run_id": 7}, {"run_id": "../../x"}, {"run_id": f"{{{RUN}}}"},
     {"run_id": f"{RUN}\n"}, {"run_id": str(RUN).upper()}, {"run_id": ["a"]}, {"saga": ""},
     {"saga": 1}, {"saga": "x" * 1001}, {"version": 0}, {"version": True}, {"version": "1"},
     {"version": 2**31}, {"key": ""}, {"key": []}, {"key": "\U0001f600" * 251}],
)  # fmt: skip
def test_bad_start_is_unreadable_and_names_the_field(change):
    body = {"run_id": str(RUN), "saga": "s", "version": None, "key": None, "input": {}} | change
    found = decode_request(make_delivery(routing_key="start", body=orjson.dumps(body)), SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is DeadLetterReason.BAD_REQUEST
    assert next(iter(change)) in found.explanation


@pytest.mark.parametrize(
    ("verb", "body", "reason"),
    [
        ("explode", b"{}", DeadLetterReason.BAD_REQUEST),
        ("start", b"[]", DeadLetterReason.NOT_AN_OBJECT),
        ("start", b"{", DeadLetterReason.MALFORMED_JSON),
        (
            "cancel",
            orjson.dumps({"run_id": str(RUN), "operator": "ann"}),
            DeadLetterReason.BAD_REQUEST,
        ),
        ("start", orjson.dumps({"run_id": str(RUN), "saga": "s"}), DeadLetterReason.BAD_REQUEST),
    ],
)
def test_invalid_request_is_unreadable(verb, body, reason):
    found = decode_request(make_delivery(routing_key=verb, body=body), SETTINGS)
    assert isinstance(found, UnreadableMessage)
    assert found.reason is reason
