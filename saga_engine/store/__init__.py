"""
What is remembered: PostgreSQL, over asyncpg, many rows at a time.

    database       the pool and its transactions, by SQLAlchemy, for processes that serve
    session        one connection and its transactions, for commands that end at once
    statement      a statement as text, and what executes it
    rows           what the driver returns for one
    usable         what makes a database usable
    limits         what PostgreSQL holds a session of ours to
    url            the URL of a database, read
    engine         a pool of connections for a URL, with what the URL says of TLS
    hosts          several hosts in one URL: the one that takes writes
    pool           which of its connections may be used again
    liveness       how soon a connection whose other end is gone is found
    pooler         connections that may lead through a pooler such as PgBouncer
    encoding       whether a database can hold every text
    sqlstate       what an error of the driver means to us
    wrapped        what an error means that SQLAlchemy has raised
    migrate        bringing a database to this version's schema
    schema         whether this version of the code and a database's tables can work together
    tables         the tables, as data
    definitions    the sagas that workers have loaded
    runs           the rows of runs: locked, read, made, changed
    keys           which run a business key belongs to
    journal        what happened to each run
    outbox         commands decided, perhaps not sent yet
    inbox          requests recorded for a worker, and what waits for one with the definition
    requests       requests recorded through the database's functions, which check them
    incidents      where runs wait for a person
    stranded       accepted starts that wait for a definition no worker has had lately
    suspects       runs whose mapping function or validator ended a worker
    dead_letters   messages that cannot be handled
    audit          what persons asked for, and what became of it
    identity       what this engine is known by
    partitions     months of runs, made ahead and dropped when they are over
    retention      settled dead letters and audit records, deleted after some days
    recovery       ordering again what the broker lost, or what a restored database lacks
    reading        what the command line shows
    gauges         what the gauges show
    total          how many rows a listing has, counted at a bounded cost
    document       JSON as it goes into a column

Every function takes the transaction it works in and never ends it. Statements are set-based: a
batch of two hundred costs as many round trips as a batch of one.
"""
