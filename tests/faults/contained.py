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

from tests.faults.shop import COMMANDS

EVENTS = ("fault.found", "observer.failed")
EXPECTED = re.compile(
    r"ConnectionError at \S+/tests/faults/shop\.py:\d+"
    r"|(DBAPI|Interface|Internal|Operational)Error"
    r" at \S+/sqlalchemy/dialects/postgresql/asyncpg\.py:\d+"
    r"|(Connection\w*|Timeout)Error at \S+/asyncio/\w+\.py:\d+"
    r"|StoreUnavailable: .*"
)
"""What a command of the shop's is answered with: a whim of its, or a database out of reach."""


class Contained:
    """Reads the processes' logs, each from where it was read last."""

    def __init__(self, logs):
        self._read = dict.fromkeys(logs, 0)

    def found(self) -> list[tuple[str, tuple[datetime, datetime]]]:
        """Each bug that was told since this was asked last, and from when to when."""
        times = defaultdict(list)
        for log in self._read:
            for said in self._lines(log):
                if _is_bug(said):
                    bug = f"{said.get('operation', said['event'])}: {said['problem']}"
                    times[log.name, bug].append(datetime.fromisoformat(said["timestamp"]))
        return [
            (f"P7: {name} contained {bug}, {len(each)} times", (min(each), max(each)))
            for (name, bug), each in times.items()
        ]

    def _lines(self, log):
        with log.open("rb") as file:
            file.seek(self._read[log])
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._read[log] += len(line)
                with suppress(ValueError):  # a traceback of the interpreter's, half a line
                    yield json.loads(line)


def _is_bug(said):
    if said.get("event") not in EVENTS:
        return False
    return said.get("operation") not in COMMANDS or not EXPECTED.fullmatch(said["problem"])
