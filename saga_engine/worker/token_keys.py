"""
Reads the token keys again when a reply has a token that no known key has signed.

They are read at each `maintenance_interval` anyway. That may be longer than the time after which a
rotated key starts to sign.
"""

import asyncio

from saga_engine.protocol.token import redact_token
from saga_engine.store.engine_identity import TokenKeys
from saga_engine.store.interfaces import Store
from saga_engine.telemetry.events import (
    DatabaseUnavailable,
    Emitter,
    InternalErrorCaught,
    describe_error,
)
from saga_engine.telemetry.operations import Operation
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.transaction_runner import DATABASE_UNAVAILABLE
from saga_engine.worker.work_item import WorkBatch

MIN_READ_INTERVAL = 1.0
"""
Seconds between two reads, so that a flood of forged tokens costs one statement a second. A genuine
reply with a newer key waits at most that long, and only if the keys were rotated since the last
maintenance; `token_key_activation_delay` makes that rare. So it is not a setting.
"""


class TokenKeyReader:
    """Reads the token keys into the outbox publisher."""

    def __init__(self, store: Store, outbox_publisher: OutboxPublisher, emit: Emitter) -> None:
        self._store = store
        self._outbox_publisher = outbox_publisher
        self._emit = emit
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")

    async def refresh_if_unchanged(self, known_keys: TokenKeys) -> bool:
        """Read the keys unless that was just done; whether they differ from *known_keys*."""
        async with self._lock:
            while self._outbox_publisher.token_keys == known_keys and self._is_due():
                try:
                    await self._reload()
                except DATABASE_UNAVAILABLE as error:
                    self._emit(
                        DatabaseUnavailable(operation=Operation.TOKEN_KEYS, problem=str(error))
                    )
                    await asyncio.sleep(MIN_READ_INTERVAL)
                except Exception as error:  # noqa: BLE001 - the batch continues with the keys it has
                    self._emit(
                        InternalErrorCaught(
                            operation=Operation.TOKEN_KEYS, problem=describe_error(error)
                        )
                    )
                    break
        return self._outbox_publisher.token_keys != known_keys

    def _is_due(self) -> bool:
        return asyncio.get_running_loop().time() - self._read_at >= MIN_READ_INTERVAL

    async def _reload(self) -> None:
        started_at = asyncio.get_running_loop().time()
        async with self._store.transaction() as tx:
            self._outbox_publisher.token_keys = await tx.token_keys()
        self._read_at = started_at


def has_unknown_token(work_batch: WorkBatch) -> bool:
    """Whether a message has a correlation id with the form of a token that no key has signed."""
    correlation_ids = (
        each.delivery.correlation_id for each in work_batch.dead_letters if not each.signed
    )
    return any(redact_token(each) != each for each in correlation_ids)
