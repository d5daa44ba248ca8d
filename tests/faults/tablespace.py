"""A small disk for tables that grow: a tablespace on a tmpfs, which can be filled."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import asyncpg

from saga_engine.embedded.programs import unprivileged_user
from tests.faults.environment import FaultEnvironment
from tests.kit.programs import wait_until_true

BYTES = 512 * 1024 * 1024  # The size of the disk, in memory.
CHUNK_BYTES = 1024 * 1024
UNAVAILABLE_REASON = "" if os.geteuid() == 0 else "mounting a tmpfs, to fill a disk, needs root"

GROWING_TABLES = (
    *("saga_engine.journal", "saga_engine.outbox", "saga_engine.stream_event"),
    *("effect_log", "event_record", "stream_view"),
)
LOCK_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)


class Tablespace:
    """Holds GROWING_TABLES during the block."""

    def __init__(self, environment: FaultEnvironment):
        self._environment = environment
        self._directory = Path(tempfile.mkdtemp(prefix="saga-tablespace-"))
        self._disk = self._directory / "disk"

    async def __aenter__(self):
        self._directory.chmod(0o755)
        self._disk.mkdir()
        account = unprivileged_user()
        owner = f",uid={account.uid},gid={account.gid}" if account else ""
        await _run(
            "mount", "-t", "tmpfs", "-o", f"size={BYTES},mode=0700{owner}", "tmpfs", self._disk
        )
        await self._environment.execute(f"CREATE TABLESPACE small LOCATION '{self._disk}'")
        await self._move_to("small")
        return self

    async def __aexit__(self, *_):
        self.free()
        await self._move_to("pg_default")
        await self._environment.execute("DROP TABLESPACE small")
        await _run("umount", self._disk)
        shutil.rmtree(self._directory)

    def fill(self):
        """Fill the disk to the last byte."""
        with self._ballast.open("wb", buffering=0) as ballast:
            size = CHUNK_BYTES
            while size:
                try:
                    ballast.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self):
        """Free the space again."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self):
        return self._disk / "ballast"

    async def _move_to(self, name):
        for row in await self._environment.execute(_GROWING_TABLES, list(GROWING_TABLES)):
            await self._alter(row["name"], name)

    async def _alter(self, table, space):
        async def has_moved():
            try:
                await self._environment.execute(f"ALTER TABLE {table} SET TABLESPACE {space}")
            except LOCK_ERRORS:
                return False
            return True

        await wait_until_true(has_moved)


async def _run(*command):
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0, command


_GROWING_TABLES = """
    SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND oid IN (
        SELECT (pg_partition_tree(each)).relid FROM unnest($1::text[]::regclass[]) AS each)"""
