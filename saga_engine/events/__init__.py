"""
Event sourcing on the same PostgreSQL: streams of events, aggregates, projections and feeds.

    recorded          Recorded and EventData: an event as it is read, and as it is appended
    stored_fields     the id, data and origin of an event, made of its row when they are first read
    client            Events: appends and reads, with a connection pool of its own
    transactional     append_in: appends in the caller's transaction
    commit_outcome    whether an append was committed whose COMMIT was not answered
    arguments         what callers pass, checked before it is used
    append            Append and Appended: what is appended, checked, and the result
    stream_table      the table of streams: appending, and reading one stream
    run_journal       the journals of runs as events, in the engine's database
    snapshot_table    the table of snapshots
    positions         the horizon, up to which a reader has everything
    log_page          pages of all events, in the order of their positions
    read_ahead        reads the next page of a projection while it applies one
    event_log         the identity of the log, of which the ids of events are made
    tables            the event tables as SQLAlchemy metadata
    aggregate         Aggregate: its state, events, commands and upcasters, as declared
    aggregate_rules   what makes aggregates valid
    aggregate_stream  the state of an aggregate from its snapshot and the events after it
    command_handling  handle_in: load an aggregate, decide a command, append its events
    command_time_limit  the time limit of calls into an aggregate's code
    event_types       an event's name, version and model, and the upcasters of older versions
    returned_events   which events a command may return, and which it has returned
    folding           from the events of a stream to the state of its aggregate
    decision          from a command and a state to events
    fingerprint       which code a snapshot was made by
    source_hash       the source of a module as a hash
    expected_version  NEW, ANY, EXISTING or a number: what a stream must be like for an append
    projection        Projection: its tables, and a function for each event that changes them
    projection_rules  what makes projections valid
    handler_source    what the source of a projection's function shows to be wrong
    stored_name       the rule for names of projections and feeds
    feed              Feed: the events it selects, and where it publishes them
    feed_rules        what makes feeds valid
    feed_batch        the events of a feed that are on their way: which is next, how far it is
    feed_table        how far each feed is, and which process runs it
    feed_failures     the events that feeds could not publish
    feed_actions      what an operator does with a feed
    feed_monitor      the lag of feeds, and which of them do not move
    feed_runner       one feed in one process: publish, wait for the confirms, save the position
    feed_publisher    FeedPublisher: the process that publishes feeds
    cloud_event       an event as a message of a feed: CloudEvents 1.0
    service           ProjectorService: the process of a projector, its readiness and its shutdown
    projector         Projector: the process that runs projections
    projection_runner  the loop of one projection: leases, batches, retries
    projection_monitor  the lag of projections, and which of them do not move
    stall_detector    which projections or feeds do not move although they should
    progress_monitor  measures the projections and feeds of a process periodically
    horizon_hold      which transaction holds the horizon back
    event_batch       the events of one transaction of a projection, and what became of them
    projection_batch  one transaction of a projection, and finding the event that breaks it
    projection_table  how far each projection is, and which process runs it
    projection_version  one version of the tables of a projection, as this process fills it
    projection_failures  events that a projection could not apply, and streams that wait for one
    lag               how far projections and feeds are behind the horizon
    projection_actions  pause, resume, retry and skip, for an operator
    handler_connection  the connection of an async function, which does not end the transaction
    projection_rebuild  begin to fill another version of the tables of a projection
    projection_switch  exchange the live tables for those of another version
    table_exchange    rename the tables of two versions, with their indexes and rights
    operator_audit    what operators did with projections and feeds, and why
    shadow_tables     the tables of a version that is not live
    event_application  from events to folded changes, and calls of SQL functions
    batch_size        how many events a projection applies in one transaction
    interfaces        the database as the loops of projections and feeds use it
    sql_event_store   that in PostgreSQL
    event_source      where the projections or feeds of a process read
    owned_loop        the loop of what one process runs at a time: lease, errors, another turn
    horizon_watch     one look at the horizon for all projections or feeds of a process
    change            insert, upsert, put, add, delete: a change of one row, as data
    change_batch      the changes of a batch of events, folded for each row
    change_writer     the SQL that writes a folded batch
    savepoint         undo a part of a transaction, and go on with it
    projection_key    what identifies a projection: its name and version
    read_models       ReadModels: the engine's own projections, beside a worker
    read_model        ReadModel: a projection of the journals that is one statement for a batch
    read_model_runner  the loop of one read model: lease, batches, waiting
    read_model_batch  one transaction of a read model, and finding the row that breaks it
    run_statistics    the read model of runs by saga and status
    step_durations    the read model of durations by step
    failure_causes    the read model of failures by cause
    table_check       whether the database has the tables of projections
    table_shape       what declared changes must know of a table
    column_types      which values a column takes, and as which type they travel

Events live in any PostgreSQL database: the engine's, or a service's own. Positions, projections and
feeds belong to one database; only the engine's has the journals of runs as well.

The public API is here, and is imported when it is first used, as in `saga_engine`. `__init__.pyi`
declares the same names for type checkers.
"""

from importlib import import_module

_MODULES = {
    "ANY": "saga_engine.events.expected_version",
    "Aggregate": "saga_engine.events.aggregate",
    "Append": "saga_engine.events.append",
    "Appended": "saga_engine.events.append",
    "Change": "saga_engine.events.change",
    "EXISTING": "saga_engine.events.expected_version",
    "EventData": "saga_engine.events.recorded",
    "Events": "saga_engine.events.client",
    "Feed": "saga_engine.events.feed",
    "Handled": "saga_engine.events.command_handling",
    "MessageContext": "saga_engine.message_context",
    "NEW": "saga_engine.events.expected_version",
    "Projection": "saga_engine.events.projection",
    "Recorded": "saga_engine.events.recorded",
    "WrongVersion": "saga_engine.errors",
    "add": "saga_engine.events.change",
    "append_in": "saga_engine.events.transactional",
    "decode": "saga_engine.events.folding",
    "delete": "saga_engine.events.change",
    "handle_in": "saga_engine.events.command_handling",
    "insert": "saga_engine.events.change",
    "put": "saga_engine.events.change",
    "replay": "saga_engine.events.folding",
    "upsert": "saga_engine.events.change",
}

__all__ = [
    "ANY",
    "EXISTING",
    "NEW",
    "Aggregate",
    "Append",
    "Appended",
    "Change",
    "EventData",
    "Events",
    "Feed",
    "Handled",
    "MessageContext",
    "Projection",
    "Recorded",
    "WrongVersion",
    "add",
    "append_in",
    "decode",
    "delete",
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
