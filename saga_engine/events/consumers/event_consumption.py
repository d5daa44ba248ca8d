"""
The consumers of one process, beside any number of other processes.

Each partition is consumed by one process at a time, and the processes share them. Another one takes
over when a lease ends.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from saga_engine.errors import BrokerError, ConfigurationError, StoreError
from saga_engine.events.consumers import (
    consumed_events,
    consumer_failures,
    consumer_lag,
    consumer_rules,
    consumer_table,
)
from saga_engine.events.consumers.avro_messages import AvroMessages
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.consumer_table import Holder, PartitionKey
from saga_engine.events.consumers.event_reader import EventReader
from saga_engine.events.consumers.interfaces import Source
from saga_engine.events.consumers.partition_runner import PartitionRunner
from saga_engine.events.consumers.partition_writer import PartitionWriter
from saga_engine.events.consumers.source_opener import SourceOpener
from saga_engine.events.readers.lease_table import CONSUMER_LEASES
from saga_engine.events.readers.owned_loop import OwnedLoop, process_owner
from saga_engine.events.readers.turns import Turns
from saga_engine.lifecycle import AsyncResource
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from saga_engine.telemetry.events import ConsumerPartitionsFound, Observer
from saga_engine.telemetry.operations import Operation
from saga_engine.waiting import wait_for_event

REGISTRY_POOL_SIZE = 2
"""Connections to another database with schemas: each is read once."""

PURGE_INTERVAL = 60.0
"""Seconds between two removals of the ids of events that were consumed too long ago."""


class EventConsumption(AsyncResource):
    """
    Runs consumers; `async with` opens it, `run` runs it.

    Args:
        consumers: their names are different.
        database_url: the database of their effects.
        settings: batches, leases, timeouts; `broker_url` for queues.
        emit: takes telemetry events.
        time_limit: interrupts models and upcasters.

    Raises:
        DefinitionError: a consumer breaks a rule.
        ConfigurationError: there is no broker URL for a queue.
        SchemaMismatch: on entering: the database has no event tables.
        StoreUnavailable: on entering: the database or the registry is out of reach.
        BrokerError: on entering: a source is out of reach, or cannot be declared.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        database_url: str,
        settings: Settings,
        emit: Observer,
        time_limit: CallTimeLimit = NO_TIME_LIMIT,
    ) -> None:
        consumer_rules.check(consumers)
        self.owner = process_owner()
        self._consumers = consumers
        self._database = Database(
            database_url, _with_pool_for(consumers, settings), EVENT_DATABASE, runs_user_sql=True
        )
        self.registry = _other_registry(settings)
        self._avro = AvroMessages(self.registry or self._database, settings)
        self._settings = settings
        self._emit = emit
        self._loop = OwnedLoop(Operation.CONSUMER, settings, emit)
        self._time_limit = time_limit
        self._opener: SourceOpener
        self.sources: dict[str, Source] = {}
        self._runners: list[PartitionRunner] = []
        self._slots = {
            each.name: asyncio.Semaphore(settings.consumer_concurrency) for each in consumers
        }

    @property
    def problem(self) -> str | None:
        """What is wrong with the sources; None: nothing."""
        problems = dict.fromkeys([self._opener.problem, *self.source_problems.values()])
        return "; ".join(each for each in problems if each) or None

    @property
    def source_problems(self) -> Mapping[PartitionKey, str]:
        """Why partitions of this process cannot be consumed now, each a sentence."""
        return {each.key: each.problem for each in self._runners if each.problem}

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        if self.registry:
            await resources.enter_async_context(self.registry)
        self._opener = SourceOpener(resources, self._settings, self._emit)
        self.sources |= await self._opener.open_all(self._consumers)
        for consumer in self._consumers:
            source = self.sources[consumer.name]
            number = await source.partition_count()
            await self._register(consumer.name, source.description, number)
            self._runners += [self._runner(consumer, source, each) for each in range(number)]

    async def _register(self, name: str, source: str, partitions: int) -> None:
        """
        Register a consumer, which may have had another source.

        Raises:
            ConfigurationError: messages of that are kept. In the new source their streams would go
                on without them, in other partitions.
        """
        async with self._database.transaction() as tx:
            await consumer_table.lock_all(tx, name)
            kept = await consumer_failures.kept_of_others(tx, name, source)
            if kept:
                raise ConfigurationError(
                    f"Consumer {name!r} keeps messages of {kept.source} that wait for a"
                    f" correction ({kept.messages}), and its source is {source} now. Retry or skip"
                    f" them while the earlier release runs: `saga-engine consumers show {name}`,"
                    " or declare a consumer of another name."
                )
            await consumer_table.register(tx, name, source, partitions)
            await consumer_lag.register(tx, name)

    async def _add_partitions(self, consumer: Consumer) -> Sequence[PartitionRunner]:
        """Look for new partitions of a consumer, and return the runners of those."""
        source = self.sources[consumer.name]
        number = await source.partition_count()
        known = sum(each.key.consumer == consumer.name for each in self._runners)
        if number <= known:
            return []
        async with self._database.transaction() as tx:
            await consumer_table.add(tx, consumer.name, source.description, number)
            await consumer_lag.register(tx, consumer.name)
        added = [self._runner(consumer, source, each) for each in range(known, number)]
        self._runners += added
        return added

    def _runner(self, consumer: Consumer, source: Source, partition: int) -> PartitionRunner:
        key = PartitionKey(consumer.name, partition)
        reader = EventReader(consumer, self._settings, self._avro)
        writer = PartitionWriter(
            self._database,
            reader,
            key,
            Holder(self.owner, source.description),
            self._settings,
            self._time_limit,
        )
        slots = self._slots[consumer.name]
        return PartitionRunner(key, source, writer, consumer.on_poison, self._loop, slots)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until *stop* is set and the batches in progress are done; leases end, too."""
        turns = Turns(
            CONSUMER_LEASES,
            self._database,
            self.owner,
            self._settings,
            self._loop.report_unavailable,
        )
        try:
            async with asyncio.TaskGroup() as tasks:

                def start(runners: Iterable[PartitionRunner]) -> None:
                    for runner in runners:
                        turn = turns.add((runner.key.consumer, str(runner.key.partition)))
                        tasks.create_task(runner.run(stop, turn))

                start(self._runners)
                tasks.create_task(self._purge(stop))
                tasks.create_task(self._find_partitions(start, stop))
                tasks.create_task(turns.run(stop))
        finally:
            await self._release()

    async def _find_partitions(
        self, start: Callable[[Iterable[PartitionRunner]], None], stop: asyncio.Event
    ) -> None:
        """Consume partitions that are added to a source, too, until *stop* is set."""
        while not await wait_for_event(stop, self._settings.consumer_partition_interval):
            for consumer in self._consumers:
                try:
                    added = await self._add_partitions(consumer)
                except StoreError as error:
                    self._loop.report_unavailable(error)
                except (BrokerError, ConfigurationError):
                    continue  # the partitions that are known report it
                else:
                    start(added)
                    if added:
                        self._report_added(consumer, added)

    def _report_added(self, consumer: Consumer, added: Sequence[PartitionRunner]) -> None:
        self._emit(
            ConsumerPartitionsFound(
                consumer=consumer.name, partitions=tuple(each.key.partition for each in added)
            )
        )

    async def _purge(self, stop: asyncio.Event) -> None:
        """Remove the ids of events that were consumed too long ago, until *stop* is set."""
        retention = self._settings.consumed_event_retention
        while not stop.is_set():
            try:
                for consumer in self._consumers:
                    more = True
                    while more and not stop.is_set():
                        async with self._database.transaction() as tx:
                            more = await consumed_events.purge(tx, consumer.name, retention)
            except StoreError as error:
                self._loop.report_unavailable(error)
            await wait_for_event(stop, PURGE_INTERVAL)

    async def _release(self) -> None:
        """End the leases. If that fails, they end with their time."""
        try:
            async with self._database.transaction() as tx:
                await consumer_table.release(tx, self.owner)
        except StoreError as error:
            self._loop.report_unavailable(error)


def _other_registry(settings: Settings) -> Database | None:
    """The database with the schemas of messages in Avro; None: that of the consumers."""
    url = settings.registry_database_url
    if url is None:
        return None
    few = settings.model_copy(update={"database_pool_size": REGISTRY_POOL_SIZE})
    return Database(url.get_secret_value(), few, EVENT_DATABASE)


def _with_pool_for(consumers: Sequence[Consumer], settings: Settings) -> Settings:
    """Enough connections for all consumers, and for leases: a slow consumer delays no other."""
    size = max(settings.database_pool_size, len(consumers) * settings.consumer_concurrency + 3)
    return settings.model_copy(update={"database_pool_size": size})
