"""What a handler does to its process, its task or its session stays its own affair."""

import asyncio
import gc
import sys
from contextlib import suppress
from types import CoroutineType
from typing import Annotated

import pytest
from pydantic import BaseModel, BeforeValidator, PlainSerializer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.containment import guard_event_loop
from saga_engine.errors import HandlersStuck
from saga_engine.participant import Failed, Participant, Rejected
from saga_engine.participant.calls import HandlerCalls
from saga_engine.participant.failures import failure_of_exception, handler_error_in
from saga_engine.telemetry.events import (
    HandlerAbandoned,
    HandlerFailed,
    HandlerFinished,
    InternalErrorCaught,
)
from saga_engine.vocabulary import Json, Outcome
from tests.kit.participant_service import engine_stub, running_service
from tests.kit.payments_participant import (
    DirectExecutor,
    EventList,
    booking_rows,
    bookings_engine,
    make_command,
)


class Hostile(Rejected):
    """Its text cannot be had."""

    def __init__(self):
        Exception.__init__(self)

    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


class HandlerChoice(BaseModel):
    order_id: str
    card: str = ""


class MisbehavingParticipant:
    """A participant whose handler is given, as Desk wants it."""

    def __init__(self, handler, database=None):
        self.participant = Participant("payments", database=database)
        self.participant.command("payment.charge")(handler)


def exit_now(*_):
    sys.exit("secret-password")


async def turn_of_the_loop():
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


async def in_itself():
    exit_now()


async def in_a_thread():
    await asyncio.to_thread(exit_now)


async def in_a_task_that_is_awaited():
    await asyncio.get_running_loop().create_task(in_itself())


async def in_a_task_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(in_itself())


async def in_an_unawaited_task():
    _ = asyncio.get_running_loop().create_task(in_itself())
    await turn_of_the_loop()
    exit_now()


WAYS = [
    in_itself,
    in_a_thread,
    in_a_task_that_is_awaited,
    in_a_task_group,
    in_an_unawaited_task,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_that_exits_fails_and_the_commands_beside_it_go_on(broker_url, way):
    meeting = asyncio.Event()

    async def charge(asked: HandlerChoice) -> str:
        if asked.card == "exit":
            await meeting.wait()
            await way()
        meeting.set()
        return asked.order_id

    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, MisbehavingParticipant(charge)) as running,
    ):
        exiting = make_command(payload={"order_id": "o-1", "card": "exit"})
        await engine.send(exiting)
        await engine.send(make_command(payload={"order_id": "o-2"}))
        replies = {each.command_ref.run_id: each for each in await engine.take_replies(2)}
        failed = replies.pop(exiting.run_id)
        assert (failed.outcome, failed.failure.code) == (Outcome.FAILED, "SystemExit")
        assert [each.outcome for each in replies.values()] == [Outcome.SUCCEEDED]
        await running.shut_down()
        (event,) = running.events.of_type(HandlerFailed)
        assert (event.code, event.step, event.run_id) == (
            "SystemExit",
            "charge",
            str(exiting.run_id),
        )
        assert "secret" not in str(running.events)


def exits(value):
    if value == "exit":
        raise SystemExit(1)
    return value


class Exiting(BaseModel):
    order_id: Annotated[str, BeforeValidator(exits)]


class Unwritable(BaseModel):
    order_id: Annotated[str, PlainSerializer(exits)]


@pytest.mark.parametrize("where", ["validator", "serializer"])
async def test_a_type_that_exits_fails_the_command(where):
    async def validated(_: Exiting) -> None:
        """Never called."""

    async def written(asked: HandlerChoice) -> Unwritable:
        return Unwritable.model_construct(order_id=asked.order_id)

    executor = DirectExecutor(
        MisbehavingParticipant(validated if where == "validator" else written), None, EventList()
    )
    outcome, body = await executor(make_command(payload={"order_id": "exit"}))
    assert outcome is Outcome.FAILED
    # pydantic itself turns what a serializer raises into an error of its own.
    assert body["code"] in ("SystemExit", "invalid_result")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (asyncio.CancelledError(), "CancelledError"),
        (type("Ä" * 300, (Exception,), {})(), "Ä" * 128),
        (type("a b\n", (BaseException,), {})(), "a_b_"),
        (type("", (BaseException,), {})(), "Exception"),
        (BaseExceptionGroup("secret", [SystemExit(1)]), "SystemExit"),
        (ExceptionGroup("secret", [OSError("secret"), KeyError("secret")]), "ExceptionGroup"),
    ],
)
async def test_any_exception_of_a_handler_is_a_failure_named_by_its_class(raised, code):
    async def charge(_: HandlerChoice) -> None:
        raise raised

    executor = DirectExecutor(MisbehavingParticipant(charge), None, EventList())
    outcome, body = await executor(make_command())
    assert (outcome, body["code"]) == (Outcome.FAILED, code)
    assert [event.code for event in executor.events.of_type(HandlerFailed)] == [code]
    assert [event.code for event in executor.events.of_type(HandlerFinished)] == [code]
    assert not executor.events.of_type(InternalErrorCaught)


