"""The exchange `saga.feed` as a sink: an event is a message, confirmed by the broker."""

from collections.abc import Callable, Sequence

from saga_engine.errors import UnreadableEvent
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.cloud_event import encode_event
from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS
from saga_engine.events.feeds.feed import ExchangeOptions, Unroutable
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.interfaces import FeedMessages
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.protocol.topology import FEED
from saga_engine.telemetry.events import MessagesPublished, Observer


class ExchangeSink:
    """
    Publishes the events of one feed to the exchange.

    Args:
        key: the feed.
        options: as it declares them.
        log: the identity of the log.
        publisher: of this feed alone: it does not publish an id that is in flight.
        problem: what is wrong with its connection.
        emit: takes telemetry events.
    """

    confirmed_offsets = NO_OFFSETS
    one_at_a_time = True
    """A queue that was full for one event may have a place for the next."""
    differences = ()
    """An exchange with other arguments is refused when it is declared."""

    def __init__(
        self,
        key: FeedKey,
        options: ExchangeOptions,
        log: EventLog,
        publisher: FeedMessages,
        problem: Callable[[], str | None],
        emit: Observer,
    ) -> None:
        self._key = key
        self.unroutable = Unroutable(options.unroutable)
        self._log = log
        self._publisher = publisher
        self._problem = problem
        self._emit = emit

    @property
    def problem(self) -> str | None:
        """What is wrong with the connection; None: nothing."""
        return self._problem()

    async def resume(self, position: int) -> int:
        """Return the position: an exchange does not know what it has received."""
        return position

    async def publish(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        """Publish events and wait for their confirms."""
        if not events:
            return []  # the connection recovers without it
        encoded = [self._encode(each) for each in events]
        published = iter(await self._publisher.publish([each for each in encoded if each]))
        outcomes = [
            PublishOutcome.UNPUBLISHABLE if each is None else next(published) for each in encoded
        ]
        for outcome in dict.fromkeys(outcomes):
            count = outcomes.count(outcome)
            self._emit(MessagesPublished(exchange=FEED, outcome=outcome, messages=count))
        return outcomes

    def explain(self, event: Recorded, outcome: PublishOutcome) -> str:
        """Return why an event cannot be published, and what an operator can do about it."""
        try:
            message = encode_event(event, self._log.id)
        except UnreadableEvent as error:
            return f"The event cannot be published: {error.problem}. Discard the event."
        retry = f"then run `{self._key.retry_command}`; or discard the event."
        if outcome is PublishOutcome.UNROUTABLE:
            return (
                f"No queue is bound to exchange {FEED!r} for routing key {message.routing_key!r}."
                f" Bind one, {retry}"
            )
        return (
            f"The message exceeds a limit. {self._publisher.unpublishable_reason(message)} If the"
            f" limit is a setting, such as max_body_bytes, raise it, {retry}"
        )

    def _encode(self, event: Recorded) -> Message | None:
        """Make the message of an event; None if its data cannot be read."""
        try:
            return encode_event(event, self._log.id)
        except UnreadableEvent:
            return None
