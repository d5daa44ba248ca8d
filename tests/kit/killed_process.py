"""A module as a process that tests kill: `python -m` with arguments."""

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class KilledProcess:
    """One process at a time; `restart` kills it and starts the next."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT)

    async def kill(self) -> None:
        """Send SIGKILL to it; it must not have ended before."""
        assert self._process.returncode is None
        self._process.kill()
        await self._process.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()
