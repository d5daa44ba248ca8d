"""Variables of the platform are not settings, and a typing error beside them is an error."""

import pytest

from saga_engine import Client
from saga_engine.errors import ConfigurationError
from saga_engine.settings import Settings, reject_unknown_settings
from tests.environments.pod import docker_link_variables, kubernetes_variables


@pytest.mark.parametrize(
    "added", [kubernetes_variables(), docker_link_variables()], ids=["Kubernetes", "Docker"]
)
def test_variables_of_the_platform_are_not_settings(added, monkeypatch):
    for name, value in added.items():
        monkeypatch.setenv(name, value)
    assert Settings.load().http_port == 9464
    Client("amqp://localhost/")  # raises nothing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGA_ENGINE_HTTPPORT", "9464"),
        ("SAGA_ENGINE_HTTP_PROT", "tcp://10.96.0.1:9464"),
        ("SAGA_ENGINE_DATABASE_PORT", "5432"),
        ("SAGA_ENGINE_SERVICE_HOSTS", "10.96.0.1"),
        ("SAGA_ENGINE_PORT_9464_HTTP", "tcp://10.96.0.1:9464"),
        ("SAGA_ENGINE_WORKER_NAME", "worker"),
        ("SAGA_ENGINE_SERVICE", "x"),
    ],
)
def test_a_typo_beside_such_variables_is_an_error(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} is not a setting"):
        reject_unknown_settings({**kubernetes_variables(), name: value})
