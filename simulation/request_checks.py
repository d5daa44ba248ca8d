"""
The bounds of operator actions, requests and starts that functions of PostgreSQL check.

The same bounds are in `record_actions`, `add_operator_requests` and `request_start` of the
migrations. tests/simulation/test_request_checks.py compares both at each bound and one beyond.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from saga_engine.errors import StoreRefused
from simulation.rows import Row

MAX_ROWS = 1000
"""Actions, or requests, of one call."""

MAX_TEXT_BYTES = 2000
"""Bytes of a name, a reason, a target or a key."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Bytes of a request's body."""

MAX_START_BYTES = 128 * 1024 * 1024
"""Bytes of a start's body."""

MAX_FINGERPRINT_BYTES = 100
"""Bytes of a fingerprint."""

DIGEST_BYTES = range(32, 1001)
"""Bytes of the stored digest of an input."""

_ACTION = re.compile("[a-z_-]{1,40}")
_RUN_ID = re.compile(".{14}7.{4}[89ab].*")


def check_audit_records(rows: Collection[Row]) -> None:
    """Refuse operator actions as `record_actions` does."""
    valid = len(rows) <= MAX_ROWS and all(
        row["id"] is not None
        and _is_text(row["operator"])
        and row["action"] is not None
        and _ACTION.fullmatch(row["action"])
        and (row["target"] is None or _byte_length(row["target"]) <= MAX_TEXT_BYTES)
        and row["reason"] is not None
        and _byte_length(row["reason"]) <= MAX_TEXT_BYTES
        for row in rows
    )
    if not valid:
        raise StoreRefused("An operator action is out of bounds (22023).")


def check_requests(rows: Collection[Row]) -> None:
    """Refuse requests as `add_operator_requests` does before it reads audit records."""
    valid = len(rows) <= MAX_ROWS and all(
        None not in (row["run_id"], row["audit_id"], row["body"])
        and _byte_length(row["body"]) <= MAX_REQUEST_BYTES
        for row in rows
    )
    if not valid:
        raise StoreRefused("A request is out of bounds (22023).")


def matches_audit_record(body: str, audit_record: Row, kind: str) -> bool:
    """Whether a request matches its audit record; an unreadable request matches none."""
    try:
        request = json.loads(body)
        json.dumps(request, ensure_ascii=False).encode()  # Fails for lone surrogates.
    except (ValueError, RecursionError):
        return False
    if not isinstance(request, dict) or _has_nul(request):
        return False
    expected = {"operator": audit_record["operator"], "reason": audit_record["reason"]}
    expected |= {"resolution": audit_record["action"]} if kind == "resolve" else {}
    return all(request.get(name) == value for name, value in expected.items())


def check_start(start: Mapping[str, Any]) -> None:
    """
    Refuse a start as `request_start` does; `start` are the arguments of the statement.

    The time in its run id is not checked, because time is shortened (see `partition_model`).
    """
    key, version, fingerprint = start["key"], start["version"], start["fingerprint"]
    valid = (
        _is_text(start["saga"])
        and (
            key is None or (_is_text(key) and len(start["digest_to_store"] or b"") in DIGEST_BYTES)
        )
        and (version is None or version >= 1)
        and (fingerprint is None or 1 <= _byte_length(fingerprint) <= MAX_FINGERPRINT_BYTES)
        and _byte_length(start["body"]) <= MAX_START_BYTES
        and _RUN_ID.fullmatch(start["run_id"])
    )
    if not valid:
        raise StoreRefused("A start is out of bounds (22023).")


def _is_text(value: str | None) -> bool:
    return value is not None and 1 <= _byte_length(value) <= MAX_TEXT_BYTES


def _byte_length(value: str) -> int:
    return len(value.encode())


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    return isinstance(inner, list) and any(map(_has_nul, inner))
