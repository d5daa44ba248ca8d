"""Waits for events in the logs of processes: how a fault asserts that it had an effect."""

import json
import re
from contextlib import suppress
from datetime import datetime

from tests.kit.programs import wait_until_true

LOG_TIMEOUT_S = 20.0


class EventLogWatcher:
    """Watches the logs of processes from its creation on."""

    def __init__(self, processes):
        self._logs = {each.program.log: _size(each.program.log) for each in processes}

    async def wait_for_all(self, event, *, patience=LOG_TIMEOUT_S, **keys):
        """Wait until each process has logged the event with keys that match these patterns."""
        await self._wait_for(all, event, patience, keys)

    async def wait_for_any(self, event, *, patience=LOG_TIMEOUT_S, **keys):
        """Wait until one process has logged the event."""
        await self._wait_for(any, event, patience, keys)

    def event_times(self, event):
        """The times of the event's lines, by the clocks of the processes."""
        return [
            datetime.fromisoformat(line["timestamp"])
            for log in self._logs
            for line in self._lines(log)
            if line.get("event") == event
        ]

    async def _wait_for(self, quantifier, event, patience, keys):
        async def is_logged():
            return quantifier(_contains_event(self._lines(log), event, keys) for log in self._logs)

        try:
            await wait_until_true(is_logged, patience=patience)
        except TimeoutError:
            missing_in = [
                log.name for log in self._logs if not _contains_event(self._lines(log), event, keys)
            ]
            raise AssertionError(f"{event} {keys} is missing in {missing_in}") from None

    def _lines(self, log):
        with log.open("rb") as file:
            file.seek(self._logs[log])
            for line in file:
                with suppress(ValueError):  # a traceback, or half a line
                    yield json.loads(line)


def _contains_event(lines, event, keys):
    return any(
        re.fullmatch(event, line.get("event", ""))
        and all(re.search(pattern, str(line.get(key, ""))) for key, pattern in keys.items())
        for line in lines
    )


def _size(path):
    return path.stat().st_size if path.exists() else 0