async def test_a_handler_error_of_a_hostile_class_is_replied_with_its_name():
    async def charge(_: HandlerChoice) -> None:
        raise Hostile

    outcome, body = await DirectExecutor(MisbehavingParticipant(charge), None, EventList())(
        make_command()
    )
    assert (outcome, body["code"]) == (Outcome.REJECTED, "Hostile")


async def test_a_handler_error_that_was_modified_cannot_become_an_unreadable_reply():
    async def charge(_: HandlerChoice) -> None:
        details: list[str] = []
        refusal = Failed("full", "It is full.", details)
        details.append("x" * 100_000)
        raise refusal

    outcome, body = await DirectExecutor(MisbehavingParticipant(charge), None, EventList())(
        make_command()
    )
    assert (outcome, body["code"]) == (Outcome.FAILED, "Failed")


@pytest.mark.parametrize(
    "limit", [{"max_body_depth": 2}, {"max_body_json_values": 5}, {"max_body_bytes": 60}]
)
async def test_a_handler_error_is_limited_by_the_settings_not_by_their_defaults(limit):
    async def charge(_: HandlerChoice) -> None:
        raise Rejected("declined", "The card was declined.", {"why": [[1, 2, 3, 4, 5]]})

    outcome, body = await DirectExecutor(
        MisbehavingParticipant(charge), None, EventList(), **limit
    )(make_command())
    assert (outcome, body["code"]) == (Outcome.REJECTED, "Rejected")


async def test_the_details_of_a_handler_error_may_be_as_deep_as_the_settings_allow():
    details: Json = []
    for _ in range(100):
        details = [details]

    async def charge(_: HandlerChoice) -> None:
        raise Rejected("declined", "The card was declined.", details)

    outcome, body = await DirectExecutor(
        MisbehavingParticipant(charge), None, EventList(), max_body_depth=200
    )(make_command())
    assert (outcome, body["code"], body["details"]) == (Outcome.REJECTED, "declined", details)


NO, LATER = Rejected("no"), Failed("later")


@pytest.mark.parametrize(
    ("group", "found"),
    [
        (ExceptionGroup("", [NO]), NO),
        (ExceptionGroup("", [ExceptionGroup("", [LATER])]), LATER),
        (ExceptionGroup("", [NO, Rejected("other")]), NO),
        (ExceptionGroup("", [NO, LATER]), LATER),
        (ExceptionGroup("", [NO, OSError()]), None),
        (OSError(), None),
    ],
)
def test_a_group_of_handler_errors_counts_as_one(group, found):
    assert handler_error_in(group) is found


def test_only_a_limited_part_of_a_large_or_deep_group_is_inspected():
    deep: Exception = NO
    for _ in range(5_000):
        deep = ExceptionGroup("", [deep])
    wide = ExceptionGroup("", [NO] * 5_000)
    assert handler_error_in(deep) is None
    assert handler_error_in(wide) is None
    assert failure_of_exception(wide).code == "ExceptionGroup"


async def test_a_rejection_in_a_task_group_is_a_rejection():
    async def charge(_: HandlerChoice) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(declined())

    async def declined():
        raise Rejected("declined", "The card was declined.")

    outcome, body = await DirectExecutor(MisbehavingParticipant(charge), None, EventList())(
        make_command()
    )
    assert (outcome, body["code"]) == (Outcome.REJECTED, "declined")


