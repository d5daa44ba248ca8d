"""The hierarchy of errors is documented, and those of declarations can be collected."""

import re

import pytest

from saga_engine import errors
from saga_engine.errors import DefinitionError, collect_errors, or_fallback

TREE_LINE = re.compile(r"^([│ ├└─]*)([A-Z]\w+)", re.MULTILINE)


def fail() -> str:
    raise DefinitionError("It is wrong.", location="shop.py:7", fix="Correct it.")


def documented_parents() -> dict[str, str]:
    """Each error of the tree in the module's docstring, and the error above it."""
    parents, path = {}, list[str]()
    for indent, name in TREE_LINE.findall((errors.__doc__ or "").split("\n\n")[1]):
        level = (len(indent) - 4) // 4
        path[level:] = [name]
        parents[name] = path[level - 1] if level else "Exception"
    return parents


def test_the_tree_of_errors_is_that_of_the_classes():
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    ours = [each for each in classes if issubclass(each, errors.SagaEngineError)]
    assert documented_parents() == {each.__name__: each.__bases__[0].__name__ for each in ours}


def test_the_text_of_a_definition_error_names_place_problem_and_fix():
    with pytest.raises(DefinitionError) as found:
        fail()
    assert str(found.value) == "shop.py:7: It is wrong. Correct it."
    assert (found.value.location, found.value.fix) == ("shop.py:7", "Correct it.")


def test_an_error_of_a_declaration_is_raised_unless_errors_are_collected():
    with pytest.raises(DefinitionError):
        or_fallback(fail, "fallback")
    with collect_errors() as collected:
        assert or_fallback(fail, "fallback") == "fallback"
        assert or_fallback(lambda: "built", "fallback") == "built"
    assert [each.problem for each in collected] == ["It is wrong."]
    with pytest.raises(DefinitionError):
        or_fallback(fail, "fallback")


def test_only_errors_of_declarations_are_collected():
    with collect_errors() as collected, pytest.raises(ZeroDivisionError):
        or_fallback(lambda: 1 / 0, 0.0)
    assert collected == []
