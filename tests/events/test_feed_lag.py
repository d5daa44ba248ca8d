"""The lag of a feed is what it has not published, in positions and in seconds."""

from saga_engine.events import feed_table
from saga_engine.events.event_log import EventLog
from saga_engine.events.feed_lag import read_lags
from saga_engine.events.feed_table import FeedKey, Progress, Sink
from tests.kit.event_database import connected
from tests.kit.feeds import ORDERS
from tests.kit.projections import append_one, placed


async def test_a_feed_lags_behind_by_the_age_of_its_next_event(events, event_url, feed_database):
    last = await append_one(events, "order-1", placed(), placed(), placed())
    async with connected(event_url) as connection:
        await connection.execute(
            "ALTER TABLE saga_engine.stream_event DISABLE TRIGGER ALL;"
            "UPDATE saga_engine.stream_event SET recorded_at = now() - version * interval '1 h'"
        )
    async with feed_database.transaction() as tx:
        log = await EventLog.load(tx)
        await feed_table.register(tx, [FeedKey("others", Sink.EXCHANGE)])
        assert await feed_table.save(tx, ORDERS, Progress(0, last - 2), "a", 60.0)
        assert await feed_table.save(
            tx, FeedKey("others", Sink.EXCHANGE), Progress(0, last), "a", 60.0
        )
        _, (orders, others) = await read_lags(tx, log)
        _, (alone,) = await read_lags(tx, log, "others")
    assert orders.lag_events == 2
    assert 7200 <= orders.lag_seconds < 7260
    assert (others.lag_events, others.lag_seconds) == (0, 0.0)
    assert alone.feed.name == "others"
