"""
The event whose async function took longer than its limit, and how often it did.

Such a call may block the event loop, or wait in one statement, until the transaction has ended or
another process has taken the lease. So it is remembered in this process, and blamed when this
process is the owner again.
"""

import asyncio
from collections.abc import Sequence

from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.handlers.sql_call import SqlCall
from saga_engine.events.projections.interfaces import ProjectionTransaction

MAX_OVERDUE_CALLS = 2
"""Calls of a function that may be late before its event is blamed: once may be chance."""


class OverdueCall:
    """
    The last call of a projection's functions that took longer than the limit.

    `call` is the last one, or None; `times` is how often in a row it was late for that event.
    """

    def __init__(self) -> None:
        self.call: SqlCall | None = None
        self.times = 0
        self._noted_at = 0.0

    def note(self, call: SqlCall) -> None:
        """Note that a call was late."""
        is_same = self.call is not None and self.call.recorded.position == call.recorded.position
        self.times = self.times + 1 if is_same else 1
        self.call = call
        self._noted_at = asyncio.get_running_loop().time()

    def forget(self) -> None:
        """Begin again."""
        self.call, self.times = None, 0

    def among(self, events: Sequence[Recorded]) -> SqlCall | None:
        """Return the call if its event is one of *events*."""
        if self.call is None:
            return None
        position = self.call.recorded.position
        return self.call if any(each.position == position for each in events) else None

    async def is_resolved(self, tx: ProjectionTransaction) -> bool:
        """Whether an operator has resolved a failure of that event since the call was noted."""
        if self.call is None:
            return False
        seconds = asyncio.get_running_loop().time() - self._noted_at
        position = self.call.recorded.position
        return await tx.was_resolved(position, seconds)
