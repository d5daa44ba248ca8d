"""
The worst legal messages: inside every documented limit, and as costly as a sender can make them.

`bulk` takes any of them for its input and passes it on in its command, so that nothing spares the
engine to read, check, write and send it.
"""

from collections.abc import Callable, Mapping

from examples.place_order.sagas import orders
from saga_engine import Saga
from saga_engine.protocol.body import write_json
from saga_engine.vocabulary import Json

__all__ = ["KINDS", "bulk", "orders"]

BYTES, VALUES, DEPTH = 250_000, 9_900, 60
"""A little less than the limits, to leave room for the rest of a request."""

bulk = Saga("bulk", version=1, input=dict[str, object])


@bulk.step(command="inventory.reserve")
def reserve(given: dict[str, object]) -> dict[str, object]:
    return given | {"order_id": "bulk", "sku": "A1", "quantity": 1}


@reserve.compensation(command="inventory.release")
def release() -> dict[str, object]:
    return {"order_id": "bulk"}


def _objects() -> Json:
    return {"items": [{"a": number} for number in range(VALUES // 2)]}


def _full() -> Json:
    """Small objects, and texts that fill the body up."""
    text = "x" * (BYTES // (VALUES // 2) - 12)
    return {"items": [{"a": text} for _ in range(VALUES // 2)]}


def _nested() -> Json:
    inner: Json = []
    for _ in range(DEPTH - 3):
        inner = [inner]
    return {"items": [inner] * (VALUES // DEPTH)}


def _keys() -> Json:
    return {f"{number:014d}": number for number in range(VALUES - 10)}


KINDS: Mapping[str, Callable[[], Json]] = {
    "objects": _objects,
    "objects-and-texts": _full,
    "nested": _nested,
    "keys": _keys,
    "numbers": lambda: {"items": [1.5e300] * 800},
    "text": lambda: {"items": "é\n" * (BYTES // 4)},
    "tiny": lambda: {"items": []},
}
"""What `input` is, by the name of its kind; the last is for comparison."""


def body(run_id: str, kind: str) -> bytes:
    """A start of `bulk` with such an input."""
    return write_json({"run_id": run_id, "saga": "bulk", "input": KINDS[kind]()})
