"""What is confirmed of a partition has no gap, and one frame of it is in flight."""

from saga_engine.events.feeds.stream_publishers import PartitionPublisher


def publisher(*sizes: int) -> PartitionPublisher:
    """One that has the id 10, with messages of these sizes, whose ids begin with 11."""
    made = PartitionPublisher("orders", 10)
    for number, size in enumerate(sizes):
        made.add(11 + number, b"x" * size)
    return made


def ids(frame) -> list[int]:
    return [each.publishing_id for each in frame]


def test_a_frame_has_no_more_bytes_than_allowed():
    made = publisher(100, 100, 100)
    assert ids(made.take_frame(230)) == [11, 12]
    made.confirm([11, 12])
    assert ids(made.take_frame(230)) == [13]


def test_a_message_of_any_size_is_sent():
    """Whether RabbitMQ takes it was checked before."""
    assert ids(publisher(1000).take_frame(230)) == [11]


def test_no_frame_is_sent_while_one_is_in_flight():
    made = publisher(100, 100)
    assert ids(made.take_frame(120)) == [11]
    assert made.take_frame(120) == []
    made.confirm([11])
    assert ids(made.take_frame(120)) == [12]
    made.confirm([12])
    assert made.is_idle
    assert made.sequence == 12


def test_what_is_confirmed_after_a_gap_does_not_count():
    made = publisher(10, 10, 10)
    made.take_frame(1000)
    made.confirm([12, 13])
    assert made.sequence == 10
    made.confirm([11])
    assert made.sequence == 13


def test_forgotten_messages_are_not_sent():
    made = publisher(10, 10)
    made.take_frame(30)
    made.forget()
    assert made.is_idle
    assert made.take_frame(1000) == []
    assert made.sequence == 10
