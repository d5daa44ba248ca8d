"""
Whatever arrives is read without an error of ours, and what it becomes can be stored.

From three sides: a delivery of any fields, a message of any frames, and a sound message in which
something was changed, left out or swapped with that of another.
"""

import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pamqp.frame
import pytest
from hypothesis import strategies as st
from pamqp import commands

from saga_engine.amqp import tolerant_decoding
from saga_engine.amqp.delivery_channel import build_delivery
from saga_engine.decider.triggers import serialize_trigger
from saga_engine.protocol.answer import decode_client_message
from saga_engine.protocol.command import Command, ReceivedCommand, decode_command, encode_command
from saga_engine.protocol.reply import encode_reply
from saga_engine.protocol.request import CancelRequest, StartRequest, StatusRequest, encode_request
from saga_engine.protocol.token import CommandRef, sign_token
from saga_engine.protocol.topology import DEAD_LETTERS, REPLIES, REQUESTS
from saga_engine.protocol.unreadable import UnreadableMessage
from saga_engine.settings import Settings
from saga_engine.store import dead_letters, pending_requests
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest
from saga_engine.vocabulary import Direction, Failure, Outcome
from saga_engine.worker.decode import decode_delivery
from saga_engine.worker.flush import _dead_letter_row
from saga_engine.worker.work_item import WorkBatch
from tests.hostile.bodies import REASONS
from tests.hostile.fuzzing import fuzz
from tests.hostile.harness import PARTICIPANT_QUEUE
from tests.kit.amqp_properties import PROPERTIES, content_header, longstr
from tests.kit.messages import deliver, make_delivery

SETTINGS = Settings()
KEY = b"k" * 32
RUNS = [UUID(int=number + 1) for number in range(3)]
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
QUEUES = (REPLIES, REQUESTS, DEAD_LETTERS, PARTICIPANT_QUEUE, "")

# What a Delivery promises of its texts: Unicode without NUL.
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
    """A genuine correlation id, or nearly one."""
    ref = CommandRef(
        draw(st.sampled_from(RUNS)),
        draw(st.sampled_from(["charge", "send", "x" * 64])),
        draw(st.sampled_from(Direction)),
        draw(st.integers(1, 2**31)),
    )
    token = sign_token(draw(st.sampled_from([KEY, KEY, b"another key of another engine...."])), ref)
    place, letter = draw(st.integers(0, len(token))), draw(texts)
    return draw(st.sampled_from([token, token, token[:place], token[:place] + letter, letter]))


@st.composite
def deliveries(draw):
    """A delivery of any fields."""
    body = draw(bodies)
    named = dict.fromkeys(
        ("routing_key", "message_id", "reply_to", "type", "content_type", "user_id", "app_id"),
        texts | st.sampled_from(["start", "cancel", "status", "finished", "saga.replies"]),
    )
    return make_delivery(
        body=body,
        queue=draw(st.sampled_from(QUEUES)),
        size=draw(st.just(len(body)) | st.integers(0, 2**40)),
        correlation_id=draw(tokens()),
        content_encoding=draw(st.sampled_from(["", "", "utf-8", "gzip"]) | texts),
        timestamp=draw(st.none() | st.datetimes(timezones=st.just(UTC))),
        headers=draw(headers),
        problem=draw(st.sampled_from(["", "", "", "It has too many headers."])),
        redelivered=draw(st.booleans()),
        **{name: draw(each) for name, each in named.items()},
    )


@st.composite
def frames(draw):
    """A message of any frames, as the consuming channel makes a delivery of it."""
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
    _, _, header = pamqp.frame.unmarshal(
        struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"
    )
    assert isinstance(header, pamqp.header.ContentHeader)
    key = draw(st.sampled_from(["start", "status", "x"]))
    method = commands.Basic.Deliver("tag", 1, False, "saga.requests", key)
    return build_delivery(method, header, body, SETTINGS, draw(st.sampled_from(QUEUES)), 1)


