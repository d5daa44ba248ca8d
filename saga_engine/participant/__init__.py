"""
The other side of a saga, in the user's services: commands are executed once, and replied to.

    delivery -> dispatcher -> executor -> barrier -> the user's handler -> reply -> acknowledgement

    participant         what users write: which of their functions handles which command
    service             the composition root of a participant process
    dispatcher          the loops of a process: from a delivery to its acknowledgement
    in_progress         commands that wait because another delivery of them is being executed
    command_batches     which commands form a batch, and when it starts
    batch_executor      a batch of commands, in one transaction
    shared_transaction  the transaction of a batch
    executor            one command, from its receipt to its result: the transactions
    handler_runner      one handler's call, turned into a result
    handler             one of the user's functions: checked at its declaration, called with JSON
    handler_calls       calls of handlers, each in a task of its own
    context             what a handler can know about its command
    failure_codes       the codes of failures that the kit itself replies with
    failures            the failure that an exception of the user's code becomes
    execution_events    telemetry about the execution of commands
    barrier             one row for each command, so that its effect happens once
    sql_barrier_table   the barrier's table in PostgreSQL: a method for each statement
    barrier_statements  the SQL of these statements
    driver_barrier_table  the same over the driver, for a database that is given as a URL
    driver_statements   the statements as the driver takes them
    interfaces          the database, as the executor uses it
    database            the participant's own database, and what is wrong with it
    engine_transactions  transactions on the user's engine of SQLAlchemy
    url_transactions    transactions on a database that is given as a URL
    handler_connection  the AsyncConnection that a handler gets in the latter
    pipelined_connection  the driver's connection: BEGIN and COMMIT without round trips of their own
    sqlalchemy_engine   the engine of SQLAlchemy for a participant's URL
    lost_statements     finding statements that were lost on the network
    outage              an outage of the database, during which commands wait
    reply_publisher     publishing replies, and acknowledging their commands afterwards

A participant in another language needs docs/protocol.md and nothing of this package.
"""

from saga_engine.participant.context import CommandContext
from saga_engine.participant.participant import Participant
from saga_engine.protocol.rejection import Failed, Rejected

__all__ = ["CommandContext", "Failed", "Participant", "Rejected"]
