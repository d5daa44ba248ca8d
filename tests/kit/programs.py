"""The programs of the engine as processes that tests kill, stop and restart."""

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
READINESS_TIMEOUT_S = 5.0  # More than READINESS_TIMEOUT of the program.

EXIT_UNAVAILABLE = 5
"""The exit code of a program that cannot start, because a server is unavailable."""

RESTART_DELAY_S = 1.0
"""Seconds until a supervisor restarts it then."""


class SupervisedProgram:
    """
    One `saga-engine` command that is restarted after it was killed, or could not start.

    Args:
        log: the log of all its processes; shown when one ends unexpectedly.
        module: what `python -m` runs, unless the process has a crash point.
    """

    def __init__(self, *arguments, environment, log, cwd=ROOT, module="saga_engine"):
        self.kills = 0
        self.log = log
        self._cwd, self._module = cwd, module
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
            crash_at: a crash point of tests/faults/crash_points.py and a number, as `name:3`.
            changes: additional environment variables, for this process only.
        """
        self._crash_armed = crash_at is not None
        program = (self._module,) if crash_at is None else ("tests.faults.crash_points", crash_at)
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
        """Whether this process has logged that it is ready."""
        self.assert_running()
        return READY in self._output()

    async def is_accepting_work(self):
        """Whether its HTTP port reports now that it is ready."""
        ports = LISTENING.findall(self._output())
        if not ports:
            return False
        try:
            async with asyncio.timeout(READINESS_TIMEOUT_S):
                return await is_ready(int(ports[-1]))
        except TimeoutError:
            return False  # the kernel accepts connections of a stopped process

    def is_stopped(self):
        """Whether the kernel reports it as stopped."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return "State:\tT" in status

    def _output(self):
        """The log of this process."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def assert_running(self):
        """Fail if it has ended unexpectedly."""
        if self._process.returncode not in (None, EXIT_UNAVAILABLE):
            raise AssertionError(f"P7: {self} ended with {self._process.returncode}: {self.tail}")

    @property
    def tail(self):
        return self.log.read_text(errors="replace")[-3000:]

    async def run_for(self, seconds):
        """Let it run for a while; fail if it ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return
        self.assert_running()

    async def kill(self, **start_options):
        """Send SIGKILL, and start it again."""
        self.assert_running()
        await self.end()
        self.kills += 1
        await self.start(**start_options)

    async def cancel_crash(self):
        """Restart it without a crash point, if it has crashed or still would."""
        if self._process.returncode is not None:
            await self.start()
        elif self._crash_armed:
            await self.kill()

    async def wait_for_crash(self, *, patience):
        """Wait until it reaches its crash point; whether it did."""
        try:
            async with asyncio.timeout(patience):
                code = await self._process.wait()
        except TimeoutError:
            return False
        assert code == -signal.SIGKILL, f"P7: {self} ended with {code}: {self.tail}"
        self.kills += 1
        return True

    def signal(self, number):
        """Send it a signal."""
        self.assert_running()
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def terminate(self):
        """Send SIGTERM, and return the exit code."""
        assert self._supervisor is not None, "it was started"
        self._supervisor.cancel()
        if self._process.returncode is None:
            self._process.terminate()
        return await self._process.wait()

    async def end(self):
        """Kill it if it still runs."""
        if self._supervisor:
            self._supervisor.cancel()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running_program(*arguments, environment, log, cwd=ROOT):
    """Run a program during the block; `cwd` is the directory of its code."""
    running = SupervisedProgram(*arguments, environment=environment, log=log, cwd=cwd)
    await running.start()
    try:
        yield running
    finally:
        await running.end()


async def sleep(seconds):
    """Wait while a fault lasts: what happens meanwhile is the test."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


async def wait_until_true(condition, *, patience=60.0, interval=0.05):
    """Poll the state of another process, which cannot notify the test."""
    async with asyncio.timeout(patience):
        while not await condition():
            await sleep(interval)


async def is_ready(port):
    """Whether the program with that HTTP port is ready."""
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
