"""
A projector of the read model of orders as a process that tests kill.

`python -m` with a URL, and the names of projections if not all shall run.
"""

import asyncio
import sys

from saga_engine.events.projections.projector import Projector
from saga_engine.settings import Settings
from tests.kit.read_model import history_projection, orders_projection


async def main(url: str, *names: str) -> None:
    """Run until killed."""
    known = [orders_projection(on_poison="park-stream"), history_projection()]
    projections = [each for each in known if not names or each.name in names]
    settings = Settings(projection_lease=0.5)
    async with Projector(projections, url, settings, lambda _event: None) as projector:
        await projector.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
