"""
`saga-engine demo`: real sagas on real processes, with real trouble, and the accounts compared.

    orders   which orders are placed, and how each must end
    stage    the servers and processes it happens on
    show     what is shown while it happens
    verdict  the services' own ledgers, compared with what the engine says
"""

import asyncio
import sys

from saga_engine.cli.demo.play import play


def demo() -> None:
    """
    Run the place-order example with everything that can go wrong, and compare the accounts.

    Without SAGA_ENGINE_DATABASE_URL and SAGA_ENGINE_BROKER_URL it brings its own PostgreSQL and a
    development broker. Exits 1 if an effect was lost or happened twice.
    """
    sys.exit(asyncio.run(play()))
