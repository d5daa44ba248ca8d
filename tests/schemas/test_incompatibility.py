"""A sentence names the field, both versions, and what each says of it."""

import pytest

from saga_engine.schemas.incompatibility import Incompatibility, Problem


@pytest.mark.parametrize("problem", Problem)
def test_each_problem_has_a_sentence(problem):
    found = Incompatibility("lines[].sku", problem, "is a text", "is an integer")
    sentence = found.sentence("version 1", "version 2")
    assert "an integer" in sentence
    if problem in (Problem.TYPE, Problem.UNION):
        assert all(each in sentence for each in ("`lines[].sku`", "version 1", "version 2"))
