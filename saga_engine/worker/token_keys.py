"""
The keys of the correlation ids, read again when a token is of none that this worker has read.

Otherwise they are read at each `maintenance`, which may be longer than the time in which a rotated
key begins to sign.
"""

import asyncio

from saga_engine.protocol.token import shown
from saga_engine.store import engine_identity
from saga_engine.store.database import Database
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.telemetry.events import DatabaseTroubled, FaultFound, Tell, described
from saga_engine.worker.batch_runner import AWAY
from saga_engine.worker.outbox_publisher import Outbound
from saga_engine.worker.work_item import Intake

AT_MOST_EVERY = 1.0
"""
Seconds from one reading to the next: a flood of forged tokens costs one statement a second. A reply
with a key that is newer waits for it that long at most, and only if a rotation came between two
rounds of `maintenance`; `token_key_delay` is what makes that rare. So it is not a setting.
"""


class TokenKeyReader:
    """Reads the keys into `outbound.keys`."""

    def __init__(self, database: Database, outbound: Outbound, tell: Tell) -> None:
        self._database = database
        self._outbound = outbound
        self._tell = tell
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")

    async def newer_than(self, keys: TokenKeys) -> bool:
        """Read the keys unless that has just been done; whether they are others than *keys*."""
        async with self._lock:
            while self._outbound.keys == keys and self._is_due():
                try:
                    await self._read()
                except AWAY as error:
                    self._tell(DatabaseTroubled(operation="token_keys", problem=str(error)))
                    await asyncio.sleep(AT_MOST_EVERY)
                except Exception as error:  # noqa: BLE001 - the batch goes on with the keys it has
                    self._tell(FaultFound(operation="token_keys", problem=described(error)))
                    break
        return self._outbound.keys != keys

    def _is_due(self) -> bool:
        return asyncio.get_running_loop().time() - self._read_at >= AT_MOST_EVERY

    async def _read(self) -> None:
        begun = asyncio.get_running_loop().time()
        async with self._database.transaction() as tx:
            self._outbound.keys = await engine_identity.token_keys(tx)
        self._read_at = begun


def has_unknown_token(intake: Intake) -> bool:
    """Whether a message has a correlation id in the form of a token, of none of the keys."""
    ids = (each.delivery.correlation_id for each in intake.letters if not each.signed)
    return any(shown(each) != each for each in ids)
