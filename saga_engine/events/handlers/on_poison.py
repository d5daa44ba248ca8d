"""What happens when an event can never be applied."""

from enum import StrEnum


class OnPoison(StrEnum):
    """A choice of the author of a projection or a consumer."""

    STOP = "stop"  # it stops at the event, until an operator retries or skips it
    PARK_STREAM = "park-stream"  # later events of its stream wait, all other streams go on
