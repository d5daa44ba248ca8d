from hypothesis import given
from hypothesis import strategies as st

from saga_engine.amqp.confirm_channel import Batch
from saga_engine.protocol.message import Published

C, R, N, U = Published.CONFIRMED, Published.RETURNED, Published.NACKED, Published.UNKNOWN


async def test_multiple_confirm_settles_all_up_to_it_and_no_more():
    batch = Batch(first=11, size=4)
    batch.returned(12)
    batch.settle(12, C, multiple=True)
    assert batch.outcomes == [C, R, None, None]
    assert not batch.done.done()
    batch.settle(99, N, multiple=True)
    assert batch.outcomes == [C, R, N, N]
    assert batch.done.done()


async def test_confirms_out_of_order_reach_their_own_message():
    batch = Batch(first=1, size=3)
    batch.settle(3, N, multiple=False)
    batch.settle(1, C, multiple=False)
    assert batch.outcomes == [C, None, N]
    batch.settle(3, C, multiple=True)
    assert batch.outcomes == [C, C, N]


async def test_what_is_open_at_the_end_is_unknown_unless_it_came_back():
    batch = Batch(first=5, size=3)
    batch.settle(5, C, multiple=False)
    batch.returned(6)
    batch.give_up()
    assert batch.outcomes == [C, R, U]
    assert batch.done.done()


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans(), st.sampled_from([C, N]))))
async def test_first_word_of_the_broker_counts(words):
    batch = Batch(first=1, size=20)
    expected: list[Published | None] = [None] * 20
    for tag, multiple, outcome in words:
        batch.settle(tag, outcome, multiple=multiple)
        for index in range(0 if multiple else tag - 1, tag):
            expected[index] = expected[index] or outcome
    assert batch.outcomes == expected
    assert batch.done.done() is all(expected)
