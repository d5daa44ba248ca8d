"""Rules between the declarations of aggregates."""

from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine.errors import DefinitionError, collect_errors
from saga_engine.events import Aggregate
from saga_engine.events.aggregates.aggregate_rules import check, problems
from tests.kit.wallet import Wallet, wallets


class Order(BaseModel):
    total: int = 0


class Place(BaseModel):
    total: int


def order_aggregate(
    name: str = "order", version: int = 1, event: str = "order-placed"
) -> Aggregate:
    class Placed(BaseModel):
        total: int

    def fold(order: Order, event: Any) -> Order:
        return order

    fold.__annotations__["event"] = Placed
    aggregate = Aggregate(name, state=Order)
    aggregate.event(event, version=version)(fold)
    return aggregate


def texts(*aggregates: Aggregate) -> list[str]:
    found = list(problems(aggregates))
    assert all(each.fix and each.location.partition(":")[0] == __file__ for each in found)
    return [each.problem for each in found]


def test_a_valid_aggregate_breaks_no_rule():
    check(wallets)
    assert texts(wallets, order_aggregate()) == []


@pytest.mark.parametrize("name", ["", "Order", "order-line", "7up", "o" * 65, "ordér", "a\n", 7])
def test_a_name_that_does_not_end_at_the_first_hyphen_of_its_streams_is_refused(name):
    assert "has an invalid name" in texts(order_aggregate(name))[0]


def test_the_streams_of_runs_are_reserved():
    assert texts(order_aggregate("run")) == [
        "The name 'run' is reserved: its streams are those of runs."
    ]


def test_an_aggregate_has_events():
    assert texts(Aggregate("order", state=Order)) == ["Aggregate 'order' has no events."]


def test_each_older_version_of_an_event_has_an_upcaster():
    assert texts(order_aggregate(version=2)) == [
        "Event 'order-placed' has version 2, and nothing reads version 1."
    ]
    with pytest.raises(DefinitionError, match="nothing reads version 1"):
        check(order_aggregate(version=2))


def test_a_command_returns_events_of_its_aggregate():
    aggregate = order_aggregate()

    @aggregate.command
    def place(order: Order, command: Place) -> Wallet:
        return Wallet()

    assert texts(aggregate) == ["place returns Wallet, which is not an event of 'order'."]


def test_names_of_aggregates_and_events_are_unique():
    first, second = order_aggregate(), order_aggregate()
    location = first.folds["order-placed"].event_type.source_location
    assert texts(first, second) == [
        f"Aggregate 'order' is declared twice, the other at {first.source_location}.",
        f"Event 'order-placed' belongs to aggregate 'order' as well, declared at {location}.",
    ]
    assert len(texts(first, order_aggregate("other"))) == 1
    assert texts(first, order_aggregate("other", event="other-placed")) == []


def test_what_depends_on_an_invalid_declaration_is_not_reported():
    with collect_errors() as collected:
        aggregate = Aggregate("order", state=Order)

        @aggregate.event("order placed")
        def fold(order: Order, event: Place) -> Order:
            return order

    assert len(collected) == 1
    assert texts(aggregate) == []
