"""The URL of RabbitMQ: hosts, user and heartbeat, without its password in any text."""

import pytest

from saga_engine.amqp.url import display_address, split_hosts, username_of, with_heartbeat
from saga_engine.errors import ConfigurationError


def test_heartbeat_of_the_settings_wins_over_that_of_the_url():
    assert with_heartbeat("amqps://u:p@h/v?heartbeat=0&cafile=x", 10) == (
        "amqps://u:p@h/v?cafile=x&heartbeat=10"
    )


def test_display_address_has_no_password():
    assert display_address("amqps://user:hunter2@host/shop") == "host:5671, virtual host shop"


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("amqp://shop:secret@host/", "shop"),
        ("amqp://sh%40p:secret@host/v", "sh@p"),
        ("amqp://host/", ""),
        ("amqp://:token@host/", ""),
        ("amqps://shop@host/?auth=external", ""),
    ],
)
def test_username_is_read_from_the_url(url, user):
    assert username_of(url) == user


def test_cluster_url_is_split_into_hosts():
    assert split_hosts("amqps://u:p,@one:5671, two,[::1]:5673/shop?cafile=a,b") == (
        "amqps://u:p,@one:5671/shop?cafile=a,b",
        "amqps://u:p,@two/shop?cafile=a,b",
        "amqps://u:p,@[::1]:5673/shop?cafile=a,b",
    )
    assert split_hosts("amqp://u:p@one") == ("amqp://u:p@one",)


@pytest.mark.parametrize("hosts", ["one,", ",one", "one,,two", "one,:5672"])
def test_comma_without_a_host_is_reported_without_the_password(hosts):
    with pytest.raises(ConfigurationError, match="comma without a host") as caught:
        split_hosts(f"amqp://u:hunter2@{hosts}/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["amqp://", "amqp:///", "amqp://:5672/", "amqp://u:hunter2@/", "amqp://u:hunter2@:5672/"]
)
def test_a_url_without_a_host_is_reported_without_the_password(url):
    with pytest.raises(ConfigurationError, match="is not a valid URL") as caught:
        split_hosts(url)
    assert "hunter2" not in str(caught.value)
