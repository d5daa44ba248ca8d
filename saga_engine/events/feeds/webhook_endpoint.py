"""
The receiver of a webhook: whether it takes events now, and when to ask it again.

While it is unreachable, redirects or asks for less, nothing is sent to it, and the feed waits. The
pauses grow; the receiver may say how long one is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from uuid import UUID

from saga_engine.backoff import Backoff
from saga_engine.errors import UnreadableEvent
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.webhook_answer import Answer, Verdict
from saga_engine.events.feeds.webhook_request import (
    HeadersTooLarge,
    WebhookRequest,
    encode_request,
)
from saga_engine.settings import Settings

JITTER = 0.2

Post = Callable[[WebhookRequest], Awaitable[Answer]]


def retry_backoff(settings: Settings) -> Backoff:
    """Return the delays between the attempts of one event, and between those of a receiver."""
    first, longest = settings.webhook_retry_delay, settings.webhook_retry_delay_max
    return Backoff(first, longest, jitter=JITTER)


class WebhookEndpoint:
    """
    Sends requests to one receiver, a limited number at once.

    Args:
        description: names it in sentences.
        log_id: the identity of the log that events are from.
        post: sends one request; see WebhookClient.
        settings: concurrency and backoff.
    """

    def __init__(self, description: str, log_id: UUID, post: Post, settings: Settings) -> None:
        self._description = description
        self._log_id = log_id
        self._post = post
        self._settings = settings
        self._backoff = retry_backoff(settings)
        self._slots = asyncio.Semaphore(settings.webhook_concurrency)
        self._failures = 0
        self._paused_until = 0.0
        self.problem: str | None = None

    async def deliver(self, event: Recorded, start_by: float) -> Answer:
        """
        Send an event, unless the receiver takes nothing now.

        Args:
            event: the event.
            start_by: on the clock of the event loop; an event that no slot is free for by then is
                not sent.
        """
        try:
            request = encode_request(event, self._log_id)
        except (UnreadableEvent, HeadersTooLarge) as error:
            problem = error.problem if isinstance(error, UnreadableEvent) else str(error)
            return Answer(Verdict.UNSENDABLE, f"cannot be sent this event: {problem}.")
        try:
            async with asyncio.timeout_at(start_by):
                await self._slots.acquire()
        except TimeoutError:
            return Answer(Verdict.UNAVAILABLE, "is slow: events wait for those before them.")
        try:
            if self.is_paused:
                return Answer(Verdict.UNAVAILABLE, self.problem or "")
            answer = await self._post(request)
        finally:
            self._slots.release()
        self._note(answer)
        return answer

    @property
    def is_paused(self) -> bool:
        """Whether nothing is sent now."""
        return asyncio.get_running_loop().time() < self._paused_until

    def pause(self, problem: str, seconds: float | None = None) -> None:
        """
        Send nothing for some time.

        Args:
            problem: why, as the rest of a sentence whose subject is the webhook.
            seconds: as the receiver asks; None: the next delay of the backoff.
        """
        self.problem = self.describe(problem)
        if self.is_paused:
            return  # a request that was sent before the pause
        delay = self._backoff.delay(self._failures, random())  # noqa: S311 - it spreads retries
        if seconds is not None:
            delay = min(max(seconds, delay), self._settings.webhook_retry_delay_max)
        self._paused_until = asyncio.get_running_loop().time() + delay
        self._failures += 1

    def forget_problem(self) -> None:
        """Note that there is nothing to send, unless the receiver is to be left alone."""
        if not self.is_paused:
            self.problem = None

    def describe(self, problem: str) -> str:
        """Make a sentence of a problem."""
        return f"Webhook {self._description} {problem}"

    def _note(self, answer: Answer) -> None:
        if answer.verdict is Verdict.UNAVAILABLE:
            self.pause(answer.problem, answer.retry_after)
        elif not self.is_paused:
            self.problem = None
            self._failures = 0
