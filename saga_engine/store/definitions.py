"""
Definitions: the sagas that workers have loaded, and that runs are pinned to.

A definition never changes. The same name and version with another fingerprint is another
definition. A worker does not load it while runs of the first one are unfinished: nothing could say
which of the two a run belongs to.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import orjson

from saga_engine.errors import ConfigurationError
from saga_engine.postgres.statement import Columns, Transaction, text
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.store.json_column import dumps
from saga_engine.vocabulary import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """A definition that a worker has loaded; `document` is that of `document_of`."""

    id: int
    name: str
    version: int
    fingerprint: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PresencePolicy:
    """
    How long a definition counts as present after a worker has reported it.

    Args:
        expire_after: for so long.
        refresh_after: a worker reports it again only when the last report, of any worker, is at
            least that old. It is half a heartbeat, so a report is at most one and a half heartbeats
            old at the next one, which is half of `expire_after` or less.
    """

    expire_after: timedelta
    refresh_after: timedelta


def presence_policy(settings: Settings) -> PresencePolicy:
    """Make the policy of `worker_heartbeat_timeout` and `worker_heartbeat_interval`."""
    heartbeat = timedelta(seconds=settings.worker_heartbeat_interval)
    return PresencePolicy(timedelta(seconds=settings.worker_heartbeat_timeout), heartbeat / 2)


DEFAULT_PRESENCE_POLICY = presence_policy(Settings.model_construct())


async def register(
    tx: Transaction, sagas: Sequence[Saga], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
) -> dict[tuple[str, int], int]:
    """
    Register *sagas* as present now, and return their ids by name and version.

    A pending start that is pinned to other steps of the same version does not stop the worker: it
    is counted, see `BacklogCounts.starts_stranded`.

    Raises:
        ConfigurationError: a saga has other steps than unfinished runs of the same version.
    """
    if not sagas:
        return {}
    columns = definition_columns(sagas)
    await tx.execute(_REGISTER, {**columns, "expire_after": policy.expire_after})
    identities = {name: columns[name] for name in ("name", "version", "fingerprint")}
    conflicting = (await tx.execute(_CONFLICTING, identities)).first()
    if conflicting is not None:
        raise conflict_error(*conflicting)
    found = await tx.execute(_IDS, identities)
    return {(name, version): definition_id for definition_id, name, version in found}


def definition_columns(sagas: Sequence[Saga]) -> Columns:
    """Write definitions as rows, in the order of their names and versions."""
    ordered = sorted(sagas, key=lambda saga: (saga.name, saga.version))
    return {
        "name": [saga.name for saga in ordered],
        "version": [saga.version for saga in ordered],
        "fingerprint": [saga.fingerprint for saga in ordered],
        "document": [dumps(document_of(saga)) for saga in ordered],
    }


def conflict_error(saga: str, version: int) -> ConfigurationError:
    """Describe a saga that has other steps than unfinished runs of the same version."""
    return ConfigurationError(
        f"Saga {saga!r} version {version} has other steps than its"
        " unfinished runs started with. Give the new steps the next version, and load both"
        " versions until the old runs are finished."
    )


async def refresh_presence(
    tx: Transaction, ids: Collection[int], policy: PresencePolicy = DEFAULT_PRESENCE_POLICY
) -> None:
    """
    Report that a worker has these definitions now; `request_start` pins starts to such ones.

    A definition that another worker is reporting, or has just reported, is left out.
    """
    if ids:
        await tx.execute(_REFRESH_PRESENCE, {"ids": sorted(ids), **asdict(policy)})


async def read_all(tx: Transaction) -> list[StoredDefinition]:
    """Read every definition that a worker has ever loaded, the oldest first."""
    return [
        StoredDefinition(
            id=definition_id,
            name=name,
            version=version,
            fingerprint=fingerprint,
            document=orjson.loads(document),
        )
        for definition_id, name, version, fingerprint, document in await tx.execute(_READ_ALL)
    ]


async def known_versions(tx: Transaction, names: Collection[str]) -> set[tuple[str, int]]:
    """Find which versions of these sagas a worker has ever loaded."""
    found = await tx.execute(_KNOWN_VERSIONS, {"names": sorted(names)})
    return {(name, version) for name, version in found}


def document_of(saga: Saga) -> dict[str, Any]:
    """Return what the command line shows of a saga whose module it has not loaded."""
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


_READ_ALL = text(
    "SELECT id, name, version, fingerprint, document::text FROM saga_engine.definition ORDER BY id"
)

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
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[]),
        CAST(:fingerprint AS text[]), CAST(:document AS text[]))
        AS w(name, version, fingerprint, document)
    ON CONFLICT (name, version, fingerprint) DO UPDATE
    SET last_seen = excluded.last_seen, present_until = excluded.present_until"""
)

# All definitions of a worker get the same time: of those the newest version is chosen.
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
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[]),
        CAST(:fingerprint AS text[])) AS w(name, version, fingerprint)
    JOIN saga_engine.definition USING (name, version, fingerprint)"""
)

_CONFLICTING = text(
    """
    SELECT d.name, d.version
    FROM unnest(CAST(:name AS text[]), CAST(:version AS integer[]),
        CAST(:fingerprint AS text[])) AS w(name, version, fingerprint)
    JOIN saga_engine.definition AS d
        ON d.name = w.name AND d.version = w.version AND d.fingerprint <> w.fingerprint
    WHERE EXISTS (
        SELECT FROM saga_engine.run AS r
        WHERE r.status IN ('running', 'compensating') AND r.definition_id = d.id)
    ORDER BY d.name, d.version LIMIT 1"""
)
