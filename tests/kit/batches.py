"""A participant with batch=True, and batches of its commands without a broker."""

from contextlib import asynccontextmanager

import orjson

from saga_engine.participant.batch_executor import NotExecuted
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.participant.executor import Executor
from saga_engine.protocol.command import ReceivedCommand
from saga_engine.settings import Settings
from tests.kit.events import EventRecorder


class BatchRunner:
    """Executes batches of the commands of a participant, and alone what a batch leaves."""

    def __init__(self, payments, database, settings):
        self.payments = payments
        self.database = database
        self.events = EventRecorder()
        self.executor = Executor(payments.participant.handlers, database, settings, self.events)
        self.executor.enable_batches(database)

    async def execute(self, *commands):
        """The result of each command in one batch: a CommandResult or a NotExecuted."""
        assert self.executor.batch_executor is not None
        return await self.executor.batch_executor.execute([received(each) for each in commands])

    async def outcomes(self, *commands):
        """The outcome of each command in one batch, or what the batch leaves it for."""
        results = await self.execute(*commands)
        return [
            each.value if isinstance(each, NotExecuted) else each.outcome.value for each in results
        ]

    async def alone(self, command):
        """The outcome and the body of a command that is executed alone."""
        result = await self.executor.execute(received(command))
        return result.outcome.value, orjson.loads(result.body)


def received(command):
    """The command, as it arrives."""
    return ReceivedCommand(
        command=command,
        correlation_id="token",
        reply_to="saga.replies",
        message_id="message",
        traceparent="",
    )


@asynccontextmanager
async def batch_runner(payments, database_url, **changes):
    """A runner on a database with the table of the barrier; batches end by themselves."""
    settings = Settings(**({"participant_batch_duration": 60.0} | changes))
    database = ParticipantDatabase(database_url, settings)
    await database.prepare(create_barrier=True)
    try:
        yield BatchRunner(payments, database, settings)
    finally:
        await database.close()
