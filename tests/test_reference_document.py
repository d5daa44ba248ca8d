"""docs/reference.md is what the code says, and the code says something of every parameter."""

import inspect

import pytest

from tests.tools.reference import DOCUMENT, callables, meanings, reference

EVERY = sorted(callables())


def test_the_reference_is_what_the_code_says():
    assert DOCUMENT.read_text() == reference(), "run `make reference`"


@pytest.mark.parametrize(("name", "found", "doc"), EVERY, ids=[name for name, *_ in EVERY])
def test_every_parameter_has_a_meaning(name, found, doc):
    wanted = [each for each in inspect.signature(found).parameters if each != "self"]
    assert [each for each in wanted if not meanings(doc).get(each)] == [], name
