import asyncio

import pytest

from saga_engine.broker.connection import Link, Phase, place, user_of, with_heartbeat
from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.settings import Settings
from tests.broker.links import QUICK, Observed, link_to
from tests.proxy import proxied


async def test_link_comes_up_again_after_every_cut(broker_url):
    observer = Observed()
    async with proxied(broker_url) as proxy, link_to(proxy.url, observer=observer) as link:
        for epoch in (2, 3, 4):
            proxy.cut()
            await observer.until(lambda state, epoch=epoch: state.epoch == epoch)
            assert not (await link.connection()).is_closed
    phases = [state.phase for state in observer.states]
    assert phases[0] is Phase.CONNECTED
    assert phases[-1] is Phase.CLOSED
    assert phases.count(Phase.CONNECTED) == 4


async def test_connection_that_is_dropped_is_replaced(broker_url):
    observer = Observed()
    async with link_to(broker_url, observer=observer) as link:
        first = await link.connection()
        link.drop("it does not answer")
        await observer.until(lambda state: state.epoch == 2)
        assert await link.connection() is not first
    assert any("does not answer" in state.problem for state in observer.states)


async def test_wrong_password_is_one_sentence_without_it(rabbitmq_url):
    url = rabbitmq_url.replace("guest:guest", "guest:hunter2")
    with pytest.raises(ConfigurationError, match="refuses this user or password") as caught:
        async with link_to(url):
            pass
    assert "hunter2" not in str(caught.value)


async def test_unknown_virtual_host_is_one_sentence(rabbitmq_url):
    with pytest.raises(ConfigurationError, match="no such virtual host"):
        async with link_to(rabbitmq_url + "-missing"):
            pass


async def test_refused_password_is_raised_even_to_the_patient(rabbitmq_url):
    url = rabbitmq_url.replace("guest:guest", "guest:hunter2")
    with pytest.raises(ConfigurationError):
        async with Link(url, name="x", settings=Settings(), patient=True):
            pass


async def test_broker_that_is_not_there_is_unavailable(unused_port):
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{unused_port}"):
        async with link_to(f"amqp://u:hunter2@127.0.0.1:{unused_port}/"):
            pass


async def test_broker_that_does_not_speak_amqp_is_unavailable():
    async def serve(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(BrokerUnavailable, match="out of reach"):
            async with link_to(f"amqp://u:p@127.0.0.1:{port}/"):
                pass
    finally:
        server.close()


async def test_broker_that_says_nothing_times_out():
    async def serve(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(BrokerUnavailable, match="in time"):
            async with link_to(f"amqp://u:p@127.0.0.1:{port}/", broker_connect_timeout=0.2):
                pass
    finally:
        server.close()


async def test_plain_broker_on_a_tls_url_is_unavailable(broker_url):
    with pytest.raises(BrokerUnavailable, match="out of reach"):
        async with link_to(broker_url.replace("amqp://", "amqps://")):
            pass


async def test_patient_link_waits_for_the_broker(broker_url):
    observer = Observed()
    async with proxied(broker_url) as proxy:
        proxy.hold()
        settings = Settings(**QUICK | {"broker_connect_timeout": 0.2})
        link = Link(proxy.url, name="x", settings=settings, on_state=observer, patient=True)
        async with asyncio.TaskGroup() as tasks:
            entering = tasks.create_task(link.__aenter__())
            await observer.until(lambda state: "in time" in state.problem)
            proxy.release()
            await entering
            assert link.state.phase is Phase.CONNECTED
            await link.__aexit__(None, None, None)


def test_pause_doubles_to_a_limit_and_is_spread():
    settings = Settings(broker_backoff=0.2, broker_backoff_max=5.0)
    link = Link("amqp://h", name="x", settings=settings)
    for failures in (0, 1, 2, 3, 10, 1000):
        full = min(5.0, 0.2 * 2.0 ** min(failures, 30))
        pauses = {link.pause(failures) for _ in range(50)}
        assert all(full / 2 <= pause <= full for pause in pauses)
        assert len(pauses) > 1


def test_heartbeat_of_the_settings_wins_over_that_of_the_url():
    assert with_heartbeat("amqps://u:p@h/v?heartbeat=0&cafile=x", 10) == (
        "amqps://u:p@h/v?cafile=x&heartbeat=10"
    )


def test_place_shows_no_password():
    assert place("amqps://user:hunter2@host/shop") == "host:5671, virtual host shop"


@pytest.mark.parametrize("url", ["amqp://u:hunter2@h:port/", "amqp://u:hunter2@[::1/"])
async def test_url_that_is_none_says_so_without_it(url):
    with pytest.raises(ConfigurationError) as caught:
        async with link_to(url):
            pass
    assert "hunter2" not in str(caught.value)


@pytest.fixture
async def unused_port():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    return port


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
def test_a_link_knows_its_user_where_the_url_says_it(url, user):
    assert user_of(url) == user
