"""An AsyncAPI document is valid, and describes the messages as they are on the wire."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator, ValidationError
from pydantic import BaseModel, Field, create_model

from saga_engine import Participant, Saga
from saga_engine.asyncapi.components import Components
from saga_engine.asyncapi.document import Declared, describe
from saga_engine.asyncapi.event_messages import declared_events, published_events
from saga_engine.asyncapi.headers import command_headers, event_headers, reply_headers
from saga_engine.events import Aggregate, Feed, Recorded
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds.cloud_event import encode_event
from saga_engine.payload.payload import PayloadType
from saga_engine.protocol.command import ReceivedCommand, encode_command
from saga_engine.protocol.reply import encode_reply
from saga_engine.vocabulary import Command, Direction, Failure, Outcome
from tests.kit.asyncapi_schema import assert_valid, resolve

LOG = EventLog(UUID("0198c0de-0000-7000-8000-000000000001"))
AT = datetime(2026, 11, 30, 12, 0, 0, 1, tzinfo=UTC)


class Money(BaseModel):
    cents: int
    currency: str = "EUR"


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Invoice(BaseModel):
    kind: Literal["invoice"]
    due: datetime


class Charge(BaseModel):
    amount: Money
    paid_by: Annotated[Card | Invoice, Field(discriminator="kind")]


class Receipt(BaseModel):
    number: int
    parts: list["Receipt"] = []


class Order(BaseModel):
    cents: int = 0


class OrderPlaced(BaseModel):
    total: Money


class OrderCancelled(BaseModel):
    reason: str


sales = Saga("sales", version=3, input=Charge)


@sales.step(command="payment.charge", reply=Receipt)
def charge(order: Charge) -> Charge:
    return order


@charge.compensation(command="payment.refund")
def refund(order: Charge, charge: Receipt | None) -> Money:
    return order.amount if charge else Money(cents=0)


payments = Participant("payments")


@payments.command("payment.charge")
async def take(command: Charge) -> Receipt: ...


@payments.compensation("payment.refund", of="payment.charge")
async def give_back(command: Money) -> Receipt: ...


orders = Aggregate("order", state=Order)


@orders.event("order-placed", version=2)
def placed(order: Order, event: OrderPlaced) -> Order:
    return order.model_copy(update={"cents": event.total.cents})


@orders.event("order-cancelled")
def cancelled(order: Order, _: OrderCancelled) -> Order:
    return order


def exchange_feed(**selection):
    feed = Feed("orders", **selection)
    feed.to_exchange()
    return feed


def webhook_feed():
    feed = Feed("hooks", types=[OrderPlaced])
    feed.to_webhook("https://shop.example:8443/token-4711?key=4711", secret="HOOKS_SECRET")
    return feed


def stream_feed(partitions):
    feed = Feed("flow", types=[OrderPlaced])
    feed.to_stream("orders", partitions=partitions)
    return feed


def document(**declared):
    given = {"sagas": [], "participants": [], "aggregates": [], "feeds": [], **declared}
    return describe(Declared(**given), "shop", "1.0.0")


EVERYTHING = document(
    sagas=[sales],
    participants=[payments],
    aggregates=[orders],
    feeds=[exchange_feed(), webhook_feed()],
)


def schema_of(message):
    """The schema of a message's payload, with all that it refers to."""
    schema = EVERYTHING["components"]["messages"][message]["payload"]
    return Draft202012Validator({**schema, "components": EVERYTHING["components"]})


@pytest.mark.parametrize(
    "declared",
    [
        {"sagas": [sales]},
        {"participants": [payments]},
        {"aggregates": [orders]},
        {"feeds": [exchange_feed(types=["order-placed"])]},
        {"aggregates": [orders], "feeds": [exchange_feed(streams=["run-*"])]},
        {"aggregates": [orders], "feeds": [stream_feed(1)]},
        {"aggregates": [orders], "feeds": [stream_feed(3)]},
    ],
    ids=["saga", "participant", "aggregate", "feed", "runs", "stream", "super stream"],
)
def test_a_document_of_any_declarations_is_valid(declared):
    assert_valid(document(**declared))
    assert_valid(EVERYTHING)


def test_the_official_schema_finds_a_mistake():
    wrong = deepcopy(EVERYTHING)
    wrong["operations"]["feed.orders"]["action"] = "publish"
    with pytest.raises(ValidationError):
        assert_valid(wrong)
    lost = deepcopy(EVERYTHING)
    del lost["components"]["schemas"]["Money"]
    with pytest.raises(KeyError):
        assert_valid(lost)


