"""
Event sourcing on the same PostgreSQL: streams of events, aggregates, projections and feeds.

    recorded          Recorded and EventData: an event as it is read, and as it is appended
    tables            the event tables as SQLAlchemy metadata
    expected_version  NEW, ANY, EXISTING or a number: what a stream must be like for an append
    change            insert, upsert, put, add, delete: a change of one row, as data
    change_batch      the changes of a batch of events, folded for each row
    change_writer     the SQL that writes a folded batch
    table_shape       what declared changes must know of a table
    column_types      which values a column takes, and as which type they travel

Events live in any PostgreSQL database: the engine's, or a service's own. Positions, projections and
feeds belong to one database; only the engine's has the journals of runs as well.
"""
