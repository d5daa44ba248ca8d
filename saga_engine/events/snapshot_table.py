"""
The table of snapshots, `snapshot`: the state of a stream at one version, to shorten its replay.

A snapshot is never needed: without one, the stream is replayed from its first event. A fingerprint
says which schema of the state and which folds made it; another one is ignored.
"""

from dataclasses import dataclass, field

import orjson

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.json_column import dumps
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """The state of a stream after the event of a version, as JSON."""

    version: int
    state: Json = field(repr=False)


async def read(tx: Transaction, stream: str, fingerprint: str) -> StoredSnapshot | None:
    """Read the snapshot of a stream; None if there is none with that fingerprint."""
    row = (await tx.execute(_READ, {"stream": stream, "fingerprint": fingerprint})).first()
    return None if row is None else StoredSnapshot(row[0], orjson.loads(row[1]))


async def write(tx: Transaction, stream: str, fingerprint: str, snapshot: StoredSnapshot) -> None:
    """Write the snapshot of a stream, unless there is a later one with that fingerprint."""
    await tx.execute(
        _WRITE,
        {
            "stream": stream,
            "version": snapshot.version,
            "fingerprint": fingerprint,
            "state": dumps(snapshot.state),
        },
    )


_READ = text(
    """
    SELECT version, state::text FROM saga_engine.snapshot
    WHERE stream = :stream AND fingerprint = :fingerprint"""
)

_WRITE = text(
    """
    INSERT INTO saga_engine.snapshot AS stored (stream, version, fingerprint, state)
    VALUES (:stream, :version, :fingerprint, CAST(CAST(:state AS text) AS json))
    ON CONFLICT (stream) DO UPDATE SET version = excluded.version,
        fingerprint = excluded.fingerprint, state = excluded.state
    WHERE stored.version < excluded.version OR stored.fingerprint <> excluded.fingerprint"""
)
