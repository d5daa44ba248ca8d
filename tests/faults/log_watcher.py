"""Waits for text in the logs of PostgreSQL and of the processes."""

from contextlib import asynccontextmanager

from tests.faults.environment import FaultEnvironment
from tests.kit.programs import wait_until_true

LOG_TIMEOUT_S = 20.0


class LogWatcher:
    """Reads what PostgreSQL and the engine's processes log after its creation."""

    def __init__(self, environment: FaultEnvironment):
        self._server_logs = [environment.postgres.log_path]
        self._process_logs = sorted(environment.directory.glob("*.log"))
        self._start_offsets = {
            log: log.stat().st_size for log in (*self._server_logs, *self._process_logs)
        }

    async def wait_for_server_log(self, expected):
        """Wait until PostgreSQL has logged this text."""
        await self._wait_for_text(self._server_logs, expected)

    async def wait_for_process_log(self, expected):
        """Wait until one of the engine's processes has logged this text."""
        await self._wait_for_text(self._process_logs, expected)

    async def _wait_for_text(self, logs, expected):
        async def is_logged():
            return any(expected in self._new_text(log) for log in logs)

        try:
            await wait_until_true(is_logged, patience=LOG_TIMEOUT_S)
        except TimeoutError:
            names = ", ".join(log.name for log in logs)
            raise AssertionError(
                f"the fault had no effect: {expected!r} is missing in {names}"
            ) from None

    def _new_text(self, path):
        with path.open("rb") as log:
            log.seek(self._start_offsets[path])
            return log.read().decode(errors="replace")


@asynccontextmanager
async def expect_logged(environment: FaultEnvironment, *, server=None, process=None):
    """Assert that the fault in the block makes the server or a process log this text."""
    watcher = LogWatcher(environment)
    yield watcher
    if server:
        await watcher.wait_for_server_log(server)
    if process:
        await watcher.wait_for_process_log(process)
