"""Every kind of fault, in the order of the table; those of a cluster have a site of their own."""

from tests.faults.fault import Fault
from tests.faults.kinds import (
    clocks,
    cluster,
    messages,
    network,
    postgres,
    processes,
    rabbitmq,
    transactions,
)

ALL: tuple[Fault, ...] = (
    *processes.FAULTS,
    *network.FAULTS,
    *rabbitmq.FAULTS,
    *postgres.FAULTS,
    *transactions.FAULTS,
    *messages.FAULTS,
    *clocks.FAULTS,
)

CLUSTER: tuple[Fault, ...] = cluster.CLUSTER_FAULTS
