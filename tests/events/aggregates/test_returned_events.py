"""The annotation of a command says which events it returns."""

from collections.abc import Sequence
from typing import Any, Optional, TypeAlias, Union

import pytest

from saga_engine.errors import DefinitionError
from saga_engine.events.aggregates.returned_events import events_in, returned_classes

Alias: TypeAlias = int | str


def command():
    """Stand for a command's function."""


@pytest.mark.parametrize(
    ("annotation", "classes"),
    [
        (None, ()),
        (type(None), ()),
        (int, (int,)),
        (int | None, (int,)),
        (Optional[int], (int,)),  # noqa: UP045 - authors write it
        (Alias, (int, str)),
        (list[int], (int,)),
        (list[int | str], (int, str)),
        (list[Union[int, str]], (int, str)),  # noqa: UP007 - authors write it
        (list[Alias] | None, (int, str)),
        (tuple[int, str], (int, str)),
        (tuple[int, ...], (int,)),
        (Sequence[int], (int,)),
        (int | list[int | str], (int, str)),
    ],
)
def test_one_event_several_or_none(annotation, classes):
    assert returned_classes(command, {"return": annotation}, "shop.py:7") == classes


@pytest.mark.parametrize(
    "annotation",
    [Any, object, list, tuple, Sequence, list[Any], dict[str, int], list[list[int]], "Placed"],
)
def test_an_annotation_without_classes_is_refused(annotation):
    with pytest.raises(DefinitionError, match="which names no event") as caught:
        returned_classes(command, {"return": annotation}, "shop.py:7")
    assert caught.value.location == "shop.py:7"


def test_a_missing_annotation_is_refused():
    with pytest.raises(DefinitionError, match="command does not say what it returns"):
        returned_classes(command, {}, "shop.py:7")


def test_what_is_returned_is_one_event_several_or_none():
    assert events_in(None) == ()
    assert events_in(7) == (7,)
    assert events_in([7, "x"]) == events_in((7, "x")) == (7, "x")
