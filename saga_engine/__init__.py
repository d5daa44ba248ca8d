"""
Sagas on RabbitMQ and PostgreSQL: every run completes or is undone, whatever crashes.

    saga/         what a saga is and what comes next; pure
    store/        what is remembered, in PostgreSQL
    broker/       what travels, over RabbitMQ
    worker/       what runs: a message becomes a decision, a commit, commands and an acknowledgement
    participant/  the other side, in the user's services
    client        start, cancel and wait for runs from the user's code
    telemetry/    what is told: facts, logs, metrics, health
    embedded/     PostgreSQL and a development broker without installing either
    cli/          the command line

What a user imports is here.
"""

from saga_engine.saga.definition import Saga
from saga_engine.saga.retry import Retry

__all__ = ["Retry", "Saga"]
