"""
Bugs that a process met, contained and told.

It went on, and what it spoiled was swept or sent again: neither a run nor the ledger says anything
of them.
"""

import json
import re
from collections import defaultdict
from contextlib import suppress
from datetime import datetime

from tests.faults.workload import COMMANDS

FAULT_EVENTS = ("internal_error.caught", "observer.failed")
EXPECTED_HANDLER_ERRORS = re.compile(
    r"ConnectionError at \S+/tests/faults/shop\.py:\d+"
    r"|(DBAPI|Interface|Internal|Operational)Error"
    r" at \S+/sqlalchemy/dialects/postgresql/asyncpg\.py:\d+"
    r"|(Connection\w*|Timeout)Error at \S+/asyncio/\w+\.py:\d+"
    r"|StoreUnavailable: .*"
)
"""What a command of the shop's is answered with: a whim of its, or a database out of reach."""


class FaultEventScanner:
    """Reads the processes' logs, each from where it was read last."""

    def __init__(self, logs):
        self._offsets = dict.fromkeys(logs, 0)

    def unexpected_faults(self) -> list[tuple[str, tuple[datetime, datetime]]]:
        """Each bug that was told since this was asked last, and from when to when."""
        times = defaultdict(list)
        for log in self._offsets:
            for said in self._lines(log):
                if _is_unexpected(said):
                    bug = f"{said.get('operation', said['event'])}: {said['problem']}"
                    times[log.name, bug].append(datetime.fromisoformat(said["timestamp"]))
        return [
            (f"P7: {name} contained {bug}, {len(each)} times", (min(each), max(each)))
            for (name, bug), each in times.items()
        ]

    def _lines(self, log):
        with log.open("rb") as file:
            file.seek(self._offsets[log])
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._offsets[log] += len(line)
                with suppress(ValueError):  # a traceback of the interpreter's, half a line
                    yield json.loads(line)


def _is_unexpected(line):
    if line.get("event") not in FAULT_EVENTS:
        return False
    return line.get("operation") not in COMMANDS or not EXPECTED_HANDLER_ERRORS.fullmatch(
        line["problem"]
    )
