"""
What is remembered: PostgreSQL, by SQLAlchemy Core over asyncpg, many rows at a time.

    database       the pool, the transaction, and what makes a database usable
    hosts          several hosts in one URL: the one that takes writes
    pool           which of its connections may be used again
    sqlstate       what an error of the database means to us
    migrate        bringing a database to this version's schema
    tables         the tables, as data
    definitions    the sagas that workers have loaded
    runs           the rows of runs: locked, read, made, changed
    keys           which run a business key belongs to
    journal        what happened to each run
    outbox         commands decided, perhaps not sent yet
    inbox          requests recorded for a worker, and what waits for one with the definition
    incidents      where runs wait for a person
    dead_letters   messages that cannot be handled
    audit          what persons asked for, and what became of it
    identity       what this engine is known by
    partitions     months of runs, made ahead and dropped when they are over
    reading        what the command line shows
    gauges         what the metrics count
    document       JSON as it goes into a column

Every function takes the transaction it works in and never ends it. Statements are set-based: a
batch of two hundred costs as many round trips as a batch of one.
"""
