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

from saga_engine.amqp.connection import Link, Phase
from saga_engine.amqp.publisher import Publisher
from saga_engine.client.answer_queue import Mailbox
from saga_engine.client.handle import Ending, Handle, ending_in
from saga_engine.client.inputs import input_json, key_text, name_and_version, run_uuid
from saga_engine.encryption.configuration import sealing_of
from saga_engine.errors import (
    BrokerUnavailable,
    Conflict,
    InvalidInput,
    NotBegun,
    NotFound,
    SagaEngineError,
    TimedOut,
)
from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import input_place
from saga_engine.payload.limits import excess
from saga_engine.protocol.answer import Answer, AnswerOutcome, Finished
from saga_engine.protocol.limits import limits_of
from saga_engine.protocol.message import Published
from saga_engine.protocol.request import (
    CancelRequest,
    Request,
    StartRequest,
    StatusRequest,
    encode_request,
)
from saga_engine.protocol.topology import CLIENT, client_topology
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from saga_engine.vocabulary import Status

NO_WORKER = (
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
        self._sealing = sealing_of(self._settings)
        self._url = broker_url or self._settings.require_broker()
        self._owned = AsyncExitStack()
        self._publishing: Link
        self._publisher: Publisher
        self._mailbox: Mailbox
        self._unheard_since: float | None = None

    async def __aenter__(self) -> Self:
        queue = f"saga.client.{uuid4().hex}"
        async with AsyncExitStack() as owned:
            publishing, consuming = (
                Link(self._url, name=name, settings=self._settings, topology=topology)
                for name, topology in (("publish", CLIENT), ("consume", client_topology(queue)))
            )
            self._publishing = await owned.enter_async_context(publishing)
            self._publisher = Publisher(publishing)
            await owned.enter_async_context(consuming)
            self._mailbox = await owned.enter_async_context(Mailbox(consuming, queue))
            self._owned = owned.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._owned.aclose()

    async def start(
        self,
        saga: str | Saga,
        input: object,  # noqa: A002 - what the saga calls it too
        *,
        key: str | None = None,
        version: int | None = None,
    ) -> Handle:
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
        name, number = name_and_version(saga, version)
        run_id = uuid7()
        held = key_text(key, self._settings.text_bytes)
        given = self._sealing.sealed(input_json(saga, input), input_place(name, str(run_id)))
        request = StartRequest(run_id, name, given, number, held)
        answer = await self._answered(
            request, f"Run {run_id} is asked for and starts as soon as a worker takes it in."
        )
        match answer.outcome:
            case AnswerOutcome.ACCEPTED | AnswerOutcome.EXISTING:
                found = answer.run_id or run_id
                existing = found != run_id
                return Handle(found, name, answer.version or number, key, existing, answer.status)
            case AnswerOutcome.CONFLICT:
                raise Conflict(_sentence(answer, "The key belongs to a run with another input."))
            case AnswerOutcome.UNKNOWN_SAGA:
                raise NotFound(_sentence(answer, f"No worker knows saga {name!r}."))
            case _:
                raise InvalidInput(_sentence(answer, "The engine refuses the request."))

    async def status(self, run_id: UUID | str) -> Ending:
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
        request = StatusRequest(run_uuid(run_id))
        answer = await self._answered(request, "Nothing is known of the run.")
        ending = ending_in(request.run_id, answer)
        if ending:
            return ending.unsealed(self._sealing)
        if answer.outcome is AnswerOutcome.EXISTING:
            raise NotBegun(f"Run {request.run_id} has not begun yet. It does so by itself.")
        raise _no_run(request.run_id)

    async def result(
        self,
        run_id: UUID | str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - with our own sentence
        on_incident: Callable[[Ending], None] | None = None,
    ) -> Ending:
        """
        Wait until a run is finished: completed, compensated or abandoned.

        The engine announces the end of a run. An announcement may be lost, so the status is asked
        for again every `client_ask_again` seconds. A run that no worker knows is waited for during
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
        wanted, seen = run_uuid(run_id), _Seen(on_incident)
        try:
            async with asyncio.timeout(timeout), self._mailbox.ending(wanted) as ended:
                return (await self._ended(wanted, ended, seen)).unsealed(self._sealing)
        except TimeoutError:
            raise TimedOut(_unfinished(wanted, timeout, seen.last)) from None

    async def cancel(self, run_id: UUID | str, *, reason: str, by: str) -> Status | None:
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
        request = CancelRequest(run_uuid(run_id), reason, by)
        answer = await self._answered(request, "The cancel is recorded and may still happen.")
        match answer.outcome:
            case AnswerOutcome.ACCEPTED | AnswerOutcome.EXISTING:
                return answer.status
            case AnswerOutcome.UNKNOWN_RUN:
                raise _no_run(request.run_id)
            case AnswerOutcome.REFUSED:
                raise Conflict(_sentence(answer, "The run cannot be cancelled any more."))
            case _:
                raise InvalidInput(_sentence(answer, "The engine refuses the request."))

    async def _answered(self, request: Request, otherwise: str) -> Answer:
        try:
            async with asyncio.timeout(self._settings.client_timeout):
                answer = await self._ask(request)
        except TimeoutError:
            raise self._silence(otherwise) from None
        assert answer is not None, "nothing else was waited for"
        return answer

    async def _ended(self, run_id: UUID, ended: asyncio.Future[Finished], seen: "_Seen") -> Ending:
        clock = asyncio.get_running_loop().time
        patience = clock() + self._settings.client_timeout
        while not ended.done():
            answer = await self._ask(StatusRequest(run_id), ended)
            ending = ending_in(run_id, answer) if answer else None
            if ending and ending.status.finished:
                return ending
            if ending:
                seen(ending)
            if answer and answer.outcome is not AnswerOutcome.EXISTING and clock() >= patience:
                raise _no_run(run_id)
            await asyncio.wait([ended], timeout=self._settings.client_ask_again)
        told = ended.result()
        return Ending(
            *(run_id, told.saga, told.version, told.key, told.status, told.result, told.error)
        )

    async def _ask(
        self, request: Request, ended: asyncio.Future[Finished] | None = None
    ) -> Answer | None:
        """Send a request again and again until it is answered; None when *ended* came first."""
        correlation_id = uuid4().hex
        with self._mailbox.answer(correlation_id) as answered:
            waiting = [each for each in (answered, ended) if each is not None]
            while not any(each.done() for each in waiting):
                await self._send(request, correlation_id)
                await asyncio.wait(
                    waiting,
                    timeout=self._settings.client_ask_again,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            return answered.result() if answered.done() else None

    async def _send(self, request: Request, correlation_id: str) -> None:
        try:
            message = encode_request(
                request, reply_to=self._mailbox.queue, correlation_id=correlation_id
            )
        except TypeError as error:
            raise InvalidInput(f"The request cannot be written as JSON: {error}.") from None
        problem = excess(message.body, limits_of(self._settings))
        if problem:
            raise InvalidInput(f"The request is too large. {problem.sentence}")
        [published] = await self._publisher.publish([message])
        if published is Published.REFUSED:
            raise InvalidInput(f"It can never be sent: {self._publisher.refusal(message)}")
        self._note_whether_heard(published)

    def _note_whether_heard(self, published: Published) -> None:
        """Where no worker has run there is no queue; one may be starting, so ask for a while."""
        if published is not Published.RETURNED:
            self._unheard_since = None
            return
        now = asyncio.get_running_loop().time()
        self._unheard_since = since = self._unheard_since or now
        if now - since >= self._settings.client_timeout:
            raise BrokerUnavailable(NO_WORKER)

    def _silence(self, otherwise: str) -> SagaEngineError:
        state = self._publishing.state
        if state.phase is not Phase.CONNECTED:
            return BrokerUnavailable(f"{state.problem} {otherwise}")
        if self._unheard_since is not None:
            return BrokerUnavailable(NO_WORKER)
        return TimedOut(
            f"No worker answered in {self._settings.client_timeout:g} seconds. {otherwise}"
            " See whether one is running and ready."
        )


class _Seen:
    """How a run stood when the engine was last asked; it reports each new first incident."""

    def __init__(self, on_incident: Callable[[Ending], None] | None) -> None:
        self.last: Ending | None = None
        self._on_incident = on_incident

    def __call__(self, ending: Ending) -> None:
        before = self.last.incident if self.last else None
        self.last = ending
        if self._on_incident and ending.incident and ending.incident != before:
            self._on_incident(ending)


def _unfinished(run_id: UUID, timeout: float | None, last: Ending | None) -> str:
    if last is None or last.incident is None:
        return (
            f"Run {run_id} is not finished after {timeout} seconds; it goes on."
            f" `saga-engine show {run_id}` tells what it waits for."
        )
    more = f" and {last.open_incidents - 1} more" if last.open_incidents > 1 else ""
    return (
        f"Run {run_id} is not finished after {timeout} seconds: it waits for a person,"
        f" {last.incident.text(str(run_id))}{more}. An operator resolves it with"
        f" `saga-engine resolve {run_id}/{last.incident.number} ACTION`."
    )


def _sentence(answer: Answer, otherwise: str) -> str:
    return answer.error.message if answer.error and answer.error.message else otherwise


def _no_run(run_id: UUID) -> NotFound:
    return NotFound(f"There is no run {run_id}.")
