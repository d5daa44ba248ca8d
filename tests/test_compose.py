"""docker-compose.yml says what it must, as far as that shows without a Docker engine."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from saga_engine.cli.main import _COMMANDS
from saga_engine.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service.get("image") == "saga-engine")
SERVING = ("rabbitmq", "postgres", "worker", "participants")


def test_it_is_valid_by_the_compose_specification():
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_it_has_rabbitmq_4_with_management_and_postgresql_18():
    assert SERVICES["rabbitmq"]["image"] == "rabbitmq:4-management"
    assert SERVICES["postgres"]["image"] == "postgres:18"


@pytest.mark.parametrize("name", OURS)
def test_every_command_of_ours_exists(name):
    command = SERVICES[name]["command"]
    assert command[0] in {known for known, *_ in _COMMANDS}
    for module in command[1:]:
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()


@pytest.mark.parametrize("name", SERVING)
def test_every_service_that_serves_says_when_it_is_ready(name):
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", ["worker", "participants"])
def test_what_needs_tables_waits_for_the_migration(name):
    waits_for = SERVICES[name]["depends_on"]
    assert waits_for["migrate"]["condition"] == "service_completed_successfully"
    assert waits_for["rabbitmq"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one(name):
    given = {each for each in SERVICES[name]["environment"] if each.startswith(PREFIX)}
    assert given <= {PREFIX + setting.upper() for setting in Settings.model_fields}


def test_a_drain_has_the_time_it_may_take():
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > Settings().drain


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_nothing_is_open_to_the_network(name):
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:")
