"""A module as a process that tests kill: `python -m` with arguments."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def killed_processes(
    number: int, module: str, *arguments: str
) -> AsyncIterator[list["KilledProcess"]]:
    """So many processes of a module, with the same arguments."""
    async with AsyncExitStack() as stack:
        processes = [KilledProcess(module, *arguments) for _ in range(number)]
        yield [await stack.enter_async_context(each) for each in processes]


class KilledProcess:
    """One process at a time, in `async with`; `restart` kills it and starts the next."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process
        self._has_ended = False

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._has_ended:
            await self._kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def kill(self) -> None:
        """Send SIGKILL to it."""
        await self._kill()
        self._has_ended = True

    async def terminate(self) -> None:
        """Send SIGTERM to it, and wait until it has ended."""
        self._process.terminate()
        assert await self._process.wait() == 0
        self._has_ended = True

    async def restart(self) -> None:
        """Send SIGKILL to it, and start it again."""
        await self._kill()
        await self._start()

    def stop(self) -> None:
        """Send SIGSTOP to it: it stands still, as in a pause of its machine."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Send SIGCONT to it."""
        self._process.send_signal(signal.SIGCONT)

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT)

    async def _kill(self) -> None:
        """It must not have ended before."""
        assert self._process.returncode is None
        self._process.kill()
        await self._process.wait()
