"""Where the stream protocol is: the URL of its own, or that of AMQP with the usual port."""

import pytest

from saga_engine.errors import ConfigurationError
from saga_engine.events.feeds.stream_address import stream_addresses
from saga_engine.settings import Settings

AMQP = "amqp://mara:s%40cret@one:5700,two:5701/shop"


def addresses(**settings):
    return [
        (each.host, each.port, each.username, each.password, each.vhost, bool(each.tls_files))
        for each in stream_addresses(Settings(**settings))
    ]


def test_the_nodes_of_the_broker_have_the_usual_port():
    expected = [(host, 5552, "mara", "s@cret", "shop", False) for host in ("one", "two")]
    assert addresses(broker_url=AMQP) == expected


def test_an_address_is_shown_without_its_password():
    for each in stream_addresses(Settings(broker_url=AMQP)):
        assert "s@cret" not in f"{each!r} {each}"


def test_with_tls_the_usual_port_is_another_one():
    assert addresses(broker_url="amqps://one/?cafile=/ca.pem") == [
        ("one", 5551, "guest", "guest", "/", True)
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rabbitmq-stream://a:b@three:5600/", ("three", 5600, "a", "b", "/", False)),
        ("rabbitmq-stream://a:b@three/%2f", ("three", 5552, "a", "b", "/", False)),
        ("rabbitmq-stream+tls://a:b@three/v", ("three", 5551, "a", "b", "v", True)),
    ],
)
def test_a_url_of_its_own_is_used_as_it_is(url, expected):
    assert addresses(broker_url=AMQP, broker_stream_url=url) == [expected]


def test_certificates_without_tls_are_refused():
    with pytest.raises(ConfigurationError, match=r"Say rabbitmq-stream\+tls://"):
        Settings(broker_stream_url="rabbitmq-stream://h/?cafile=/ca.pem")


def test_another_scheme_is_refused():
    with pytest.raises(ValueError, match="must begin with rabbitmq-stream://"):
        Settings(broker_stream_url="amqp://h/")


def test_a_url_that_cannot_be_read_is_named_without_its_password():
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_BROKER_STREAM_URL") as refused:
        addresses(broker_stream_url="rabbitmq-stream://a:secret@h:port/")
    assert "secret" not in str(refused.value)


def test_without_a_url_the_setting_is_named():
    with pytest.raises(ConfigurationError, match="SAGA_ENGINE_BROKER_URL is not set"):
        addresses()
