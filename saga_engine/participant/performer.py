"""
One command, from what arrived to what is replied: always an answer, whatever the handler does.

With a database the handler runs between claiming the barrier's row and recording its answer there,
in one transaction. A rejection rolls that back, with whatever the handler wrote, and is recorded in
a transaction of its own; if another delivery of the command got in between, its answer counts, so
there is only ever one. A failure is rolled back and not recorded: the command may be tried again.

With a codec the handler gets the payload as it was before it was sealed, and what it answers is
sealed before it is recorded: the barrier's row shows no more than the broker does.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.broker.body import write_json
from saga_engine.broker.command import Command, ReceivedCommand
from saga_engine.broker.limits import limits_of
from saga_engine.broker.reply import failure_json
from saga_engine.broker.token import shown
from saga_engine.participant import barrier
from saga_engine.participant.barrier import IN_HAND, Answer, InHand
from saga_engine.participant.database import Database
from saga_engine.participant.handler import Handler
from saga_engine.participant.refusal import Failed, Rejected
from saga_engine.saga.limits import excess
from saga_engine.saga.run import Failure
from saga_engine.saga.sealing import (
    PAYLOAD_SEALED,
    PLAIN,
    SealError,
    Sealing,
    command_place,
    reply_place,
)
from saga_engine.saga.vocabulary import Direction, Outcome
from saga_engine.settings import Settings
from saga_engine.telemetry.facts import BarrierHit, FaultFound, HandlerFinished, Observer, described


class Performer:
    """Performs the commands of one participant; any number at once."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        database: Database | None,
        settings: Settings,
        tell: Observer,
        sealing: Sealing = PLAIN,
    ) -> None:
        self._handlers = handlers
        self._database = database
        self._settings = settings
        self._tell = tell
        self._sealing = sealing

    async def perform(self, received: ReceivedCommand) -> Answer:
        """
        Perform a command within participant_timeout seconds.

        Raises:
            InHand: another delivery has it, and nothing that this one did is kept. Nothing else is
                raised, unless it is cancelled.
        """
        began = monotonic()
        command = received.command
        handler = self._handlers.get(command.name)
        if handler is None:
            text = f"No handler here is called {command.name}."
            answer = _no(Outcome.FAILED, Failure("unknown_command", text))
        else:
            answer = await self._guarded(handler, command)
        self._report(received, handler, answer, monotonic() - began)
        return answer

    def give_up(self, received: ReceivedCommand) -> Answer:
        """Answer a command that another delivery has had in hand for too long."""
        self._report(received, self._handlers.get(received.command.name), IN_HAND, 0.0)
        return IN_HAND

    async def _guarded(self, handler: Handler, command: Command) -> Answer:
        seconds = self._settings.participant_timeout
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await self._perform(handler, command)
        except InHand:
            raise
        except Failed as error:
            return self._refused(Outcome.FAILED, error, command)
        except TimeoutError as error:
            if not limit.expired():
                return self._fault(command, error)
            text = f"The handler took longer than participant_timeout, {seconds:g} s."
            return _no(Outcome.FAILED, Failure("timeout", text))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            return self._fault(command, error)  # the handler cancelled something of its own
        except Exception as error:  # noqa: BLE001 - the user's handler may raise anything
            return self._fault(command, error)

    async def _perform(self, handler: Handler, command: Command) -> Answer:
        if self._database is None:
            try:
                return await self._done(handler, command, None)
            except Rejected as error:
                return self._refused(Outcome.REJECTED, error, command)
        undoes = bool(handler.undoes) and command.direction is Direction.COMPENSATION
        try:
            async with self._database.transaction() as tx:
                known = await barrier.enter(tx, command, undoes=undoes)
                return known or await self._once(handler, command, tx)
        except Rejected as error:
            answer = self._refused(Outcome.REJECTED, error, command)
        async with self._database.transaction() as tx:
            known = await barrier.enter(tx, command, undoes=undoes)
            if known is None:
                await barrier.leave(tx, command, answer)
            return known or answer

    async def _once(self, handler: Handler, command: Command, tx: AsyncConnection) -> Answer:
        transaction = tx.get_transaction()
        answer = await self._done(handler, command, tx)
        if transaction is None or not transaction.is_active:
            raise Failed("transaction_ended", "The handler ended its transaction itself.")
        await barrier.leave(tx, command, answer)
        return answer

    async def _done(self, handler: Handler, command: Command, tx: AsyncConnection | None) -> Answer:
        """Have the handler do it: it sees the payload unsealed, nobody else its result."""
        place = str(command.run_id), command.step, command.direction
        assert not isinstance(command.payload, bytes), "a command that arrived is decoded"
        try:
            payload = self._sealing.unsealed(command.payload, command_place(*place))
            result = await handler(replace(command, payload=payload), tx)
            body = write_json(self._sealing.sealed(result, reply_place(*place)))
        except SealError as error:
            raise Failed(PAYLOAD_SEALED, f"What it asks or gives {error}.") from None
        problem = excess(body, limits_of(self._settings))
        if problem:  # before the commit: the engine would refuse to read that the step was done
            raise Failed("invalid_result", f"The result is too large. {problem.sentence}")
        return Answer(Outcome.SUCCEEDED, body)

    def _refused(self, outcome: Outcome, error: Rejected | Failed, command: Command) -> Answer:
        """Answer what the handler, or what looks at its payload, refuses with."""
        failure = self._sealing.sealed_failure(error.failure, str(command.run_id))
        return _no(outcome, failure)

    def _fault(self, command: Command, error: BaseException) -> Answer:
        """Answer what nobody foresaw with the name of its class: its text may quote anything."""
        self._tell(
            FaultFound(operation=command.name, problem=described(error), run_id=str(command.run_id))
        )
        name = type(error).__name__
        return _no(Outcome.FAILED, Failure(name, name))

    def _report(
        self, received: ReceivedCommand, handler: Handler | None, answer: Answer, seconds: float
    ) -> None:
        command = received.command
        name = handler.command if handler else "unknown"
        run_id = str(command.run_id)
        if answer.case:
            hit = BarrierHit(
                command=name, case=answer.case, run_id=run_id, message_id=received.message_id
            )
            self._tell(hit)
        self._tell(
            HandlerFinished(
                command=name,
                outcome=answer.outcome,
                duration_s=seconds,
                run_id=run_id,
                saga=command.saga,
                step=command.step,
                attempt=command.attempt,
                message_id=received.message_id,
                correlation_id=shown(received.correlation_id),
            )
        )


def _no(outcome: Outcome, failure: Failure) -> Answer:
    return Answer(outcome, write_json(failure_json(failure)))
