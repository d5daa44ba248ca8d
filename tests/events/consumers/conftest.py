"""A source with offsets, of each kind."""

import pytest

from tests.kit.consumer_sources import SourceUnderTest, StreamUnderTest, TopicUnderTest


@pytest.fixture(params=[pytest.param("stream", marks=pytest.mark.rabbitmq), pytest.param("kafka")])
def source(request: pytest.FixtureRequest) -> SourceUnderTest:
    """A stream and a topic that do not exist yet, one after the other."""
    if request.param == "kafka":
        return TopicUnderTest(request.getfixturevalue("kafka").servers)
    server, url = request.getfixturevalue("rabbitmq"), request.getfixturevalue("rabbitmq_url")
    return StreamUnderTest(server, url)
