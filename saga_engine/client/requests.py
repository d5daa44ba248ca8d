"""
Sending a request until it is answered.

A request names its run by an id that the client has chosen, so sending it again has no further
effect. Answers are best effort: one that does not arrive within `client_poll_interval` is requested
again.
"""

import asyncio
from uuid import uuid4

from saga_engine.amqp.single_publisher import SinglePublisher
from saga_engine.client.answer_queue import AnswerQueue
from saga_engine.engine_process import BrokerConnections
from saga_engine.errors import BrokerUnavailable, InvalidInput, SagaEngineError, TimedOut
from saga_engine.payload.limits import find_violation
from saga_engine.protocol.answer import Answer
from saga_engine.protocol.limits import body_limits
from saga_engine.protocol.message import PublishOutcome
from saga_engine.protocol.request import Request, encode_request
from saga_engine.protocol.run_result import RunResult
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionState

NO_WORKER_MESSAGE = (
    "No worker has ever run on this broker: it has no queue for requests. Start one with"
    " `saga-engine worker MODULE`, or correct SAGA_ENGINE_BROKER_URL."
)


class RequestSender:
    """Sends requests over the connections of a client; any number at once."""

    def __init__(
        self, connections: BrokerConnections, answer_queue: AnswerQueue, settings: Settings
    ) -> None:
        self._publish_connection = connections.publish
        self._publisher = SinglePublisher(connections.publish)
        self._answer_queue = answer_queue
        self._settings = settings
        self._unroutable_since: float | None = None

    async def ask(self, request: Request, consequence: str) -> Answer:
        """
        Send a request and wait for its answer, for `client_timeout` seconds.

        Args:
            request: the request.
            consequence: a sentence for the error: what happens if there is no answer.

        Raises:
            InvalidInput: the request cannot be sent.
            BrokerUnavailable: the broker is out of reach, or no worker has ever run on it.
            TimedOut: no worker answered.
        """
        try:
            async with asyncio.timeout(self._settings.client_timeout):
                answer = await self.ask_until_answered(request)
        except TimeoutError:
            raise self._no_answer_error(consequence) from None
        assert answer is not None, "it waits for nothing else"
        return answer

    async def ask_until_answered(
        self, request: Request, finished: asyncio.Future[RunResult] | None = None
    ) -> Answer | None:
        """Send a request repeatedly until it is answered; None if *finished* was done first."""
        correlation_id = uuid4().hex
        with self._answer_queue.expect_answer(correlation_id) as answer_future:
            futures = [each for each in (answer_future, finished) if each is not None]
            while not any(each.done() for each in futures):
                await self._send(request, correlation_id)
                await asyncio.wait(
                    futures,
                    timeout=self._settings.client_poll_interval,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            return answer_future.result() if answer_future.done() else None

    async def _send(self, request: Request, correlation_id: str) -> None:
        try:
            message = encode_request(
                request, reply_to=self._answer_queue.queue, correlation_id=correlation_id
            )
        except TypeError as error:
            raise InvalidInput(f"The request cannot be written as JSON: {error}.") from None
        problem = find_violation(message.body, body_limits(self._settings))
        if problem:
            raise InvalidInput(f"The request is too large. {problem.message}")
        [published] = await self._publisher.publish([message])
        if published is PublishOutcome.UNPUBLISHABLE:
            raise InvalidInput(
                f"It can never be sent: {self._publisher.unpublishable_reason(message)}"
            )
        self._check_routed(published)

    def _check_routed(self, published: PublishOutcome) -> None:
        """Raise if the broker has had no queue for requests during `client_timeout` seconds."""
        if published is not PublishOutcome.UNROUTABLE:
            self._unroutable_since = None
            return
        now = asyncio.get_running_loop().time()  # a worker may be starting
        self._unroutable_since = unroutable_since = self._unroutable_since or now
        if now - unroutable_since >= self._settings.client_timeout:
            raise BrokerUnavailable(NO_WORKER_MESSAGE)

    def _no_answer_error(self, consequence: str) -> SagaEngineError:
        status = self._publish_connection.status
        if status.state is not ConnectionState.CONNECTED:
            return BrokerUnavailable(f"{status.problem} {consequence}")
        if self._unroutable_since is not None:
            return BrokerUnavailable(NO_WORKER_MESSAGE)
        return TimedOut(
            f"No worker answered in {self._settings.client_timeout:g} seconds. {consequence}"
            " Check that a worker is running and ready."
        )
