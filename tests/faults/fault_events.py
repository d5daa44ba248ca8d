"""
Finds internal errors in the logs of processes.

A process continues after an internal error, and its work is retried: neither a run nor an effect
shows that it happened.
"""

import json
import re
from collections import defaultdict
from contextlib import suppress
from datetime import datetime

from tests.faults.workload import COMMANDS

FAULT_EVENTS = ("internal_error.caught", "observer.failed")
EXPECTED_HANDLER_ERRORS = re.compile(
    r"ConnectionError at \S+/tests/faults/workload\.py:\d+"
    r"|(DBAPI|Interface|Internal|Operational)Error"
    r" at \S+/sqlalchemy/dialects/postgresql/asyncpg\.py:\d+"
    r"|(Connection\w*|Timeout)Error at \S+/asyncio/\w+\.py:\d+"
    r"|(StoreUnavailable|StoreLockTimeout|SerializationFailure|WrongVersion): .*"
)
"""
Errors that the workload's commands may have: by their scenario, without their database, or because
another step of the job has appended to its stream first.
"""


class FaultEventScanner:
    """Reads the logs of the processes, each from the end of the last scan."""

    def __init__(self, logs):
        self._offsets = dict.fromkeys(logs, 0)

    def unexpected_faults(self) -> list[tuple[str, tuple[datetime, datetime]]]:
        """Each unexpected error since the last scan, with the time of its first and last line."""
        times = defaultdict(list)
        for log in self._offsets:
            for line in self._lines(log):
                if _is_unexpected(line):
                    error = f"{line.get('operation', line['event'])}: {line['problem']}"
                    times[log.name, error].append(datetime.fromisoformat(line["timestamp"]))
        return [
            (f"P7: {name} caught {error}, {len(each)} times", (min(each), max(each)))
            for (name, error), each in times.items()
        ]

    def _lines(self, log):
        with log.open("rb") as file:
            file.seek(self._offsets[log])
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._offsets[log] += len(line)
                with suppress(ValueError):  # a traceback, or half a line
                    yield json.loads(line)


def _is_unexpected(line):
    if line.get("event") not in FAULT_EVENTS:
        return False
    return line.get("operation") not in COMMANDS or not EXPECTED_HANDLER_ERRORS.fullmatch(
        line["problem"]
    )
