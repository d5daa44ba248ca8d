"""What the server and the processes print from a moment on: whether a fault really came about."""

from contextlib import asynccontextmanager

from tests.faults.processes import eventually

PATIENCE = 20.0


class Witness:
    """Reads what PostgreSQL and the engine's processes print after it was made."""

    def __init__(self, site):
        self._server = [site.postgres.log]
        self._processes = sorted(site.directory.glob("*.log"))
        self._begun = {log: log.stat().st_size for log in (*self._server, *self._processes)}

    async def server_says(self, words):
        """PostgreSQL must print these words within PATIENCE seconds."""
        await self._said(self._server, words)

    async def process_says(self, words):
        """One of the engine's processes must."""
        await self._said(self._processes, words)

    async def _said(self, logs, words):
        async def has_said():
            return any(words in self._since(log) for log in logs)

        try:
            await eventually(has_said, patience=PATIENCE)
        except TimeoutError:
            names = ", ".join(log.name for log in logs)
            raise AssertionError(f"it did not come about: no {words!r} in {names}") from None

    def _since(self, path):
        with path.open("rb") as log:
            log.seek(self._begun[path])
            return log.read().decode(errors="replace")


@asynccontextmanager
async def witnessed(site, *, server=None, process=None):
    """Do a fault in the block, and assert that these words were printed about it."""
    witness = Witness(site)
    yield witness
    if server:
        await witness.server_says(server)
    if process:
        await witness.process_says(process)
