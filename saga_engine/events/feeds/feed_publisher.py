"""
The process that publishes feeds: all of one database, beside any number of other processes.

Each feed is run by one process at a time. Another one takes over when its lease ends.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.publisher import Publisher
from saga_engine.engine_process import connection_events, connection_problem
from saga_engine.errors import StoreError
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_rules, feed_table
from saga_engine.events.feeds.feed import Feed
from saga_engine.events.feeds.feed_runner import FeedRunner
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.sql_feed_store import SqlFeedStore
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.owned_loop import OwnedLoop, process_owner
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.topology import FEED_TOPOLOGY
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import Observer
from saga_engine.telemetry.operations import Operation
from saga_engine.vocabulary import ConnectionRole


class FeedPublisher(AsyncResource):
    """
    Publishes feeds; `async with` opens it, `run` runs it.

    Args:
        feeds: their names are different.
        database_url: the database of the events.
        broker_url: where the exchange is.
        settings: batches, leases, timeouts.
        emit: takes telemetry events.

    Raises:
        DefinitionError: a feed breaks a rule.
        SchemaMismatch: on entering: the database has no event tables.
        StoreUnavailable: on entering: the database is out of reach.
        BrokerError: on entering: the broker is out of reach, or the exchange cannot be declared.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        database_url: str,
        broker_url: str,
        settings: Settings,
        emit: Observer,
    ) -> None:
        feed_rules.check(feeds)
        self.owner = process_owner()
        self._feeds = feeds
        self._database = Database(database_url, settings, EVENT_DATABASE)
        self._connection = SupervisedConnection(
            broker_url,
            role=ConnectionRole.PUBLISH,
            settings=settings,
            topology=FEED_TOPOLOGY,
            on_status=connection_events(emit),
        )
        self._settings = settings
        self._loop = OwnedLoop(Operation.FEED, settings, emit)
        self._log: EventLog
        self._runners: list[FeedRunner] = []

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        async with self._database.transaction() as tx:
            self._log = await EventLog.load(tx)
            readers = [each for each in self._feeds if feed_rules.event_filter(each).reads_runs]
            keys, of_readers = ([*map(FeedKey.of, each)] for each in (self._feeds, readers))
            await feed_table.register(tx, keys, of_readers)
        await resources.enter_async_context(self._connection)

    @property
    def problem(self) -> str | None:
        """What is wrong with the connection to the broker; None: nothing."""
        return connection_problem(self._connection.status)

    @property
    def names(self) -> frozenset[str]:
        """The feeds that this process declares."""
        return frozenset(each.name for each in self._feeds)

    @property
    def waiting_for_broker(self) -> frozenset[str]:
        """Feeds that wait for the connection, or for a queue that does not take their events."""
        if self.problem:
            return self.names
        return frozenset(each.name for each in self._runners if each.waits_for_broker)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until *stop* is set and what was sent is confirmed; then the leases end, too."""
        store = SqlFeedStore(self._database)
        horizon = HorizonWatch(store, self._settings)
        source = EventSource(store, self._log, horizon, self._settings)
        publisher = Publisher(self._connection)
        self._runners = [
            FeedRunner(each, source, store, publisher, self.owner, self._loop)
            for each in self._feeds
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._loop.watch(horizon, stop))
                for runner in self._runners:
                    tasks.create_task(runner.run(stop))
        finally:
            await self._release()

    async def _release(self) -> None:
        """End the leases. If that fails, they end with their time."""
        try:
            async with self._database.transaction() as tx:
                await feed_table.release(tx, self.owner)
        except StoreError as error:
            self._loop.report_unavailable(error)
