"""What a feed knows of its topic only grows."""

from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS, ConfirmedOffsets


def test_the_end_of_a_partition_only_rises():
    known = ConfirmedOffsets("orders id", (5, 0, 7))
    assert known.after({0: 9, 2: 3}) == ConfirmedOffsets("orders id", (9, 0, 7))
    assert known.after({}) == known


def test_of_an_unknown_topic_nothing_becomes_known():
    assert NO_OFFSETS.after({0: 9}) == NO_OFFSETS


def test_partitions_that_are_added_to_a_topic_are_known_as_well():
    known = ConfirmedOffsets("orders id", (5, 7)).of("orders id", 3).after({2: 4})
    assert known == ConfirmedOffsets("orders id", (5, 7, 4))


def test_of_another_topic_nothing_is_known():
    known = ConfirmedOffsets("orders id", (5, 7)).of("orders other-id", 3)
    assert known == ConfirmedOffsets("orders other-id", (0, 0, 0))
