"""What the statements of the engine's identity and of saga definitions mean in the model."""

from collections.abc import Iterable, Sequence
from typing import Any

from saga_engine.store import definitions, engine_identity
from simulation.memory_database import MemoryTransaction, StatementHandlers
from simulation.rows import UNFINISHED, Arguments, row_type, unnest

HANDLERS = StatementHandlers()


_Changed = row_type("name version")


TOKEN_KEY = bytes(32)
"""Constant, so that simulations are reproducible."""


@HANDLERS.handles(engine_identity, "_READ")
async def _read_token_key(tx: MemoryTransaction, _: None) -> Sequence[Any]:
    row = tx.get("engine_identity", 1)
    return [] if row is None else [(row["token_key"], None, True)]


@HANDLERS.handles(engine_identity, "_CREATE")
async def _make_token_key(tx: MemoryTransaction, _: Arguments) -> int:
    return int(await tx.insert("engine_identity", 1, {"token_key": TOKEN_KEY}))


@HANDLERS.handles(definitions, "_REGISTER")
async def _register(tx: MemoryTransaction, arguments: Arguments) -> int:
    names = {"names": "name", "versions": "version", "fingerprints": "fingerprint"}
    registered = 0
    for row in unnest({**names, "documents": "document"}, arguments):
        key = (row["name"], row["version"], row["fingerprint"])
        seen = {"last_seen": tx.now, "present_until": tx.now + arguments["expire_after"]}
        new = {**row, **seen, "id": tx.next_value("definition")}
        if not await tx.insert("definition", key, new):
            before = await tx.lock("definition", key)
            assert before is not None, "a definition is never deleted"
            tx.put("definition", key, {**before, **seen})
        registered += 1
    return registered


@HANDLERS.handles(definitions, "_REFRESH_PRESENCE")
async def _refresh_definitions(tx: MemoryTransaction, arguments: Arguments) -> int:
    seen, until = 0, tx.now + arguments["expire_after"]
    for key, row in list(tx.scan("definition")):
        old = row["last_seen"] < tx.now - arguments["refresh_after"]
        if row["id"] in arguments["ids"] and old and tx.is_lockable("definition", key):
            tx.lock_unlocked("definition", key)
            tx.put("definition", key, {**row, "last_seen": tx.now, "present_until": until})
            seen += 1
    return seen


@HANDLERS.handles(definitions, "_CONFLICTING")
async def _changed_definition(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    loaded = {
        (name, version): fingerprint for name, version, fingerprint in _definition_keys(arguments)
    }
    pinned = {row["definition_id"] for _, row in tx.scan("run") if row["status"] in UNFINISHED}
    changed = [
        _Changed(row["name"], row["version"])
        for _, row in tx.scan("definition")
        if row["id"] in pinned
        and loaded.get((row["name"], row["version"]), row["fingerprint"]) != row["fingerprint"]
    ]
    return sorted(changed)[:1]


@HANDLERS.handles(definitions, "_READ_ALL")
async def _all_definitions(tx: MemoryTransaction, _: None) -> Sequence[Any]:
    rows = sorted((row for _, row in tx.scan("definition")), key=lambda row: row["id"])
    names = ("id", "name", "version", "fingerprint", "document")
    return [tuple(row[name] for name in names) for row in rows]


@HANDLERS.handles(definitions, "_KNOWN_VERSIONS")
async def _definition_versions(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    found = {(row["name"], row["version"]) for _, row in tx.scan("definition")}
    return sorted(each for each in found if each[0] in arguments["names"])


@HANDLERS.handles(definitions, "_IDS")
async def _definition_ids(tx: MemoryTransaction, arguments: Arguments) -> Sequence[Any]:
    rows = [tx.get("definition", key) for key in _definition_keys(arguments)]
    return [(row["id"], row["name"], row["version"]) for row in rows if row]


def _definition_keys(arguments: Arguments) -> Iterable[tuple[str, int, str]]:
    names, versions = arguments["name"], arguments["version"]
    return zip(names, versions, arguments["fingerprint"], strict=True)


def definition_of(tx: MemoryTransaction, definition_id: int) -> tuple[str, int, str]:
    """The name, version and fingerprint of a definition."""
    for _, row in tx.scan("definition"):
        if row["id"] == definition_id:
            return row["name"], row["version"], row["fingerprint"]
    raise KeyError(definition_id)
