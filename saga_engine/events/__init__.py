"""
Event sourcing on the same PostgreSQL: streams, aggregates, projections, feeds and consumers.

    event_store/  streams of events: append, read a stream, read all in the order of positions
    aggregates/   a state folded from a stream, and commands that decide on its next events
    readers/      what every reader of the log shares: its lease, the horizon, its lag
    handlers/     functions of the author that take events: declaration, call, failure
    projections/  tables derived from events, exactly once, and rebuilt beside the live ones
    feeds/        events published in the order of their streams, at least once
    consumers/    published events take effect once in another service's database
    read_models/  the engine's own projections of the journals of runs, beside a worker
    declared_events  the events that a declaration names, whose schemas are registered
    client        Events: appends and reads, with a connection pool of its own
    service       ProjectorService: the process of a projector, its readiness and its shutdown

Events live in any PostgreSQL database: the engine's, or a service's own. Positions, projections and
feeds belong to one database; only the engine's has the journals of runs as well.

The public API is here, and is imported when it is first used, as in `saga_engine`. `__init__.pyi`
declares the same names for type checkers.
"""

from importlib import import_module

_MODULES = {
    "ANY": "saga_engine.events.event_store.expected_version",
    "Aggregate": "saga_engine.events.aggregates.aggregate",
    "Append": "saga_engine.events.event_store.append",
    "Appended": "saga_engine.events.event_store.append",
    "Consumer": "saga_engine.events.consumers.consumer",
    "Change": "saga_engine.events.projections.change",
    "EXISTING": "saga_engine.events.event_store.expected_version",
    "EventData": "saga_engine.events.event_store.recorded",
    "Events": "saga_engine.events.client",
    "Feed": "saga_engine.events.feeds.feed",
    "Handled": "saga_engine.events.aggregates.command_handling",
    "MessageContext": "saga_engine.message_context",
    "NEW": "saga_engine.events.event_store.expected_version",
    "Projection": "saga_engine.events.projections.projection",
    "Received": "saga_engine.events.consumers.received",
    "Recorded": "saga_engine.events.event_store.recorded",
    "WrongVersion": "saga_engine.errors",
    "add": "saga_engine.events.projections.change",
    "append_in": "saga_engine.events.event_store.transactional",
    "decode": "saga_engine.events.aggregates.folding",
    "delete": "saga_engine.events.projections.change",
    "from_kafka": "saga_engine.events.consumers.source_options",
    "from_queue": "saga_engine.events.consumers.source_options",
    "from_stream": "saga_engine.events.consumers.source_options",
    "handle_in": "saga_engine.events.aggregates.command_handling",
    "insert": "saga_engine.events.projections.change",
    "put": "saga_engine.events.projections.change",
    "replay": "saga_engine.events.aggregates.folding",
    "upsert": "saga_engine.events.projections.change",
}

__all__ = [
    "ANY",
    "EXISTING",
    "NEW",
    "Aggregate",
    "Append",
    "Appended",
    "Change",
    "Consumer",
    "EventData",
    "Events",
    "Feed",
    "Handled",
    "MessageContext",
    "Projection",
    "Received",
    "Recorded",
    "WrongVersion",
    "add",
    "append_in",
    "decode",
    "delete",
    "from_kafka",
    "from_queue",
    "from_stream",
    "handle_in",
    "insert",
    "put",
    "replay",
    "upsert",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'saga_engine.events' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
