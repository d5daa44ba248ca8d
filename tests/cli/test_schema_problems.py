"""A schema that says nothing is a problem, and names its declaration."""

from dataclasses import replace

from saga_engine.cli.schema_problems import not_judged
from tests.kit.declared_schemas import declared_json


def test_a_class_that_nothing_describes_is_named_with_its_place():
    described = declared_json({"type": "object"})
    (problem,) = not_judged([described, replace(described, is_described=False)])
    assert problem.problem.startswith("order-placed version 1 is not judged")
    assert problem.location == described.source_location
