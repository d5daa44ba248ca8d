"""
The registry: the versions of each schema that a process has loaded, in PostgreSQL.

A schema never changes. Its id is that of the wire format of Avro, and of the metadata of events.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from saga_engine.errors import NotFound, TooManySchemas
from saga_engine.postgres.statement import Transaction, text
from saga_engine.schemas.compatibility import Compatibility, VersionSchema
from saga_engine.schemas.declared_schema import DeclaredSchema, SchemaKind
from saga_engine.schemas.stored_schema import StoredSchema, StoredSubject
from saga_engine.settings import Settings
from saga_engine.store.json_column import dumps

SchemaKey = tuple[str, int, str]
"""What a schema is found by: subject, version and fingerprint."""


def key_of(declared: DeclaredSchema) -> SchemaKey:
    """Return what a schema is found by."""
    return declared.subject, declared.schema.version, declared.fingerprint


async def find_ids(tx: Transaction, declared: Collection[DeclaredSchema]) -> dict[SchemaKey, int]:
    """Find the ids of schemas that are registered."""
    found = await tx.execute(_IDS, _columns([*declared]))
    return {(subject, version, fingerprint): id_ for id_, subject, version, fingerprint in found}


async def read(tx: Transaction, subjects: Collection[str] | None = None) -> list[StoredSchema]:
    """Read the schemas of subjects, None for all; in the order of versions, then of ids."""
    names = None if subjects is None else [*subjects]
    return [*map(_stored, await tx.execute(_READ, {"subjects": names}))]


async def read_version(tx: Transaction, subject: str, version: int) -> list[StoredSchema]:
    """Read the schemas of one version of a subject, in the order of ids."""
    found = await tx.execute(_READ_VERSION, {"subject": subject, "version": version})
    return [*map(_stored, found)]


async def read_ids(tx: Transaction, ids: Collection[int]) -> list[StoredSchema]:
    """Read schemas by their ids; those that are not registered are left out."""
    return [*map(_stored, await tx.execute(_READ_IDS, {"ids": [*ids]}))]


def _stored(row: Sequence[Any]) -> StoredSchema:
    id_, subject, version, fingerprint, writes, reads, registered_at = row
    return StoredSchema(
        id=id_,
        subject=subject,
        schema=VersionSchema(version, orjson.loads(writes), orjson.loads(reads)),
        fingerprint=fingerprint,
        registered_at=registered_at,
    )


async def read_subjects(
    tx: Transaction, subjects: Collection[str] | None = None
) -> dict[str, StoredSubject]:
    """Read subjects by their names; None for all, in their order."""
    names = None if subjects is None else [*subjects]
    return {
        subject: StoredSubject(subject, SchemaKind(kind), Compatibility(compatibility))
        for subject, kind, compatibility in await tx.execute(_SUBJECTS, {"subjects": names})
    }


async def lock_subjects(tx: Transaction, declared: Collection[DeclaredSchema]) -> None:
    """Create the subjects that do not exist, and lock them all: one process judges at a time."""
    kinds = {each.subject: each.kind for each in declared}
    subjects = sorted(kinds)  # in one order for all processes
    parameters = {
        "subject": subjects,
        "kind": [kinds[each].value for each in subjects],
        "compatibility": [kinds[each].default_compatibility.value for each in subjects],
    }
    await tx.execute(_CREATE_SUBJECTS, parameters)
    await tx.execute(_LOCK_SUBJECTS, {"subjects": subjects})


async def insert(
    tx: Transaction, declared: Sequence[DeclaredSchema], settings: Settings
) -> dict[SchemaKey, int]:
    """
    Register schemas whose subjects are locked, in their order; return their ids.

    Raises:
        TooManySchemas: a subject would have more of them than `max_schema_versions`.
    """
    names = sorted({each.subject for each in declared})
    counts = dict((await tx.execute(_COUNTS, {"subjects": names})).all())
    for name in names:
        added = sum(each.subject == name for each in declared)
        if counts.get(name, 0) + added > settings.max_schema_versions:
            raise TooManySchemas(name, settings.max_schema_versions)
    rows = {
        **_columns(declared),
        "writes": [dumps(each.schema.writes) for each in declared],
        "reads": [dumps(each.schema.reads) for each in declared],
    }
    await tx.execute(_INSERT, rows)
    return await find_ids(tx, declared)


async def set_compatibility(tx: Transaction, subject: str, compatibility: Compatibility) -> None:
    """
    Choose which versions of a subject must read each other, from the next registration on.

    Raises:
        NotFound: no process has registered it.
    """
    parameters = {"subject": subject, "compatibility": compatibility.value}
    if not (await tx.execute(_SET_COMPATIBILITY, parameters)).rowcount:
        raise not_registered(subject)


def not_registered(subject: str) -> NotFound:
    """Make the error for a subject without schemas."""
    return NotFound(
        f"No schema {subject!r} is registered. `saga-engine schemas list` shows those that are;"
        " a projector or a worker registers the schemas of its modules when it starts."
    )


def _columns(declared: Sequence[DeclaredSchema]) -> Mapping[str, Any]:
    return {
        "subject": [each.subject for each in declared],
        "version": [each.schema.version for each in declared],
        "fingerprint": [each.fingerprint for each in declared],
    }


_IDS = text(
    """
    SELECT s.id, s.subject, s.version, s.fingerprint
    FROM unnest(CAST(:subject AS text[]), CAST(:version AS integer[]),
        CAST(:fingerprint AS text[])) AS d(subject, version, fingerprint)
    JOIN saga_engine.schema AS s USING (subject, version, fingerprint)"""
)

_READ = text(
    """
    SELECT id, subject, version, fingerprint, writes::text, reads::text, registered_at
    FROM saga_engine.schema
    WHERE CAST(:subjects AS text[]) IS NULL OR subject = ANY (CAST(:subjects AS text[]))
    ORDER BY subject, version, id"""
)

_READ_VERSION = text(
    """
    SELECT id, subject, version, fingerprint, writes::text, reads::text, registered_at
    FROM saga_engine.schema WHERE subject = :subject AND version = :version ORDER BY id"""
)

_READ_IDS = text(
    """
    SELECT id, subject, version, fingerprint, writes::text, reads::text, registered_at
    FROM saga_engine.schema WHERE id = ANY (CAST(:ids AS bigint[]))"""
)

_SUBJECTS = text(
    """
    SELECT subject, kind, compatibility FROM saga_engine.schema_subject
    WHERE CAST(:subjects AS text[]) IS NULL OR subject = ANY (CAST(:subjects AS text[]))
    ORDER BY subject"""
)

_CREATE_SUBJECTS = text(
    """
    INSERT INTO saga_engine.schema_subject (subject, kind, compatibility)
    SELECT * FROM unnest(CAST(:subject AS text[]), CAST(:kind AS text[]),
        CAST(:compatibility AS text[])) AS d(subject, kind, compatibility)
    ORDER BY subject ON CONFLICT DO NOTHING"""
)

_LOCK_SUBJECTS = text(
    """
    SELECT FROM saga_engine.schema_subject
    WHERE subject = ANY (CAST(:subjects AS text[])) ORDER BY subject FOR UPDATE"""
)

_COUNTS = text(
    """
    SELECT subject, count(*) FROM saga_engine.schema
    WHERE subject = ANY (CAST(:subjects AS text[])) GROUP BY subject"""
)

_INSERT = text(
    """
    INSERT INTO saga_engine.schema (subject, version, fingerprint, writes, reads)
    SELECT subject, version, fingerprint, writes::json, reads::json
    FROM unnest(CAST(:subject AS text[]), CAST(:version AS integer[]),
        CAST(:fingerprint AS text[]), CAST(:writes AS text[]), CAST(:reads AS text[]))
        WITH ORDINALITY AS d(subject, version, fingerprint, writes, reads, place)
    ORDER BY place"""
)

_SET_COMPATIBILITY = text(
    "UPDATE saga_engine.schema_subject SET compatibility = :compatibility WHERE subject = :subject"
)
