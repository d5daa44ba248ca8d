"""A mode says of itself which versions it compares, and in which directions."""

import pytest

from saga_engine.schemas.compatibility import Compatibility


@pytest.mark.parametrize(
    ("mode", "backward", "forward", "transitive"),
    [
        (Compatibility.BACKWARD, True, False, False),
        (Compatibility.BACKWARD_TRANSITIVE, True, False, True),
        (Compatibility.FORWARD, False, True, False),
        (Compatibility.FORWARD_TRANSITIVE, False, True, True),
        (Compatibility.FULL, True, True, False),
        (Compatibility.FULL_TRANSITIVE, True, True, True),
        (Compatibility.NONE, False, False, False),
    ],
)
def test_a_mode_names_its_directions(mode, backward, forward, transitive):
    assert (mode.is_backward, mode.is_forward, mode.is_transitive) == (
        backward,
        forward,
        transitive,
    )
