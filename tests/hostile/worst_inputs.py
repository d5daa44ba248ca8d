"""A saga that passes its input on, and the most expensive inputs within the limits."""

from datetime import timedelta
from typing import Any

import orjson

from saga_engine import Participant
from saga_engine.saga.definition import Saga
from tests.kit.nesting import nested_lists
from tests.kit.parcels import parcels

BYTES, VALUES, DEPTH = 250_000, 9_900, 60
"""A little below the limits, because a request has other fields."""

BULK_COMMAND = "bulk.keep"

bulk_saga = Saga("bulk", version=1, input=dict[str, object])
parcel_saga = parcels(timeout=timedelta(minutes=30))


@bulk_saga.step(command=BULK_COMMAND, timeout=timedelta(minutes=30))
def keep(given: dict[str, object]) -> dict[str, object]:
    return given


@keep.compensation(command="bulk.drop")
def drop() -> dict[str, object]:
    return {}


participant = Participant("flood")


@participant.command(BULK_COMMAND)
async def perform(given: dict[str, object]) -> dict[str, int]:
    return {"items": len(given)}


WORST_INPUTS: dict[str, Any] = {
    "small objects": [{"a": number} for number in range(VALUES // 2)],
    "objects as large as fit": [{"a": "x" * 36} for _ in range(VALUES // 2)],
    "nested": [nested_lists(DEPTH - 3)] * (VALUES // DEPTH),
    "keys": {f"{number:014d}": number for number in range(VALUES)},
    "numbers": [1.5e300] * 800,
    "text": "é\n" * (BYTES // 4),
}
"""Inputs within every limit, each the most expensive to store, decode, check or write."""


def make_start(run_id, kind):
    """The body of a start of the saga `bulk`."""
    return orjson.dumps({"run_id": run_id, "saga": "bulk", "input": {"items": WORST_INPUTS[kind]}})
