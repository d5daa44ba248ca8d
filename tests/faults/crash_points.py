"""
`saga-engine` with a crash point: a call at which the process kills itself.

    python -m tests.faults.crash_points after-commit:3 worker tests.faults.workload

Crash points are chosen so that the states between them look different from outside. CRASH_POINTS
says before or after which call of the engine each one is. SIGKILL leaves no time for anything: no
`finally` block runs and no connection is closed.
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

from saga_engine.worker.change_set import ChangeSet
from tests.faults.held_runs import PATH_VARIABLE, record_held_runs


def always(_arguments: Sequence[Any], _result: Any) -> bool:
    """Every call counts."""
    return True


def found_any(_arguments: Sequence[Any], result: Any) -> bool:
    """Only calls that find something count; most find nothing."""
    return bool(result)


def claimed_any(_arguments: Sequence[Any], result: Any) -> bool:
    """The same for resending outbox rows; some of these calls only delete."""
    return bool(result.claimed)


def made_decisions(arguments: Sequence[Any], _result: Any) -> bool:
    """Only transactions that change a run count; most find nothing due."""
    return any(isinstance(each, ChangeSet) and each.after_commit.decisions for each in arguments)


def left_commands(arguments: Sequence[Any], _result: Any) -> bool:
    """Of those, the ones with commands to publish."""
    return any(isinstance(each, ChangeSet) and each.after_commit.commands for each in arguments)


def found_due_runs(_arguments: Sequence[Any], result: Any) -> bool:
    """Only claims of at least one due run."""
    return bool(result.run_ids)


def has_dead_letters(arguments: Sequence[Any], _result: Any) -> bool:
    """Calls that record at least one dead letter."""
    return bool(arguments[1])


def has_steps(arguments: Sequence[Any], _result: Any) -> bool:
    """Only batches of a projection that write something."""
    return bool(arguments[2])


def applied_any(arguments: Sequence[Any], result: Any) -> bool:
    """Only batches of a read model that have moved its checkpoint."""
    return bool(result.position > arguments[1])


@dataclass(frozen=True)
class CrashPoint:
    """Before or after a call of the engine; `matches` selects which of its calls count."""

    timing: str
    module: str
    name: str
    matches: Callable[[Sequence[Any], Any], bool] = always


WORKER_CRASH_POINTS = {
    # the path of a delivery, until its acknowledgement
    "after-receive": CrashPoint("before", "saga_engine.worker.batch_runner", "BatchRunner.process"),
    "after-decide": CrashPoint(
        "before", "saga_engine.worker.transaction_runner", "flush_changes", made_decisions
    ),
    "before-commit": CrashPoint(
        "after", "saga_engine.worker.transaction_runner", "flush_changes", made_decisions
    ),
    "after-commit": CrashPoint(
        "before",
        "saga_engine.worker.transaction_runner",
        "TransactionRunner._after_commit",
        left_commands,
    ),
    "after-publish": CrashPoint(
        "after", "saga_engine.amqp.confirm_channel", "ConfirmChannel.send_batch"
    ),
    "after-confirm": CrashPoint("before", "saga_engine.amqp.consumer", "Consumer.acknowledge"),
    "after-ack": CrashPoint("after", "saga_engine.amqp.consumer", "Consumer.acknowledge"),
    # other duties of a worker
    "in-outbox-resend": CrashPoint("after", "saga_engine.store.outbox", "claim_stale", claimed_any),
    "in-timer-claim": CrashPoint(
        "after", "saga_engine.store.due_runs", "claim_due", found_due_runs
    ),
    "in-dead-letter-insert": CrashPoint(
        "after", "saga_engine.store.dead_letters", "record", has_dead_letters
    ),
}
PARTICIPANT_CRASH_POINTS = {
    "before-effect": CrashPoint("after", "saga_engine.participant.barrier", "claim_command"),
    "after-effect": CrashPoint(
        "before", "saga_engine.participant.url_transactions", "UrlTransaction.commit_result"
    ),
    "before-reply": CrashPoint(
        "before", "saga_engine.participant.reply_publisher", "ReplyPublisher.add"
    ),
    "after-reply": CrashPoint("before", "saga_engine.amqp.consumer", "Consumer.acknowledge"),
}
PROJECTOR_CRASH_POINTS = {
    # a projection: effects, checkpoint, commit
    "after-projected-rows": CrashPoint(
        "after", "saga_engine.events.projections.sql_projection_store", "execute", has_steps
    ),
    "after-checkpoint": CrashPoint(
        "after", "saga_engine.events.projections.projection_table", "save"
    ),
    "after-projection-commit": CrashPoint(
        "after", "saga_engine.events.projections.projection_batch", "BatchApplier.apply"
    ),
    # a feed: publish, confirm, position, commit
    "after-feed-publish": CrashPoint(
        "after", "saga_engine.amqp.confirm_channel", "ConfirmChannel.send_batch"
    ),
    "after-feed-confirm": CrashPoint("before", "saga_engine.events.feeds.feed_table", "save"),
    "after-feed-position": CrashPoint("after", "saga_engine.events.feeds.feed_table", "save"),
}
READ_MODEL_CRASH_POINTS = {
    # a read model, beside a worker: rows, checkpoint, commit
    "after-read-model-rows": CrashPoint(
        "after", "saga_engine.events.read_models.read_model_batch", "apply_range"
    ),
    "after-read-model-checkpoint": CrashPoint(
        "after", "saga_engine.events.projections.projection_table", "save"
    ),
    "after-read-model-commit": CrashPoint(
        "after",
        "saga_engine.events.read_models.read_model_batch",
        "ReadModelApplier.apply_next",
        applied_any,
    ),
}
CRASH_POINTS = (
    WORKER_CRASH_POINTS
    | PARTICIPANT_CRASH_POINTS
    | PROJECTOR_CRASH_POINTS
    | READ_MODEL_CRASH_POINTS
)


def install_crash(crash_point_name: str, nth_call: int) -> None:
    """Make the process kill itself when it reaches the crash point for the n-th time."""
    crash_point = CRASH_POINTS[crash_point_name]
    owner, attribute = resolve_target(crash_point)
    function = getattr(owner, attribute)
    call_count = 0

    def on_call(side: str, arguments: Sequence[Any], result: Any) -> None:
        nonlocal call_count
        call_count += side == crash_point.timing and crash_point.matches(arguments, result)
        if call_count >= nth_call:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        on_call("before", arguments, None)
        result = function(*arguments, **named)
        on_call("after", arguments, result)
        return result

    @functools.wraps(function)
    async def awaited(*arguments: Any, **named: Any) -> Any:
        on_call("before", arguments, None)
        result = await function(*arguments, **named)
        on_call("after", arguments, result)
        return result

    setattr(owner, attribute, awaited if inspect.iscoroutinefunction(function) else called)


def resolve_target(crash_point: CrashPoint) -> tuple[Any, str]:
    """The module or class that has the function, and its name there."""
    owner: Any = import_module(crash_point.module)
    *path, attribute = crash_point.name.split(".")
    for each in path:
        owner = getattr(owner, each)
    return owner, attribute


if __name__ == "__main__":
    from saga_engine.cli.main import main

    if PATH_VARIABLE in os.environ:
        record_held_runs(os.environ[PATH_VARIABLE])
    name, _, count = sys.argv[1].partition(":")
    install_crash(name, int(count))
    sys.argv[1:] = sys.argv[2:]
    main()
