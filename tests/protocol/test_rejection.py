"""A handler error that cannot be sent is refused where it is made."""

import pytest

from saga_engine.participant import Failed, Rejected
from tests.kit.nesting import nested_lists


@pytest.mark.parametrize("refusal", [Rejected, Failed])
@pytest.mark.parametrize(
    "words",
    [
        ("",),
        ("x" * 129,),
        (7,),
        ("code", 7),
        ("code", "\0"),
        ("code", "", object()),
        ("code", "", float("nan")),
        ("code", "", nested_lists(501)),
    ],
)
def test_a_handler_error_that_cannot_be_sent_is_refused_when_it_is_made(refusal, words):
    with pytest.raises(ValueError, match="must be a text"):
        refusal(*words)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Rejected("no_stock", "There is none."), "no_stock: There is none."),
        (Failed("busy"), "busy"),
    ],
)
def test_a_handler_error_reads_as_its_code_and_its_message(error, expected):
    assert str(error) == expected
