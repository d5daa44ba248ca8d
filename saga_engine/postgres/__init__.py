"""
Connecting to PostgreSQL, for the engine's store and for the participants' own databases.

    url                 the URL of a database, parsed
    caller_connection   the connection of a caller, in whose transaction the engine executes
    connect             a connection pool for a URL, with the TLS settings of the URL
    failover            several hosts in one URL: the one that accepts writes
    pool                which connections of a pool may be used again
    keepalive           how soon a connection to a lost host is found
    pgbouncer           connections that may go through a pooler such as PgBouncer
    encoding            whether a database can store every text
    session_changes     which statements may change the role, the transaction or the session
    transaction_end     which SQL ends the transaction
    script              the statements of a script, without comments and quotes
    session_limits      the limits that PostgreSQL enforces on a session of the engine
    statement           a statement as text, and the transactions that execute it
    rows                the rows that the driver returns for a statement
    errors              errors of the driver as errors of the engine
    sqlalchemy_errors   the same for errors that SQLAlchemy has raised

This package knows no table of the engine and does not import `store`. `statement.Transaction` is
what every function of the store takes: `store.database` and `store.session` implement it.
"""
