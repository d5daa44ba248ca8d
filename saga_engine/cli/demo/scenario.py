"""The scenario of the demo: place orders, inject faults, wait for the runs, verify the effects."""

import asyncio
import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.cli.demo.comparison import Comparison, compare
from saga_engine.cli.demo.display import Display
from saga_engine.cli.demo.orders import DemoOrder, demo_orders
from saga_engine.cli.demo.servers import DemoServers, demo_servers
from saga_engine.client import Client
from saga_engine.embedded.server_process import ServerProcess
from saga_engine.protocol.command import new_message_id
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import ENGINE_TOPOLOGY, REPLIES
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, incidents
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.vocabulary import ConnectionRole, Status

RUN_TIMEOUT = 120.0
"""Seconds for an order to finish; the slowest takes about 20."""

DUPLICATE_METRICS = (
    r"saga_messages_ignored_total\{[^}]*\}",
    r'saga_barrier_hits_total\{[^}]*reason="repeated"[^}]*\}',
)


@dataclass(slots=True, kw_only=True)
class DemoResult:
    """What the summary shows."""

    statuses: dict[str, Status]
    mismatches: list[str]
    duplicates_dropped: int = 0
    incident_count: int = 0
    dead_letter_count: int = 0


async def run_scenario() -> int:
    """Run it; return the exit code."""
    settings = Settings.load()
    orders = demo_orders(f"o{os.getpid()}")
    async with demo_servers(settings) as servers:
        with Display(orders) as display:
            if servers.embedded:
                display.print_event(
                    "started a private PostgreSQL with fsync, and a development broker in memory"
                )
            await upgrade(servers.database_url)
            result = await _run_orders(servers, orders, display)
        effects = await importlib.import_module("examples.place_order.effect_log").count_effects(
            servers.shop_database_url
        )
        own_effects = {each: counts for each, counts in effects.items() if each in result.statuses}
        comparison = compare(result.statuses, own_effects)
        async with (
            Database(servers.database_url, settings) as database,
            database.transaction() as tx,
        ):
            result.incident_count = len(await incidents.read_page(tx, limit=1000))
            result.dead_letter_count = len(await dead_letter_queries.read_page(tx, limit=1000))
    return _print_summary(result, comparison)


async def _run_orders(
    servers: DemoServers, orders: Sequence[DemoOrder], display: Display
) -> DemoResult:
    await servers.start("participant", "examples.place_order.services")
    display.print_event("participants: inventory, payments and orders, with their own database")
    worker = await servers.start("worker", "examples.place_order.sagas")
    display.print_event(
        f"worker {worker.pid}; placing {len(orders)} orders, the slowest takes 20 seconds"
    )
    settings = Settings(client_timeout=RUN_TIMEOUT)
    result = DemoResult(statuses={}, mismatches=[])
    async with (
        Client(servers.broker_url, settings=settings) as client,
        asyncio.TaskGroup() as group,
    ):
        middle = len(orders) // 2
        first_half = [
            group.create_task(_place_order(client, order, display, result))
            for order in orders[:middle]
        ]
        await asyncio.wait(first_half[1:])
        await _send_malformed_message(servers.broker_url, settings)
        display.print_event("sent a malformed message")
        accepted = asyncio.Event()
        for order in orders[middle:]:
            group.create_task(_place_order(client, order, display, result, accepted))
        await accepted.wait()
        await _replace_killed_worker(servers, worker, display, result)
    result.duplicates_dropped += await servers.sum_metrics(*DUPLICATE_METRICS)
    return result


async def _place_order(
    client: Client,
    order: DemoOrder,
    display: Display,
    result: DemoResult,
    accepted: asyncio.Event | None = None,
) -> None:
    handle = await client.start("place-order", order.input, key=order.order_id)
    if accepted is not None:
        accepted.set()
    run_result = await client.result(handle.run_id, timeout=RUN_TIMEOUT)
    result.statuses[order.order_id] = run_result.status
    if run_result.status is not order.expected_status:
        result.mismatches.append(
            f"{order.order_id} ended {run_result.status}, expected {order.expected_status}"
        )
    display.run_ended(order, run_result.status)


async def _replace_killed_worker(
    servers: DemoServers, worker: ServerProcess, display: Display, result: DemoResult
) -> None:
    """Kill the worker while runs are in flight, and start another that finishes them."""
    result.duplicates_dropped += await servers.sum_metrics(DUPLICATE_METRICS[0])
    process_count = len(servers.ports)
    worker.kill()
    await worker.wait()
    display.print_event(f"killed worker {worker.pid} with SIGKILL while runs are in flight")
    replacement = await servers.start("worker", "examples.place_order.sagas")
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


def _print_summary(result: DemoResult, comparison: Comparison) -> int:
    counts = {status: list(result.statuses.values()).count(status) for status in Status}
    lines = {
        "completed": counts[Status.COMPLETED],
        "compensated": counts[Status.COMPENSATED],
        "incidents": result.incident_count,
        "dead letters": result.dead_letter_count,
        "duplicates dropped": result.duplicates_dropped,
        "effects lost": comparison.lost,
        "effects duplicated": comparison.duplicated,
    }
    print("\nThe effect log of the services, compared with the statuses of the runs:")  # noqa: T201 - output
    for name, value in lines.items():
        print(f"  {name:<20}{value:>4}")  # noqa: T201 - output
    for sentence in result.mismatches:
        print(f"  WRONG: {sentence}")  # noqa: T201 - output
    print(NEXT_STEPS.format(command=_executable()))  # noqa: T201 - output
    return 1 if comparison.lost or comparison.duplicated or result.mismatches else 0


def _executable() -> str:
    """What to type for `saga-engine`, which is often not on the PATH."""
    if shutil.which("saga-engine"):
        return "saga-engine"
    script = Path(sys.argv[0])
    return os.path.relpath(script) if script.name == "saga-engine" else "python -m saga_engine"


NEXT_STEPS = """
Next:
  {command} graph examples.place_order.sagas
      the saga that ran, as a diagram
  $EDITOR examples/trip/saga.py
      a saga in 30 lines
  docs/events.md
      event-sourced aggregates and projections, from an empty directory
  README.md, "Going to production"
      run it on your own RabbitMQ and PostgreSQL"""
