"""A consumer that breaks a rule is named with what to write instead."""

from typing import Any

import pytest

from saga_engine.errors import DefinitionError
from saga_engine.events import Consumer, Received, from_queue
from saga_engine.events.consumers.consumer_rules import check, problems
from tests.kit.consumers import billing_consumer
from tests.kit.read_model import Placed


def named(name: str = "billing", source: Any = None, **options: Any) -> Consumer:
    consumer = Consumer(name, source=source or from_queue(), **options)

    @consumer.on(Placed)
    async def placed(event: Placed, received: Received, connection: object) -> None: ...

    return consumer


def test_a_consumer_is_valid():
    check([billing_consumer(), named("other", from_queue("orders", keys=["order.#"]))])


@pytest.mark.parametrize(
    ("consumer", "problem"),
    [
        (named("Billing"), "invalid name"),
        (named(on_poison="skip"), "Use 'stop' or 'park-stream'"),
        (named(source="orders"), "has a str as its source"),
        (named(source=from_queue("")), "has a queue named ''"),
        (named(source=from_queue("q" * 256)), "at most 255 bytes"),
        (named(source=from_queue(keys="order.#")), "keys=\\['order.#'\\]|Give a list of texts"),
        (named(source=from_queue(keys=[])), "keys is empty"),
        (named(source=from_queue(keys=[7])), "Give a list of texts"),  # type: ignore[list-item]
        (Consumer("billing", source=from_queue()), "handles no event"),
    ],
)
def test_a_broken_rule_is_named(consumer, problem):
    with pytest.raises(DefinitionError, match=problem):
        check([consumer])


def test_names_are_different():
    assert ["is also declared at" in str(each) for each in problems([named(), named()])] == [True]
