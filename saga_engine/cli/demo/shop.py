"""
The second part of the demo: event-sourced orders, and a projector that is killed.

Orders are created, confirmed and cancelled by the steps of a saga and by commands. The projector
keeps a read model of them and publishes a feed, of which a consumer writes invoices. At the end the
read model is compared with a replay of all events, and the invoices and what has arrived at the
exchange with the events.
"""

import asyncio
import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from saga_engine.cli.demo.display import Display
from saga_engine.cli.demo.feed_comparison import FeedComparison, compare_feed
from saga_engine.cli.demo.feed_queue import FeedQueue
from saga_engine.cli.demo.orders import DemoOrder, checkouts, customer
from saga_engine.cli.demo.placement import RUN_TIMEOUT, OrderPlacement
from saga_engine.cli.demo.servers import DemoServers
from saga_engine.client import Client
from saga_engine.embedded.server_process import ServerProcess
from saga_engine.errors import Conflict, TimedOut
from saga_engine.events import NEW, Append, EventData, Events
from saga_engine.settings import Settings
from saga_engine.store.migrate import upgrade
from saga_engine.store.schema import EVENT_DATABASE

FEED_TIMEOUT = 30.0
"""Seconds for the events to arrive, after the read model has all of them."""

PROJECTOR = ("projector", "examples.shop.projections", "examples.shop.feeds")
CONSUMER = ("consume", "examples.shop.consumers")

CREATED_AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
"""When the orders were created that do not come from a saga."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopResult:
    """
    What was found.

    Args:
        placed: how many orders were created, by the read model as by the events.
        statuses: how many of them have each status.
        differences: a sentence for each row of the read model that a replay does not have so.
        wrong_invoices: a sentence for each invoice that is not as the events say.
        mismatches: a sentence for each run or order that did not end as expected.
        feed: the events compared with what has arrived at the exchange.
        invoices: how many invoices the consumer must have written.
    """

    placed: int
    statuses: Mapping[str, int]
    differences: Sequence[str]
    wrong_invoices: Sequence[str]
    mismatches: Sequence[str]
    feed: FeedComparison
    invoices: int

    @property
    def is_correct(self) -> bool:
        """Whether the shop has kept every promise."""
        return self.feed.is_correct and not (
            self.differences or self.wrong_invoices or self.mismatches
        )


async def run_shop(servers: DemoServers, prefix: str, display: Display) -> ShopResult:
    """Place orders, kill the projector on the way; compare the read model and the feed."""
    url = servers.shop_database_url
    settings = Settings(client_timeout=RUN_TIMEOUT)
    orders = checkouts(prefix)
    display.add_orders(orders)
    await upgrade(url, EVENT_DATABASE)
    await _example("create_tables").create_tables(url)
    async with (
        FeedQueue(servers.broker_url, f"order-{prefix}", settings) as queue,
        Events(url, settings=settings) as events,
        Client(servers.broker_url, settings=settings) as client,
    ):
        placement = OrderPlacement(client, display)
        await _place_orders(servers, orders, placement, display)
        expected = await _handle_commands(events, prefix)
        expected |= {each.order_id: each.order_status for each in orders if each.order_status}
        display.print_event(
            "comparing the read model with a replay, the feed and the invoices with the events"
        )
        statuses, differences = await _compare_read_model(url, prefix)
        published = [each async for each in events.read_all(streams={f"order-{prefix}*"})]
        received = await queue.receive({str(each.id) for each in published}, FEED_TIMEOUT)
    invoices = await _example("check_invoices").check_invoices(url, prefix)
    return ShopResult(
        placed=len(statuses),
        statuses=Counter(statuses.values()),
        differences=differences,
        wrong_invoices=invoices.differences,
        mismatches=[*placement.mismatches, *_unexpected_statuses(statuses, expected)],
        feed=compare_feed(published, received),
        invoices=invoices.invoices,
    )


async def _place_orders(
    servers: DemoServers, orders: Sequence[DemoOrder], placement: OrderPlacement, display: Display
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(servers.start("participant", "examples.shop.services"))
        group.create_task(servers.start(*CONSUMER, database_url=servers.shop_database_url))
        start = group.create_task(_start_projector(servers))
    projector = start.result()
    display.print_event(
        f"an event-sourced shop; projector {projector.pid} keeps its read model and publishes a"
        f" feed, of which a consumer writes invoices; placing {len(orders)} orders"
    )
    async with asyncio.TaskGroup() as group:
        middle = len(orders) // 2
        first_half = [group.create_task(placement.place(order)) for order in orders[:middle]]
        await asyncio.wait(first_half, return_when=asyncio.FIRST_COMPLETED)
        projector.kill()
        await projector.wait()
        display.print_event(f"killed projector {projector.pid} with SIGKILL")
        for order in orders[middle:]:
            group.create_task(placement.place(order))
        replacement = await _start_projector(servers)
        display.print_event(
            f"projector {replacement.pid} goes on, when the other one's lease has ended"
        )


async def _start_projector(servers: DemoServers) -> ServerProcess:
    return await servers.start(*PROJECTOR, database_url=servers.shop_database_url)


async def _handle_commands(events: Events, prefix: str) -> dict[str, str]:
    """Create, confirm and cancel orders without a saga; return the status of each."""
    shop = _example("orders")
    old, kept, *dropped = (f"{prefix}-command-{number}" for number in range(4))
    created: Any = {
        "customer": customer(prefix, 0),
        "items": {"tea": 2},
        "total": "9.00",
        "created_at": CREATED_AT.isoformat(),
    }
    # Version 1 of the event, as an earlier version of the shop has appended it.
    await events.append(Append(f"order-{old}", [EventData("order-created", 1, created)], NEW))
    for number, order_id in enumerate((kept, *dropped)):
        create = shop.CreateOrder(
            customer=customer(prefix, number), items={"pot": 1}, created_at=CREATED_AT
        )
        await events.handle(shop.orders, order_id, create)
    for order_id in (old, kept):
        await events.handle(shop.orders, order_id, shop.ConfirmOrder(charge_id=f"c-{order_id}"))
    for order_id in dropped:
        await events.handle(shop.orders, order_id, shop.CancelOrder(reason="too late"))
    return {
        **dict.fromkeys((old, kept), "confirmed"),
        **dict.fromkeys(dropped, "cancelled"),
    }


async def _compare_read_model(url: str, prefix: str) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return the status of each order, and what differs."""
    try:
        comparison = await _example("replay").compare(url, prefix)
    except (TimedOut, Conflict) as error:
        return {}, [str(error)]
    return comparison.statuses(), comparison.differences


def _unexpected_statuses(statuses: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    return [
        f"order {order_id} is {statuses.get(order_id)}, expected {expected.get(order_id)}"
        for order_id in sorted(statuses.keys() | expected.keys())
        if statuses.get(order_id) != expected.get(order_id)
    ]


def _example(module: str) -> Any:
    return importlib.import_module(f"examples.shop.{module}")
