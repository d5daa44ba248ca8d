"""`saga-engine topology`: what the engine needs on the broker, and the policy that goes with it."""

import json
import shlex
from typing import Annotated

from cyclopts import Parameter

from saga_engine.amqp.connection import Link
from saga_engine.amqp.url import vhost_of
from saga_engine.cli.output import AsJson, document, line, say, table
from saga_engine.protocol.topology import ENGINE, policy
from saga_engine.settings import Settings


async def topology(
    *,
    do_declare: Annotated[
        bool, Parameter(name="--declare", help="Declare them, so that workers need not.")
    ] = False,
    as_policy: Annotated[
        bool, Parameter(name="--policy", help="The limits, as a command to run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the exchanges, queues and bindings that a worker declares; nothing is contacted."""
    if do_declare:
        settings = Settings.load()
        async with Link(
            settings.require_broker(), name="publish", settings=settings, topology=ENGINE
        ):
            say("Everything that workers need is declared.")
        return
    if as_policy:
        _policy(as_json=as_json)
        return
    if as_json:
        document(
            {
                "exchanges": [{"name": each.name, "kind": each.kind} for each in ENGINE.exchanges],
                "queues": [{"name": each.name, "type": "quorum"} for each in ENGINE.queues],
                "bindings": [
                    {"queue": each.queue, "exchange": each.exchange, "key": each.key}
                    for each in ENGINE.bindings
                ],
            }
        )
        return
    rows = [("exchange", each.name, each.kind.value) for each in ENGINE.exchanges]
    rows += [("queue", each.name, "quorum") for each in ENGINE.queues]
    rows += [
        ("binding", each.queue, f"{each.exchange} {each.key}".strip()) for each in ENGINE.bindings
    ]
    table(("what", "name", "how"), rows, empty="")


def _policy(*, as_json: bool) -> None:
    wanted, settings = policy(), Settings.load()
    vhost = vhost_of(settings.require_broker()) if settings.broker_url else "/"
    if as_json:
        document({"policy": wanted, "vhost": vhost})
        return
    words = ["rabbitmqctl", "set_policy", "-p", vhost, "--apply-to", str(wanted["apply-to"])]
    words += ["--priority", str(wanted["priority"]), str(wanted["name"]), str(wanted["pattern"])]
    words.append(json.dumps(wanted["definition"], separators=(",", ":")))
    line(shlex.join(words))
