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

from saga_engine.cli.demo.scenario import play
from saga_engine.cli.output import say


def demo() -> None:
    """
    Run the place-order example with everything that can go wrong, and compare the accounts.

    Without SAGA_ENGINE_DATABASE_URL and SAGA_ENGINE_BROKER_URL it brings its own PostgreSQL and a
    development broker. Exits 1 if an effect was lost or happened twice.
    """
    sys.exit(asyncio.run(_until_told()))


async def _until_told() -> int:
    """Play it to its end, or until SIGTERM or Ctrl-C; both end everything that was started."""
    playing = asyncio.current_task()
    assert playing is not None, "a coroutine runs in a task"
    told: list[int] = []

    def hear() -> None:
        told.append(128 + signal.SIGTERM)
        playing.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, hear)
    try:
        return await play()
    except asyncio.CancelledError:
        say("\nInterrupted. Everything the demo had started is stopped.")
        if not told:
            raise
        return told[0]
