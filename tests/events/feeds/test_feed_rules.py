"""What is wrong with a feed is said in a sentence, with its line and the remedy."""

from datetime import timedelta

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError
from saga_engine.events import Aggregate, Feed
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
