"""docker-compose.yml, as far as it can be checked without a Docker engine."""

import base64
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from saga_engine.cli.main import _COMMANDS
from saga_engine.environment import PREFIX
from saga_engine.loading import load_objects
from saga_engine.protocol.topology import queue_policy
from saga_engine.saga.definition import Saga
from saga_engine.settings import Settings
from tests.kit.command_line import saga_engine
from tests.kit.rabbitmq import RabbitMQServer

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DEFINITIONS = json.loads((ROOT / "deploy/rabbitmq/definitions.json").read_text())
ENGINE_SERVICES = sorted(
    name for name, service in SERVICES.items() if service.get("image") == "saga-engine"
)
SERVING = ("rabbitmq", "postgres", "worker", "participants")


def test_it_is_valid_by_the_compose_specification():
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_its_images_are_pinned_to_a_release():
    images = {each["image"] for each in SERVICES.values()} - {"saga-engine"}
    assert all(
        re.fullmatch(r"(rabbitmq:4|postgres:18)(\.\d+)+(-management)?", each) for each in images
    )
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim$", dockerfile, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_has_limited_rights(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    assert set(service.get("cap_add", ())) <= {
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "SETGID",
        "SETUID",
    }


def test_every_service_has_its_own_user_and_none_is_a_superuser():
    urls = [
        value
        for name in ENGINE_SERVICES
        for key, value in SERVICES[name]["environment"].items()
        if key.endswith("_URL")
    ]
    users = [urlsplit(url).username for url in urls]
    assert len(set(users)) == len(users)
    roles = (ROOT / "deploy/postgres/roles.sql").read_text()
    known = {each["name"] for each in DEFINITIONS["users"]}
    assert all(f"CREATE ROLE {user} LOGIN" in roles or user in known for user in users)
    assert "SUPERUSER" not in roles
    assert all(each["tags"] == [] for each in DEFINITIONS["users"])


def test_the_broker_has_the_policy_and_the_passwords_of_the_urls():
    [found] = DEFINITIONS["policies"]
    wanted = queue_policy()
    assert {name: found[name] for name in wanted} == wanted
    for user in DEFINITIONS["users"]:
        known = base64.b64decode(user["password_hash"])
        assert hashlib.sha256(known[:4] + user["name"].encode()).digest() == known[4:]


def test_the_rights_are_those_of_the_documentation():
    page = (ROOT / "docs/security.md").read_text()
    [granted] = re.findall(r"as the owner -->\n```sql\n(.*?)```", page, re.DOTALL)
    assert (ROOT / "deploy/postgres/grants.sql").read_text().split("\n", 1)[1] == granted
    for each in DEFINITIONS["permissions"]:
        if each["user"] != "place-order":  # three services of the page's kind in one process
            permissions = " ".join(f"'{each[name]}'" for name in ("configure", "write", "read"))
            assert f"set_permissions -p shop {each['user']} {permissions}" in page


def test_the_starting_role_may_start_every_saga_of_the_worker():
    granted = (ROOT / "deploy/postgres/grants.sql").read_text()
    [_, *modules] = SERVICES["worker"]["command"]
    sagas = [
        saga.name
        for module in modules
        for saga in load_objects(module, Saga, Settings().import_timeout)
    ]
    assert sagas
    for name in sagas:
        assert f"('saga_shop', '{name}')" in granted


@pytest.mark.long
@pytest.mark.usefixtures("rabbitmq_is_installed")
async def test_a_real_broker_imports_the_definitions(tmp_path):
    tmp_path.chmod(0o755)
    file = tmp_path / "definitions.json"
    file.write_text(json.dumps(DEFINITIONS))
    async with RabbitMQServer() as server:
        await server.rabbitmqctl("import_definitions", str(file))
        url = urlsplit(server.url_of("saga"))
        for user in ("setup", "engine"):
            broker = url._replace(netloc=f"{user}:{user}@127.0.0.1:{url.port}").geturl()
            declared = await saga_engine("topology", "--declare", broker_url=broker)
            assert declared.exit_code == 0, declared.err


@pytest.mark.parametrize("name", ENGINE_SERVICES)
def test_every_command_exists(name):
    command = SERVICES[name]["command"]
    assert command[0] in {known for known, *_ in _COMMANDS}
    for module in command[1:]:
        assert module.startswith("--") or (ROOT / f"{module.replace('.', '/')}.py").exists()


@pytest.mark.parametrize("name", SERVING)
def test_every_serving_service_has_a_health_check(name):
    assert SERVICES[name]["healthcheck"]["test"]


def test_the_worker_waits_for_its_tables_rights_and_queues():
    def finished(name, other):
        return SERVICES[name]["depends_on"][other]["condition"] == "service_completed_successfully"

    assert finished("worker", "grants")
    assert finished("grants", "migrate")
    assert finished("worker", "topology")
    assert finished("participants", "topology")


@pytest.mark.parametrize("name", ENGINE_SERVICES)
def test_every_setting_exists(name):
    given = {each for each in SERVICES[name]["environment"] if each.startswith(PREFIX)}
    assert given <= {PREFIX + setting.upper() for setting in Settings.model_fields}


def test_the_grace_period_exceeds_the_shutdown_timeout():
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > Settings().shutdown_timeout


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_port_is_open_to_the_network(name):
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:")
