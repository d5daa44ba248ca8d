"""
The process that publishes feeds: all of one database, beside any number of other processes.

Each feed is run by one process at a time, and the processes share them. Another one takes over when
a lease ends.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from saga_engine.errors import StoreError
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_failures, feed_rules, feed_table
from saga_engine.events.feeds.feed import Feed
from saga_engine.events.feeds.feed_checkpoint import FeedCheckpoint
from saga_engine.events.feeds.feed_runner import FeedRunner
from saga_engine.events.feeds.feed_sink import FeedSink
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.sink_opener import FeedProcess, SinkOpener, require_servers
from saga_engine.events.feeds.sql_feed_store import SqlFeedStore
from saga_engine.events.readers.event_source import EventSource
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.lease_table import FEED_LEASES
from saga_engine.events.readers.owned_loop import Owned, OwnedLoop, process_owner
from saga_engine.events.readers.turns import Turns
from saga_engine.lifecycle import AsyncResource
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import FeedStopped, Observer
from saga_engine.telemetry.operations import Operation


class FeedPublisher(AsyncResource):
    """
    Publishes feeds; `async with` opens it, `run` runs it.

    Args:
        feeds: their names are different.
        database_url: the database of the events.
        settings: where the sinks are; batches, leases, timeouts.
        emit: takes telemetry events.

    Raises:
        DefinitionError: a feed breaks a rule.
        ConfigurationError: it is not set where a sink is, or how its messages are signed, or the
            extra of a sink is missing.
        SchemaMismatch: on entering: the database has no event tables.
        StoreUnavailable: on entering: the database is out of reach.
        BrokerError: on entering: the broker is out of reach, or the exchange cannot be declared.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        database_url: str,
        settings: Settings,
        emit: Observer,
    ) -> None:
        feed_rules.check(feeds)
        require_servers(feeds, settings)
        self.owner = process_owner()
        self._feeds = feeds
        self._database = Database(database_url, settings, EVENT_DATABASE)
        self._settings = settings
        self._loop = OwnedLoop(Operation.FEED, settings, emit)
        self._log: EventLog
        self._sinks: dict[FeedKey, FeedSink] = {}
        self._runners: list[FeedRunner] = []
        self._duties: list[Owned] = []

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        async with self._database.transaction() as tx:
            self._log = await EventLog.load(tx)
            readers = [each for each in self._feeds if feed_rules.event_filter(each).reads_runs]
            await feed_table.register(tx, sorted(self.keys), _keys(readers))
            await self._report_stopped(tx)
        process = FeedProcess(
            owner=self.owner,
            database=self._database,
            log=self._log,
            settings=self._settings,
            emit=self._loop.emit,
        )
        opener = SinkOpener(resources, process)
        self._sinks = await opener.open_all(self._feeds)
        self._duties = opener.duties

    @property
    def problem(self) -> str | None:
        """What is wrong with the connections to the sinks; None: nothing."""
        problems = dict.fromkeys(each.problem for each in self._sinks.values() if each.problem)
        return "; ".join(problems) or None

    @property
    def keys(self) -> frozenset[FeedKey]:
        """The feeds that this process declares, with each of their sinks."""
        return _keys(self._feeds)

    @property
    def waiting_for_sink(self) -> frozenset[FeedKey]:
        """Feeds that wait for the connection, or for a queue that does not take their events."""
        refused = frozenset(each.key for each in self._runners if each.waits_for_sink)
        return refused.union(key for key, sink in self._sinks.items() if sink.problem)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until *stop* is set and what was sent is confirmed; then the leases end, too."""
        store = SqlFeedStore(self._database)
        horizon = HorizonWatch(store, self._settings)
        source = EventSource(store, self._log, horizon, self._settings)
        filters = {each.name: feed_rules.event_filter(each) for each in self._feeds}
        self._runners = [
            FeedRunner(
                filters[key.name],
                source,
                FeedCheckpoint(key, store, self.owner, self._settings.projection_lease),
                sink,
                self._loop,
            )
            for key, sink in self._sinks.items()
        ]
        turns = Turns(
            FEED_LEASES,
            self._database,
            self.owner,
            self._settings,
            self._loop.report_unavailable,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._loop.watch(horizon, stop))
                for runner in self._runners:
                    turn = turns.add((runner.key.name, runner.key.sink.value))
                    tasks.create_task(runner.run(stop, turn))
                tasks.create_task(turns.run(stop))
                for duty in self._duties:
                    tasks.create_task(self._loop.run(duty, stop))
        finally:
            await self._release()

    async def _report_stopped(self, tx: Transaction) -> None:
        """Report which feeds are stopped already: a start does not continue them."""
        for key in sorted(self.keys):
            if failure := await feed_failures.read_open(tx, key):
                self._loop.emit(
                    FeedStopped(
                        feed=key.name,
                        sink=key.sink,
                        position=failure.position,
                        stream=failure.stream,
                        event_type=failure.type,
                        problem=failure.error,
                        next_command=key.show_command,
                    )
                )

    async def _release(self) -> None:
        """End the leases. If that fails, they end with their time."""
        try:
            async with self._database.transaction() as tx:
                await feed_table.release(tx, self.owner)
        except StoreError as error:
            self._loop.report_unavailable(error)


def _keys(feeds: Iterable[Feed]) -> frozenset[FeedKey]:
    return frozenset(key for feed in feeds for key in FeedKey.of(feed))