def test_a_step_sends_its_command_and_names_its_replies():
    operation = EVERYTHING["operations"]["sales.v3.charge.action"]
    channel = resolve(EVERYTHING, operation["channel"]["$ref"])
    assert (operation["action"], channel["address"]) == ("send", "payment.charge")
    assert channel["bindings"]["amqp"]["exchange"]["name"] == "saga.commands"
    replies = [each["$ref"].rpartition("/")[2] for each in operation["reply"]["messages"]]
    assert replies == ["payment.charge.succeeded", "payment.charge.refused"]
    assert resolve(EVERYTHING, operation["reply"]["channel"]["$ref"])["address"] == "saga.replies"


def test_a_participant_receives_from_its_queue():
    operation = EVERYTHING["operations"]["payments.payment.refund"]
    channel = resolve(EVERYTHING, operation["channel"]["$ref"])
    assert (operation["action"], channel["address"]) == ("receive", "saga.participant.payments")
    assert channel["bindings"]["amqp"]["queue"]["durable"] is True


def test_a_compensation_of_what_never_happened_is_answered_with_null():
    answered = document(participants=[payments])["components"]["messages"]
    result, nothing = {"$ref": "#/components/schemas/Receipt"}, {"type": "null"}
    assert answered["payment.refund.succeeded"]["payload"] == {"anyOf": [result, nothing]}
    assert answered["payment.charge.succeeded"]["payload"] == result


COMMAND = Command(
    name="payment.charge",
    run_id="0198c0de-0000-7000-8000-000000000001",
    saga="sales",
    version=3,
    step="charge",
    attempt=1,
    direction=Direction.ACTION,
    deadline=AT + timedelta(seconds=30),
    idempotency_key="0198c0de-0000-7000-8000-000000000001/charge/action/1",
    payload={"amount": {"cents": 5, "currency": "EUR"}, "paid_by": {"kind": "card", "number": "1"}},
)


def test_a_command_on_the_wire_is_what_the_document_says():
    message = encode_command(COMMAND, "token", traceparent="00-1-1-00")
    Draft202012Validator(command_headers()).validate(message.headers)
    assert message.headers.keys() == command_headers()["properties"].keys()
    schema_of("payment.charge").validate(COMMAND.payload)
    with pytest.raises(ValidationError):
        schema_of("payment.charge").validate({"amount": {"cents": "5"}, "paid_by": {"kind": "x"}})


@pytest.mark.parametrize(
    ("outcome", "body", "others"),
    [
        (Outcome.SUCCEEDED, {"number": 1, "parts": [{"number": 2}]}, [Outcome.FAILED]),
        (Outcome.REJECTED, Failure(code="declined", message="No."), [Outcome.SUCCEEDED]),
    ],
)
def test_a_reply_on_the_wire_is_what_the_document_says(outcome, body, others):
    received = ReceivedCommand(
        command=COMMAND, correlation_id="t", reply_to="saga.replies", message_id="", traceparent=""
    )
    headers = encode_reply(received, outcome, body).headers
    Draft202012Validator(reply_headers([outcome.value])).validate(headers)
    with pytest.raises(ValidationError):
        Draft202012Validator(reply_headers([each.value for each in others])).validate(headers)


def test_an_event_on_the_wire_is_what_the_document_says():
    event = Recorded(
        stream="order-o-1",
        version=1,
        position=4711,
        type="order-placed",
        schema_version=2,
        recorded_at=AT,
        id=LOG.event_id("order-o-1", 1, 0, AT),
        data={"total": {"cents": 5, "currency": "EUR"}},
        correlation_id="r",
        causation_id="c",
        actor="a",
        schema_id=3,
    )
    headers = encode_event(event, LOG.id).headers
    schema = event_headers("ce-")
    Draft202012Validator(schema).validate(headers)
    assert headers.keys() == schema["properties"].keys()
    schema_of("order-placed.v2").validate(event.data)


def test_a_recursive_and_a_shared_type_are_described_once():
    schemas = EVERYTHING["components"]["schemas"]
    assert sorted(each for each in schemas if each[0].isupper()) == [
        *("Card", "Invoice", "Money", "Receipt"),
    ]
    parts = schemas["Receipt"]["properties"]["parts"]
    assert parts["items"] == {"$ref": "#/components/schemas/Receipt"}


