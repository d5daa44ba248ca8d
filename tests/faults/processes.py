"""The engine's own programs as processes that can be killed."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Program:
    """
    One `saga-engine` command that is started again whenever it is killed.

    Args:
        log: what it prints; shown when it ends although nobody killed it.
    """

    def __init__(self, *arguments, environment, log):
        self.kills = 0
        self._arguments, self._environment, self._log = arguments, environment, log
        self._process: asyncio.subprocess.Process

    async def start(self):
        """Start it."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "saga_engine", *self._arguments),
                env={**os.environ, **self._environment},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    async def survives(self, seconds):
        """Let it work for a while; it must not end by itself."""
        try:
            async with asyncio.timeout(seconds):
                code = await self._process.wait()
        except TimeoutError:
            return
        printed = self._log.read_text()[-4000:]
        raise AssertionError(f"{self._arguments} ended with {code}: {printed}")

    async def kill(self):
        """SIGKILL, and start it again."""
        self._process.kill()
        await self._process.wait()
        self.kills += 1
        await self.start()

    async def drain(self):
        """SIGTERM; its exit code."""
        self._process.terminate()
        return await self._process.wait()

    async def end(self):
        """Whatever happened, it does not stay."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def program(*arguments, environment, log):
    """A program for the time of the block."""
    running = Program(*arguments, environment=environment, log=log)
    await running.start()
    try:
        yield running
    finally:
        await running.end()


async def eventually(condition, *, patience=60.0):
    """Wait for the state of another process, which tells nobody."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(patience):
        while not await condition():
            tick = asyncio.Event()
            loop.call_later(0.05, tick.set)
            await tick.wait()
