"""
Executing a batch of commands in one transaction.

The commands are claimed in one statement and their results are recorded in another, so that a
command costs a small part of the round trips and commits that it would cost alone. What a handler
does reaches no other command:

- rejected or failed: its effects are rolled back to a savepoint. A rejection is recorded with the
  other results; a failure is not recorded.
- refused by the database: the same, and it is executed alone, because another command may be the
  reason, by a lock or a temporary table.
- a handler that changes a setting, or leaves a temporary table or a cursor: the batch ends behind
  it. Unless its command is the first one, its effects are rolled back to the savepoint, and it
  starts the next batch: COMMIT would run with its settings, such as synchronous_commit.
- a handler that breaks the shared transaction, or exceeds its timeout: everything is rolled back,
  and the other commands are executed alone.

Setting a savepoint costs a round trip for each command, as much as the statement of most handlers.
So a batch has none until a handler's effects must be undone; then the batch is rolled back and
executed again with savepoints, and so are the batches of the next SAVEPOINT_COMMANDS commands.

A batch is committed as a whole, or not at all: after an error of the commit the commands are
executed alone too, and the barrier repeats the results of those that were committed.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from saga_engine.participant.barrier import BatchClaim, CommandResult
from saga_engine.participant.execution_events import ExecutionEvents
from saga_engine.participant.handler import Handler
from saga_engine.participant.handler_calls import HandlerCalls
from saga_engine.participant.handler_runner import (
    ExecutionState,
    HandlerRunner,
    timeout_result,
)
from saga_engine.participant.interfaces import BatchDatabase, SharedTransaction
from saga_engine.participant.outage import OutageMonitor
from saga_engine.postgres.sqlalchemy_errors import is_stale_statement, is_unavailable, sqlstate_of
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.settings import Settings
from saga_engine.vocabulary import Direction, Outcome


class NotExecuted(Enum):
    """What happens to a command that the batch has left without an effect."""

    ALONE = "alone"
    LATER = "later"


BatchResult = CommandResult | NotExecuted

SAVEPOINT_COMMANDS = 1000
"""
For how many commands savepoints are set after a failure: rarer failures cost less than savepoints.
"""

_SMOOTHING = 0.1
"""The weight of one command in the average time of a command."""


def _now() -> float:
    """The clock that timers use; in the simulation it is virtual."""
    return asyncio.get_running_loop().time()


class _BatchBroken(Exception):
    """The shared transaction must be rolled back, and the other commands executed alone."""


class _SavepointNeeded(Exception):
    """The effects of a handler cannot be undone without those of the others."""


@dataclass(slots=True, kw_only=True)
class _Member:
    """One command of a batch, and what became of it."""

    state: ExecutionState
    handler: Handler
    claim: BatchClaim
    result: BatchResult = NotExecuted.ALONE
    duration: float = 0.0
    has_timed_out: bool = False

    def recorded_result(self) -> CommandResult | None:
        """What the barrier records; a failure is not recorded."""
        result = self.result
        if isinstance(result, NotExecuted) or result.outcome is Outcome.FAILED:
            return None
        return result


@dataclass(kw_only=True)
class BatchExecutor:
    """
    Executes batches of commands of one participant.

    Args:
        handlers: by command.
        database: of the barrier.
        calls: calls the handlers.
        runner: turns what they return and raise into results.
        events: emits telemetry.
        settings: timeouts, and how large a batch is.
        outage_monitor: gets the errors that show an outage of the database.
    """

    handlers: Mapping[str, Handler]
    database: BatchDatabase
    calls: HandlerCalls
    runner: HandlerRunner
    events: ExecutionEvents
    settings: Settings
    outage_monitor: OutageMonitor | None
    _seconds_per_command: float = field(init=False, default=0.0)
    _savepoint_commands: int = field(init=False, default=0)

    @property
    def max_size(self) -> int:
        """The commands that a batch can execute in its time, as the last ones took; at least 1."""
        most = self.settings.participant_batch_size
        if not self._seconds_per_command:
            return most
        expected = int(self.settings.participant_batch_duration / self._seconds_per_command)
        return max(1, min(most, expected))

    async def execute(self, batch: Sequence[ReceivedCommand]) -> Sequence[BatchResult]:
        """
        Execute a batch; return a result for each command, in their order.

        Nothing is raised unless the caller is cancelled.
        """
        members = self._members(batch)
        try:
            await self._execute_members(list(members.values()))
        except asyncio.CancelledError:
            for each in members.values():
                if each.state.handler_started and not each.duration:
                    problem = "The process stops before the handler has ended."
                    self.events.handler_abandoned(each.state, problem)
            raise
        except Exception as error:  # noqa: BLE001 - the commands are executed alone
            if is_unavailable(error) and self.outage_monitor is not None:
                self.outage_monitor.report(error)
            for each in members.values():
                if not each.has_timed_out:
                    each.result = NotExecuted.ALONE
        self._emit_results(members.values())
        return [
            members[number].result if number in members else NotExecuted.ALONE
            for number in range(len(batch))
        ]

    async def _execute_members(self, members: Sequence[_Member]) -> None:
        try:
            async with self.database.shared_transaction() as tx:
                await self._execute_claimed(tx, members)
        except _SavepointNeeded:
            self._savepoint_commands = SAVEPOINT_COMMANDS
            for each in members:
                each.state, each.result = ExecutionState(each.state.received), NotExecuted.ALONE
            async with self.database.shared_transaction() as tx:
                await self._execute_claimed(tx, members)

    def _members(self, batch: Sequence[ReceivedCommand]) -> dict[int, _Member]:
        """The commands of the batch: of each run and step the first one, by their number."""
        members: dict[int, _Member] = {}
        steps: set[tuple[str, str]] = set()
        for number, received in enumerate(batch):
            command = received.command
            handler = self.handlers.get(command.name)
            step = command.run_id, command.step
            if handler is None or step in steps:
                continue
            steps.add(step)
            compensates = bool(handler.compensated_command)
            is_local = compensates and command.direction is Direction.COMPENSATION
            members[number] = _Member(
                state=ExecutionState(received),
                handler=handler,
                claim=BatchClaim(command, compensates_local_action=is_local),
            )
        return members

    async def _execute_claimed(self, tx: SharedTransaction, members: Sequence[_Member]) -> None:
        """Claim the commands, call their handlers one after another, and commit the results."""
        ends_at = _now() + self.settings.participant_batch_duration
        numbers = await tx.barrier.claim_all([each.claim for each in members])
        claimed = [members[number] for number in numbers]
        has_savepoints = self._savepoint_commands > 0
        self._savepoint_commands = max(0, self._savepoint_commands - len(claimed))
        if has_savepoints and any(each.handler.takes_connection for each in claimed):
            await tx.set_savepoint()
        is_full = False
        for each in claimed:
            if is_full:
                each.result = NotExecuted.LATER
                continue
            started_at = _now()
            await self._execute_member(
                tx, each, is_first=each is claimed[0], has_savepoints=has_savepoints
            )
            now = _now()
            self._seconds_per_command += (now - started_at - self._seconds_per_command) * _SMOOTHING
            is_full = tx.state_changed or now >= ends_at
        results = [(each.claim.command, each.recorded_result()) for each in claimed]
        if claimed and not await tx.commit_results(results):
            raise _BatchBroken

    async def _execute_member(
        self, tx: SharedTransaction, member: _Member, *, is_first: bool, has_savepoints: bool
    ) -> None:
        """Call the handler of one command, and keep its effects if it has succeeded."""
        started_at = _now()
        result = await self._call_handler(tx, member)
        member.duration = _now() - started_at
        if not tx.is_usable:
            raise _BatchBroken
        error = member.state.handler_error
        if is_stale_statement(error):
            tx.abandon()
        member.result = NotExecuted.ALONE if error and sqlstate_of(error) else result
        if member.handler.takes_connection:
            succeeded = result.outcome is Outcome.SUCCEEDED
            must_start_a_batch = tx.state_changed and not is_first
            if not has_savepoints and (must_start_a_batch or not succeeded):
                raise _SavepointNeeded
            if must_start_a_batch and succeeded:
                await tx.roll_back_to_savepoint()
                member.result = NotExecuted.LATER
            elif has_savepoints and not await _keep_effects(tx, result):
                member.result = NotExecuted.ALONE
        if error is not None and member.result is result:
            self.events.handler_failed(member.handler, member.state)

    async def _call_handler(self, tx: SharedTransaction, member: _Member) -> CommandResult:
        state, takes_connection = member.state, member.handler.takes_connection
        connection = tx.open_connection() if takes_connection else None
        coroutine = self.runner.run(member.handler, state, connection)
        state.handler_started = True
        seconds = self.settings.participant_handler_timeout
        try:
            async with asyncio.timeout(seconds):
                return await self.calls.run(state.received, coroutine, state.set_abandoned_task)
        except TimeoutError:
            tx.abandon()
            member.duration, member.has_timed_out = seconds, True
            member.result = timeout_result(seconds, state.abandoned_task)
            if state.abandoned_task is not None:
                self.events.handler_ignores_cancellation(state)
            raise _BatchBroken from None
        finally:
            if takes_connection:
                tx.close_connection()

    def _emit_results(self, members: Iterable[_Member]) -> None:
        for each in members:
            if isinstance(each.result, CommandResult):
                self.events.command_finished(
                    each.state.received, each.handler, each.result, each.duration
                )


async def _keep_effects(tx: SharedTransaction, result: CommandResult) -> bool:
    """Keep the effects of a handler that succeeded; False if the database refuses them."""
    if result.outcome is Outcome.SUCCEEDED:
        try:
            await tx.set_savepoint()
        except Exception as error:
            if not sqlstate_of(error):
                raise
        else:
            return True
    await tx.roll_back_to_savepoint()
    return result.outcome is not Outcome.SUCCEEDED
