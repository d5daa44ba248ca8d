"""
Projections: tables that are derived from events, exactly once, and rebuilt beside the live ones.

    projection            Projection: its tables, and a function for each event that changes them
    projection_rules      what makes projections valid
    handler_source        what the source of a projection's function shows to be wrong
    projection_key        what identifies a projection: its name and version
    projection_version    one version of the tables of a projection, as this process fills it
    change                insert, upsert, put, add, delete: a change of one row, as data
    change_batch          the changes of a batch of events, folded for each row
    table_shape           what declared changes must know of a table
    column_types          which values a column takes, and as which type they travel
    change_writer         the SQL that writes a folded batch
    event_application     from events to folded changes, and calls of SQL functions
    event_batch           the events of one transaction of a projection, and what became of them
    interfaces            the database as a projection uses it
    sql_projection_store  that in PostgreSQL
    projection_batch      one batch of a projection: its effects and its checkpoint
    locked_version        one transaction of a version of a projection, with its row locked
    poison_search         finding the event that cannot be applied
    stream_retry          the retry of a parked stream
    overdue_call          the event whose async function took longer than its limit
    projection_table      how far each projection is, and which process runs it
    projection_failures   events that a projection could not apply, and streams that wait for one
    stopped_report        what a process that starts reports about projections that are stopped
    projector             Projector: the process that runs projections
    projection_runner     the loop of one projection: leases, batches, retries
    table_check           whether the database has the tables of projections
    projection_monitor    the lag of projections, and which of them do not move
    projection_actions    pause, resume, retry and skip, for an operator
    projection_rebuild    begin to fill another version of the tables of a projection
    version_changes       a rebuild is ready, or has become live
    rebuild_pace          how a rebuild makes way for the live version
    shadow_tables         the tables of a version that is not live
    projection_switch     exchange the live tables for those of another version
    table_exchange        rename the tables of two versions, with their indexes and rights
"""
