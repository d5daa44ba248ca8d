"""A saga that counts the calls of its mappings, and crash suspects of it."""

import sys
from datetime import timedelta

from saga_engine import Retry, Saga
from saga_engine.client import start_in_transaction
from saga_engine.store import crash_suspects
from saga_engine.store.crash_suspects import CrashSuspect

FAST_RESEND = {"outbox_resend_after": 0.2}


COMMANDS = ("box.pack", "box.unpack", "box.send")


SHORT_TIMEOUT = timedelta(milliseconds=300)


class Boxes(Saga):
    """A saga that records the `calls` of its mappings."""

    calls: list[str]


def boxes(timeout: timedelta = timedelta(minutes=1)) -> Boxes:
    """Two steps, the first with a compensation; their mappings record each call."""
    saga = Boxes("box", version=1, input=dict)
    saga.calls = []

    @saga.step(command="box.pack", timeout=timeout, retry=Retry(attempts=1))
    def pack(box: dict) -> dict:  # noqa: ARG001 - it is bound by its name
        saga.calls.append("pack")
        return {}

    @pack.compensation(command="box.unpack")
    def unpack(box: dict) -> dict:  # noqa: ARG001 - the same
        saga.calls.append("unpack")
        return {}

    @saga.step(command="box.send", read_only=True)
    def send(box: dict) -> dict:
        saga.calls.append("send")
        if box.get("exits"):
            sys.exit(box["exits"])
        return {}

    return saga


async def record_crashes(engine, run_id, step, function, *, times, direction="action"):
    """Record that a call has ended workers, as their watchdogs do."""
    async with engine.database.transaction() as tx:
        for _ in range(times):
            await crash_suspects.record_crash(
                tx, CrashSuspect(run_id=run_id, step=step, direction=direction, function=function)
            )


async def store_start(engine, tx):
    """Store a start of a saga whose worker has stopped; return its run id."""
    await (await engine.start_worker(boxes())).stop()
    return str((await start_in_transaction(tx.connection, "box", {})).run_id)
