"""
Benchmarks of events: appending, filling read models from the first event, the lag of a projection.

    orders              the orders whose events are appended, and many of them at once
    orders_projection   a read model whose changes are folded
    history_projection  a read model that only inserts, with COPY
    event_database      a private PostgreSQL with event tables, and the projector as a process
    appends             the cases `append`
    rebuilds            the cases `rebuild-folded` and `rebuild-copied`
    lag                 the cases `lag` and `lag-in-rebuild`
    aims                what the figures should be
"""
