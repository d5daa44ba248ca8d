"""
What every reader of the log shares: its lease, the horizon, and how far it is behind.

    interfaces        the database of events as every reader of the log uses it
    sql_event_store   that in PostgreSQL
    event_source      where the projections or feeds of a process read
    read_ahead        reads the next page while one is applied or published
    lease_share       which leases a process should have, so that each has its share
    lease_table       the leases in the tables of projections and of feeds
    turns             when this process runs each of its projections or feeds
    owned_loop        the loop of what one process runs at a time: lease, errors, another turn
    batch_size        how many events are applied in one transaction
    horizon_watch     one look at the horizon for all projections or feeds of a process
    horizon_hold      which transaction holds the horizon back
    lag               how far projections and feeds are behind the horizon
    stall_detector    which projections or feeds do not move although they should
    progress_monitor  measures the projections and feeds of a process periodically
    operator_audit    what operators did with projections and feeds, and why
    stored_name       the rule for names of projections and feeds
"""
