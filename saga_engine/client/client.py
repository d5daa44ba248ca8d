"""
Start, wait for and cancel runs over RabbitMQ.

Every request names its run by an id chosen here, so that it can be sent again until it is answered:
asking twice is asking once. Answers and announcements are best effort, so nothing here relies on
one of them; nothing polls either, except slowly, to be told again.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.publisher import Publisher
from saga_engine.client.answer_queue import AnswerQueue
from saga_engine.client.handle import RunHandle, RunResult, run_result_from
from saga_engine.client.inputs import checked_key, input_json, name_and_version, parse_run_id
from saga_engine.encryption.configuration import encryption_from
from saga_engine.errors import (
    BrokerUnavailable,
    Conflict,
    InvalidInput,
    NotFound,
    NotStarted,
    SagaEngineError,
    TimedOut,
)
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import input_associated_data
from saga_engine.payload.limits import find_violation
from saga_engine.protocol.answer import Answer, AnswerOutcome, RunFinishedMessage
from saga_engine.protocol.limits import body_limits
from saga_engine.protocol.message import PublishOutcome
from saga_engine.protocol.request import (
    CancelRequest,
    Request,
    StartRequest,
    StatusRequest,
    encode_request,
)
from saga_engine.protocol.topology import CLIENT_TOPOLOGY, client_topology
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionState, Status

NO_WORKER_MESSAGE = (
    "No worker has ever run on this broker: it has no queue for requests. Start one with"
    " `saga-engine worker MODULE`, or correct SAGA_ENGINE_BROKER_URL."
)


class Client:
    """
    A connection to the engine; any number of tasks may share one.

        async with Client("amqp://user:password@host:5672/") as client:
            handle = await client.start("place-order", order, key=order.order_id)
            ending = await client.result(handle.run_id, timeout=60)

    Args:
        broker_url: where the engine's RabbitMQ is; the setting of that name when left out.
        settings: `Settings.load()` when left out.

    Raises:
        ConfigurationError: on entering: no URL, or the broker refuses its user or password.
        BrokerUnavailable: on entering: out of reach. Later that is waited for, within the timeouts.
    """

    def __init__(self, broker_url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        self._encryption = encryption_from(self._settings)
        self._url = broker_url or self._settings.require_broker_url()
        self._exit_stack = AsyncExitStack()
        self._publish_connection: SupervisedConnection
        self._publisher: Publisher
        self._answer_queue: AnswerQueue
        self._unroutable_since: float | None = None

    async def __aenter__(self) -> Self:
        queue = f"saga.client.{uuid4().hex}"
        async with AsyncExitStack() as exit_stack:
            publish_connection, consume_connection = (
                SupervisedConnection(
                    self._url, name=name, settings=self._settings, topology=topology
                )
                for name, topology in (
                    ("publish", CLIENT_TOPOLOGY),
                    ("consume", client_topology(queue)),
                )
            )
            self._publish_connection = await exit_stack.enter_async_context(publish_connection)
            self._publisher = Publisher(publish_connection)
            await exit_stack.enter_async_context(consume_connection)
            self._answer_queue = await exit_stack.enter_async_context(
                AnswerQueue(consume_connection, queue)
            )
            self._exit_stack = exit_stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit_stack.aclose()

    async def start(
        self,
        saga: str | Saga,
        input: object,  # noqa: A002 - what the saga calls it too
        *,
        key: str | None = None,
        version: int | None = None,
    ) -> RunHandle:
        """
        Start a run and wait until the engine has it.

        Args:
            saga: its name, or its definition, with which the input is validated before it is sent.
            input: a pydantic model, or plain JSON.
            key: a business key, unique for each saga: with the same input it names the same run,
                however often it is asked for.
            version: the newest a worker knows when left out.

        Raises:
            InvalidInput: the input does not fit the saga, or breaks a limit.
            NotFound: no worker knows that saga or version.
            Conflict: the key belongs to a run with another input.
            BrokerUnavailable: out of reach, or no worker has ever run on this broker.
            TimedOut: no worker answered in `client_timeout`; the run starts when there is one.
        """
        name, requested_version = name_and_version(saga, version)
        run_id = uuid7()
        checked_business_key = checked_key(key, self._settings.max_request_text_bytes)
        encrypted_input = self._encryption.encrypt(
            input_json(saga, input), input_associated_data(name, str(run_id))
        )
        request = StartRequest(
            run_id=run_id,
            saga=name,
            input=encrypted_input,
            version=requested_version,
            key=checked_business_key,
        )
        answer = await self._ask_with_timeout(
            request, f"Run {run_id} is asked for and starts as soon as a worker takes it in."
        )
        match answer.outcome:
            case AnswerOutcome.ACCEPTED | AnswerOutcome.EXISTING:
                actual_run_id = answer.run_id or run_id
                existing = actual_run_id != run_id
                return RunHandle(
                    actual_run_id,
                    name,
                    answer.version or requested_version,
                    key,
                    existing,
                    answer.status,
                )
            case AnswerOutcome.CONFLICT:
                raise Conflict(
                    _message_or_default(answer, "The key belongs to a run with another input.")
                )
            case AnswerOutcome.UNKNOWN_SAGA:
                raise NotFound(_message_or_default(answer, f"No worker knows saga {name!r}."))
            case _:
                raise InvalidInput(_message_or_default(answer, "The engine refuses the request."))

    async def status(self, run_id: UUID | str) -> RunResult:
        """
        Ask how a run stands.

        Args:
            run_id: the run, as `start` returned it.

        Raises:
            NotBegun: its start waits until a worker takes it in, and names no version. Do not
                start it again; `result` waits for it.
            NotFound: there is no such run.
            BrokerUnavailable, TimedOut: nobody answered.
        """
        request = StatusRequest(parse_run_id(run_id))
        answer = await self._ask_with_timeout(request, "Nothing is known of the run.")
        run_result = run_result_from(request.run_id, answer)
        if run_result:
            return run_result.decrypted(self._encryption)
        if answer.outcome is AnswerOutcome.EXISTING:
            raise NotStarted(f"Run {request.run_id} has not begun yet. It does so by itself.")
        raise _run_not_found(request.run_id)

    async def result(
        self,
        run_id: UUID | str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - with our own sentence
        on_incident: Callable[[RunResult], None] | None = None,
    ) -> RunResult:
        """
        Wait until a run is finished: completed, compensated or abandoned.

        The engine announces the end of a run. An announcement may be lost, so the status is asked
        for again every `client_poll_interval` seconds. A run that no worker knows is waited for
        during
        `client_timeout` seconds: the transaction that records its start may not be committed yet.
        A start that waits for a worker is waited for like a run.

        Args:
            run_id: the run, as `start` or `start_in` returned it.
            timeout: seconds to wait; without end when left out.
            on_incident: called with how the run stands when it is first seen to wait for a person,
                and whenever the first of its open incidents is another.

        Raises:
            NotFound: there is no such run.
            TimedOut: it is not finished after *timeout* seconds; it goes on. Where the last answer
                showed an open incident, the text names it.
            BrokerUnavailable: no worker has ever run on this broker.
        """
        awaited_run_id, incident_reporter = parse_run_id(run_id), _IncidentReporter(on_incident)
        try:
            async with (
                asyncio.timeout(timeout),
                self._answer_queue.expect_finished(awaited_run_id) as finished,
            ):
                return (
                    await self._wait_until_finished(awaited_run_id, finished, incident_reporter)
                ).decrypted(self._encryption)
        except TimeoutError:
            raise TimedOut(
                _not_finished_message(awaited_run_id, timeout, incident_reporter.last_result)
            ) from None

    async def cancel(self, run_id: UUID | str, *, reason: str, operator: str) -> Status | None:
        """
        Have a run undone: what is in flight is awaited, what was done is compensated.

        Args:
            run_id: the run, as `start` returned it.
            reason: why; kept on record.
            by: the person or program that asks; kept on record.

        Returns:
            Where the run stands now; wait for `result` to see it compensated.

        Raises:
            NotFound: there is no such run.
            Conflict: it is finished or past its pivot; the text says which.
            BrokerUnavailable, TimedOut: nobody answered; the request may still be taken in.
        """
        request = CancelRequest(parse_run_id(run_id), reason, operator)
        answer = await self._ask_with_timeout(
            request, "The cancel is recorded and may still happen."
        )
        match answer.outcome:
            case AnswerOutcome.ACCEPTED | AnswerOutcome.EXISTING:
                return answer.status
            case AnswerOutcome.UNKNOWN_RUN:
                raise _run_not_found(request.run_id)
            case AnswerOutcome.REFUSED:
                raise Conflict(_message_or_default(answer, "The run cannot be cancelled any more."))
            case _:
                raise InvalidInput(_message_or_default(answer, "The engine refuses the request."))

    async def _ask_with_timeout(self, request: Request, consequence: str) -> Answer:
        try:
            async with asyncio.timeout(self._settings.client_timeout):
                answer = await self._ask_until_answered(request)
        except TimeoutError:
            raise self._no_answer_error(consequence) from None
        assert answer is not None, "nothing else was waited for"
        return answer

    async def _wait_until_finished(
        self,
        run_id: UUID,
        finished: asyncio.Future[RunFinishedMessage],
        incident_reporter: "_IncidentReporter",
    ) -> RunResult:
        now = asyncio.get_running_loop().time
        not_found_deadline = now() + self._settings.client_timeout
        while not finished.done():
            answer = await self._ask_until_answered(StatusRequest(run_id), finished)
            run_result = run_result_from(run_id, answer) if answer else None
            if run_result and run_result.status.is_finished:
                return run_result
            if run_result:
                incident_reporter(run_result)
            if (
                answer
                and answer.outcome is not AnswerOutcome.EXISTING
                and now() >= not_found_deadline
            ):
                raise _run_not_found(run_id)
            await asyncio.wait([finished], timeout=self._settings.client_poll_interval)
        message = finished.result()
        return RunResult(
            *(
                run_id,
                message.saga,
                message.version,
                message.key,
                message.status,
                message.result,
                message.error,
            )
        )

    async def _ask_until_answered(
        self, request: Request, finished: asyncio.Future[RunFinishedMessage] | None = None
    ) -> Answer | None:
        """Send a request again and again until it is answered; None when *ended* came first."""
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
        """Where no worker has run there is no queue; one may be starting, so ask for a while."""
        if published is not PublishOutcome.UNROUTABLE:
            self._unroutable_since = None
            return
        now = asyncio.get_running_loop().time()
        self._unroutable_since = unroutable_since = self._unroutable_since or now
        if now - unroutable_since >= self._settings.client_timeout:
            raise BrokerUnavailable(NO_WORKER_MESSAGE)

    def _no_answer_error(self, consequence: str) -> SagaEngineError:
        state = self._publish_connection.status
        if state.state is not ConnectionState.CONNECTED:
            return BrokerUnavailable(f"{state.problem} {consequence}")
        if self._unroutable_since is not None:
            return BrokerUnavailable(NO_WORKER_MESSAGE)
        return TimedOut(
            f"No worker answered in {self._settings.client_timeout:g} seconds. {consequence}"
            " See whether one is running and ready."
        )


class _IncidentReporter:
    """How a run stood when the engine was last asked; it reports each new first incident."""

    def __init__(self, on_incident: Callable[[RunResult], None] | None) -> None:
        self.last_result: RunResult | None = None
        self._on_incident = on_incident

    def __call__(self, run_result: RunResult) -> None:
        previous_incident = self.last_result.incident if self.last_result else None
        self.last_result = run_result
        if self._on_incident and run_result.incident and run_result.incident != previous_incident:
            self._on_incident(run_result)


def _not_finished_message(
    run_id: UUID, timeout: float | None, last_result: RunResult | None
) -> str:
    if last_result is None or last_result.incident is None:
        return (
            f"Run {run_id} is not finished after {timeout} seconds; it goes on."
            f" `saga-engine show {run_id}` tells what it waits for."
        )
    more = f" and {last_result.open_incidents - 1} more" if last_result.open_incidents > 1 else ""
    return (
        f"Run {run_id} is not finished after {timeout} seconds: it waits for a person,"
        f" {last_result.incident.text(str(run_id))}{more}. An operator resolves it with"
        f" `saga-engine resolve {run_id}/{last_result.incident.number} ACTION`."
    )


def _message_or_default(answer: Answer, default: str) -> str:
    return answer.error.message if answer.error and answer.error.message else default


def _run_not_found(run_id: UUID) -> NotFound:
    return NotFound(f"There is no run {run_id}.")
