"""
The sagas that workers have loaded: what the runs in the database are pinned to.

A definition is never changed. The same name and version with another fingerprint is another
definition, which is refused while runs of the first are unfinished: nobody could tell them apart.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select, text

from saga_engine.errors import ConfigurationError
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store.database import SqlAlchemyTransaction
from saga_engine.store.json_column import dumps
from saga_engine.store.tables import definition
from saga_engine.vocabulary import Direction


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A definition that some worker has loaded; `document` is that of `document_of`."""

    id: int
    name: str
    version: int
    fingerprint: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PresencePolicy:
    """
    How long a worker counts as having its definitions after it has written that.

    `absent` is how long. `fresh` is how long ago another worker must have written the same, so that
    it is written again: half a heartbeat, so that what is not written is at most one and a half
    heartbeats old at the next one, which is half of `absent` or less.
    """

    expire_after: timedelta
    refresh_after: timedelta


def presence_policy(settings: Settings) -> PresencePolicy:
    """Read it from `worker_heartbeat_timeout` and `worker_heartbeat_interval`."""
    heartbeat = timedelta(seconds=settings.worker_heartbeat_interval)
    return PresencePolicy(timedelta(seconds=settings.worker_heartbeat_timeout), heartbeat / 2)


_DEFAULT_POLICY = presence_policy(Settings.model_construct())


async def register(
    tx: SqlAlchemyTransaction, sagas: Sequence[Saga], policy: PresencePolicy = _DEFAULT_POLICY
) -> dict[tuple[str, int], int]:
    """
    Register *sagas*; their ids by name and version. They are seen at this moment.

    A start that waits for other steps of the same version keeps no worker from starting: it is
    counted, see `gauges.Counts.starts_stranded`.

    Raises:
        ConfigurationError: one has other steps than unfinished runs of the same version.
    """
    if not sagas:
        return {}
    ordered = sorted(sagas, key=lambda saga: (saga.name, saga.version))
    arguments = {
        "names": [saga.name for saga in ordered],
        "versions": [saga.version for saga in ordered],
        "fingerprints": [saga.fingerprint for saga in ordered],
    }
    documents = [dumps(document_of(saga)) for saga in ordered]
    registration = {**arguments, "documents": documents, "expire_after": policy.expire_after}
    await tx.execute(_REGISTER, registration)
    conflicting = (await tx.execute(_CONFLICTING, arguments)).first()
    if conflicting is not None:
        raise ConfigurationError(
            f"Saga {conflicting.name!r} version {conflicting.version} has other steps than its"
            " unfinished"
            " runs began with. Give the new steps the next version, and load both versions until"
            " the old runs are finished."
        )
    found = await tx.execute(_IDS, arguments)
    return {(name, version): definition_id for definition_id, name, version in found}


async def refresh_presence(
    tx: SqlAlchemyTransaction, ids: Collection[int], policy: PresencePolicy = _DEFAULT_POLICY
) -> None:
    """
    Say that a worker has these definitions now; `request_start` pins to what workers have.

    What another worker is writing, or has just written, is not written again.
    """
    if ids:
        await tx.execute(_REFRESH_PRESENCE, {"ids": sorted(ids), **asdict(policy)})


async def read_all(tx: SqlAlchemyTransaction) -> list[StoredDefinition]:
    """Read every definition any worker has ever loaded, the oldest first."""
    return [StoredDefinition(*row) for row in await tx.execute(_READ_ALL)]


async def known_versions(tx: SqlAlchemyTransaction, names: Collection[str]) -> set[tuple[str, int]]:
    """Find which versions of sagas of these names any worker has ever loaded."""
    found = await tx.execute(_KNOWN_VERSIONS, {"names": sorted(names)})
    return {(name, version) for name, version in found}


def document_of(saga: Saga) -> dict[str, Any]:
    """What the command line shows of a saga whose module it has not loaded."""
    steps = []
    for name, step in saga.steps.items():
        compensation = step.command_spec(Direction.COMPENSATION)
        steps.append(
            {
                "name": name,
                "kind": saga.step_kind(name).value,
                "command": step.action_spec.command,
                "compensation": compensation and compensation.command,
                "after": list(saga.predecessors[name]),
            }
        )
    return {"name": saga.name, "version": saga.version, "steps": steps}


_READ_ALL = select(
    *(definition.c.id, definition.c.name, definition.c.version),
    *(definition.c.fingerprint, definition.c.document),
).order_by(definition.c.id)

_KNOWN_VERSIONS = text(
    """
    SELECT DISTINCT name, version FROM saga_engine.definition
    WHERE name = ANY (CAST(:names AS text[]))"""
)

_REGISTER = text(
    """
    INSERT INTO saga_engine.definition (name, version, fingerprint, document, present_until)
    SELECT w.name, w.version, w.fingerprint, w.document::jsonb,
        now() + CAST(:expire_after AS interval)
    FROM unnest(CAST(:names AS text[]), CAST(:versions AS integer[]),
        CAST(:fingerprints AS text[]), CAST(:documents AS text[]))
        AS w(name, version, fingerprint, document)
    ON CONFLICT (name, version, fingerprint) DO UPDATE
    SET last_seen = excluded.last_seen, present_until = excluded.present_until"""
)

# One time for all of a worker: of those that are seen together the newest version counts.
_REFRESH_PRESENCE = text(
    """
    UPDATE saga_engine.definition
    SET last_seen = now(), present_until = now() + CAST(:expire_after AS interval)
    WHERE id = ANY (ARRAY(
        SELECT d.id FROM saga_engine.definition AS d
        WHERE d.id = ANY (CAST(:ids AS integer[]))
            AND d.last_seen < now() - CAST(:refresh_after AS interval)
        FOR UPDATE SKIP LOCKED))"""
)

_IDS = text(
    """
    SELECT id, name, version
    FROM unnest(CAST(:names AS text[]), CAST(:versions AS integer[]),
        CAST(:fingerprints AS text[])) AS w(name, version, fingerprint)
    JOIN saga_engine.definition USING (name, version, fingerprint)"""
)

_CONFLICTING = text(
    """
    SELECT d.name, d.version
    FROM unnest(CAST(:names AS text[]), CAST(:versions AS integer[]),
        CAST(:fingerprints AS text[])) AS w(name, version, fingerprint)
    JOIN saga_engine.definition AS d
        ON d.name = w.name AND d.version = w.version AND d.fingerprint <> w.fingerprint
    WHERE EXISTS (
        SELECT FROM saga_engine.run AS r
        WHERE r.status IN ('running', 'compensating') AND r.definition_id = d.id)
    ORDER BY d.name, d.version LIMIT 1"""
)
