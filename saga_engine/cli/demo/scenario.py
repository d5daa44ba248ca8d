"""The scenario of the demo: two examples on real processes, each with a fault, and a report."""

import os
import secrets
import shutil
import sys
from pathlib import Path

from saga_engine.cli.demo.display import Display
from saga_engine.cli.demo.place_order import PlaceOrderResult, run_place_order
from saga_engine.cli.demo.servers import DemoServers, demo_servers
from saga_engine.cli.demo.shop import ShopResult, run_shop
from saga_engine.cli.output import print_line
from saga_engine.settings import Settings
from saga_engine.store import dead_letter_queries, incidents
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.vocabulary import Status

_LISTED = 1000  # Incidents and dead letters that are counted; a demo on new servers has one.


async def run_scenario() -> int:
    """Run it; return the exit code."""
    settings = Settings.load()
    prefix = f"o{secrets.token_hex(3)}"
    async with demo_servers(settings) as servers:
        with Display() as display:
            if servers.embedded:
                display.print_event(
                    "started a private PostgreSQL with fsync, and a development broker in memory"
                )
            await upgrade(servers.database_url)
            place_order = await run_place_order(servers, prefix, display)
            shop = await run_shop(servers, prefix, display)
        incident_count, dead_letter_count = await _count_open(servers, settings)
    _report_effects(place_order, incident_count, dead_letter_count)
    _report_events(shop)
    print_line(NEXT_STEPS.format(command=_executable()))
    return 0 if place_order.is_correct and shop.is_correct else 1


async def _count_open(servers: DemoServers, settings: Settings) -> tuple[int, int]:
    """Return how many incidents are open, and how many dead letters there are."""
    async with (
        Database(servers.database_url, settings) as database,
        database.transaction() as tx,
    ):
        return (
            len(await incidents.read_page(tx, limit=_LISTED)),
            len(await dead_letter_queries.read_page(tx, limit=_LISTED)),
        )


def _report_effects(result: PlaceOrderResult, incident_count: int, dead_letter_count: int) -> None:
    statuses = list(result.statuses.values())
    lines = {
        "completed": statuses.count(Status.COMPLETED),
        "compensated": statuses.count(Status.COMPENSATED),
        "incidents": incident_count,
        "dead letters": dead_letter_count,
        "duplicates dropped": result.duplicates_dropped,
        "effects lost": result.effects.lost,
        "effects duplicated": result.effects.duplicated,
    }
    print_line("\nThe effect log of the services, compared with the statuses of the runs:")
    for name, value in lines.items():
        print_line(f"  {name:<20}{value:>4}")
    _report_wrong(result.mismatches)


def _report_events(result: ShopResult) -> None:
    feed = result.feed
    read_model = f"differs from a replay in {len(result.differences)} rows"
    print_line("\nThe events of the shop, compared with its read model, its feed and its invoices:")
    print_line(
        f"  orders: {result.placed} placed, {result.statuses.get('confirmed', 0)} confirmed,"
        f" {result.statuses.get('cancelled', 0)} cancelled"
    )
    print_line(f"  read model: {read_model if result.differences else 'equals a replay'}")
    print_line(
        f"  feed: {feed.events} events, {feed.lost} lost, {feed.out_of_order} out of order,"
        f" {feed.altered} altered, {feed.repeated} repeated"
    )
    wrong = len(result.wrong_invoices)
    print_line(f"  consumer: {result.invoices} invoices, {wrong} not as the events say")
    _report_wrong([*result.differences, *result.wrong_invoices, *result.mismatches])
    print_line(LEFT_OUT)


def _report_wrong(sentences: list[str]) -> None:
    for sentence in sentences:
        print_line(f"  WRONG: {sentence}")


def _executable() -> str:
    """What to type for `saga-engine`, which is often not on the PATH."""
    if shutil.which("saga-engine"):
        return "saga-engine"
    script = Path(sys.argv[0])
    return os.path.relpath(script) if script.name == "saga-engine" else "python -m saga_engine"


LEFT_OUT = """
Left out, because the demo starts no server that they need; docs/streams.md does:
  examples/shop/stream_feeds.py
      a stream of RabbitMQ with 10 partitions: a RabbitMQ with the plugin rabbitmq_stream, and
      saga-engine[streams]
  examples/shop/kafka_feeds.py
      a topic of Kafka with 10 partitions, in Avro: a server of Kafka, and
      saga-engine[kafka,avro]"""

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
