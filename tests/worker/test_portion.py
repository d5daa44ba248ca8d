"""How much is taken at once follows what came through."""

import pytest

from saga_engine.errors import StoreBusy, StoreUnavailable
from saga_engine.worker.portion import Portion


def test_what_did_not_come_through_is_halved_down_to_one_and_grows_again_to_the_most():
    portion = Portion(5)
    sizes = []
    for _ in range(4):
        with pytest.raises(StoreUnavailable), portion.tried():
            raise StoreUnavailable("It did not answer in time.")
        sizes.append(portion.size)
    for _ in range(5):
        with portion.tried():
            sizes.append(portion.size)
    assert sizes == [2, 1, 1, 1, 1, 2, 3, 4, 5]


def test_a_row_that_somebody_else_holds_changes_nothing():
    portion = Portion(200)
    with pytest.raises(StoreBusy), portion.tried():
        raise StoreBusy("Somebody holds it.")
    assert portion.size == 200
