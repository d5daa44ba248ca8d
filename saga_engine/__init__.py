"""
Sagas on RabbitMQ and PostgreSQL: every run completes or is compensated, whatever crashes.

    vocabulary      the statuses, outcomes and causes of a run, shared by every package
    payload/        typed payloads: JSON in, the author's types out, and back; pure
    saga/           what an author declares: sagas, steps, compensations, retries; pure
    decider/        what happens next: decide(saga, run, trigger, now) and evolve(run, event); pure
    protocol/       the messages on the wire (docs/protocol.md), and the topology as data
    amqp/           RabbitMQ: supervised connections, publishing and consuming in batches
    postgres/       PostgreSQL: connecting, failover, the pool, its errors
    schemas/        schemas of events, commands and replies: compatibility and the registry
    store/          the tables of the engine and the statements on them
    encryption/     payload codecs and key rings
    worker/         the worker: message, decision, commit, commands, acknowledgement
    participant/    the participant kit: performs commands in the user's services
    client/         starting, cancelling and awaiting runs from the user's code
    events/         event sourcing: streams, aggregates, projections, feeds
    asyncapi/       an AsyncAPI document of what modules declare
    telemetry/      events about the engine, and their sinks: logs, metrics, health
    embedded/       a private PostgreSQL and a development broker, for demo and tests
    cli/            the command line
    settings/       every setting, with its unit and default
    environment     which variables of the process environment are settings
    shutdown        how the seconds of a shutdown are divided
    backoff         the formula of growing delays: reconnects, duties and retry policies use it
    waiting         waiting for an event with a time limit
    message_context  the message that is being handled, for the events of its handler
    containment     keeps user code from stopping the event loop
    alarm_signal    the signal and the timer that interrupt user code
    call_time_limit  interrupts a call into user code that takes too long
    loading         imports the user's modules and finds what they declare
    lifecycle       opening and closing resources with `async with`
    engine_process  the two broker connections and the shutdown of every process
    identifiers     run ids
    tls             TLS to RabbitMQ and PostgreSQL
    nearest_name    the name that was probably meant by a misspelt one
    errors          every error, and whose fault it is

The public API is here. A name is imported when it is first used, because the command line imports
this package too and answers `--help` without SQLAlchemy. `__init__.pyi` declares the same names for
type checkers.
"""

from importlib import import_module

_MODULES = {
    "Client": "saga_engine.client",
    "Codec": "saga_engine.payload.encryption",
    "CommandContext": "saga_engine.participant",
    "EncryptionError": "saga_engine.payload.encryption",
    "Failed": "saga_engine.participant",
    "Participant": "saga_engine.participant",
    "Rejected": "saga_engine.participant",
    "Retry": "saga_engine.saga.retry",
    "RunHandle": "saga_engine.client",
    "RunResult": "saga_engine.client",
    "Saga": "saga_engine.saga.definition",
    "Secret": "saga_engine.payload.secret",
    "start_in_transaction": "saga_engine.client",
}

__all__ = [
    "Client",
    "Codec",
    "CommandContext",
    "EncryptionError",
    "Failed",
    "Participant",
    "Rejected",
    "Retry",
    "RunHandle",
    "RunResult",
    "Saga",
    "Secret",
    "start_in_transaction",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'saga_engine' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
