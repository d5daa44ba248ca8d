"""Feeds log in to Kafka over TLS that is verified, and their password is in no text."""

import ssl
from typing import Any

import pytest

from saga_engine.settings import Settings
from saga_engine.settings.kafka import KafkaSecurity
from tests.kit.command_line import saga_engine
from tests.kit.kafka_feeds import kafka_options, open_sink, publish_all, some_events
from tests.kit.kafka_login import KafkaLogin
from tests.kit.kafka_topics import check_records, new_topic, read_topic

USER, PASSWORD = "projector", "correct-horse"
LOGIN = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": USER}


def tls_context(pair) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def settings(security: KafkaSecurity, password: str, **more: Any) -> dict[str, Any]:
    given = {"kafka_security_protocol": security, "kafka_sasl_password": password}
    return {**LOGIN, **given, **more}


async def test_a_feed_logs_in_with_its_password(kafka):
    topic, events = new_topic(), some_events(20)
    given = settings(KafkaSecurity.SASL_PLAINTEXT, PASSWORD)
    async with (
        KafkaLogin(kafka, USER, PASSWORD).running() as login,
        open_sink(login.servers, kafka_options(topic), **given) as sink,
    ):
        await publish_all(sink, events)
    check_records(await read_topic(kafka.servers, topic), events)


async def test_a_wrong_password_is_named_and_not_shown(kafka):
    given = settings(KafkaSecurity.SASL_PLAINTEXT, "wrong-horse")
    async with (
        KafkaLogin(kafka, USER, PASSWORD).running() as login,
        open_sink(login.servers, kafka_options(new_topic()), **given) as sink,
    ):
        problem = str(sink.problem)
    assert "Kafka refuses the login" in problem
    assert "Correct SAGA_ENGINE_KAFKA_SASL_USERNAME, _SASL_PASSWORD or _SASL_MECHANISM" in problem
    assert "wrong-horse" not in problem


async def test_a_feed_verifies_the_certificate_of_the_server(kafka, certificates):
    topic, events = new_topic(), some_events(20)
    trusted = str(certificates.authority.ca)
    given = settings(KafkaSecurity.SASL_SSL, PASSWORD, kafka_ca_file=trusted)
    context = tls_context(certificates.server)
    async with (
        KafkaLogin(kafka, USER, PASSWORD, context).running() as login,
        open_sink(login.servers, kafka_options(topic), **given) as sink,
    ):
        await publish_all(sink, events)
    check_records(await read_topic(kafka.servers, topic), events)


@pytest.mark.parametrize("shown", ["self_signed", "expired", "wrong_host"])
async def test_a_certificate_that_is_not_trusted_is_refused(kafka, certificates, shown):
    trusted = str(certificates.authority.ca)
    given = settings(KafkaSecurity.SASL_SSL, PASSWORD, kafka_ca_file=trusted)
    context = tls_context(getattr(certificates, shown))
    async with (
        KafkaLogin(kafka, USER, PASSWORD, context).running() as login,
        open_sink(login.servers, kafka_options(new_topic()), **given) as sink,
    ):
        assert "TLS to Kafka failed" in str(sink.problem)
        assert "Correct SAGA_ENGINE_KAFKA_CA_FILE" in str(sink.problem)


async def test_the_password_is_printed_nowhere():
    chosen = Settings(**settings(KafkaSecurity.SASL_PLAINTEXT, PASSWORD))
    assert PASSWORD not in repr(chosen)
    shown = await saga_engine(
        *("config", "show", "--json"),
        kafka_security_protocol="sasl_ssl",
        kafka_sasl_username=USER,
        kafka_sasl_password=PASSWORD,
    )
    assert PASSWORD not in shown.out
    rows = {row["name"]: row for row in shown.json["settings"]}
    assert rows["SAGA_ENGINE_KAFKA_SASL_PASSWORD"]["value"] == "***"
    assert rows["SAGA_ENGINE_KAFKA_SECURITY_PROTOCOL"]["value"] == "sasl_ssl"
