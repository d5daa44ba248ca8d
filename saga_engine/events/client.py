"""The client of the event store: a connection pool of its own to one database with event tables."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any
from uuid import UUID

from saga_engine.backoff import Backoff
from saga_engine.errors import Conflict, TimedOut
from saga_engine.events.aggregates.aggregate import Aggregate
from saga_engine.events.aggregates.aggregate_stream import LoadedAggregate
from saga_engine.events.aggregates.command_handling import (
    AggregateCommand,
    Handled,
    handle_once,
    retry_conflicts,
)
from saga_engine.events.event_store import positions, stream_table
from saga_engine.events.event_store.append import (
    Append,
    Appended,
    check_stream_name,
    checked_events,
    metadata_json,
)
from saga_engine.events.event_store.arguments import (
    MAX_POSITION,
    MAX_VERSION,
    require_instance,
    require_number,
)
from saga_engine.events.event_store.commit_outcome import commit
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.log_page import LogFilter, read_page, read_stream
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.event_store.transactional import retry_concurrent
from saga_engine.events.projections import projection_table
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projection_table import ProjectionState
from saga_engine.lifecycle import AsyncResource
from saga_engine.message_context import MessageContext, current_context
from saga_engine.postgres.statement import Transaction
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE


class Events(AsyncResource):
    """
    The event store of one database; any number of tasks may share one.

        async with Events("postgresql+asyncpg://shop@host/shop") as events:
            await events.append(Append("order-o-1", [Placed(total=12)], expected=NEW))
            async for event in events.read("order-o-1"):
                print(event.version, event.type, event.data)

    Args:
        database_url: the engine's database, or one of a service; by default the setting of that
            name.
        settings: by default `Settings.load()`.

    Raises:
        ConfigurationError: on entering: there is no URL, or the database could lose confirmed
            commits, cannot store every text, or has a sequence of positions behind its events.
        SchemaMismatch: on entering: it has no event tables; run `saga-engine migrate --events`.
        StoreUnavailable: it is out of reach.
    """

    def __init__(
        self, database_url: str | None = None, *, settings: Settings | None = None
    ) -> None:
        self._settings = settings or Settings.load()
        url = database_url or self._settings.require_database_url()
        self._database = Database(url, self._settings, EVENT_DATABASE)
        self._log: EventLog

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._database)
        async with self._database.transaction() as tx:
            self._log = await EventLog.load(tx)

    async def append(self, *appends: Append, context: MessageContext | None = None) -> Appended:
        """
        Append events to one stream or several, in one transaction.

        Args:
            appends: each for another stream.
            context: where the events come from; by default the message that is being handled.

        Raises:
            InvalidInput: a name or an event cannot be stored, or exceeds a limit.
            WrongVersion: a stream is not what its append expected; nothing was appended.
            StoreLockTimeout: another transaction that appends to the same stream did not end in
                time; nothing was appended.
            StoreUnavailable: nothing was appended, unless the text says that this is unknown.
        """
        self.require_open()
        events = checked_events(appends, self._settings)
        metadata = metadata_json(context or current_context(), self._settings)

        async def attempt(conflicts: int) -> Appended:
            async def append(tx: Transaction) -> tuple[Appended, Appended]:
                if conflicts:
                    await stream_table.queue(tx, {event.stream for event in events})
                done = await stream_table.append(tx, events, metadata, self._settings)
                return done, done

            return await commit(self._database, append, self._settings)

        return await retry_concurrent(attempt, self._settings.event_append_attempts)

    async def handle(
        self,
        aggregate: Aggregate,
        aggregate_id: str | int | UUID,
        command: Any,
        *,
        context: MessageContext | None = None,
    ) -> Handled:
        """
        Handle a command of an aggregate: load it, decide, append the events.

        If another transaction appends to the stream first, the aggregate is loaded and the command
        is decided again, up to `command_attempts` times. The functions of the aggregate run in the
        event loop of the caller, each for at most `mapping_timeout` seconds.

            done = await events.handle(orders, "o-1", PlaceOrder(customer="mara"))

        Args:
            aggregate: it has a function for the class of the command.
            aggregate_id: which one; it need not exist.
            command: an instance of a declared class.
            context: where the events come from; by default the message that is being handled.

        Raises:
            Rejected: the command is not allowed in that state.
            InvalidInput: the id, the command or an event does not fit, or exceeds a limit.
            DecisionFailed: the function of the command failed.
            UnreadableEvent: this code cannot read the stream.
            StoreLockTimeout: other transactions were first in every attempt; nothing was appended.
            StoreUnavailable: nothing was appended, unless the text says that this is unknown.
        """
        self.require_open()
        given = AggregateCommand.create(aggregate, aggregate_id, command, self._settings)
        metadata = metadata_json(context or current_context(), self._settings)

        async def attempt(start: LoadedAggregate | None, conflicts: int) -> Handled:
            async def handle(tx: Transaction) -> tuple[Handled, Appended | None]:
                if conflicts:
                    await stream_table.queue(tx, [given.stream])
                append = partial(self._append_in, tx, metadata)
                return await handle_once(tx, self._log, given, append, self._settings, start)

            return await commit(self._database, handle, self._settings)

        return await retry_conflicts(attempt, self._settings.command_attempts)

    def _transaction(self) -> AbstractAsyncContextManager[Transaction]:
        self.require_open()
        return self._database.transaction()

    async def _append_in(self, tx: Transaction, metadata: str, append: Append) -> Appended:
        events = checked_events([append], self._settings)
        return await stream_table.append(tx, events, metadata, self._settings)

    async def read(self, stream: str, *, after: int = 0) -> AsyncIterator[Recorded]:
        """
        Read the events of a stream, in order, up to its end now.

        Args:
            stream: its name, `run-<run id>` for a run of the engine; one that does not exist has
                no events to read.
            after: the version to continue after; 0: from the first event.

        Raises:
            InvalidInput: it is not the name of a stream, or not a version.
            StoreUnavailable: the database is out of reach; continue after the last version.
        """
        check_stream_name(stream, self._settings)
        require_number(after, "The version to read after", MAX_VERSION)
        while True:
            async with self._transaction() as tx:
                events = await read_stream(tx, self._log, stream, after, self._settings)
            if not events:
                return
            for event in events:
                yield event
            after = events[-1].version

    async def read_all(
        self,
        *,
        after: int = 0,
        types: Collection[str | type] | None = None,
        streams: Collection[str] | None = None,
    ) -> AsyncIterator[Recorded]:
        """
        Read the events of all streams in the order of their positions, up to the horizon now.

        Each position below the last one was read: none is added there later. To follow the log,
        read again after the last position.

        Args:
            after: the position to continue after; 0: from the first event.
            types: only events of these types, by name or class; None: all.
            streams: only these streams, or `order-*` for all that begin with `order-`; None: all.

        Raises:
            InvalidInput: an argument does not fit: no event or stream can have such a name.
            StoreUnavailable: the database is out of reach; continue after the last position.
        """
        require_number(after, "The position to read after", MAX_POSITION)
        log_filter = LogFilter.create(types, streams)
        horizon = await self.position()
        while after < horizon:
            async with self._transaction() as tx:
                page = await read_page(tx, self._log, log_filter, (after, horizon), self._settings)
            for event in page.events:
                yield event
            if page.position == after:
                return  # the horizon is lower than it was
            after = page.position

    async def caught_up(self, projection: Projection, position: int, timeout: float = 2.0) -> None:  # noqa: ASYNC109 - the user's
        """
        Wait until a projection has applied all events up to a position, to read one's own writes.

        It does not wait for streams that are parked: their events are not in the tables.

            done = await events.append(Append("order-o-1", [Placed(total=12)]))
            await events.caught_up(by_customer, done.position)

        Args:
            projection: which one.
            position: of an append, or the horizon.
            timeout: seconds to wait. A projector lags by milliseconds; it may not run.

        Raises:
            InvalidInput: an argument does not fit.
            NotFound: no projector has registered the projection.
            Conflict: the projection is stopped or paused before the position.
            TimedOut: it has not reached the position in time.
            StoreUnavailable: the database is out of reach.
        """
        fix = 'Give the object that Projection("orders", ...) has made.'
        require_instance(projection, Projection, "The projection", fix)
        require_number(position, "The position to wait for", MAX_POSITION)
        require_instance(timeout, int | float, "The timeout", "Give seconds.")
        polls = Backoff(self._settings.event_poll_interval, self._settings.event_poll_interval_max)
        reached, state = 0, ProjectionState.ACTIVE
        try:
            async with asyncio.timeout(timeout):
                for poll in itertools.count():
                    async with self._transaction() as tx:
                        reached, state = await projection_table.progress(tx, projection)
                    if reached >= position or state is not ProjectionState.ACTIVE:
                        break
                    await asyncio.sleep(polls.delay(poll))
        except TimeoutError:
            raise TimedOut(
                f"Projection {projection.name!r} has reached position {reached} and not {position}"
                f" within {timeout:g} s. Check that a projector runs it, and its lag."
            ) from None
        if reached < position:
            raise Conflict(
                f"Projection {projection.name!r} is {state} at position {reached}. `saga-engine"
                f" projections show {projection.name}` shows why."
            )

    async def position(self) -> int:
        """Return the horizon: `read_all` reads every event up to this position, now and later."""
        async with self._transaction() as tx:
            return await positions.horizon(tx)
