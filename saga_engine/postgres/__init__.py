"""
Reaching PostgreSQL, for the engine's store and for the participants' own databases.

    url                 the URL of a database, read
    connect             a pool of connections for a URL, with what the URL says of TLS
    failover            several hosts in one URL: the one that takes writes
    pool                which of its connections may be used again
    keepalive           how soon a connection whose other end is gone is found
    pgbouncer           connections that may lead through a pooler such as PgBouncer
    encoding            whether a database can hold every text
    session_limits      what PostgreSQL holds a session of ours to
    statement           a statement as text, and what executes it
    rows                what the driver returns for one
    errors              what an error of the driver means to us
    sqlalchemy_errors   what an error means that SQLAlchemy has raised
"""
