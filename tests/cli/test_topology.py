"""`saga-engine topology`: the queues, and the command that sets their policy."""

import json
import shlex

import pytest

from tests.kit.command_line import saga_engine


async def test_topology_prints_the_queues_and_the_policy():
    shown = (await saga_engine("topology", "--json")).json
    assert {queue["name"] for queue in shown["queues"]} == {
        "saga.replies",
        "saga.requests",
        "saga.dead-letters",
    }
    assert {"name": "saga.feed", "kind": "topic"} in shown["exchanges"]
    policy = (await saga_engine("topology", "--policy", "--json")).json["policy"]
    command = (await saga_engine("topology", "--policy")).out
    begin = "rabbitmqctl set_policy -p / --apply-to queues --priority 10 saga-engine"
    assert command.startswith(begin)
    assert json.dumps(policy["definition"], separators=(",", ":")) in command


async def test_topology_has_each_queue_of_replies():
    shown = (await saga_engine("topology", "--json", reply_queues="3")).json
    names = {each["name"] for each in shown["queues"]}
    expected = {"saga.replies", "saga.replies.1", "saga.replies.2"}
    assert {each for each in names if each.startswith("saga.replies")} == expected
    bound = {each["queue"] for each in shown["bindings"] if each["exchange"] == "saga.replies"}
    assert bound == expected


@pytest.mark.parametrize(
    ("path", "vhost"), [("", "/"), ("/", "/"), ("/shop", "shop"), ("/%2F", "/"), ("/a%20b", "a b")]
)
async def test_the_policy_names_the_virtual_host_of_the_url(path, vhost):
    url = f"amqp://guest:guest@one:5672,two:5672{path}"
    ran = await saga_engine("topology", "--policy", broker_url=url)
    assert shlex.split(ran.out)[2:4] == ["-p", vhost]
    ran = await saga_engine("topology", "--policy", "--json", broker_url=url)
    assert ran.json["vhost"] == vhost
