"""
Waiting until a run is finished.

The engine publishes a message when a run finishes. It may be lost, so the status is requested again
every `client_poll_interval` seconds.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

from saga_engine.client.requests import RequestSender
from saga_engine.errors import NotFound
from saga_engine.protocol.answer import AnswerOutcome
from saga_engine.protocol.request import StatusRequest
from saga_engine.protocol.run_result import RunResult
from saga_engine.settings import Settings


class RunWaiter:
    """
    Waits for one run; `last_result` is the run as of the last answer.

    Args:
        run_id: the run.
        on_incident: called with each new first incident of the run.
    """

    def __init__(self, run_id: UUID, on_incident: Callable[[RunResult], None] | None) -> None:
        self.run_id = run_id
        self.last_result: RunResult | None = None
        self._on_incident = on_incident

    async def wait(
        self,
        sender: RequestSender,
        finished: asyncio.Future[RunResult],
        settings: Settings,
    ) -> RunResult:
        """
        Wait for the announcement or for an answer that says that the run is finished.

        Raises:
            NotFound: after `client_timeout` seconds no worker knows the run. Before that the
                transaction that records its start may not be committed yet.
        """
        now = asyncio.get_running_loop().time
        not_found_deadline = now() + settings.client_timeout
        while not finished.done():
            answer = await sender.ask_until_answered(StatusRequest(self.run_id), finished)
            run_result = answer.run if answer else None
            if run_result and run_result.status.is_finished:
                return run_result
            if run_result:
                self._report(run_result)
            if (
                answer
                and answer.outcome is not AnswerOutcome.EXISTING
                and now() >= not_found_deadline
            ):
                raise run_not_found(self.run_id)
            await asyncio.wait([finished], timeout=settings.client_poll_interval)
        return finished.result()

    def timeout_message(self, timeout: float | None) -> str:
        """Say that the run is not finished, and what it waits for as far as that is known."""
        last_result = self.last_result
        if last_result is None or last_result.incident is None:
            return (
                f"Run {self.run_id} is not finished after {timeout} seconds; it goes on."
                f" `saga-engine show {self.run_id}` shows what it waits for."
            )
        others = last_result.open_incidents - 1
        more = f" and {others} more" if others else ""
        return (
            f"Run {self.run_id} is not finished after {timeout} seconds: it waits for a person,"
            f" {last_result.incident.text(str(self.run_id))}{more}. An operator resolves it with"
            f" `saga-engine resolve {self.run_id}/{last_result.incident.number} ACTION --reason"
            " TEXT`."
        )

    def _report(self, run_result: RunResult) -> None:
        previous_incident = self.last_result.incident if self.last_result else None
        self.last_result = run_result
        if self._on_incident and run_result.incident and run_result.incident != previous_incident:
            self._on_incident(run_result)


def run_not_found(run_id: UUID) -> NotFound:
    """Make the error for a run that does not exist."""
    return NotFound(f"There is no run {run_id}.")
