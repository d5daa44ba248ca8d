"""
Which code a snapshot was made by: a hash of the state's schema and of the source of the folds.

A snapshot is used only by code with the same fingerprint; other code replays the stream. What folds
call is part of them, so the whole source of each module is in the hash that declares the state, an
event, a fold or an upcaster, or a base class or a field's class of a state or an event. A fold must
not depend on other modules of the author's.
"""

import hashlib
import json
from collections.abc import Mapping

from saga_engine.payload.payload import PayloadType

_FORMAT = 1
"""Raised when the engine itself folds or stores snapshots in another way."""


def snapshot_fingerprint(
    state_type: PayloadType, source_hashes: Mapping[str, str | None]
) -> str | None:
    """
    Make the fingerprint; None if a source is not known, so that snapshots are not used.

    Args:
        state_type: of the state.
        source_hashes: of the modules that make it, by their names.
    """
    if None in source_hashes.values():
        return None
    document = json.dumps(
        [_FORMAT, state_type.schema("serialization"), sorted(source_hashes.items())],
        sort_keys=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(document.encode()).hexdigest()[:16]
