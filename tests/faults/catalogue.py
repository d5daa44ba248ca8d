"""Every kind of fault, in the order of the table."""

from tests.faults.fault import Fault
from tests.faults.kinds import clocks, messages, network, processes

ALL: tuple[Fault, ...] = (
    *processes.FAULTS,
    *network.FAULTS,
    *messages.FAULTS,
    *clocks.FAULTS,
)
