"""
`saga-engine demo`: real sagas on real processes, with real trouble, and the accounts compared.

    scenario     orders are placed, trouble is made, all ends, the accounts are compared
    orders       which orders are placed, and how each must end
    servers      the servers and processes it happens on
    display      what is shown while it happens
    comparison   the services' own ledgers, compared with what the engine says
"""

import asyncio
import signal
import sys

from saga_engine.cli.demo.scenario import run_scenario
from saga_engine.cli.output import print_stderr


def demo() -> None:
    """
    Run the place-order example with everything that can go wrong, and compare the accounts.

    Without SAGA_ENGINE_DATABASE_URL and SAGA_ENGINE_BROKER_URL it brings its own PostgreSQL and a
    development broker. Exits 1 if an effect was lost or happened twice.
    """
    sys.exit(asyncio.run(_run_until_signaled()))


async def _run_until_signaled() -> int:
    """Play it to its end, or until SIGTERM or Ctrl-C; both end everything that was started."""
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
        print_stderr("\nInterrupted. Everything the demo had started is stopped.")
        if not exit_codes:
            raise
        return exit_codes[0]
