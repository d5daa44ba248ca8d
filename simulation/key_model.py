"""Business keys in the model."""

from collections.abc import Mapping, Sequence

from saga_engine.payload.encryption import NO_ENCRYPTION, PayloadEncryption
from saga_engine.store import business_keys
from saga_engine.store.business_keys import KeyOwner, KeyRequest, SagaKey, StoredKey
from simulation.definition_model import definition_of
from simulation.memory_database import MemoryTransaction


class KeyModel(MemoryTransaction):
    """The business keys of `RunStatements` in memory, and the `KeyTable` that reserves them."""

    async def reserve_keys(
        self, requests: Sequence[KeyRequest], encryption: PayloadEncryption = NO_ENCRYPTION
    ) -> list[KeyOwner | None]:
        return await business_keys.reserve(self, requests, encryption)

    async def try_lock_keys(self, pairs: Sequence[SagaKey]) -> set[SagaKey]:
        async with self.statement():
            free = {pair for pair in pairs if self.is_lockable("advisory", pair)}
            for pair in sorted(free):
                self.lock_unlocked("advisory", pair)
            return free

    async def insert_keys(self, new: Mapping[SagaKey, StoredKey]) -> dict[SagaKey, StoredKey]:
        async with self.statement():
            return {
                pair: stored for pair, stored in new.items() if await self.insert_key(pair, *stored)
            }

    async def insert_key(self, pair: SagaKey, run_id: str, input_digest: bytes) -> bool:
        """Insert a key unless a run has it, within a statement."""
        saga, key = pair
        row = {"saga": saga, "key": key, "run_id": run_id, "input_digest": input_digest}
        return await self.insert("business_key", pair, row)

    async def read_keys(self, pairs: Sequence[SagaKey]) -> dict[SagaKey, StoredKey]:
        async with self.statement():
            found = [(pair, self.get("business_key", pair)) for pair in pairs]
            return {pair: (row["run_id"], row["input_digest"]) for pair, row in found if row}

    async def release_key(self, saga: str, key: str, run_id: str) -> None:
        async with self.statement():
            row, run = self.get("business_key", (saga, key)), self.get("run", run_id)
            if row is None or row["run_id"] != run_id:
                return
            if run and (definition_of(self, run["definition_id"])[0], run["key"]) == (saga, key):
                return
            await self.lock("business_key", (saga, key))
            self.delete("business_key", (saga, key))
