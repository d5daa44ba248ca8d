"""A stream is in the partition that the clients of other languages choose for its name."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from saga_engine.events.feeds.kafka_partition import partition_of


@given(st.binary(max_size=40), st.integers(1, 1_000))
def test_a_partition_is_the_one_of_kafkas_java_client(key, partitions):
    """aiokafka has the formula of Kafka's Java client."""
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions
