"""The telemetry events that a process or a part of it has emitted, and waiting for them."""

import asyncio
from collections.abc import Callable
from typing import Any

from saga_engine.telemetry.events import (
    IncidentOpened,
    MessageDeadLettered,
    MessageIgnored,
    RunFinished,
    TelemetryEvent,
)
from saga_engine.vocabulary import Status

WAIT_TIMEOUT_S = 60


class EventRecorder(list[Any]):
    """An observer that is the list of the events so far."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()
        self._next_unread = 0

    def __call__(self, event: TelemetryEvent) -> None:
        self.append(event)
        self._changed.set()

    def matching(self, kind: type, **fields: Any) -> list[Any]:
        """The events so far of a kind with these fields."""
        return [each for each in self if _matches(each, kind, fields)]

    async def wait_for(self, kind: type, count: int = 1, **fields: Any) -> list[Any]:
        """Wait until there are `count` events of a kind with these fields; return those."""
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while len(found := self.matching(kind, **fields)) < count:
                await self._wait_for_change()
        return found[:count]

    async def wait_for_next(self, kind: type, count: int = 1) -> list[Any]:
        """Wait for `count` events of a kind after those that an earlier call has returned."""
        found: list[Any] = []
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while len(found) < count:
                while self._next_unread == len(self):
                    await self._wait_for_change()
                event = self[self._next_unread]
                self._next_unread += 1
                found += [event] if isinstance(event, kind) else []
        return found

    async def wait_until(self, condition: Callable[[Any], bool]) -> Any:
        """Wait for an event that meets the condition; return the first one."""
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while (found := next(filter(condition, self), None)) is None:
                await self._wait_for_change()
        return found

    async def wait_for_end(self, run_id: str) -> Status:
        """Wait until a run is finished; return its status."""
        [event] = await self.wait_for(RunFinished, run_id=run_id)
        status: Status = event.status
        return status

    async def wait_for_incident(self, run_id: str, **fields: Any) -> Any:
        """Wait until the run has an incident; return the event."""
        [event] = await self.wait_for(IncidentOpened, run_id=run_id, **fields)
        return event

    async def wait_for_dead_letter(self, reason: str, **fields: Any) -> Any:
        """Wait until a message is dead-lettered; return the event."""
        [event] = await self.wait_for(MessageDeadLettered, reason=reason, **fields)
        return event

    async def wait_for_ignored(self, reason: str, **fields: Any) -> Any:
        """Wait until a message is ignored; return the event."""
        [event] = await self.wait_for(MessageIgnored, reason=reason, **fields)
        return event

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _matches(event: object, kind: type, fields: dict[str, Any]) -> bool:
    return isinstance(event, kind) and all(
        getattr(event, name) == value for name, value in fields.items()
    )
