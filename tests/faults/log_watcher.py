"""What the server and the processes print from a moment on: whether a fault really came about."""

from contextlib import asynccontextmanager

from tests.kit.programs import wait_until_true

LOG_TIMEOUT_S = 20.0


class LogWatcher:
    """Reads what PostgreSQL and the engine's processes print after it was made."""

    def __init__(self, environment):
        self._server_logs = [environment.postgres.log]
        self._process_logs = sorted(environment.directory.glob("*.log"))
        self._start_offsets = {
            log: log.stat().st_size for log in (*self._server_logs, *self._process_logs)
        }

    async def wait_for_server_log(self, words):
        """PostgreSQL must print these words within PATIENCE seconds."""
        await self._wait_for_text(self._server_logs, words)

    async def wait_for_process_log(self, words):
        """One of the engine's processes must."""
        await self._wait_for_text(self._process_logs, words)

    async def _wait_for_text(self, logs, words):
        async def is_logged():
            return any(words in self._new_text(log) for log in logs)

        try:
            await wait_until_true(is_logged, patience=LOG_TIMEOUT_S)
        except TimeoutError:
            names = ", ".join(log.name for log in logs)
            raise AssertionError(f"it did not come about: no {words!r} in {names}") from None

    def _new_text(self, path):
        with path.open("rb") as log:
            log.seek(self._start_offsets[path])
            return log.read().decode(errors="replace")


@asynccontextmanager
async def expect_logged(site, *, server=None, process=None):
    """Do a fault in the block, and assert that these words were printed about it."""
    watcher = LogWatcher(site)
    yield watcher
    if server:
        await watcher.wait_for_server_log(server)
    if process:
        await watcher.wait_for_process_log(process)