async def forgetful():
    """Time out as old libraries do: cancel the current task, and never take that back."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_command_whose_task_was_cancelled_gets_a_reply(broker_url, times):
    """With a prefetch of one, what is never answered would stop the participant."""

    async def charge(asked: HandlerChoice) -> str:
        for _ in range(times):
            await forgetful()
        if asked.card == "raise":
            raise asyncio.CancelledError
        async with asyncio.timeout(5):
            await turn_of_the_loop()
        return asked.order_id

    async with (
        engine_stub(broker_url) as engine,
        running_service(
            broker_url, MisbehavingParticipant(charge), participant_prefetch=1
        ) as running,
    ):
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        await engine.send(make_command(payload={"order_id": "o-1", "card": "raise"}))
        assert (await engine.take_reply()).failure.code == "CancelledError"
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        assert [event.code for event in running.events.of_type(HandlerFailed)] == ["CancelledError"]


class UncancellableParticipant(MisbehavingParticipant):
    """Its handler ignores every cancellation until it `may_finish` is set."""

    def __init__(self, database=None):
        self.may_finish = asyncio.Event()
        super().__init__(self._with(database), database)

    def _with(self, database):
        async def hold(asked):
            while asked.card == "hold" and not self.may_finish.is_set():
                try:
                    await self.may_finish.wait()
                except asyncio.CancelledError:
                    continue

        async def alone(asked: HandlerChoice) -> None:
            await hold(asked)

        async def with_database(asked: HandlerChoice, tx: AsyncConnection) -> None:
            await tx.execute(text("INSERT INTO bookings VALUES (:order, 1)"), {"order": "o-1"})
            await hold(asked)
            await tx.execute(text("INSERT INTO bookings VALUES (:order, 2)"), {"order": "o-1"})

        return with_database if database is not None else alone


HOLD = {"order_id": "o-1", "card": "hold"}
SHORT = {"participant_handler_timeout": 0.5, "participant_cancel_timeout": 0.1}


async def test_a_handler_that_ignores_its_timeout_gets_a_reply_and_cannot_commit(
    broker_url, database_url
):
    async with bookings_engine(database_url) as user_engine:
        payments = UncancellableParticipant(user_engine)
        async with (
            engine_stub(broker_url) as engine,
            running_service(broker_url, payments, participant_concurrency=2, **SHORT) as running,
        ):
            held = make_command(payload=HOLD)
            await engine.send(held)
            assert (await engine.take_reply()).failure.code == "timeout"
            (event,) = running.events.of_type(HandlerAbandoned)
            assert (event.still_running, event.run_id, event.step) == (
                True,
                str(held.run_id),
                "charge",
            )
            payments.may_finish.set()
            await engine.send(make_command())
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            assert await booking_rows(user_engine) == [("o-1", 1), ("o-1", 2)]


async def test_a_participant_whose_handlers_are_all_stuck_ends_itself(broker_url):
    payments = UncancellableParticipant()

    async def be_stuck():
        async with (
            engine_stub(broker_url) as engine,
            running_service(broker_url, payments, participant_concurrency=1, **SHORT) as running,
        ):
            await engine.send(make_command(payload=HOLD))
            assert (await engine.take_reply()).failure.code == "timeout"
            async with asyncio.timeout(30):
                await running.task

    with pytest.raises(BaseExceptionGroup) as found:
        await be_stuck()
    payments.may_finish.set()
    stuck = found.value.subgroup(HandlersStuck)
    assert stuck is not None
    assert "participant_concurrency" in str(stuck.exceptions[0])


async def test_a_shutdown_names_the_handlers_it_abandons_and_ends(broker_url):
    payments = UncancellableParticipant()
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, payments, shutdown_timeout=1) as running,
    ):
        held = make_command(payload=HOLD)
        await engine.send(held)
        await running.events.wait_for(lambda event: type(event).__name__ == "MessagesConsumed")
        await running.shut_down()
        (event,) = running.events.of_type(HandlerAbandoned)
        assert (event.still_running, event.run_id, event.command) == (
            True,
            str(held.run_id),
            "payment.charge",
        )
        payments.may_finish.set()


async def test_repeated_failures_are_counted_and_logged_once():
    async def charge(_: HandlerChoice) -> None:
        raise OSError

    executor = DirectExecutor(MisbehavingParticipant(charge), None, EventList())
    for _ in range(5):
        await executor(make_command())
    assert [event.throttled for event in executor.events.of_type(HandlerFailed)] == [
        None,
        True,
        True,
        True,
        True,
    ]
    executor = DirectExecutor(
        MisbehavingParticipant(charge), None, EventList(), log_throttle_interval=0.001
    )
    for _ in range(2):
        await executor(make_command())
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001, over.set)
        await over.wait()
    assert [event.throttled for event in executor.events.of_type(HandlerFailed)] == [None, None]


async def test_tasks_that_no_handler_started_are_not_guarded():
    with guard_event_loop():
        task = asyncio.get_running_loop().create_task(turn_of_the_loop())
        coroutine = task.get_coro()
        assert isinstance(coroutine, CoroutineType)
        assert coroutine.__name__ == "turn_of_the_loop"
        await task
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_a_call_whose_task_is_cancelled_before_it_starts_ends():
    """Nothing warns of a coroutine that was never awaited: the tests would fail."""
    calls = HandlerCalls(grace_period=1.0)

    def cancel():
        [task] = calls._finished_signals
        task.cancel()

    async def work():
        raise AssertionError("it was cancelled before")

    asyncio.get_running_loop().call_soon(cancel)
    with pytest.raises(RuntimeError):
        await calls.run(object(), work(), lambda _: None)
    gc.collect()
