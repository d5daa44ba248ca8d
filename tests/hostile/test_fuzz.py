"""
Any delivery is decoded without an internal error, and the result can be stored.

The deliveries are of three kinds: arbitrary fields, arbitrary frames, and valid messages with parts
changed, removed or exchanged with those of another message.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest
from hypothesis import strategies as st

from saga_engine.amqp import tolerant_decoding
from saga_engine.amqp.content_frames import Content, ContentFrames
from saga_engine.amqp.delivery_decoding import build_delivery
from saga_engine.amqp.delivery_decoding import decode_delivery as content_delivery
from saga_engine.protocol.answer import decode_client_message
from saga_engine.protocol.command import ReceivedCommand, decode_command, encode_command
from saga_engine.protocol.dead_letter_reason import DeadLetterReason
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.request import CancelRequest, StartRequest, StatusRequest, encode_request
from saga_engine.protocol.token import CommandRef, sign_token
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, dead_letters, pending_requests
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.vocabulary import Command, Direction, Failure, Outcome
from saga_engine.worker.decode import decode_delivery
from saga_engine.worker.flush import _dead_letter_row
from saga_engine.worker.work_item import WorkBatch
from tests.hostile.bodies import REASONS
from tests.hostile.fuzzing import fuzz
from tests.hostile.harness import PARTICIPANT_QUEUE
from tests.kit import amqp_frames
from tests.kit.amqp_properties import PROPERTIES, content_header, longstr
from tests.kit.messages import deliver, make_delivery
from tests.kit.raw_amqp import BODY, HEADER

SETTINGS = Settings()
KEY = b"k" * 32
RUNS = [UUID(int=number + 1) for number in range(3)]
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
QUEUES = (REPLIES, REQUESTS, DEAD_LETTERS, PARTICIPANT_QUEUE, "")

# The texts of a Delivery are Unicode without NUL.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
headers = st.dictionaries(
    st.sampled_from(
        ["saga-outcome", "saga-run-id", "saga-version", "saga-step", "saga-deadline", "x-death",
         "saga-direction", "saga-attempt", "idempotency-key", "traceparent", "saga-name"]
    )
    | texts,
    json,
    max_size=12,
)  # fmt: skip
bodies = (
    st.binary(max_size=400)
    | json.map(lambda value: orjson.dumps(value, default=str))
    | st.sampled_from([body for body, _ in REASONS.values() if len(body) < 1000])
)


@st.composite
def tokens(draw):
    """A valid correlation id, or one that is almost valid."""
    ref = CommandRef(
        str(draw(st.sampled_from(RUNS))),
        draw(st.sampled_from(["charge", "send", "x" * 64])),
        draw(st.sampled_from(Direction)),
        draw(st.integers(1, 2**31)),
    )
    token = sign_token(draw(st.sampled_from([KEY, KEY, b"another key of another engine...."])), ref)
    position, text = draw(st.integers(0, len(token))), draw(texts)
    return draw(st.sampled_from([token, token, token[:position], token[:position] + text, text]))


@st.composite
def deliveries(draw):
    """A delivery with arbitrary fields."""
    body = draw(bodies)
    named = dict.fromkeys(
        ("routing_key", "message_id", "reply_to", "type", "content_type", "user_id", "app_id"),
        texts | st.sampled_from(["start", "cancel", "status", "finished", "saga.replies"]),
    )
    return make_delivery(
        body=body,
        queue=draw(st.sampled_from(QUEUES)),
        body_size=draw(st.just(len(body)) | st.integers(0, 2**40)),
        correlation_id=draw(tokens()),
        content_encoding=draw(st.sampled_from(["", "", "utf-8", "gzip"]) | texts),
        timestamp=draw(st.none() | st.datetimes(timezones=st.just(UTC))),
        headers=draw(headers),
        header_problem=draw(st.sampled_from(["", "", "", "It has too many headers."])),
        redelivered=draw(st.booleans()),
        **{name: draw(each) for name, each in named.items()},
    )


@st.composite
def frames(draw):
    """A message of arbitrary frames, decoded into a delivery as the consuming channel does."""
    table = draw(st.binary(max_size=300)).join(
        draw(st.lists(st.sampled_from([each for _, each in PROPERTIES.values()]), max_size=3))
    )
    encoded = draw(
        st.binary(max_size=300)
        | st.just(longstr(table))
        | st.binary(max_size=50).map(lambda rest: longstr(table) + rest)
    )
    flags = draw(
        st.integers(0, 0xFFFF) | st.sampled_from([flag for flag, _ in PROPERTIES.values()])
    )
    body = draw(bodies)
    payload = content_header(flags, encoded, len(body))
    cut = draw(st.sampled_from([len(payload)] * 5 + list(range(12, len(payload)))[:5]))
    payload = payload[:cut]
    stream = [
        amqp_frames.deliver(1, 1, key=draw(st.sampled_from([b"start", b"status", b"x"]))),
        amqp_frames.frame(HEADER, 1, payload),
        *([amqp_frames.frame(BODY, 1, body)] if body else []),
    ]
    queue = draw(st.sampled_from(QUEUES))
    (content,) = ContentFrames(lambda _: len(body), lambda: 0).feed(b"".join(stream))
    assert isinstance(content, Content)
    assert content.deliver is not None
    delivery = content_delivery(content, content.deliver, SETTINGS, queue, 1)
    method, header = map(amqp_frames.decoded, stream[:2])
    assert delivery == build_delivery(method, header, body, SETTINGS, queue, 1)
    return delivery


def valid_messages():
    """One message of each kind, in its queue."""
    command = Command(
        run_id=str(RUNS[0]),
        saga="place-order",
        version=1,
        step="charge",
        direction=Direction.ACTION,
        attempt=1,
        name="payment.charge",
        idempotency_key="key",
        payload={"order_id": "o-1"},
        deadline=MOMENT + timedelta(days=1),
    )
    token = sign_token(KEY, CommandRef(str(RUNS[0]), "charge", Direction.ACTION, 1))
    received = ReceivedCommand(
        command=command, correlation_id=token, reply_to=REPLIES, message_id="m-1", traceparent=""
    )
    reply_address = {"reply_to": "saga.client.1", "correlation_id": "q-1"}
    return [
        deliver(encode_command(command, token), queue=PARTICIPANT_QUEUE),
        deliver(encode_command(command, token), queue=DEAD_LETTERS),
        deliver(encode_reply(received, Outcome.SUCCEEDED, {"charge_id": "c-1"})),
        deliver(encode_reply(received, Outcome.REJECTED, Failure("declined", "No.", [1]))),
        *(
            deliver(encode_request(request, **reply_address), queue=REQUESTS)
            for request in (
                StartRequest(
                    run_id=RUNS[1],
                    saga="place-order",
                    input={"order_id": "o-1"},
                    version=1,
                    key="o-1",
                ),
                CancelRequest(RUNS[1], "changed my mind", "ann"),
                StatusRequest(RUNS[1]),
            )
        ),
    ]


@st.composite
def mutants(draw):
    """A valid message with parts of another one, or with damaged parts."""
    first, other = draw(st.sampled_from(valid_messages())), draw(st.sampled_from(valid_messages()))
    names = ("body", "headers", "correlation_id", "reply_to", "type", "routing_key", "queue")
    changes = {name: getattr(other, name) for name in draw(st.sets(st.sampled_from(names)))}
    changes["headers"] = {**changes.get("headers", first.headers)}
    for name in draw(st.lists(st.sampled_from(sorted(changes["headers"]) or ["x"]), max_size=2)):
        changes["headers"][name] = draw(json)
    body = bytearray(changes.get("body", first.body))
    for _ in range(draw(st.integers(0, 3))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        changes["correlation_id"] = draw(tokens())
    return replace(first, **changes | {"body": bytes(body), "body_size": len(body)})


class Decoders:
    """Decodes deliveries as a worker, a participant and a client do; keeps what they store."""

    def __init__(self):
        self.decoded = WorkBatch()

    def decode(self, delivery):
        command = decode_command(delivery, SETTINGS)
        client_message = decode_client_message(delivery, SETTINGS)
        for message in (command, client_message):
            if isinstance(message, UnreadableMessage):
                assert message.explanation.endswith(".")
        batch = WorkBatch()
        decode_delivery(batch, delivery, [KEY], SETTINGS)
        assert DeadLetterReason.INTERNAL_ERROR not in [each.reason for each in batch.dead_letters]
        ignored = delivery.queue not in (REPLIES, DEAD_LETTERS) and not batch.status_queries
        assert batch.dead_letters or batch.work_items or batch.status_queries or ignored
        assert len(batch.dead_letters) <= 1 >= len(batch.work_items)
        for dead_letter in batch.dead_letters:
            orjson.dumps([dead_letter.detail, dead_letter.delivery.headers])
        self.decoded.dead_letters += batch.dead_letters
        self.decoded.work_items += batch.work_items


@pytest.fixture(autouse=True)
def _tolerant_decoders():
    tolerant_decoding.install_decoders()


@pytest.mark.parametrize("strategy", [deliveries, frames, mutants])
async def test_any_delivery_is_decoded_and_the_result_is_stored(strategy, migrated_url):
    decoders = Decoders()
    fuzz(decoders.decode, strategy())
    await store(migrated_url, decoders.decoded)


async def store(url, batch, limit=2000):
    """Store the last results as a batch transaction does; PostgreSQL may refuse none of them."""
    rows = [_dead_letter_row(each) for each in batch.dead_letters[-limit:]]
    requests = []
    for item in batch.work_items[-limit:]:
        kind, body = serialize_trigger(item.trigger)
        saga = item.saga or None
        requests.append(
            NewRequest(kind=kind, run_id=item.run_id, body=body, saga=saga, version=item.version)
        )
    async with Database(url, SETTINGS) as database, database.transaction() as tx:
        await dead_letters.record(tx, rows, SETTINGS.max_dead_letter_body_bytes)
        await pending_requests.record(tx, requests)
    async with Database(url, SETTINGS) as database, database.transaction() as tx:
        stored = await dead_letter_queries.read_page(tx, limit=limit)
    assert sorted(each.message.body for each in stored) == sorted(each.body for each in rows)
