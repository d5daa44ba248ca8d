"""The adaptive batch size follows failures and full batches."""

import pytest

from saga_engine.errors import StoreLockTimeout, StoreUnavailable
from saga_engine.worker.adaptive_limit import AdaptiveLimit


async def taken(number):
    return number


async def failed(error):
    raise error


async def halved(most, times):
    """A limit after so many failures."""
    limit = AdaptiveLimit(most)
    for _ in range(times):
        with pytest.raises(StoreUnavailable):
            await limit.adapt(failed(StoreUnavailable("It did not answer in time.")))
    return limit


async def test_failures_halve_the_size_and_full_batches_restore_it():
    sizes = [(await halved(5, times)).size for times in (1, 2, 3, 4)]
    limit = await halved(5, 4)
    for _ in range(5):
        await limit.adapt(taken(limit.size))
        sizes.append(limit.size)
    assert sizes == [2, 1, 1, 1, 2, 3, 4, 5, 5]


async def test_a_batch_that_was_not_full_does_not_raise_the_size():
    limit = await halved(12, 1)
    for number in (0, 5):
        assert await limit.adapt(taken(number)) == number
        assert limit.size == 6
    await limit.adapt(taken(6))
    assert limit.size == 7


async def test_a_lock_timeout_does_not_change_the_size():
    limit = AdaptiveLimit(200)
    with pytest.raises(StoreLockTimeout):
        await limit.adapt(failed(StoreLockTimeout("Another transaction holds it.")))
    assert limit.size == 200
