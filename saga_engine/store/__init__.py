"""
The engine's tables in PostgreSQL and their statements, over asyncpg, many rows at a time.

    interfaces           the database as the worker uses it: Store and StoreTransaction
    sql_store            the Store in PostgreSQL, which calls the functions of the other modules
    database             the pool and its transactions, by SQLAlchemy, for processes that serve
    session              one connection and its transactions, for commands that end at once
    database_check       what makes a database usable
    position_sequence    whether new events get positions above those that are stored
    migrate              upgrading a database to this version's schema
    schema               whether this version of the code and a database's tables can work together
    tables               the tables, as data
    definitions          the sagas that workers have loaded
    batch_append         what a batch has decided, appended in one statement; the fence
    batch_outcome        whether a batch was committed whose answer was lost
    runs                 the rows of runs
    run_statuses         the statuses of runs, read for clients
    snapshot             the state of a run as one JSON document
    due_runs             runs with a due timer
    business_keys        which run a business key belongs to
    journal              the events of each run
    journal_replay       the journal of one run, replayed as far as it can be read
    journal_readers      projections and feeds that have not read an expired month
    event_data           events as the journal has them: a name and data
    outbox               commands that were decided and may not be published yet
    pending_requests     starts and other requests that wait in PostgreSQL for a worker
    request_queue        which pending requests a worker takes, and in which order
    trigger_data         triggers as the kind and the body of a pending request
    checked_requests     requests recorded through the database's functions, which check them
    incidents            where runs need an operator
    stranded_starts      pending starts of a definition that no worker has now
    crash_suspects       runs whose mapping function or validator ended a worker
    dead_letters         messages that cannot be processed
    dead_letter_queries  reads of dead letters
    dead_letter_actions  dead letters redriven, discarded and purged
    audit                what operators asked for, and the outcome
    engine_identity      the id and the token keys of this engine
    partitions           months of runs, added ahead and dropped when they have expired
    partition_tables     the statements of that maintenance
    retention            resolved dead letters and audit records, deleted after some days
    recovery             commands in flight, sent again after the broker or a backup lost them
    run_queries          reads of runs for the command line
    backlog_counts       the values of the gauges
    bounded_count        how many rows a listing has, counted at a bounded cost
    byte_limits          how many bytes of rows one statement reads at most
    json_column          JSON as it is stored in a column

Every function takes the transaction that it works in and never ends it, except for maintenance that
takes many short ones: `partitions`, `retention` and `recovery`. Statements are set-based: a batch
of two hundred rows costs as many round trips as a batch of one.

The worker sees the store as `interfaces.Store`. Functions such as `journal.journal_columns` write
records as rows, functions such as `runs.to_stored_runs` read them. They know no SQL: the store of
the simulation, which is in memory, uses them too.

A run is started by a worker only, with `batch_append`, from a start that came over RabbitMQ or from
a pending request. `checked_requests.record_start` records such a request in the transaction of its
caller, which has reserved the business key in the same transaction.

Locks are taken in one order, so that two transactions wait for each other and do not deadlock:

1. business keys: an advisory lock for each, sorted by saga and key
2. pending starts, sorted by run id (`pending_requests.find_starts`)
3. the next row of the journal of each run, sorted by run id: the fence of `batch_append`
4. the rows of these runs, and what follows: outbox, incidents, audit

Statements that take rows of a queue (pending requests, due runs, outbox) skip locked rows. Due runs
are claimed in a transaction of their own. Maintenance locks `run` before `journal`, and each before
its partitions, with a short lock timeout.
"""
