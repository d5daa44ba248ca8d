"""An internal error is a violation; an expected error of a handler is not."""

import json

import pytest

from tests.faults.fault_events import FaultEventScanner

AT = "2026-01-31T12:00:00.000001Z"


def log_line(**keys):
    return json.dumps({"timestamp": AT, "level": "error", **keys}) + "\n"


@pytest.mark.parametrize(
    ("operation", "problem", "errors"),
    [
        ("publish", "KeyError at /x/saga_engine/worker/batch_runner.py:127", 1),
        ("participant", "KeyError at /x/lib/asyncio/tasks.py:1", 1),
        ("bank.charge", "KeyError at /x/saga_engine/participant/barrier.py:3", 1),
        ("bank.charge", "InvalidRequestError at /x/lib/sqlalchemy/engine/base.py:3", 1),
        ("bank.charge", "ConnectionError at /x/tests/faults/workload.py:3", 0),
        ("bank.charge", "DBAPIError at /x/sqlalchemy/dialects/postgresql/asyncpg.py:3", 0),
        ("bank.charge", "ConnectionRefusedError at /x/asyncio/selector_events.py:3", 0),
        ("bank.charge", "StoreUnavailable: The database is unavailable.", 0),
    ],
)
def test_an_internal_error_is_found(tmp_path, operation, problem, errors):
    log = tmp_path / "worker-0.log"
    log.write_text(log_line(event="internal_error.caught", operation=operation, problem=problem))
    assert len(FaultEventScanner([log]).unexpected_faults()) == errors


def test_an_error_is_found_once_when_its_line_is_complete(tmp_path):
    log = tmp_path / "worker-0.log"
    line = log_line(
        event="internal_error.caught", operation="publish", problem="KeyError at x.py:1"
    )
    scanner = FaultEventScanner([log])
    log.write_text("Traceback (most recent call last):\n" + line + line + line[:40])
    [(sentence, (since, until))] = scanner.unexpected_faults()
    assert "2 times" in sentence
    assert since == until
    assert not scanner.unexpected_faults()
    log.write_text(log.read_text() + line[40:])
    assert len(scanner.unexpected_faults()) == 1
