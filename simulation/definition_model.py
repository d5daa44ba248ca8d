"""The definitions that workers have loaded, and the keys of the engine, in the model."""

from collections.abc import Collection, Sequence

from saga_engine.saga.definition import Saga
from saga_engine.store.definitions import (
    DEFAULT_PRESENCE_POLICY,
    PresencePolicy,
    conflict_error,
    definition_columns,
)
from saga_engine.store.engine_identity import TokenKeys
from simulation.memory_database import MemoryTransaction
from simulation.rows import UNFINISHED, Row, rows_of

TOKEN_KEY = bytes(32)
"""Constant, so that simulations are reproducible."""


class DefinitionModel(MemoryTransaction):
    """`DefinitionStatements` in memory."""

    async def register_definitions(
        self, sagas: Sequence[Saga], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
    ) -> dict[tuple[str, int], int]:
        if not sagas:
            return {}
        definitions = list(rows_of(definition_columns(sagas)))
        async with self.statement():
            for row in definitions:
                await self._register(row, policy)
        async with self.statement():
            if conflicting := self._find_conflicting(definitions):
                raise conflict_error(*conflicting[0])
        async with self.statement():
            found = [self.get("definition", _definition_key(row)) for row in definitions]
            return {(row["name"], row["version"]): row["id"] for row in found if row}

    async def _register(self, definition: Row, policy: PresencePolicy) -> None:
        key = _definition_key(definition)
        seen = {"last_seen": self.now, "present_until": self.now + policy.expire_after}
        new = {**definition, **seen, "id": self.next_value("definition")}
        if not await self.insert("definition", key, new):
            before = await self.lock("definition", key)
            assert before is not None, "a definition is never deleted"
            self.put("definition", key, {**before, **seen})

    def _find_conflicting(self, definitions: Sequence[Row]) -> list[tuple[str, int]]:
        """Find the definitions of unfinished runs that have other steps than these."""
        loaded = {(row["name"], row["version"]): row["fingerprint"] for row in definitions}
        pinned = {
            row["definition_id"] for _, row in self.scan("run") if row["status"] in UNFINISHED
        }
        return sorted(
            (row["name"], row["version"])
            for _, row in self.scan("definition")
            if row["id"] in pinned
            and loaded.get((row["name"], row["version"]), row["fingerprint"]) != row["fingerprint"]
        )

    async def refresh_presence(
        self, ids: Collection[int], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
    ) -> None:
        if not ids:
            return
        async with self.statement():
            seen = {"last_seen": self.now, "present_until": self.now + policy.expire_after}
            for key, row in list(self.scan("definition")):
                is_old = row["last_seen"] < self.now - policy.refresh_after
                if row["id"] in ids and is_old and self.is_lockable("definition", key):
                    self.lock_unlocked("definition", key)
                    self.put("definition", key, {**row, **seen})

    async def known_versions(self, names: Collection[str]) -> set[tuple[str, int]]:
        async with self.statement():
            found = {(row["name"], row["version"]) for _, row in self.scan("definition")}
            return {(name, version) for name, version in found if name in names}

    async def token_keys(self) -> TokenKeys:
        if await self._read_identity() is None:
            async with self.statement():
                await self.insert("engine_identity", 1, {"token_key": TOKEN_KEY})
            await self._read_identity()
        return TokenKeys(TOKEN_KEY, (TOKEN_KEY,))

    async def _read_identity(self) -> Row | None:
        async with self.statement():
            return self.get("engine_identity", 1)


def _definition_key(row: Row) -> tuple[str, int, str]:
    return row["name"], row["version"], row["fingerprint"]


def definition_of(tx: MemoryTransaction, definition_id: int) -> tuple[str, int, str]:
    """The name, version and fingerprint of a definition."""
    for _, row in tx.scan("definition"):
        if row["id"] == definition_id:
            return _definition_key(row)
    raise KeyError(definition_id)
