"""An argument that does not fit is refused with a sentence, not by what fails with it later."""

import pytest

from saga_engine.errors import InvalidInput
from saga_engine.events import EventData
from saga_engine.events.event_store.arguments import MAX_VERSION, require_instance, require_number


def test_an_object_of_another_class_is_refused():
    require_instance(7, int | float, "The timeout", "Give seconds.")
    with pytest.raises(InvalidInput, match=r"^The timeout is of the class str\. Give seconds\.$"):
        require_instance("7", int | float, "The timeout", "Give seconds.")
    with pytest.raises(InvalidInput, match=r"is of the class type\."):
        require_instance(EventData, EventData, "The event", "Give an instance.")


@pytest.mark.parametrize("given", ["1", -1, True, 1.0, None, 2**31, "x" * 1000])
def test_what_is_not_a_number_of_that_range_is_refused(given: object):
    with pytest.raises(InvalidInput, match=r"Give an integer, from 0 to 2147483647") as found:
        require_number(given, "The version", MAX_VERSION)
    assert len(str(found.value)) < 200


def test_a_number_of_that_range_is_accepted():
    for given in (0, MAX_VERSION):
        require_number(given, "The version", MAX_VERSION)
