"""
Starting, awaiting and cancelling runs over RabbitMQ.

A request names its run by an id that the client has chosen, so it can be sent repeatedly until it
is answered. Answers and announcements are best effort; no method relies on a single one of them.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

from saga_engine.client.answer_queue import AnswerQueue
from saga_engine.client.handle import RunHandle
from saga_engine.client.inputs import checked_key, input_json, name_and_version, parse_run_id
from saga_engine.client.requests import RequestSender
from saga_engine.client.waiting import RunWaiter, run_not_found
from saga_engine.encryption.configuration import encryption_from
from saga_engine.engine_process import BrokerConnections, open_broker_connections
from saga_engine.errors import Conflict, InvalidInput, NotFound, NotStarted, TimedOut
from saga_engine.identifiers import uuid7
from saga_engine.lifecycle import AsyncResource
from saga_engine.payload.encryption import input_associated_data
from saga_engine.protocol.answer import Answer, AnswerOutcome
from saga_engine.protocol.request import CancelRequest, StartRequest, StatusRequest
from saga_engine.protocol.run_result import RunResult
from saga_engine.protocol.topology import CLIENT_TOPOLOGY, client_topology
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.vocabulary import Status


class Client(AsyncResource):
    """
    A connection to the engine; any number of tasks may share one.

        async with Client("amqp://user:password@host:5672/") as client:
            handle = await client.start("place-order", order, key=order.order_id)
            result = await client.result(handle.run_id, timeout=60)

    Args:
        broker_url: the URL of the engine's RabbitMQ; by default the setting of that name.
        settings: by default `Settings.load()`.

    Raises:
        ConfigurationError: on entering: there is no URL, or the broker refuses its user or
            password.
        BrokerUnavailable: on entering: the broker is out of reach. Later, the client waits for it,
            within the timeouts.
    """

    def __init__(self, broker_url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        self._encryption = encryption_from(self._settings)
        self._url = broker_url or self._settings.require_broker_url()
        self._connections: BrokerConnections
        self._answer_queue: AnswerQueue
        self._requests: RequestSender

    async def _open(self, resources: AsyncExitStack) -> None:
        queue = f"saga.client.{uuid4().hex}"
        self._connections = await resources.enter_async_context(
            open_broker_connections(
                self._settings,
                publish_topology=CLIENT_TOPOLOGY,
                consume_topology=client_topology(queue),
                broker_url=self._url,
            )
        )
        self._answer_queue = await resources.enter_async_context(
            AnswerQueue(self._connections.consume, queue)
        )
        self._requests = RequestSender(self._connections, self._answer_queue, self._settings)

    async def start(
        self,
        saga: str | Saga,
        input: object,  # noqa: A002 - the saga's own word for it
        *,
        key: str | None = None,
        version: int | None = None,
    ) -> RunHandle:
        """
        Start a run and wait until the engine has accepted it.

        Args:
            saga: its name, or its definition, with which the input is validated before it is sent.
            input: a pydantic model, or plain JSON.
            key: a business key, unique for each saga. A start with the same key and the same input
                returns the same run.
            version: by default the newest that a worker has.

        Raises:
            InvalidInput: the input does not match the saga, or exceeds a limit.
            NotFound: no worker has that saga or version.
            Conflict: the key belongs to a run with another input.
            BrokerUnavailable: the broker is out of reach, or no worker has ever run on it.
            TimedOut: no worker answered in `client_timeout`; the run starts when there is one.
        """
        self.require_open()
        name, requested_version = name_and_version(saga, version)
        run_id, max_key_bytes = uuid7(), self._settings.max_request_text_bytes
        encrypted_input = self._encryption.encrypt(
            input_json(saga, input), input_associated_data(name, str(run_id))
        )
        answer = await self._requests.ask(
            StartRequest(
                run_id=run_id,
                saga=name,
                input=encrypted_input,
                version=requested_version,
                key=checked_key(key, max_key_bytes),
            ),
            f"Run {run_id} is requested and starts as soon as a worker accepts it.",
        )
        _raise_if_refused(answer, name)
        return RunHandle(
            run_id=answer.run_id or run_id,
            saga=name,
            version=answer.run.version if answer.run else requested_version,
            key=key,
            existing=answer.run_id not in (None, run_id),
            status=answer.run.status if answer.run else None,
        )

    async def status(self, run_id: UUID | str) -> RunResult:
        """
        Ask for the status of a run.

        Args:
            run_id: the run, as `start` returned it.

        Raises:
            NotStarted: its start waits for a worker and names no version. Do not start it again;
                `result` waits for it.
            NotFound: there is no such run.
            BrokerUnavailable, TimedOut: there was no answer.
        """
        self.require_open()
        request = StatusRequest(parse_run_id(run_id))
        answer = await self._requests.ask(request, "Nothing is known of the run.")
        if answer.run:
            return answer.run.decrypted(self._encryption)
        if answer.outcome is AnswerOutcome.EXISTING:
            raise NotStarted(f"Run {request.run_id} has not started yet. It starts automatically.")
        raise run_not_found(request.run_id)

    async def result(
        self,
        run_id: UUID | str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - TimedOut has a text of its own
        on_incident: Callable[[RunResult], None] | None = None,
    ) -> RunResult:
        """
        Wait until a run is finished: completed, compensated or abandoned.

        The engine publishes a message when a run finishes. It may be lost, so the client also asks
        for the status every `client_poll_interval` seconds. It waits `client_timeout` seconds for a
        run that no worker knows: the transaction that records its start may not be committed yet.
        A start that waits for a worker is awaited like a run.

        Args:
            run_id: the run, as `start` or `start_in_transaction` returned it.
            timeout: seconds to wait; by default without end.
            on_incident: called with the run when it is first seen to wait for an operator, and each
                time that the first of its open incidents has changed.

        Raises:
            NotFound: there is no such run.
            TimedOut: it is not finished after *timeout* seconds; it goes on. If the last answer
                showed an open incident, the text names it.
            BrokerUnavailable: no worker has ever run on this broker.
        """
        self.require_open()
        waiter = RunWaiter(parse_run_id(run_id), on_incident)
        try:
            async with (
                asyncio.timeout(timeout),
                self._answer_queue.expect_finished(waiter.run_id) as finished,
            ):
                run_result = await waiter.wait(self._requests, finished, self._settings)
                return run_result.decrypted(self._encryption)
        except TimeoutError:
            raise TimedOut(waiter.timeout_message(timeout)) from None

    async def cancel(self, run_id: UUID | str, *, reason: str, operator: str) -> Status | None:
        """
        Cancel a run: commands in flight are awaited, and what was done is compensated.

        Args:
            run_id: the run, as `start` returned it.
            reason: why; kept on record.
            operator: the person or program that asks; kept on record.

        Returns:
            The status of the run now; wait for `result` to see it compensated.

        Raises:
            NotFound: there is no such run.
            Conflict: it is finished or past its pivot; the text says which.
            BrokerUnavailable, TimedOut: there was no answer; the run may still be cancelled.
        """
        self.require_open()
        request = CancelRequest(parse_run_id(run_id), reason, operator)
        consequence = "The cancel is recorded and may still happen."
        answer = await self._requests.ask(request, consequence)
        match answer.outcome:
            case AnswerOutcome.ACCEPTED | AnswerOutcome.EXISTING:
                return answer.run.status if answer.run else None
            case AnswerOutcome.UNKNOWN_RUN:
                raise run_not_found(request.run_id)
            case AnswerOutcome.REFUSED:
                text = _message_or_default(answer, "The run cannot be cancelled any more.")
                raise Conflict(text)
            case _:
                raise InvalidInput(_message_or_default(answer, "The engine refuses the request."))


def _raise_if_refused(answer: Answer, saga: str) -> None:
    match answer.outcome:
        case AnswerOutcome.ACCEPTED | AnswerOutcome.EXISTING:
            return
        case AnswerOutcome.CONFLICT:
            text = _message_or_default(answer, "The key belongs to a run with another input.")
            raise Conflict(text)
        case AnswerOutcome.UNKNOWN_SAGA:
            raise NotFound(_message_or_default(answer, f"No worker knows saga {saga!r}."))
        case _:
            raise InvalidInput(_message_or_default(answer, "The engine refuses the request."))


def _message_or_default(answer: Answer, default: str) -> str:
    return answer.refusal.message if answer.refusal and answer.refusal.message else default
