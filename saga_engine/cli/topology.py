"""`saga-engine topology`: the exchanges, queues and bindings of the engine, and their policy."""

import json
import shlex
from typing import Annotated

from cyclopts import Parameter

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.url import vhost_of
from saga_engine.cli.output import AsJson, print_json, print_line, print_stderr, print_table
from saga_engine.protocol.topology import queue_policy, shared_topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole


async def show_topology(
    *,
    declare: Annotated[
        bool,
        Parameter(
            name="--declare", help="Declare them, so that workers and feeds need no permission to."
        ),
    ] = False,
    as_policy: Annotated[
        bool, Parameter(name="--policy", help="Print the rabbitmqctl command that sets the policy.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the exchanges, queues and bindings of workers and feeds, without connecting."""
    settings = Settings.load()
    topology = shared_topology(settings.reply_queues)
    if declare:
        async with SupervisedConnection(
            settings.require_broker_url(),
            role=ConnectionRole.PUBLISH,
            settings=settings,
            topology=topology,
        ):
            print_stderr("Everything that workers and feeds need is declared.")
        return
    if as_policy:
        _print_policy(as_json=as_json)
        return
    if as_json:
        print_json(
            {
                "exchanges": [
                    {"name": each.name, "kind": each.kind} for each in topology.exchanges
                ],
                "queues": [{"name": each.name, "type": "quorum"} for each in topology.queues],
                "bindings": [
                    {"queue": each.queue, "exchange": each.exchange, "key": each.binding_key}
                    for each in topology.bindings
                ],
            }
        )
        return
    rows = [("exchange", each.name, each.kind.value) for each in topology.exchanges]
    rows += [("queue", each.name, "quorum") for each in topology.queues]
    rows += [
        ("binding", each.queue, f"{each.exchange} {each.binding_key}".strip())
        for each in topology.bindings
    ]
    print_table(("kind", "name", "details"), rows, empty="")


def _print_policy(*, as_json: bool) -> None:
    wanted_policy, settings = queue_policy(), Settings.load()
    vhost = vhost_of(settings.require_broker_url()) if settings.broker_url else "/"
    if as_json:
        print_json({"policy": wanted_policy, "vhost": vhost})
        return
    words = ["rabbitmqctl", "set_policy", "-p", vhost, "--apply-to", str(wanted_policy["apply-to"])]
    words += ["--priority", str(wanted_policy["priority"])]
    words += [str(wanted_policy["name"]), str(wanted_policy["pattern"])]
    words.append(json.dumps(wanted_policy["definition"], separators=(",", ":")))
    print_line(shlex.join(words))
