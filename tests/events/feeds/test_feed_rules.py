"""What is wrong with a feed is said in a sentence, with its line and the remedy."""

from datetime import timedelta

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError
from saga_engine.events import Aggregate, Feed
from saga_engine.events.feeds.feed import Compression
from saga_engine.events.feeds.feed_rules import check, event_filter, problems


def feed(name="orders", *, unroutable="skip", **selection):
    made = Feed(name, **selection)
    made.to_exchange(unroutable=unroutable)
    return made


def test_valid_feeds_have_no_problems():
    check([feed(), feed("runs", streams=["run-*"], types={"run-completed"}, unroutable="stop")])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ([feed("Orders")], "'Orders' has an invalid name"),
        ([feed(""), feed("x" * 65)], "'' has an invalid name"),
        ([feed(), feed()], "is also declared at"),
        ([Feed("orders")], r"publishes nowhere. Call its to_exchange"),
        ([feed(unroutable="drop")], "has unroutable='drop'. Use 'skip' or 'stop'"),
        ([feed(streams=[])], "selects nothing: streams is empty"),
        ([feed(types=[])], "selects nothing: types is empty"),
        ([feed(streams=["*-o-1"])], r"'\*-o-1' is not a pattern of streams"),
        ([feed(streams="order-*")], "streams is one text"),
        ([feed(types="order-placed")], "types is one text"),
        ([feed(types=[int])], "selects int, which is not an event"),
    ],
)
def test_a_broken_rule_is_named(wrong, problem):
    with pytest.raises(DefinitionError, match=problem) as raised:
        check(wrong)
    assert raised.value.location.startswith(__file__)


STREAM_RULES = [
    ({"stream": "or ders"}, "has the stream 'or ders'. Use letters, digits"),
    ({"stream": "x" * 201}, "at most 200 characters"),
    ({"stream": 7}, "has the stream '7'"),
    ({"partitions": 0}, "has partitions=0. Give a number from 1 to 200"),
    ({"partitions": True}, "has partitions=True"),
    ({"segment_bytes": 999}, "has segment_bytes=999. Give a number from 1,000 to 3,000,000,000"),
    ({"segment_bytes": "1MB", "max_bytes": 5000}, "has segment_bytes=1MB"),
    ({"max_bytes": 10**8}, "has max_bytes=100000000. Give a number from 500,000,000 to"),
    ({"max_age": timedelta(0)}, "has max_age=0:00:00. Give a timedelta of whole seconds"),
    ({"max_age": timedelta(seconds=1.5)}, "Give a timedelta of whole seconds"),
    ({"max_age": 7}, "has max_age=7. Give a timedelta"),
]


@pytest.mark.parametrize(("options", "problem"), STREAM_RULES)
def test_a_broken_rule_of_a_stream_is_named(options, problem):
    made = Feed("orders")
    made.to_stream(**{"stream": "orders", **options})
    (found,) = problems([made])
    assert problem in str(found)


def test_a_stream_may_have_every_bound():
    made = Feed("orders")
    made.to_stream("a" * 200, partitions=200, max_age=None, max_bytes=1000, segment_bytes=1000)
    check([made])


def to_kafka(topic="orders", **given):
    made = Feed("orders")
    made.to_kafka(topic, **{"partitions": 10, **given})
    return made


def test_the_least_and_the_most_of_a_topic_are_valid():
    least = {"partitions": 1, "replication": 1, "max_message_bytes": 1_024}
    most = {"partitions": 10_000, "replication": 100, "max_message_bytes": 134_217_728}
    check([to_kafka("a" * 249, retention=timedelta(seconds=1), compression="none", **least)])
    check([to_kafka("Orders_1.v-2", retention=timedelta(days=36_525), **most)])
    check([to_kafka(retention=None, compression=Compression.ZSTD)])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"topic": ""}, "has the topic ''. Use letters, digits"),
        ({"topic": ".."}, r"has the topic '\.\.'"),
        ({"topic": "orders/1"}, "has the topic 'orders/1'"),
        ({"topic": "a" * 250}, "at most 249 characters"),
        ({"topic": 7}, "has the topic '7'"),
        ({"partitions": 0}, "has partitions=0. Give a number from 1 to 10,000"),
        ({"partitions": True}, "has partitions=True"),
        ({"replication": 101}, "has replication=101. Give a number from 1 to 100"),
        ({"max_message_bytes": 1_023}, "from 1,024 to 134,217,728"),
        ({"max_message_bytes": "1MB"}, "has max_message_bytes=1MB"),
        ({"compression": "brotli"}, "has compression='brotli'. Use one of 'none', 'gzip'"),
        ({"retention": 604_800}, r"has retention=604800. Give a timedelta of whole seconds"),
        ({"retention": timedelta(milliseconds=999)}, r"retention=timedelta\(days=7\), or None"),
    ],
)
def test_a_broken_rule_of_a_topic_is_named(given, problem):
    with pytest.raises(DefinitionError, match=problem):
        check([to_kafka(**given)])


def test_every_broken_rule_is_reported():
    assert len(list(problems([feed("Orders", unroutable="drop", types=[int])]))) == 3


def test_a_type_is_a_class_or_a_name():
    class State(BaseModel):
        total: int = 0

    class Paid(BaseModel):
        amount: int

    accounts = Aggregate("account", state=State)

    @accounts.event("account-paid")
    def paid(state: State, event: Paid) -> State:
        return State(total=state.total + event.amount)

    found = event_filter(feed(types=[Paid, "account-closed"], streams=["account-*"]))
    assert found.types == ["account-closed", "account-paid"]
    assert found.streams == ["account-%"]
