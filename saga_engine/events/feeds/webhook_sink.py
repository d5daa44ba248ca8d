"""
A webhook as a sink: each event is a signed request, in the order of its stream.

An event that the receiver refuses lets its stream wait (`webhook_backlog`), and the feed moves on.
While the receiver takes nothing at all, the feed waits.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack

from saga_engine.errors import ConfigurationError, StoreError
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS
from saga_engine.events.feeds.feed import Unroutable, WebhookOptions
from saga_engine.events.feeds.owned_feed import OwnedFeed
from saga_engine.events.feeds.webhook_answer import Answer, Verdict
from saga_engine.events.feeds.webhook_backlog import WebhookBacklog
from saga_engine.events.feeds.webhook_client import WebhookClient
from saga_engine.events.feeds.webhook_endpoint import WebhookEndpoint
from saga_engine.events.feeds.webhook_signature import SECRET_RULE, InvalidSecret, WebhookSecrets
from saga_engine.events.feeds.webhook_target import WebhookTarget
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable, Observer
from saga_engine.telemetry.operations import Operation


class WebhookSink(AsyncResource):
    """
    Publishes the events of one feed to a webhook; `async with` opens it.

    Args:
        feed: the feed in this process.
        options: as it declares them.
        settings: timeouts, backoff, limits.
        emit: takes telemetry events.

    Raises:
        ConfigurationError: the environment has no valid secret.
    """

    confirmed_offsets = NO_OFFSETS
    one_at_a_time = True
    """The receiver may refuse one event and take the next."""
    unroutable = Unroutable.STOP
    differences = ()

    def __init__(
        self, feed: OwnedFeed, options: WebhookOptions, settings: Settings, emit: Observer
    ) -> None:
        target = WebhookTarget.parse(options.url)
        self._key = feed.key
        self._settings = settings
        self._emit = emit
        self._client = WebhookClient(target, _secrets(options.secret), settings)
        self._endpoint = WebhookEndpoint(str(target), feed.log.id, self._client.post, settings)
        self.backlog = WebhookBacklog(feed, self._endpoint, settings, emit)
        self._unpublishable: dict[int, str] = {}  # why, by position

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._client)

    @property
    def problem(self) -> str | None:
        """Why the receiver takes nothing now; None: nothing is wrong."""
        return self._endpoint.problem

    async def resume(self, position: int) -> int:
        """Begin as the owner; the receiver does not say what it has."""
        self._unpublishable.clear()
        await self.backlog.load(position)
        return position

    async def publish(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        """Send events, a limited number at once; those that cannot be sent in time are refused."""
        if not events:
            self._endpoint.forget_problem()
        start_by = asyncio.get_running_loop().time() + self._settings.webhook_timeout
        async with asyncio.TaskGroup() as tasks:
            sending = [tasks.create_task(self._publish(each, start_by)) for each in events]
        return [each.result() for each in sending]

    def explain(self, event: Recorded, outcome: PublishOutcome) -> str:
        """Return why an event cannot be published, and what an operator can do about it."""
        problem = self._unpublishable.get(event.position, self._endpoint.describe(outcome.value))
        return f"{problem} Then run `{self._key.retry_command}`; or discard the event."

    async def _publish(self, event: Recorded, start_by: float) -> PublishOutcome:
        if event.stream in self.backlog:
            self.backlog.hand_over(event)
            return PublishOutcome.WAITING
        answer = await self._endpoint.deliver(event, start_by)
        match answer.verdict:
            case Verdict.DELIVERED:
                return PublishOutcome.CONFIRMED
            case Verdict.UNAVAILABLE:
                return PublishOutcome.NACKED
            case Verdict.REFUSED:
                return await self._let_wait(event, answer)
            case Verdict.GONE | Verdict.UNSENDABLE:
                self._unpublishable[event.position] = self._endpoint.describe(answer.problem)
                return PublishOutcome.UNPUBLISHABLE

    async def _let_wait(self, event: Recorded, answer: Answer) -> PublishOutcome:
        """Let the stream of an event wait, so that the feed goes on with the others."""
        if self.backlog.is_full:
            limit = self._settings.webhook_max_waiting_streams
            self._endpoint.pause(
                f"{answer.problem} {limit} streams wait already: see `feeds show`."
            )
            return PublishOutcome.NACKED
        try:
            is_stored = await self.backlog.add(event, answer)
        except StoreError as error:
            self._emit(DatabaseUnavailable(operation=Operation.FEED, problem=str(error)))
            return PublishOutcome.UNKNOWN
        return PublishOutcome.WAITING if is_stored else PublishOutcome.UNKNOWN


def _secrets(variable: str) -> WebhookSecrets:
    text = os.environ.get(variable, "")
    if not text.strip():
        raise ConfigurationError(
            f"{variable} is not set: a webhook is signed with it. {SECRET_RULE}."
        )
    try:
        return WebhookSecrets.parse(text)
    except InvalidSecret as error:
        raise ConfigurationError(f"{variable} {error}. {SECRET_RULE}.") from None
