"""Avro's own checker judges Avro schemas."""

import sys
from typing import Any

import pytest
from pydantic import BaseModel

from saga_engine.errors import ConfigurationError
from saga_engine.payload.payload import PayloadType
from saga_engine.schemas.avro_compatibility import compare_avro
from saga_engine.schemas.avro_schema import avro_type


class A(BaseModel):
    a: str


class AWithNote(BaseModel):
    a: str
    note: str | None = None


class AAndB(BaseModel):
    a: str
    b: str


class Number(BaseModel):
    a: int


def avro(python_type: Any) -> Any:
    return avro_type("event", PayloadType(python_type).schema("serialization")).schema


@pytest.mark.parametrize(
    ("writer", "reader", "problem"),
    [
        (A, A, ""),
        (A, AWithNote, ""),
        (AWithNote, A, ""),
        (AAndB, A, ""),
        (A, AAndB, "b (/fields/1)"),
        (A, Number, "reader type: long not compatible with writer type: string (/fields/0/type)"),
    ],
)
def test_avro_schemas_are_compared(writer, reader, problem):
    assert compare_avro(avro(writer), avro(reader)) == ([problem] if problem else [])


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "avro.compatibility", None)
    with pytest.raises(ConfigurationError, match=r"Install saga-engine\[avro\]"):
        compare_avro("string", "string")
