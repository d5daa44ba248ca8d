"""What this engine is known by: one row, made by whoever comes first and then the same for all."""

from secrets import token_bytes

from sqlalchemy import text

from saga_engine.store.database import Transaction

TOKEN_KEY_BYTES = 32


async def token_key(tx: Transaction) -> bytes:
    """Read the key that signs correlation ids. Whoever has it can answer any command."""
    found = await tx.execute(_READ)
    key: bytes | None = found.scalar_one_or_none()
    if key is None:
        await tx.execute(_MAKE, {"token_key": token_bytes(TOKEN_KEY_BYTES)})
        key = (await tx.execute(_READ)).scalar_one()
    return bytes(key)


async def engine_id(tx: Transaction) -> str:
    """Read the id of this engine: the same for every worker on this database."""
    await token_key(tx)
    found: str = (await tx.execute(_ID)).scalar_one()
    return found


_READ = text("SELECT token_key FROM saga_engine.engine")
_ID = text("SELECT id::text FROM saga_engine.engine")
_MAKE = text(
    "INSERT INTO saga_engine.engine (token_key) VALUES (:token_key) ON CONFLICT (one) DO NOTHING"
)
