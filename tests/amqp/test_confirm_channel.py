from hypothesis import given
from hypothesis import strategies as st

from saga_engine.amqp.confirm_channel import ConfirmBatch
from saga_engine.protocol.message import PublishOutcome

C, R, N, U = (
    PublishOutcome.CONFIRMED,
    PublishOutcome.UNROUTABLE,
    PublishOutcome.NACKED,
    PublishOutcome.UNKNOWN,
)


async def test_multiple_confirm_covers_all_messages_up_to_its_tag():
    batch = ConfirmBatch(first_tag=11, size=4)
    batch.mark_unroutable(12)
    batch.resolve(12, C, multiple=True)
    assert batch.outcomes == [C, R, None, None]
    assert not batch.completed.done()
    batch.resolve(99, N, multiple=True)
    assert batch.outcomes == [C, R, N, N]
    assert batch.completed.done()


async def test_confirms_out_of_order_match_their_messages():
    batch = ConfirmBatch(first_tag=1, size=3)
    batch.resolve(3, N, multiple=False)
    batch.resolve(1, C, multiple=False)
    assert batch.outcomes == [C, None, N]
    batch.resolve(3, C, multiple=True)
    assert batch.outcomes == [C, C, N]


async def test_unconfirmed_message_is_unknown_unless_it_was_returned():
    batch = ConfirmBatch(first_tag=5, size=3)
    batch.resolve(5, C, multiple=False)
    batch.mark_unroutable(6)
    batch.resolve_as_unknown()
    assert batch.outcomes == [C, R, U]
    assert batch.completed.done()


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans(), st.sampled_from([C, N]))))
async def test_first_confirm_of_a_message_counts(confirms):
    batch = ConfirmBatch(first_tag=1, size=20)
    expected: list[PublishOutcome | None] = [None] * 20
    for tag, multiple, outcome in confirms:
        batch.resolve(tag, outcome, multiple=multiple)
        for index in range(0 if multiple else tag - 1, tag):
            expected[index] = expected[index] or outcome
    assert batch.outcomes == expected
    assert batch.completed.done() is all(expected)
