"""
What is remembered: PostgreSQL, over asyncpg, many rows at a time.

    database           the pool and its transactions, by SQLAlchemy, for processes that serve
    session            one connection and its transactions, for commands that end at once
    database_check     what makes a database usable
    migrate            bringing a database to this version's schema
    schema             whether this version of the code and a database's tables can work together
    tables             the tables, as data
    definitions        the sagas that workers have loaded
    runs               the rows of runs: locked, read, made, changed
    snapshot           the state of a run as one JSON document
    business_keys      which run a business key belongs to
    journal            what happened to each run
    outbox             commands decided, perhaps not sent yet
    pending_requests   requests recorded for a worker, and what waits for one with the definition
    trigger_data       triggers as the kind and the body of a stored request
    checked_requests   requests recorded through the database's functions, which check them
    incidents          where runs wait for a person
    stranded_starts    accepted starts that wait for a definition no worker has had lately
    crash_suspects     runs whose mapping function or validator ended a worker
    dead_letters       messages that cannot be handled
    audit              what persons asked for, and what became of it
    engine_identity    what this engine is known by
    partitions         months of runs, made ahead and dropped when they are over
    retention          settled dead letters and audit records, deleted after some days
    recovery           ordering again what the broker lost, or what a restored database lacks
    run_queries        what the command line shows
    backlog_counts     what the gauges show
    bounded_count      how many rows a listing has, counted at a bounded cost
    json_column        JSON as it goes into a column

Every function takes the transaction it works in and never ends it. Statements are set-based: a
batch of two hundred costs as many round trips as a batch of one.
"""
