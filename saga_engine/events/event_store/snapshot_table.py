"""
The table of snapshots, `snapshot`: the state of a stream at one version, to shorten its replay.

A snapshot is never needed: without one, the stream is replayed from its first event. A fingerprint
says which schema of the state and which folds made it. Each version of the code has a snapshot of
its own, because two of them run at the same time during a deployment.
"""

from dataclasses import dataclass, field

import orjson

from saga_engine.postgres.statement import Transaction, text
from saga_engine.store.json_column import dumps
from saga_engine.vocabulary import Json

MAX_SNAPSHOTS = 2
"""How many snapshots a stream keeps: of the code that writes one, and of the code before it."""


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
    """
    Write the snapshot of a stream, unless there is a later one with that fingerprint.

    Of the others, those of the oldest versions are deleted beyond MAX_SNAPSHOTS.
    """
    await tx.execute(
        _WRITE,
        {
            "stream": stream,
            "version": snapshot.version,
            "fingerprint": fingerprint,
            "state": dumps(snapshot.state),
            "max_others": MAX_SNAPSHOTS - 1,
        },
    )


_READ = text(
    """
    SELECT version, state::text FROM saga_engine.snapshot
    WHERE stream = :stream AND fingerprint = :fingerprint"""
)

_WRITE = text(
    """
    WITH written AS (
        INSERT INTO saga_engine.snapshot AS stored (stream, fingerprint, version, state)
        VALUES (:stream, :fingerprint, :version, CAST(CAST(:state AS text) AS json))
        ON CONFLICT (stream, fingerprint) DO UPDATE
        SET version = excluded.version, state = excluded.state
        WHERE stored.version < excluded.version
    )
    DELETE FROM saga_engine.snapshot
    WHERE stream = :stream AND fingerprint IN (
        SELECT fingerprint FROM saga_engine.snapshot
        WHERE stream = :stream AND fingerprint <> :fingerprint
        ORDER BY version DESC, fingerprint OFFSET :max_others)"""
)