def sound_messages():
    """One message of every kind, in the queue it belongs into."""
    command = Command(
        *(RUNS[0], "place-order", 1, "charge", Direction.ACTION, 1, "payment.charge", "key"),
        *({"order_id": "o-1"}, MOMENT + timedelta(days=1)),
    )
    token = sign_token(KEY, CommandRef(RUNS[0], "charge", Direction.ACTION, 1))
    asked = ReceivedCommand(command, token, REPLIES, "m-1", "")
    ask = {"reply_to": "saga.client.1", "correlation_id": "q-1"}
    return [
        deliver(encode_command(command, token), queue=PARTICIPANT_QUEUE),
        deliver(encode_command(command, token), queue=DEAD_LETTERS),
        deliver(encode_reply(asked, Outcome.SUCCEEDED, {"charge_id": "c-1"})),
        deliver(encode_reply(asked, Outcome.REJECTED, Failure("declined", "No.", [1]))),
        *(
            deliver(encode_request(request, **ask), queue=REQUESTS)
            for request in (
                StartRequest(RUNS[1], "place-order", {"order_id": "o-1"}, 1, "o-1"),
                CancelRequest(RUNS[1], "changed my mind", "ann"),
                StatusRequest(RUNS[1]),
            )
        ),
    ]


@st.composite
def mutants(draw):
    """A sound message of which parts are those of another, or damaged."""
    first, other = draw(st.sampled_from(sound_messages())), draw(st.sampled_from(sound_messages()))
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
    return replace(first, **changes | {"body": bytes(body), "size": len(body)})


class Reading:
    """Reads deliveries as a worker, a participant and a client do; keeps what is to be stored."""

    def __init__(self):
        self.intake = WorkBatch()

    def look(self, each):
        command = decode_command(each, SETTINGS)
        event = decode_client_message(each, SETTINGS)
        for found in (command, event):
            if isinstance(found, UnreadableMessage):
                assert found.explanation.endswith(".")
        intake = WorkBatch()
        decode_delivery(intake, each, [KEY], SETTINGS)
        assert [letter for letter in intake.dead_letters if letter.reason == "internal_error"] == []
        unanswered = each.queue not in (REPLIES, DEAD_LETTERS) and not intake.status_queries
        assert intake.dead_letters or intake.work_items or intake.status_queries or unanswered
        assert len(intake.dead_letters) <= 1 >= len(intake.work_items)
        for letter in intake.dead_letters:
            orjson.dumps([letter.detail, letter.delivery.headers])
        self.intake.dead_letters += intake.dead_letters
        self.intake.work_items += intake.work_items


@pytest.fixture(autouse=True)
def _installed():
    tolerant_decoding.install_decoders()


@pytest.mark.parametrize("arriving", [deliveries, frames, mutants])
async def test_whatever_arrives_is_read_and_can_be_stored(arriving, migrated_url):
    reading = Reading()
    fuzz(reading.look, arriving())
    await store(migrated_url, reading.intake)


async def store(url, intake, most=2000):
    """Record what became of the messages, as a batch does: none of it may be refused."""
    letters = [_dead_letter_row(letter) for letter in intake.letters[-most:]]
    items = []
    for arrival in intake.arrivals[-most:]:
        kind, body = serialize_trigger(arrival.trigger)
        saga = arrival.saga or None
        items.append(NewRequest(kind, arrival.run_id, body, saga=saga, version=arrival.version))
    async with Database(url, SETTINGS) as database, database.transaction() as tx:
        await dead_letters.record(tx, letters, SETTINGS.max_dead_letter_body_bytes)
        await pending_requests.record(tx, items)
    async with Database(url, SETTINGS) as database, database.transaction() as tx:
        stored = await dead_letters.read_page(tx, limit=most)
    assert sorted(each.message.body for each in stored) == sorted(each.body for each in letters)
