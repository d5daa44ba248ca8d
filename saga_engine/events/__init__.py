"""
Event sourcing on the same PostgreSQL: streams of events, aggregates, projections and feeds.

    recorded          Recorded and EventData: an event as it is read, and as it is appended
    expected_version  NEW, ANY, EXISTING or a number: what a stream must be like for an append

Events live in any PostgreSQL database: the engine's, or a service's own. Positions, projections and
feeds belong to one database; only the engine's has the journals of runs as well.
"""
