"""Faults of messages: duplicated, delayed, reordered, lost, or old ones published again."""

from hashlib import sha256
from random import Random

from saga_engine.protocol.topology import participant_queue
from tests.faults import workload
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import RABBITMQ, Fault
from tests.faults.interceptor import MessageInterceptor, intercept_messages, sampled
from tests.kit.programs import sleep, wait_until_true

FAULT_SECONDS = 5.0  # At 12 runs per second some 400 messages pass.
AFFECTED_SHARE = 0.2
TIMEOUT = workload.TIMEOUT.total_seconds()


async def _intercept(
    environment: FaultEnvironment, random: Random, delays, *, share=AFFECTED_SHARE, **ways
):
    async with intercept_messages(
        environment.broker_url, sampled(random, share, delays), **ways
    ) as interceptor:
        await sleep(FAULT_SECONDS)
        await _has_affected_messages(interceptor)
        return await environment.database_now()


async def _has_affected_messages(interceptor: MessageInterceptor):
    async def has_affected():
        return interceptor.affected_count > 0

    await wait_until_true(has_affected)


async def duplicated(environment: FaultEnvironment, random: Random):
    return await _intercept(environment, random, lambda *_: [0.0, 0.0, random.uniform(0.0, 2.0)])


async def reordered(environment: FaultEnvironment, random: Random):
    return await _intercept(environment, random, lambda *_: [random.uniform(0.0, 1.0)], share=1.0)


async def delayed_past_their_timeout(environment: FaultEnvironment, random: Random):
    return await _intercept(
        environment, random, lambda *_: [random.uniform(1.1, 2.5) * TIMEOUT], share=0.1
    )


async def lost_replies(environment: FaultEnvironment, random: Random):
    return await _intercept(environment, random, lambda *_: [], commands=False)


async def lost_commands(environment: FaultEnvironment, random: Random):
    return await _intercept(environment, random, lambda *_: [], replies=False)


async def replayed_later(environment: FaultEnvironment, random: Random):
    """Publish old replies again: of finished runs, and of earlier attempts."""

    def keep(interceptor: MessageInterceptor, queue, message):
        interceptor.kept_replies.append((queue, message))
        return [0.0]

    async with intercept_messages(
        environment.broker_url, sampled(random, 0.5, keep), commands=False
    ) as interceptor:
        await sleep(FAULT_SECONDS)
        await _has_affected_messages(interceptor)
        await sleep(2.0)
        for queue, message in list(interceptor.kept_replies):
            await interceptor.publish(queue, message)


async def older_attempts(environment: FaultEnvironment, random: Random):
    """Delay replies of first attempts until the second attempt is in flight or finished."""

    def delay_first(_interceptor, _queue, message):
        attempt = (message.correlation_id or "").split(".")[3:4]
        return [1.3 * TIMEOUT] if attempt == ["1"] else [0.0]

    await _intercept(environment, random, delay_first, share=0.15, commands=False)


async def overtaken_by_compensation(environment: FaultEnvironment, _random: Random):
    """
    Deliver a command after the compensation of its step.

    It gets no reply before, so the step times out, fails and is compensated.
    """
    held_messages: dict[tuple[str, str], list] = {}

    def overtake(interceptor: MessageInterceptor, queue, message):
        step_key = (message.headers["saga-run-id"], message.headers["saga-step"])
        if message.headers["saga-direction"] == "compensation":
            interceptor.kept_replies += [(queue, each) for each in held_messages.pop(step_key, [])]
            return [0.0]
        chosen = hash_of(step_key) < 0.1
        if chosen and step_key[1] in ("charge", "ship", "hotel", "car"):
            interceptor.affected_count += 1
            held_messages.setdefault(step_key, []).append(message)
            return []
        return [0.0]

    async with intercept_messages(environment.broker_url, overtake, replies=False) as interceptor:
        await sleep(FAULT_SECONDS)
        await _has_affected_messages(interceptor)

        async def overtaken():
            return bool(interceptor.kept_replies)

        await wait_until_true(overtaken, patience=90.0)
        for queue, message in list(interceptor.kept_replies):
            await interceptor.publish(queue, message)
        # The attempts of these are over, or will be soon.
        for message in [each for messages in held_messages.values() for each in messages]:
            await interceptor.publish(_queue_of(message), message)


def _queue_of(message):
    return participant_queue(message.type.partition(".")[0])


def hash_of(step_key):
    """A number from 0 to 1 that is the same for every attempt of a step."""
    return sha256("/".join(step_key).encode()).digest()[0] / 256


FAULTS = (
    Fault("messages duplicated", duplicated, times=2, ci_times=1, exclusive_resources=RABBITMQ),
    Fault("messages reordered", reordered, times=2, ci_times=1, exclusive_resources=RABBITMQ),
    Fault(
        "messages delayed past their timeout",
        delayed_past_their_timeout,
        times=2,
        ci_times=1,
        exclusive_resources=RABBITMQ,
    ),
    Fault("replies lost", lost_replies, times=2, ci_times=1, exclusive_resources=RABBITMQ),
    Fault("commands lost", lost_commands, times=2, exclusive_resources=RABBITMQ),
    Fault("replies to runs that have ended", replayed_later, times=2),
    Fault("replies of an older attempt", older_attempts, times=2),
    Fault("a compensation overtakes its command", overtaken_by_compensation, times=2),
)
