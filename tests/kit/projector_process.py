"""A projector of the read model of orders as a process that tests kill: `python -m` with a URL."""

import asyncio
import sys
from pathlib import Path

from saga_engine.events.projector import Projector
from saga_engine.settings import Settings
from tests.kit.read_model import history_projection, orders_projection

ROOT = Path(__file__).parents[2]


class ProjectorProcess:
    """One process at a time; `restart` kills it and starts the next."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        arguments = (sys.executable, "-m", __name__, self._url)
        self._process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT)

    async def kill(self) -> None:
        """Send SIGKILL to it; it must not have ended before."""
        assert self._process.returncode is None
        self._process.kill()
        await self._process.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()


async def main(url: str) -> None:
    """Run until killed."""
    projections = [orders_projection(), history_projection()]
    settings = Settings(projection_lease=0.5)
    async with Projector(projections, url, settings, lambda _event: None) as projector:
        await projector.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
