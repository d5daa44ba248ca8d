"""The first part of the demo: sagas on services without events, and a worker that is killed."""

import asyncio
import importlib
from dataclasses import dataclass

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.cli.demo.comparison import Comparison, compare
from saga_engine.cli.demo.display import Display
from saga_engine.cli.demo.orders import place_orders
from saga_engine.cli.demo.placement import RUN_TIMEOUT, OrderPlacement
from saga_engine.cli.demo.servers import DemoServers
from saga_engine.client import Client
from saga_engine.embedded.server_process import ServerProcess
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, REPLIES
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole, Status

WORKER = ("worker", "examples.place_order.sagas", "examples.shop.sagas")
"""One worker runs the sagas of both parts."""

DUPLICATE_METRICS = (
    r"saga_messages_ignored_total\{[^}]*\}",
    r'saga_barrier_hits_total\{[^}]*reason="repeated"[^}]*\}',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrderResult:
    """How the runs ended, what the services did, and how many messages were repeated."""

    statuses: dict[str, Status]
    mismatches: list[str]
    effects: Comparison
    duplicates_dropped: int

    @property
    def is_correct(self) -> bool:
        """Whether no effect was lost or duplicated, and every run ended as expected."""
        return not (self.effects.lost or self.effects.duplicated or self.mismatches)


async def run_place_order(servers: DemoServers, prefix: str, display: Display) -> PlaceOrderResult:
    """Place orders, send a malformed message, kill the worker; compare the effects."""
    orders = place_orders(prefix)
    display.add_orders(orders)
    await servers.start("participant", "examples.place_order.services")
    display.print_event("participants: inventory, payments and orders, with their own database")
    worker = await servers.start(*WORKER)
    display.print_event(
        f"worker {worker.pid}; placing {len(orders)} orders, the slowest takes 20 seconds"
    )
    settings = Settings(client_timeout=RUN_TIMEOUT)
    async with (
        Client(servers.broker_url, settings=settings) as client,
        asyncio.TaskGroup() as group,
    ):
        placement = OrderPlacement(client, display)
        middle = len(orders) // 2
        first_half = [group.create_task(placement.place(order)) for order in orders[:middle]]
        await asyncio.wait(first_half[1:])
        await _send_malformed_message(servers.broker_url, settings)
        display.print_event("sent a malformed message")
        accepted = asyncio.Event()
        for order in orders[middle:]:
            group.create_task(placement.place(order, accepted))
        await accepted.wait()
        duplicates_dropped = await servers.sum_metrics(DUPLICATE_METRICS[0])
        await _replace_killed_worker(servers, worker, display)
    return PlaceOrderResult(
        statuses=placement.statuses,
        mismatches=placement.mismatches,
        effects=await _compare_effects(servers.shop_database_url, placement.statuses),
        duplicates_dropped=duplicates_dropped + await servers.sum_metrics(*DUPLICATE_METRICS),
    )


async def _replace_killed_worker(
    servers: DemoServers, worker: ServerProcess, display: Display
) -> None:
    """Kill the worker while runs are in flight, and start another that finishes them."""
    process_count = len(servers.ports)
    worker.kill()
    await worker.wait()
    display.print_event(f"killed worker {worker.pid} with SIGKILL while runs are in flight")
    replacement = await servers.start(*WORKER)
    assert len(servers.ports) == process_count + 1, "another worker was started"
    display.print_event(f"worker {replacement.pid} goes on with them")


async def _send_malformed_message(broker: str, settings: Settings) -> None:
    async with SupervisedConnection(
        broker, role=ConnectionRole.PUBLISH, settings=settings, topology=ENGINE_TOPOLOGY
    ) as connection:
        message = Message(
            exchange=REPLIES,
            routing_key=REPLIES,
            body=b'{"charge_id": ',
            message_id=new_message_id(),
        )
        await SinglePublisher(connection).publish([message])


async def _compare_effects(database_url: str, statuses: dict[str, Status]) -> Comparison:
    effect_log = importlib.import_module("examples.place_order.effect_log")
    effects = await effect_log.count_effects(database_url)
    own_effects = {each: counts for each, counts in effects.items() if each in statuses}
    return compare(statuses, own_effects)
