"""The parcel saga of the tests, with short retries, and variants of it."""

from datetime import timedelta

from saga_engine.saga.definition import Saga
from saga_engine.saga.retry import Retry

SHORT_DELAY = timedelta(milliseconds=10)
FAST_RETRY = Retry(attempts=2, initial=SHORT_DELAY, maximum=SHORT_DELAY)
LONG_TIMEOUT = timedelta(seconds=60)


def parcels(*, version=1, timeout=LONG_TIMEOUT, retry=FAST_RETRY, deadline=None):
    """Pack a parcel, send it, notify the customer; each step has its own compensation."""
    saga = Saga("parcel", version=version, input=dict[str, str | int], deadline=deadline)

    @saga.step(command="parcel.pack", reply=dict[str, str], timeout=timeout, retry=retry)
    def pack(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    @pack.compensation(command="parcel.unpack", timeout=timeout, retry=retry)
    def unpack(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    @saga.step(command="parcel.send", reply=dict[str, str], timeout=timeout, retry=retry)
    def send(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    @send.compensation(command="parcel.recall", timeout=timeout, retry=retry)
    def recall(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    @saga.step(command="parcel.notify", timeout=timeout, retry=retry)
    def notify(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    @notify.compensation(command="parcel.unnotify", timeout=timeout, retry=retry)
    def cancel_notification(parcel: dict[str, str | int]) -> dict[str, str | int]:
        return parcel

    return saga


def failing_parcels(on_pack):
    """A saga of one step whose mapping function calls *on_pack*."""
    saga = Saga("fragile", version=1, input=dict[str, str])

    @saga.step(command="parcel.pack")
    def pack(parcel: dict[str, str]) -> dict[str, str]:
        on_pack(parcel)
        return parcel

    @pack.compensation(command="parcel.unpack")
    def unpack(parcel: dict[str, str]) -> dict[str, str]:
        return parcel

    return saga


COMMANDS = (
    "parcel.pack",
    "parcel.unpack",
    "parcel.send",
    "parcel.recall",
    "parcel.notify",
    "parcel.unnotify",
)
