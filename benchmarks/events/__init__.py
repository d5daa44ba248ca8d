"""
Benchmarks of events: appending, read models, feeds to each sink, consumers, and the lag of readers.

    orders              the orders whose events are appended, and many of them at once
    orders_projection   a read model whose changes are folded
    history_projection  a read model that only inserts, with COPY
    order_feeds         feeds of orders, each with one sink
    order_consumers     consumers of orders that write a row for each event
    event_database      a private PostgreSQL with event tables
    running_reader      a projector, a feed or a consumer as a process, and how fast it is
    bare_clients        what the client libraries of sinks reach alone
    appends             the cases `append`
    rebuilds            the cases `rebuild-folded` and `rebuild-copied`
    lag                 the cases `lag` and `lag-in-rebuild`
    feed_speed          the cases `feed-...`
    consumer_speed      the cases `consume-...`
    aims                what the figures should be
"""