def test_types_of_one_name_and_different_content_are_numbered():
    components = Components()
    other_money = create_model("Money", amount=(str, ...))
    for model in (Money, other_money, Money):
        bill: Any = create_model("Bill", money=(model, ...))
        components.payload(PayloadType(bill).schema("validation"))
    assert list(components.schemas) == ["Money", "Money.2"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_class_with_the_name_of_a_schema_of_the_document_is_numbered(is_first):
    components = Components()
    named: Any = create_model("error", cents=(int, ...))
    schema = PayloadType(create_model("Bill", money=(named, ...))).schema("validation")
    steps = [lambda: components.payload(schema), lambda: components.add_schema("error", {"a": 1})]
    for step in steps if is_first else reversed(steps):
        step()
    assert components.add_schema("error", {"a": 1})["$ref"].endswith(
        "error.2" if is_first else "error"
    )
    assert components.schemas["error" if is_first else "error.2"]["properties"].keys() == {"cents"}


def test_types_that_refer_to_different_types_of_one_name_are_numbered():
    components = Components()
    for part in (Money, create_model("Money", amount=(str, ...))):
        bill = create_model("Bill", money=(part, ...))
        bills: Any = create_model("Bills", first=(bill, ...))
        components.payload(PayloadType(bills).schema("validation"))
    assert sorted(components.schemas) == ["Bill", "Bill.2", "Money", "Money.2"]
    money = components.schemas["Bill.2"]["properties"]["money"]
    assert money == {"$ref": "#/components/schemas/Money.2"}


def test_values_that_look_like_keywords_are_not_changed():
    reference = {"$ref": "#/$defs/None"}
    properties: Any = {"discriminator": {"default": reference}, "$ref": {"enum": [reference]}}
    assert Components().payload({"properties": properties}) == {"properties": properties}


@pytest.mark.parametrize(
    ("selection", "published"),
    [
        ({}, ["order-placed", "order-cancelled"]),
        ({"types": [OrderPlaced]}, ["order-placed"]),
        ({"types": ["order-cancelled"]}, ["order-cancelled"]),
        ({"types": ["other"]}, ["other"]),
        ({"streams": ["order-*"]}, ["order-placed", "order-cancelled"]),
        ({"streams": ["ord*"]}, ["order-placed", "order-cancelled"]),
        ({"streams": ["order-o-1"]}, ["order-placed", "order-cancelled"]),
        ({"streams": ["orders-*"]}, []),
        ({"streams": ["run-*"], "types": ["run_started"]}, ["run_started"]),
    ],
)
def test_a_channel_of_a_feed_has_the_events_that_it_selects(selection, published):
    declared = [*declared_events([orders])]
    found = [each.name for each in published_events(exchange_feed(**selection), declared)]
    assert found == published


def test_the_address_of_a_feed_is_its_routing_key():
    channel = EVERYTHING["channels"]["feed.orders"]
    assert channel["address"] == "{category}.{type}"
    assert channel["parameters"]["category"]["enum"] == ["order"]
    assert channel["parameters"]["type"]["enum"] == ["order-cancelled", "order-placed"]
    assert channel["bindings"]["amqp"]["exchange"]["name"] == "saga.feed"


def test_a_webhook_is_described_without_the_token_in_its_url():
    channel = EVERYTHING["channels"]["feed.hooks.webhook"]
    assert channel["address"] == "https://shop.example:8443"
    assert "4711" not in str(EVERYTHING)
    operation = EVERYTHING["operations"]["feed.hooks.webhook"]
    assert operation["bindings"]["http"]["method"] == "POST"
    headers = EVERYTHING["components"]["schemas"]["event-headers.webhook"]
    assert {"ce-id", "webhook-id", "webhook-signature"} <= {*headers["required"]}
    assert [*channel["messages"]] == ["order-placed.v2.webhook"]


@pytest.mark.parametrize(
    ("partitions", "address", "binding"), [(1, "orders", "queue"), (2, "{partition}", "routingKey")]
)
def test_a_stream_is_described_with_its_partitions(partitions, address, binding):
    described = document(aggregates=[orders], feeds=[stream_feed(partitions)])
    channel = described["channels"]["feed.flow.stream"]
    assert (channel["address"], channel["bindings"]["amqp"]["is"]) == (address, binding)
    if partitions > 1:
        assert channel["parameters"]["partition"]["enum"] == ["0", "1"]
    headers = described["components"]["schemas"]["event-headers.stream"]
    assert "cloudEvents_id" in headers["required"]


def test_a_feed_in_avro_is_described_with_the_avro_schema_of_each_event():
    feed = Feed("flow", streams=["order-*"])
    feed.to_stream("orders", encoding="avro")
    feed.to_kafka("orders", partitions=1)
    described = document(aggregates=[orders], feeds=[feed])
    messages = described["components"]["messages"]
    for name, message in messages.items():
        if not name.endswith(".stream.avro"):
            assert message["contentType"] == "application/json"
            continue
        assert message["contentType"] == "application/avro"
        assert message["payload"]["schemaFormat"].startswith("application/vnd.apache.avro")
        assert message["payload"]["schema"]["type"] == "record"
    assert sum(each.endswith(".stream.avro") for each in messages) == 2
    assert_valid(described)
