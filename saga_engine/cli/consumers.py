"""`saga-engine consumers`: what consumers do, and what an operator does with them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter

from saga_engine.cli.event_database import event_transaction
from saga_engine.cli.operator import Operator
from saga_engine.cli.operator_actions import (
    ACTION_LIMIT,
    Reason,
    acting_operator,
    print_actions,
)
from saga_engine.cli.output import AsJson, print_done, print_json, print_line, print_table
from saga_engine.events.consumers import (
    consumer_actions,
    consumer_failures,
    consumer_lag,
    consumer_table,
)
from saga_engine.events.consumers.consumer_failures import FailureNumbers, StoredFailure
from saga_engine.events.consumers.consumer_lag import StoredLag
from saga_engine.events.consumers.consumer_table import PartitionKey, StoredPartition
from saga_engine.events.readers import operator_audit

app = App(
    name="consumers", help="List, show, retry, skip, pause, resume and rewind.", version_flags=()
)

TABLE_COLUMNS = (
    *("consumer", "partition", "source", "state", "next offset", "lag messages", "lag s"),
    *("failures", "kept messages", "parked streams", "applied", "duplicates", "owner"),
)
FAILURE_COLUMNS = ("id", "kind", "stream", "event", "event id", "attempts", "at", "error")
FAILURE_LIMIT = 100
"""Failures that `show` prints, the oldest ones."""


@app.command(name="list")
async def list_consumers(*, as_json: AsJson = False) -> None:
    """List the consumers of a database, with each partition."""
    async with event_transaction() as tx:
        stored = await consumer_table.read(tx)
        numbers = await consumer_failures.read_numbers(tx)
        lags = await consumer_lag.read(tx)
    documents = [_document(each, numbers, lags) for each in stored]
    if as_json:
        print_json({"consumers": documents})
        return
    _print_partitions(documents, empty="No process has registered a consumer.")


@app.command
async def show(name: str, /, *, as_json: AsJson = False) -> None:
    """
    Show a consumer, the messages that it could not apply, and what operators did with it.

    Args:
        name: Of the consumer.
    """
    async with event_transaction() as tx:
        found = await consumer_actions.find(tx, name)
        numbers = await consumer_failures.read_numbers(tx, name)
        lags = await consumer_lag.read(tx, name)
        failures = await consumer_failures.read_open(tx, name, FAILURE_LIMIT)
        actions = await operator_audit.read(tx, consumer_actions.audited(name), ACTION_LIMIT)
    documents = [_document(each, numbers, lags) for each in found]
    if as_json:
        lists = {"failures": [*map(asdict, failures)], "actions": [*map(asdict, actions)]}
        print_json({"consumer": {"name": name, "partitions": documents, **lists}})
        return
    _print_partitions(documents, empty="")
    print_line("")
    rows = [*map(_failure_row, failures)]
    print_table(FAILURE_COLUMNS, rows, empty="No message waits for a correction.")
    print_actions(actions)


@app.command
async def pause(
    name: str, /, *, reason: Reason = "", operator: Operator = None, as_json: AsJson = False
) -> None:
    """
    Pause a consumer before its next batch; its source keeps the events.

    Args:
        name: Of the consumer.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        await consumer_actions.pause(tx, name, acting)
    print_done(f"{name} is paused.", {"paused": name}, as_json=as_json)


@app.command
async def resume(
    name: str, /, *, reason: Reason = "", operator: Operator = None, as_json: AsJson = False
) -> None:
    """
    Let a paused consumer continue.

    Args:
        name: Of the consumer.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        await consumer_actions.resume(tx, name, acting)
    print_done(f"{name} continues.", {"resumed": name}, as_json=as_json)


@app.command
async def retry(
    name: str, /, *, reason: Reason, operator: Operator = None, as_json: AsJson = False
) -> None:
    """
    Try the messages again that could not be applied or read.

    Args:
        name: Of the consumer.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        number = await consumer_actions.retry(tx, name, acting)
    failures = "1 failure" if number == 1 else f"{number} failures"
    done = {"retried": name, "failures": number}
    print_done(f"{name} tries {failures} again.", done, as_json=as_json)


@app.command
async def skip(
    name: str,
    failure_id: int,
    /,
    *,
    reason: Reason,
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Go on without a message that could not be applied or read; it never takes effect.

    Args:
        name: Of the consumer.
        failure_id: Of the failure, as `consumers show` prints it.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        await consumer_actions.skip(tx, name, failure_id, acting)
    done = {"skipped": name, "failure": failure_id}
    print_done(
        f"{name} goes on without the message of failure {failure_id}.", done, as_json=as_json
    )


@app.command
async def rewind(
    name: str,
    /,
    *,
    to: Annotated[int, Parameter(help="The offset to continue at.")],
    partition: Annotated[int, Parameter(help="Of the stream or the topic, from 0.")] = 0,
    reason: Reason = "",
    operator: Operator = None,
    as_json: AsJson = False,
) -> None:
    """
    Let a partition continue at another offset; events that it has consumed have no effect again.

    Args:
        name: Of the consumer.
    """
    acting = acting_operator(operator, reason)
    async with event_transaction() as tx:
        await consumer_actions.rewind(tx, name, partition, to, acting)
    done = {"rewound": name, "partition": partition, "offset": to}
    print_done(f"{name}, partition {partition}, continues at offset {to}.", done, as_json=as_json)


def _print_partitions(documents: list[Mapping[str, Any]], *, empty: str) -> None:
    rows = [[document[column] for column in _COLUMN_FIELDS] for document in documents]
    print_table(TABLE_COLUMNS, rows, empty=empty)


def _failure_row(failure: StoredFailure) -> tuple[object, ...]:
    return (
        failure.id,
        failure.kind,
        failure.stream,
        failure.type,
        failure.event_id,
        failure.attempts,
        failure.failed_at,
        failure.error,
    )


_COLUMN_FIELDS = (
    *("name", "partition", "source", "state", "next_offset", "lag_messages", "lag_seconds"),
    *("failures", "kept_messages", "parked_streams", "applied", "duplicates", "owner"),
)


def _document(
    stored: StoredPartition,
    numbers: Mapping[tuple[str, int], FailureNumbers],
    lags: Mapping[PartitionKey, StoredLag],
) -> Mapping[str, Any]:
    failed = numbers[stored.name, stored.partition]
    lag = lags.get(stored.key, StoredLag())
    return {
        "name": stored.name,
        "partition": stored.partition,
        "source": stored.source,
        "state": stored.state,
        "next_offset": stored.next_offset,
        "lag_messages": lag.messages,
        "lag_seconds": None if lag.seconds is None else round(lag.seconds, 3),
        "measured_at": lag.measured_at,
        "failures": failed.failures,
        "kept_messages": failed.kept,
        "parked_streams": failed.parked_streams,
        "applied": stored.applied,
        "duplicates": stored.duplicates,
        "owner": stored.owner,
        "updated_at": stored.updated_at,
    }
