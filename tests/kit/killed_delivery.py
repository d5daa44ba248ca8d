"""Two processes of a feed, two of a consumer and the server between them, which tests kill."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from saga_engine.events import Events, Recorded
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.store.database import Database
from tests.kit.consumers import check_effects, stored_partitions, wait_for_invoices
from tests.kit.feeds import every_event, wait_for_feed
from tests.kit.killed_process import killed_processes
from tests.kit.kills import PATIENCE, Restart, killing
from tests.kit.projections import append_orders


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """
    The way of events from a feed to a consumer.

    Args:
        feed: whose row is in `database`.
        sink: and `source`, `name`: see the processes.
        settings: of all processes.
        database: of the events and of the effects.
        restart_server: kill it, and start it again.
    """

    feed: FeedKey
    sink: str
    source: str
    name: str
    settings: dict[str, Any]
    database: Database
    restart_server: Restart

    @asynccontextmanager
    async def _killing(self, url: str, kills: int | None, seed: int) -> AsyncIterator[Any]:
        settings = orjson.dumps(self.settings).decode()
        feed = ("tests.kit.feed_process", url, settings, self.sink, self.name)
        consumer = ("tests.kit.consumer_process", url, settings, self.source, self.name)
        async with killed_processes(2, *feed) as feeds, killed_processes(2, *consumer) as consumers:
            restarts = [each.restart for each in (*feeds, *consumers)]
            async with killing([*restarts, self.restart_server], kills, seed) as killed:
                yield killed

    async def run(
        self,
        events: Events,
        url: str,
        appends: int,
        kills: int | None,
        count_stored: Callable[[list[Recorded]], Awaitable[int]],
    ) -> None:
        """
        Append events, and check that each takes effect once and in order through kills.

        Args:
            events: of the database at *url*.
            url: see there.
            appends: see `append_orders`.
            kills: see `killing`.
            count_stored: checks what the server has of all events, and counts it.
        """
        before = len(await every_event(events))
        async with self._killing(url, kills, appends) as killed:
            await append_orders(events, appends, seed=2)
            position = await events.position()
            await wait_for_feed(self.database, position, self.feed.name, patience=PATIENCE)
            expected = await every_event(events)
            assert len(expected) - before > appends * 5
            await wait_for_invoices(self.database, len(expected), patience=PATIENCE)
        await check_effects(self.database, expected)
        stored = await count_stored(expected)
        dropped = sum(each.duplicates for each in await stored_partitions(self.database))
        killed.report(
            f"{self.sink} and consumer",
            events=len(expected),
            repeated=stored - len(expected),
            dropped=dropped,
        )
