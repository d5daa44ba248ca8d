"""
`saga-engine`, with a place at which it kills itself.

    python -m tests.faults.crashing after-commit:3 worker tests.faults.shop

The places are those between which nothing else can be told apart by anybody outside; PLACES says
before or after which call of the engine each one is. SIGKILL leaves no time for anything: no
`finally`, no goodbye.
"""

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from saga_engine.worker.change_set import Ledger


def always(_arguments: Sequence[Any], _result: Any) -> bool:
    """Every call counts."""
    return True


def found_something(_arguments: Sequence[Any], result: Any) -> bool:
    """Most calls find nothing; those that find something count."""
    return bool(result)


def claims_something(_arguments: Sequence[Any], result: Any) -> bool:
    """The same for a sweep, some of which only delete."""
    return bool(result.claimed)


def decides(arguments: Sequence[Any], _result: Any) -> bool:
    """Most transactions only look whether anything is due; those that change a run count."""
    return any(isinstance(each, Ledger) and each.changed for each in arguments)


def leaves_commands(arguments: Sequence[Any], _result: Any) -> bool:
    """Of those, the ones that have commands to publish."""
    return any(isinstance(each, Ledger) and each.outcome.commands for each in arguments)


def has_letters(arguments: Sequence[Any], _result: Any) -> bool:
    """Of the calls that record dead letters, those that have some."""
    return bool(arguments[1])


@dataclass(frozen=True)
class Place:
    """Before or after which call of the engine; `counts` says which of its calls are meant."""

    side: str
    module: str
    name: str
    counts: Callable[[Sequence[Any], Any], bool] = always


WORKER = {
    # a delivery, from its arrival to its acknowledgement
    "after-receive": Place("before", "saga_engine.worker.batch_runner", "Turnover.take"),
    "after-decide": Place("before", "saga_engine.worker.batch_runner", "write", decides),
    "before-commit": Place("after", "saga_engine.worker.batch_runner", "write", decides),
    "after-commit": Place(
        "before", "saga_engine.worker.batch_runner", "Turnover._after", leaves_commands
    ),
    "after-publish": Place("after", "saga_engine.amqp.confirm_channel", "ConfirmChannel.send"),
    "after-confirm": Place("before", "saga_engine.amqp.consumer", "Consumer.settle"),
    "after-ack": Place("after", "saga_engine.amqp.consumer", "Consumer.settle"),
    # what a worker does besides
    "in-sweep": Place("after", "saga_engine.store.outbox", "claim_left_behind", claims_something),
    "in-timer-claim": Place("after", "saga_engine.store.runs", "lock_due", found_something),
    "in-dead-letter-intake": Place(
        "after", "saga_engine.store.dead_letters", "record", has_letters
    ),
}
PARTICIPANT = {
    "before-effect": Place("after", "saga_engine.participant.barrier", "enter"),
    "after-effect": Place("before", "saga_engine.participant.barrier", "leave"),
    "before-reply": Place("before", "saga_engine.participant.reply_publisher", "Replies.add"),
    "after-reply": Place("before", "saga_engine.amqp.consumer", "Consumer.settle"),
}
PLACES = WORKER | PARTICIPANT


def arm(where: str, passages: int) -> None:
    """Make the process kill itself at the `passages`-th time that it comes to `where`."""
    place = PLACES[where]
    owner, attribute = resolved(place)
    function = getattr(owner, attribute)
    passed = 0

    def pass_by(side: str, arguments: Sequence[Any], result: Any) -> None:
        nonlocal passed
        passed += side == place.side and place.counts(arguments, result)
        if passed >= passages:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        pass_by("before", arguments, None)
        result = function(*arguments, **named)
        pass_by("after", arguments, result)
        return result

    @functools.wraps(function)
    async def awaited(*arguments: Any, **named: Any) -> Any:
        pass_by("before", arguments, None)
        result = await function(*arguments, **named)
        pass_by("after", arguments, result)
        return result

    setattr(owner, attribute, awaited if inspect.iscoroutinefunction(function) else called)


def resolved(place: Place) -> tuple[Any, str]:
    """The module or class that has the call, and its name there."""
    owner: Any = import_module(place.module)
    *path, attribute = place.name.split(".")
    for each in path:
        owner = getattr(owner, each)
    return owner, attribute


if __name__ == "__main__":
    from saga_engine.cli.main import main

    which, _, count = sys.argv[1].partition(":")
    arm(which, int(count))
    sys.argv[1:] = sys.argv[2:]
    main()
