"""
The event store: appends to streams in PostgreSQL, and reads them in the order of positions.

    recorded          Recorded and EventData: an event as it is read, and as it is appended
    stored_fields     the id, data and origin of an event, made of its row when they are first read
    event_types       an event's name, version and model, and the upcasters of older versions
    event_schema      the schema of a declared event, with its upcasters
    schema_registration  registers the schemas of events, or refuses them
    arguments         what callers pass, checked before it is used
    expected_version  NEW, ANY, EXISTING or a number: what a stream must be like for an append
    append            Append and Appended: what is appended, checked, and the result
    stream_table      the table of streams: appending, and reading one stream
    transactional     append_in: appends in the caller's transaction
    commit_outcome    whether an append was committed whose COMMIT was not answered
    savepoint         undo a part of a transaction, and go on with it
    positions         the horizon, up to which a reader has everything
    log_page          pages of all events, in the order of their positions
    event_log         the identity of the log, of which the ids of events are made
    run_journal       the journals of runs as events, in the engine's database
    snapshot_table    the table of snapshots
    tables            the event tables as SQLAlchemy metadata
    consumer_tables   those of consumers
"""
