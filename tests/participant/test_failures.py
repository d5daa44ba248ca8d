"""The failure that an exception of a handler becomes."""

import asyncio

import pytest

from saga_engine.participant import Failed, Rejected
from saga_engine.participant.failures import failure_of_exception, handler_error_in
from saga_engine.vocabulary import Outcome
from tests.kit.events import EventRecorder
from tests.kit.misbehaving_participant import (
    HandlerChoice,
    MisbehavingParticipant,
)
from tests.kit.payments_participant import DirectExecutor, make_command

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

    outcome, body = await DirectExecutor(MisbehavingParticipant(charge), None, EventRecorder())(
        make_command()
    )
    assert (outcome, body["code"]) == (Outcome.REJECTED, "declined")
