"""
Which code a snapshot was made by: a hash of the state's schema and of the source of the folds.

A snapshot is used only by code with the same fingerprint; other code replays the stream. What folds
call is part of them, so the whole source of each module is in the hash that declares the state, an
event, a fold or an upcaster. A fold must not depend on other modules of the author's.
"""

import hashlib
import json

from saga_engine.events.aggregate import Aggregate

_FORMAT = 1
"""Raised when the engine itself folds or stores snapshots in another way."""


def snapshot_fingerprint(aggregate: Aggregate) -> str | None:
    """Make the fingerprint; None if a source is not known, so that snapshots are not used."""
    if None in aggregate.source_hashes.values():
        return None
    events = {name: fold.event_type.version for name, fold in aggregate.folds.items()}
    document = json.dumps(
        [
            _FORMAT,
            aggregate.name,
            aggregate.state_type.schema("serialization"),
            sorted(events.items()),
            sorted(aggregate.source_hashes.items()),
        ],
        sort_keys=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(document.encode()).hexdigest()[:16]
