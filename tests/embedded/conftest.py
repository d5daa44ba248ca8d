"""A broker of either kind: the development broker is shown to behave like RabbitMQ."""

import pytest

from tests.kit.servers import url_of_broker


@pytest.fixture(params=["development", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker; no variant is `long`."""
    return url_of_broker(request)
