"""Work items: which ones carry a token or a promise, and how a row becomes a message."""

import json
from dataclasses import replace

import pytest

from saga_engine.decider.triggers import Cancel, ReplyReceived, Start
from saga_engine.identifiers import uuid7
from saga_engine.protocol.topology import REPLIES, REQUESTS
from saga_engine.vocabulary import Direction, Failure, Outcome
from saga_engine.worker.work_item import (
    WorkBatch,
    WorkItem,
    as_delivery,
    as_raw_delivery,
    has_signed_token,
    is_accepted_start,
    start_of,
)
from tests.kit.work_items import stored_request

START = Start(str(uuid7()), "k-1", {"sku": "A1"})
REPLY = ReplyReceived(
    step="pack",
    direction=Direction.ACTION,
    attempt=1,
    outcome=Outcome.SUCCEEDED,
    body={"did": "pack"},
)


@pytest.mark.parametrize(
    ("work_item", "is_accepted"),
    [
        (stored_request(START, fingerprint="f"), True),
        (stored_request(START, role="shop"), True),
        (stored_request(START), False),
        (stored_request(Cancel("ada", "too late"), role="shop"), False),
        (WorkItem(run_id="r-1", trigger=START, fingerprint="f"), False),
    ],
)
def test_a_start_is_accepted_once_it_is_stored_for_a_definition_or_by_a_role(
    work_item, is_accepted
):
    assert is_accepted_start(work_item) is is_accepted


def test_a_stored_start_becomes_the_request_that_a_client_sends():
    delivery = as_delivery(stored_request(START))
    assert delivery is not None
    assert (delivery.queue, delivery.type) == (REQUESTS, "start")
    assert json.loads(delivery.body) == {
        "run_id": START.run_id,
        "saga": "parcel",
        "input": {"sku": "A1"},
        "version": None,
        "key": "k-1",
    }


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (REPLY, {"did": "pack"}),
        (
            replace(
                REPLY, outcome=Outcome.REJECTED, body=None, failure=Failure("no", "Not today.")
            ),
            {"code": "no", "message": "Not today.", "details": None},
        ),
    ],
)
def test_a_stored_reply_becomes_the_reply_that_a_participant_sends(reply, body):
    delivery = as_delivery(stored_request(reply))
    assert delivery is not None
    assert delivery.queue == REPLIES
    assert json.loads(delivery.body) == body
    assert delivery.headers["saga-outcome"] == reply.outcome.value
    assert delivery.correlation_id == ""


def test_another_stored_request_becomes_the_text_of_its_row():
    delivery = as_delivery(stored_request(Cancel("ada", "too late")))
    assert delivery is not None
    assert (delivery.queue, delivery.type) == ("", "cancel")
    assert json.loads(delivery.body)["reason"] == "too late"


def test_without_a_row_there_is_no_message():
    assert as_raw_delivery(WorkItem(run_id="r-1", trigger=Cancel("ada", "too late"))) is None


def test_only_a_reply_that_was_delivered_has_a_signed_token():
    delivery = as_delivery(stored_request(REPLY))
    assert has_signed_token(WorkItem(run_id="r-1", trigger=REPLY, delivery=delivery))
    assert not has_signed_token(WorkItem(run_id="r-1", trigger=REPLY))
    assert not has_signed_token(WorkItem(run_id="r-1", trigger=START, delivery=delivery))


def test_a_batch_lists_each_of_its_entries():
    cancel = stored_request()
    assert list(WorkBatch([cancel])) == [cancel]
    assert start_of(stored_request(START)) is START
