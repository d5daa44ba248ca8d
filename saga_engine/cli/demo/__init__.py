"""
`saga-engine demo`: place orders on real processes, inject faults, and verify the effects.

    scenario         the two parts, one after the other, and the report
    place_order      the first part: place orders, send a malformed message, kill the worker
    comparison       the effect log of the services, compared with the statuses of the runs
    shop             the second part: event-sourced orders and a consumer; kill the projector
    feed_queue       what arrives at the exchange of feeds
    feed_comparison  that, compared with the events
    orders           the orders to place, and the status each must reach
    placement        places an order, and waits for its run
    servers          the servers and processes
    display          a live table on a terminal, plain lines elsewhere
"""

import asyncio
import signal
import sys

from saga_engine.cli.demo.scenario import run_scenario
from saga_engine.cli.output import print_stderr


def demo() -> None:
    """
    Run the examples place_order and shop under faults, and verify what they have done.

    Without SAGA_ENGINE_DATABASE_URL and SAGA_ENGINE_BROKER_URL it starts its own PostgreSQL and a
    development broker. Exit 1 if an effect was lost or happened twice, if the read model is not
    what a replay of the events says, if an event did not reach the exchange, or if the consumer has
    not written the invoices that the events say.
    """
    sys.exit(asyncio.run(_run_until_signaled()))


async def _run_until_signaled() -> int:
    """Run the scenario until it ends, or until SIGTERM or Ctrl-C, which stop every process."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    exit_codes: list[int] = []

    def handle_signal() -> None:
        exit_codes.append(128 + signal.SIGTERM)
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, handle_signal)
    try:
        return await run_scenario()
    except asyncio.CancelledError:
        print_stderr("\nInterrupted. Everything that the demo had started is stopped.")
        if not exit_codes:
            raise
        return exit_codes[0]
