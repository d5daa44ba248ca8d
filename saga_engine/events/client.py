"""The client of the event store: a connection pool of its own to one database with event tables."""

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack

from saga_engine.events import positions, stream_table
from saga_engine.events.append import Append, Appended, checked_events, metadata_json
from saga_engine.events.event_log import EventLog
from saga_engine.events.log_page import LogFilter, read_page
from saga_engine.events.recorded import Recorded
from saga_engine.events.transactional import retry_concurrent
from saga_engine.lifecycle import AsyncResource
from saga_engine.message_context import MessageContext, current_context
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
            commits or cannot store every text.
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
            StoreUnavailable: whether the events were appended is unknown: read the stream.
        """
        events = checked_events(appends, self._settings)
        metadata = metadata_json(context or current_context(), self._settings)

        async def attempt() -> Appended:
            async with self._database.transaction() as tx:
                return await stream_table.append(tx, events, metadata, self._settings)

        return await retry_concurrent(attempt, self._settings.event_append_attempts)

    async def read(self, stream: str, *, after: int = 0) -> AsyncIterator[Recorded]:
        """
        Read the events of a stream, in order, up to its end now.

        Args:
            stream: its name; one without events has no events to read.
            after: the version to continue after; 0: from the first event.

        Raises:
            StoreUnavailable: the database is out of reach; continue after the last version.
        """
        while True:
            async with self._database.transaction() as tx:
                events = await stream_table.read(tx, self._log, stream, after, self._settings)
            if not events:
                return
            for event in events:
                yield event
            after = events[-1].version

    async def read_all(
        self,
        *,
        after: int = 0,
        types: Collection[str] | None = None,
        streams: Collection[str] | None = None,
    ) -> AsyncIterator[Recorded]:
        """
        Read the events of all streams in the order of their positions, up to the horizon now.

        Each position below the last one was read: none is added there later. To follow the log,
        read again after the last position.

        Args:
            after: the position to continue after; 0: from the first event.
            types: only events of these types; None: all.
            streams: only these streams, or `order-*` for all that begin with `order-`; None: all.

        Raises:
            InvalidInput: a pattern cannot be read.
            StoreUnavailable: the database is out of reach; continue after the last position.
        """
        log_filter = LogFilter.create(types, streams)
        horizon = await self.position()
        while after < horizon:
            async with self._database.transaction() as tx:
                page = await read_page(tx, self._log, log_filter, (after, horizon), self._settings)
            for event in page.events:
                yield event
            after = page.position

    async def position(self) -> int:
        """Return the horizon: `read_all` reads every event up to this position, now and later."""
        async with self._database.transaction() as tx:
            return await positions.horizon(tx)
