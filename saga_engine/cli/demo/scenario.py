"""The play itself: orders are placed, trouble is made, all ends, the accounts are compared."""

import asyncio
import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saga_engine.amqp.connection import Link
from saga_engine.amqp.publisher import Publisher
from saga_engine.cli.demo.comparison import Verdict, compare
from saga_engine.cli.demo.display import Show
from saga_engine.cli.demo.orders import Order, orders
from saga_engine.cli.demo.servers import Stage, stage
from saga_engine.client import Client
from saga_engine.embedded.process import ServerProcess
from saga_engine.protocol.command import fresh_message_id
from saga_engine.protocol.message import Message
from saga_engine.protocol.topology import ENGINE, REPLIES
from saga_engine.settings import Settings
from saga_engine.store import dead_letters, incidents
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.vocabulary import Status

PATIENCE = 120.0
"""Seconds until an order must have ended; the slowest takes about 20."""

DROPPED = (
    r"saga_duplicates_total\{[^}]*\}",
    r'saga_barrier_total\{[^}]*case="repeated"[^}]*\}',
)


@dataclass(slots=True)
class Told:
    """What is said at the end."""

    ended: dict[str, Status]
    wrong: list[str]
    dropped: int
    incidents: int = 0
    letters: int = 0


async def play() -> int:
    """Play it; the exit code."""
    settings = Settings.load()
    placed = orders(f"o{os.getpid()}")
    async with stage(settings) as scene:
        with Show(placed) as show:
            if scene.embedded:
                show.say("PostgreSQL of our own, with fsync; a development broker, in memory")
            await upgrade(scene.database)
            told = await _act(scene, placed, show)
        effects = await importlib.import_module("examples.place_order.ledger").effects(scene.shop)
        mine = {each: counts for each, counts in effects.items() if each in told.ended}
        verdict = compare(told.ended, mine)
        async with Database(scene.database, settings) as database, database.transaction() as tx:
            told.incidents = len(await incidents.listing(tx, limit=1000))
            told.letters = len(await dead_letters.listing(tx, limit=1000))
    return _sum_up(told, verdict)


async def _act(scene: Stage, placed: Sequence[Order], show: Show) -> Told:
    await scene.start("participant", "examples.place_order.services")
    show.say("participants: inventory, payments and orders, with a database of their own")
    worker = await scene.start("worker", "examples.place_order.sagas")
    show.say(f"worker {worker.pid}; {len(placed)} orders are placed, the slowest takes 20 seconds")
    settings = Settings(client_timeout=PATIENCE)
    told = Told({}, [], 0)
    async with Client(scene.broker, settings=settings) as client, asyncio.TaskGroup() as group:
        half = len(placed) // 2
        first = [group.create_task(_place(client, order, show, told)) for order in placed[:half]]
        await asyncio.wait(first[1:])
        await _send_rubbish(scene.broker, settings)
        show.say("a message that nobody can read was sent")
        taken = asyncio.Event()
        for order in placed[half:]:
            group.create_task(_place(client, order, show, told, taken))
        await taken.wait()
        await _kill(scene, worker, show, told)
    told.dropped += await scene.count(*DROPPED)
    return told


async def _place(
    client: Client, order: Order, show: Show, told: Told, taken: asyncio.Event | None = None
) -> None:
    handle = await client.start("place-order", order.input, key=order.order_id)
    if taken is not None:
        taken.set()
    ending = await client.result(handle.run_id, timeout=PATIENCE)
    told.ended[order.order_id] = ending.status
    if ending.status is not order.ends:
        told.wrong.append(f"{order.order_id} ended {ending.status}, expected {order.ends}")
    show.ended(order, ending.status)


async def _kill(scene: Stage, worker: ServerProcess, show: Show, told: Told) -> None:
    """Kill the worker in the middle of runs and let another finish them."""
    told.dropped += await scene.count(DROPPED[0])
    running = len(scene.ports)
    worker.kill()
    await worker.wait()
    show.say(f"worker {worker.pid} was killed with SIGKILL in the middle of runs")
    other = await scene.start("worker", "examples.place_order.sagas")
    assert len(scene.ports) == running + 1, "another one was started"
    show.say(f"worker {other.pid} finishes them")


async def _send_rubbish(broker: str, settings: Settings) -> None:
    async with Link(broker, name="publish", settings=settings, topology=ENGINE) as link:
        message = Message(REPLIES, REPLIES, b'{"charge_id": ', fresh_message_id())
        await Publisher(link).publish([message])


def _sum_up(told: Told, verdict: Verdict) -> int:
    counts = {status: list(told.ended.values()).count(status) for status in Status}
    lines = {
        "completed": counts[Status.COMPLETED],
        "compensated": counts[Status.COMPENSATED],
        "incidents": told.incidents,
        "dead letters": told.letters,
        "duplicates dropped": told.dropped,
        "effects lost": verdict.lost,
        "effects doubled": verdict.doubled,
    }
    print("\nThe services' own ledgers, compared with what the engine says:")  # noqa: T201 - output
    for name, value in lines.items():
        print(f"  {name:<20}{value:>4}")  # noqa: T201 - output
    for sentence in told.wrong:
        print(f"  WRONG: {sentence}")  # noqa: T201 - output
    print(NEXT.format(command=_command()))  # noqa: T201 - output
    return 1 if verdict.lost or verdict.doubled or told.wrong else 0


def _command() -> str:
    """What to type for `saga-engine`: where the user called it from is often not on the path."""
    if shutil.which("saga-engine"):
        return "saga-engine"
    script = Path(sys.argv[0])
    return os.path.relpath(script) if script.name == "saga-engine" else "python -m saga_engine"


NEXT = """
Next:
  {command} graph examples.place_order.sagas
      the saga that ran, as a picture
  $EDITOR examples/trip/saga.py
      a saga in 30 lines
  README.md, "Going to production"
      two URLs, and it is yours"""
