"""What processes say in their logs, which is how a fault knows that it came about."""

import json
import re
from contextlib import suppress
from datetime import datetime

from tests.faults.processes import eventually

PATIENCE = 20.0


class Hearing:
    """Listens to the processes of `members` from now on."""

    def __init__(self, members):
        self._logs = {each.program.log: _size(each.program.log) for each in members}

    async def everyone(self, event, *, patience=PATIENCE, **keys):
        """Wait until each has written a line of such an event whose `keys` are like that."""
        await self._until(all, event, patience, keys)

    async def anyone(self, event, *, patience=PATIENCE, **keys):
        """Wait until one of them has."""
        await self._until(any, event, patience, keys)

    def times(self, event):
        """When the lines of that event were written, by the clocks of who wrote them."""
        return [
            datetime.fromisoformat(line["timestamp"])
            for log in self._logs
            for line in self._lines(log)
            if line.get("event") == event
        ]

    async def _until(self, enough, event, patience, keys):
        async def said():
            return enough(_has(self._lines(log), event, keys) for log in self._logs)

        try:
            await eventually(said, patience=patience)
        except TimeoutError:
            silent = [log.name for log in self._logs if not _has(self._lines(log), event, keys)]
            raise AssertionError(f"no {event} {keys} is in {silent}") from None

    def _lines(self, log):
        with log.open("rb") as file:
            file.seek(self._logs[log])
            for line in file:
                with suppress(ValueError):  # a traceback of the interpreter's, half a line
                    yield json.loads(line)


def _has(lines, event, keys):
    return any(
        re.fullmatch(event, line.get("event", ""))
        and all(re.search(like, str(line.get(key, ""))) for key, like in keys.items())
        for line in lines
    )


def _size(path):
    return path.stat().st_size if path.exists() else 0
