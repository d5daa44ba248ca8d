"""What happens to messages on their way: twice, late, in another order, not at all, long ago."""

from hashlib import sha256

from saga_engine.protocol.topology import participant_queue
from tests.faults import shop
from tests.faults.fault import RABBITMQ, Fault
from tests.faults.meddler import meddling, seldom
from tests.faults.processes import eventually, lasting

LASTS = 5.0  # Seconds; at 16 runs a second some 500 messages go by.
SHARE = 0.2
TIMEOUT = shop.TIMEOUT.total_seconds()


async def _meddle(site, random, waits, *, share=SHARE, **ways):
    async with meddling(site.broker_url, seldom(random, share, waits), **ways) as meddler:
        await lasting(LASTS)
        await _has_done_something(meddler)
        return await site.now()


async def _has_done_something(meddler):
    async def has():
        return meddler.done > 0

    await eventually(has)


async def duplicated(site, random):
    return await _meddle(site, random, lambda *_: [0.0, 0.0, random.uniform(0.0, 2.0)])


async def reordered(site, random):
    return await _meddle(site, random, lambda *_: [random.uniform(0.0, 1.0)], share=1.0)


async def delayed_past_their_timeout(site, random):
    return await _meddle(site, random, lambda *_: [random.uniform(1.1, 2.5) * TIMEOUT], share=0.1)


async def lost_replies(site, random):
    return await _meddle(site, random, lambda *_: [], commands=False)


async def lost_commands(site, random):
    return await _meddle(site, random, lambda *_: [], replies=False)


async def said_again_later(site, random):
    """Replies to runs that have ended, and of attempts that are over: each is said once more."""

    def keep(meddler, queue, message):
        meddler.old.append((queue, message))
        return [0.0]

    async with meddling(site.broker_url, seldom(random, 0.5, keep), commands=False) as meddler:
        await lasting(LASTS)
        await _has_done_something(meddler)
        await lasting(2.0)
        for queue, message in list(meddler.old):
            await meddler.put(queue, message)


async def older_attempts(site, random):
    """First attempts are answered so late that the second is under way, or over."""

    def first_late(_meddler, _queue, message):
        attempt = (message.correlation_id or "").split(".")[3:4]
        return [1.3 * TIMEOUT] if attempt == ["1"] else [0.0]

    await _meddle(site, random, first_late, share=0.15, commands=False)


async def overtaken_by_compensation(site, _random):
    """
    A command is held until the compensation of its step has passed, and delivered after it.

    Its replies never come, so the step times out, is given up, and is undone.
    """
    held: dict[tuple[str, str], list] = {}

    def overtake(meddler, queue, message):
        place = (message.headers["saga-run-id"], message.headers["saga-step"])
        if message.headers["saga-direction"] == "compensation":
            meddler.old += [(queue, each) for each in held.pop(place, [])]
            return [0.0]
        chosen = hash_of(place) < 0.1
        if chosen and place[1] in ("charge", "ship", "hotel", "car"):
            meddler.done += 1
            held.setdefault(place, []).append(message)
            return []
        return [0.0]

    async with meddling(site.broker_url, overtake, replies=False) as meddler:
        await lasting(LASTS)
        await _has_done_something(meddler)

        async def overtaken():
            return bool(meddler.old)

        await eventually(overtaken, patience=90.0)
        for queue, message in list(meddler.old):
            await meddler.put(queue, message)
        # Nobody waits for these any more, or soon.
        for message in [each for messages in held.values() for each in messages]:
            await meddler.put(_queue_of(message), message)


def _queue_of(message):
    return participant_queue(message.type.partition(".")[0])


def hash_of(place):
    """A number from 0 to 1 that is the same for every attempt of a step."""
    return sha256("/".join(place).encode()).digest()[0] / 256


FAULTS = (
    Fault("messages duplicated", duplicated, times=2, few=1, mixes=RABBITMQ),
    Fault("messages reordered", reordered, times=2, few=1, mixes=RABBITMQ),
    Fault(
        "messages delayed past their timeout",
        delayed_past_their_timeout,
        times=2,
        few=1,
        mixes=RABBITMQ,
    ),
    Fault("replies lost", lost_replies, times=2, few=1, mixes=RABBITMQ),
    Fault("commands lost", lost_commands, times=2, mixes=RABBITMQ),
    Fault("replies to runs that have ended", said_again_later, times=2),
    Fault("replies of an older attempt", older_attempts, times=2),
    Fault("a compensation overtakes its command", overtaken_by_compensation, times=2),
)
