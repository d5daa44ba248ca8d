"""Every kind of fault in the order of the table; those of a cluster need other servers."""

from tests.faults.fault import Fault
from tests.faults.kinds import (
    clocks,
    cluster,
    messages,
    network,
    postgres,
    processes,
    projectors,
    rabbitmq,
    rebuilds,
    transactions,
)

GROUPS: tuple[tuple[Fault, ...], ...] = (
    processes.FAULTS,
    projectors.FAULTS,
    rebuilds.FAULTS,
    network.FAULTS,
    rabbitmq.FAULTS,
    postgres.FAULTS,
    transactions.FAULTS,
    messages.FAULTS,
    clocks.FAULTS,
)
"""All runs finish between two groups."""

ALL: tuple[Fault, ...] = tuple(fault for group in GROUPS for fault in group)

CLUSTER: tuple[Fault, ...] = cluster.CLUSTER_FAULTS
