"""
The most expensive valid messages: within every documented limit, and as costly as possible.

The saga `costly-input` takes any of them as its input and sends it on in its command, so the engine
must read, validate, store and send it.
"""

from collections.abc import Callable, Mapping

from examples.place_order.sagas import place_order
from saga_engine import Saga
from saga_engine.protocol.body import write_json
from saga_engine.vocabulary import Json

__all__ = ["INPUT_KINDS", "costly_input", "place_order"]

BODY_BYTES, VALUE_COUNT, NESTING_DEPTH = 250_000, 9_900, 60
"""Slightly below the limits, to leave room for the rest of a request."""

costly_input = Saga("costly-input", version=1, input=dict[str, object])


@costly_input.step(command="inventory.reserve")
def reserve(input_data: dict[str, object]) -> dict[str, object]:
    return input_data | {"order_id": "costly-input", "sku": "A1", "quantity": 1}


@reserve.compensation(command="inventory.release")
def release() -> dict[str, object]:
    return {"order_id": "costly-input"}


def _many_objects() -> Json:
    return {"items": [{"a": number} for number in range(VALUE_COUNT // 2)]}


def _objects_and_texts() -> Json:
    """Small objects, and strings that fill the body."""
    text = "x" * (BODY_BYTES // (VALUE_COUNT // 2) - 12)
    return {"items": [{"a": text} for _ in range(VALUE_COUNT // 2)]}


def _nested_lists() -> Json:
    inner: Json = []
    for _ in range(NESTING_DEPTH - 3):
        inner = [inner]
    return {"items": [inner] * (VALUE_COUNT // NESTING_DEPTH)}


def _many_keys() -> Json:
    return {f"{number:014d}": number for number in range(VALUE_COUNT - 10)}


INPUT_KINDS: Mapping[str, Callable[[], Json]] = {
    "objects": _many_objects,
    "objects-and-texts": _objects_and_texts,
    "nested": _nested_lists,
    "keys": _many_keys,
    "numbers": lambda: {"items": [1.5e300] * 800},
    "text": lambda: {"items": "é\n" * (BODY_BYTES // 4)},
    "tiny": lambda: {"items": []},
}
"""The inputs by kind; the last one is for comparison."""


def start_body(run_id: str, kind: str) -> bytes:
    """Return the body of a start request with an input of this kind."""
    return write_json({"run_id": run_id, "saga": "costly-input", "input": INPUT_KINDS[kind]()})
