"""
Generated types, with generated values: transported unchanged, or refused with a sentence.

A value goes the whole way: written, as bytes, through jsonb, as bytes, read. jsonb is modelled for
each example, so that one that fails is made small, and finally PostgreSQL's own for all.
"""

import dataclasses
import json
import os
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning
from pydantic import BaseModel

from saga_engine import Secret
from saga_engine.payload.payload import PayloadError, PayloadType
from tests.payload.type_cases import TypeCase, model_cases, type_cases

pytestmark = pytest.mark.long  # `make quick` and `make test` generate fewer types.

MODELS = int(os.environ.get("VALUES_MODELS", "200"))
"""
How many types are generated for PostgreSQL: 1,000 by `make test-all`, and any number by
`make test-all VALUES_MODELS=50000`, which takes some twenty minutes.
"""

MODELS_WITHOUT_SERVER = min(MODELS, 100)
"""Each worker of pytest generates its own, so the test that needs no server has few."""

SHARE_THAT_TRAVELS = 0.2
"""A test in which almost everything is refused would show nothing."""


THROUGH_JSONB = """
    SELECT each::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS t(each, n) ORDER BY n"""


class Tally:
    """The values that arrived, with their types and bytes; and how many were refused."""

    def __init__(self) -> None:
        self.sent: list[tuple[PayloadType, Any, bytes]] = []
        self.refused = 0


def form(value: Any) -> Any:
    """What a value is, without asking its class: compared instead of the value."""
    made = next((make for kinds, make in FORMS if isinstance(value, kinds)), _record)
    return made(value)


def _mapping(value: Mapping[Any, Any]) -> Any:
    pairs = [(form(name), form(each)) for name, each in value.items()]
    return ("mapping", pairs if isinstance(value, OrderedDict) else sorted(pairs, key=repr))


def _record(value: Any) -> Any:
    if isinstance(value, BaseModel):
        extra = value.__pydantic_extra__ or {}
        names = [*type(value).model_fields, *extra]
        return (type(value), [(n, form(getattr(value, n, "missing"))) for n in sorted(names)])
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value)]
        return (type(value), [(name, form(getattr(value, name, "missing"))) for name in names])
    return (type(value), str(value), repr(value))


FORMS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    ((NoneType, bool, bytes), lambda value: (type(value), value)),
    ((int, float, complex), lambda value: ("number", value + 0)),  # -0.0 is 0
    (str, lambda value: ("text", str.__str__(value))),
    (
        (datetime, time),
        lambda value: ("moment", value.replace(fold=0, tzinfo=None), str(value.utcoffset())),
    ),
    ((date, Decimal), lambda value: (type(value), str(value))),
    (Secret, lambda value: ("secret", form(value.get_secret_value()))),
    (Mapping, _mapping),
    ((set, frozenset), lambda value: ("set", sorted(map(form, value), key=repr))),
    (Enum, lambda value: (type(value), value.name)),
    ((list, tuple, deque), lambda value: (type(value), list(map(form, value)))),
)


def jsonb(body: bytes) -> bytes:
    """As PostgreSQL's jsonb writes it: numbers without exponent, keys by length."""

    def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(sorted(pairs, key=lambda pair: (len(pair[0].encode()), pair[0].encode())))

    def number(digits: str) -> float:
        exact = Decimal(digits)
        return int(exact) if "e" in digits.lower() and exact == int(exact) else float(digits)

    read = json.loads(body, parse_float=number, object_pairs_hook=ordered)
    return json.dumps(read, ensure_ascii=False).encode()


def transported(tally: Tally, kind: TypeCase, data: st.DataObject) -> None:
    """Send a value; what is refused is counted, and what is altered fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            payload = PayloadType(kind.annotation)
            value = data.draw(kind.values)
            before = form(value)
            body = orjson.dumps(payload.write(value))
        except PayloadError as refused:
            assert str(refused)  # noqa: PT017 - refusing is one of two right answers
            tally.refused += 1
            return
        assert before == form(payload.read(orjson.loads(jsonb(body)))), "altered"
        tally.sent.append((payload, before, body))


def transported_values(models: int) -> Tally:
    """Send values of that many types."""
    tally = Tally()

    @settings(
        max_examples=models,
        deadline=None,
        derandomize=models <= 2000,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(model_cases() | type_cases(), st.data())
    def every(kind: TypeCase, data: st.DataObject) -> None:
        transported(tally, kind, data)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        every()
    return tally


@pytest.mark.timeout(0)  # it ends after the number of examples
def test_a_value_arrives_unchanged_or_is_refused_with_a_sentence():
    check_shares(transported_values(MODELS_WITHOUT_SERVER), MODELS_WITHOUT_SERVER)


def check_shares(tally: Tally, models: int) -> None:
    assert len(tally.sent) + tally.refused >= models
    assert len(tally.sent) >= models * SHARE_THAT_TRAVELS


@pytest.mark.timeout(0)
async def test_postgresql_alters_no_value(database_url):
    tally = transported_values(MODELS)
    check_shares(tally, MODELS)
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        bodies = [body.decode() for _, _, body in tally.sent]
        kept = [row[0] for row in await connection.fetch(THROUGH_JSONB, bodies)]
    finally:
        await connection.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for (payload, before, body), stored in zip(tally.sent, kept, strict=True):
            back = form(payload.read(orjson.loads(stored)))
            assert back == before, (payload.python_type, body)
