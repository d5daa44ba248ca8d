"""
What PostgreSQL's functions hold an act, a request and a start to, in the model of it.

The same bounds are in `record_acts`, `add_requests` and `request_start` of the migrations, which
are SQL and stay as they are; tests/store/test_bounds.py holds both against each other, at each
bound and one beyond.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from saga_engine.errors import StoreRefused
from simulation.memory_database import Row

AT_ONCE = 1000
"""Acts, or requests, of one call."""

TEXT = 2000
"""Bytes of a name, a reason, a target or a key."""

REQUEST = 4 * 1024 * 1024
"""Bytes of a request's body."""

START = 128 * 1024 * 1024
"""Bytes of a start's body."""

MARK = 100
"""Bytes of a fingerprint."""

DIGEST = range(32, 1001)
"""Bytes of what is kept of an input."""

_ACTION = re.compile("[a-z_-]{1,40}")
_RUN_ID = re.compile(".{14}7.{4}[89ab].*")


def check_acts(rows: Collection[Row]) -> None:
    """Refuse acts as `record_acts` does."""
    sound = len(rows) <= AT_ONCE and all(
        row["id"] is not None
        and _text(row["by"])
        and row["action"] is not None
        and _ACTION.fullmatch(row["action"])
        and (row["target"] is None or _size(row["target"]) <= TEXT)
        and row["reason"] is not None
        and _size(row["reason"]) <= TEXT
        for row in rows
    )
    if not sound:
        raise StoreRefused("An act is out of bounds (22023).")


def check_requests(rows: Collection[Row]) -> None:
    """Refuse requests as `add_requests` does, before it looks at their acts."""
    sound = len(rows) <= AT_ONCE and all(
        None not in (row["run_id"], row["audit_id"], row["body"]) and _size(row["body"]) <= REQUEST
        for row in rows
    )
    if not sound:
        raise StoreRefused("A request is out of bounds (22023).")


def says(body: str, act: Row, kind: str) -> bool:
    """Whether a request says what its act says; what PostgreSQL cannot read says nothing."""
    try:
        said = json.loads(body)
        json.dumps(said, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError):
        return False
    if not isinstance(said, dict) or _has_nul(said):
        return False
    wanted = {"by": act["by"], "reason": act["reason"]}
    wanted |= {"resolution": act["action"]} if kind == "resolve" else {}
    return all(said.get(name) == value for name, value in wanted.items())


def check_start(start: Mapping[str, Any]) -> None:
    """
    Refuse a start as `request_start` does; `start` are the arguments of the statement.

    The time that its run id names is not looked at: in a simulation time is shorter, see `months`.
    """
    key, version, mark = start["key"], start["version"], start["fingerprint"]
    sound = (
        _text(start["saga"])
        and (key is None or (_text(key) and len(start["kept"] or b"") in DIGEST))
        and (version is None or version >= 1)
        and (mark is None or 1 <= _size(mark) <= MARK)
        and _size(start["body"]) <= START
        and _RUN_ID.fullmatch(start["run_id"])
    )
    if not sound:
        raise StoreRefused("A start is out of bounds (22023).")


def _text(value: str | None) -> bool:
    return value is not None and 1 <= _size(value) <= TEXT


def _size(value: str) -> int:
    return len(value.encode())


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    return isinstance(inner, list) and any(map(_has_nul, inner))
