"""
The identity of the engine: one row, inserted by the first process and read by all.

The key that signs correlation ids can be rotated. A new key signs only after a delay, in which
every worker reads it. The previous key is accepted until the next rotation.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from secrets import token_bytes

from saga_engine.postgres.statement import Transaction, text

TOKEN_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The keys of the correlation ids. A process with an accepted key can answer any command."""

    signing: bytes = field(repr=False)
    accepted: tuple[bytes, ...] = field(repr=False)


async def token_keys(tx: Transaction) -> TokenKeys:
    """Read the keys that sign and check correlation ids; the first call generates one."""
    row = (await tx.execute(_READ)).first()
    if row is None:
        await tx.execute(_CREATE, {"token_key": token_bytes(TOKEN_KEY_BYTES)})
        row = (await tx.execute(_READ)).one()
    current, previous, is_active = row
    accepted = tuple(bytes(key) for key in (current, previous) if key is not None)
    return TokenKeys(accepted[0] if is_active or previous is None else accepted[1], accepted)


async def rotate_token_key(tx: Transaction, delay: timedelta) -> datetime | None:
    """
    Generate a new key, which signs after *delay*.

    Returns:
        The time from which the new key signs. None when it is too early, and nothing was changed:
        until *delay* after the last key became active a worker may still sign with the key before
        it, and a rotation would make that key invalid. See `next_rotation_at`.
    """
    await token_keys(tx)
    arguments = {"token_key": token_bytes(TOKEN_KEY_BYTES), "delay": delay}
    found: datetime | None = (await tx.execute(_ROTATE, arguments)).scalar_one_or_none()
    return found


async def next_rotation_at(tx: Transaction, delay: timedelta) -> datetime:
    """Return the time from which `rotate_token_key` with that *delay* generates a new key."""
    found: datetime = (await tx.execute(_NEXT_ROTATION_AT, {"delay": delay})).scalar_one()
    return found


async def engine_id(tx: Transaction) -> str:
    """Read the id of this engine: the same for every worker on this database."""
    await token_keys(tx)
    found: str = (await tx.execute(_ID)).scalar_one()
    return found


_READ = text(
    """
    SELECT token_key, previous_token_key, token_key_active_from <= clock_timestamp()
    FROM saga_engine.engine_identity"""
)
_ID = text("SELECT id::text FROM saga_engine.engine_identity")
_CREATE = text(
    "INSERT INTO saga_engine.engine_identity (token_key) VALUES (:token_key)"
    " ON CONFLICT (singleton) DO NOTHING"
)
_NEXT_ROTATION_AT = text(
    "SELECT token_key_active_from + greatest(CAST(:delay AS interval), interval '0')"
    " FROM saga_engine.engine_identity"
)
_ROTATE = text(
    """
    UPDATE saga_engine.engine_identity SET previous_token_key = token_key, token_key = :token_key,
        token_key_active_from = clock_timestamp() + CAST(:delay AS interval)
    WHERE token_key_active_from + CAST(:delay AS interval) <= clock_timestamp()
        AND token_key_active_from <= clock_timestamp()
    RETURNING token_key_active_from"""
)
