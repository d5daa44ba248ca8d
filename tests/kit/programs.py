"""The engine's own programs as processes that are killed, stopped and started again."""

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
READY = b"process.ready"
LISTENING = re.compile(rb"http\.listening \S+:(\d+)")
READINESS_TIMEOUT_S = 5.0  # More than the program itself allows for looking whether it is ready.

EXIT_UNAVAILABLE = 5
"""The exit code of a program that cannot begin, because a server is out of reach."""

RESTART_DELAY_S = 1.0
"""Seconds until whatever supervises it starts it again then."""


class SupervisedProgram:
    """
    One `saga-engine` command that is started again whenever it is killed, or could not begin.

    Args:
        log: where all its lives print to; shown when it ends although nobody ended it.
    """

    def __init__(self, *arguments, environment, log, cwd=ROOT):
        self.kills = 0
        self.log = log
        self._cwd = cwd
        self._arguments, self._environment = arguments, environment
        self._log_start = 0
        self._crash_armed = False
        self._process: asyncio.subprocess.Process
        self._supervisor: asyncio.Task | None = None

    def __str__(self):
        return self._arguments[0]

    @property
    def pid(self):
        return self._process.pid

    async def start(self, *, crash_at=None, changes=None):
        """
        Start it.

        Args:
            crash_at: a name and a number of `crashing`: it kills itself at that passage.
            changes: more environment, for this life only.
        """
        self._crash_armed = crash_at is not None
        program = ("saga_engine",) if crash_at is None else ("tests.faults.crash_points", crash_at)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *program, *self._arguments),
                env={**os.environ, **self._environment, **(changes or {})},
                cwd=self._cwd,
                stdout=log,
                stderr=log,
            )
        start_options = {"crash_at": crash_at, "changes": changes}
        supervising = self._supervise(self._process, start_options)
        self._supervisor = asyncio.create_task(supervising)  # noqa: TID251 - until `end`

    async def _supervise(self, process, start_options):
        if await process.wait() == EXIT_UNAVAILABLE:
            await sleep(RESTART_DELAY_S)
            if process is self._process:
                await self.start(**start_options)

    async def is_ready(self):
        """Whether this life has said so; it prints at `info`."""
        self.assert_running()
        return READY in self._output()

    async def is_accepting_work(self):
        """Whether it says so now, to whoever asks on its port."""
        ports = LISTENING.findall(self._output())
        if not ports:
            return False
        try:
            async with asyncio.timeout(READINESS_TIMEOUT_S):
                return await is_ready(int(ports[-1]))
        except TimeoutError:
            return False  # a process that is stopped accepts connections all the same

    def is_stopped(self):
        """Whether it is, by the kernel's account."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return "State:\tT" in status

    def _output(self):
        """What this life has printed."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def assert_running(self):
        """It must not have ended by itself."""
        if self._process.returncode not in (None, EXIT_UNAVAILABLE):
            raise AssertionError(f"P7: {self} ended with {self._process.returncode}: {self.tail}")

    @property
    def tail(self):
        return self.log.read_text(errors="replace")[-3000:]

    async def run_for(self, seconds):
        """Let it work for a while; it must not end by itself."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return
        self.assert_running()

    async def kill(self, **start_options):
        """SIGKILL, and start it again."""
        self.assert_running()
        await self.end()
        self.kills += 1
        await self.start(**start_options)

    async def cancel_crash(self):
        """Whether it has killed itself or is still about to: let it live."""
        if self._process.returncode is not None:
            await self.start()
        elif self._crash_armed:
            await self.kill()

    async def wait_for_crash(self, *, patience):
        """Wait until it has killed itself, as it was started to; whether it did."""
        try:
            async with asyncio.timeout(patience):
                code = await self._process.wait()
        except TimeoutError:
            return False
        assert code == -signal.SIGKILL, f"P7: {self} ended with {code}: {self.tail}"
        self.kills += 1
        return True

    def signal(self, number):
        """Send it a signal, as an operator or a kernel might."""
        self.assert_running()
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def terminate(self):
        """SIGTERM; its exit code."""
        assert self._supervisor is not None, "it was started"
        self._supervisor.cancel()
        if self._process.returncode is None:
            self._process.terminate()
        return await self._process.wait()

    async def end(self):
        """Whatever happened, it does not stay."""
        if self._supervisor:
            self._supervisor.cancel()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running_program(*arguments, environment, log, cwd=ROOT):
    """A program for the time of the block; `cwd` is where its code is."""
    running = SupervisedProgram(*arguments, environment=environment, log=log, cwd=cwd)
    await running.start()
    try:
        yield running
    finally:
        await running.end()


async def sleep(seconds):
    """Let a fault last: what goes on meanwhile is the test."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


async def wait_until_true(condition, *, patience=60.0, interval=0.05):
    """Wait for the state of another process, which tells nobody."""
    async with asyncio.timeout(patience):
        while not await condition():
            await sleep(interval)


async def is_ready(port):
    """Whether a program of ours that serves on that port takes work."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
