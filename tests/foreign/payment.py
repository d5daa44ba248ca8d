"""The payments of place-order in plain pika, written from docs/protocol.md only."""

import json
import sys

import pika

QUEUE = "saga.participant.payment"
COMMANDS = ("payment.charge", "payment.refund")
answers: dict[str, tuple[str, object]] = {}  # A real service keeps these with its effects.
undone: set[tuple[str, str]] = set()


def perform(name, step, payload):
    if name == "payment.refund":
        undone.add(step)
        return "succeeded", None
    if step in undone:
        return "rejected", {"code": "compensated"}
    if payload["card"] == "declined":
        return "rejected", {"code": "card_declined", "message": "The bank says no."}
    return "succeeded", {"charge_id": f"c-{payload['order_id']}"}


def on_command(channel, method, properties, body):
    headers = properties.headers
    key, payload = headers["idempotency-key"], json.loads(body)
    known = key in answers
    if not known:
        step = (headers["saga-run-id"], headers["saga-step"])
        answers[key] = perform(properties.type, step, payload)
    outcome, answer = answers[key]
    result = "again" if known else outcome
    print(properties.type, payload["order_id"], result, flush=True)  # noqa: T201 - for the test
    reply = pika.BasicProperties(
        correlation_id=properties.correlation_id,
        content_type="application/json",
        delivery_mode=2,
        headers={"saga-outcome": outcome},
    )
    to = properties.reply_to
    channel.basic_publish("saga.replies", to, json.dumps(answer), reply, mandatory=True)
    channel.basic_ack(method.delivery_tag)


channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
channel.confirm_delivery()
channel.exchange_declare("saga.commands", "topic", durable=True)
channel.exchange_declare("saga.replies", "direct", durable=True)
channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
for command in COMMANDS:
    channel.queue_bind(QUEUE, "saga.commands", command)
channel.basic_qos(prefetch_count=10)
channel.basic_consume(QUEUE, on_command)
print("ready", flush=True)  # noqa: T201 - for the test
channel.start_consuming()
