"""An ordinary RPC server in plain pika. It acknowledges a request before it replies."""

import json
import sys

import pika

QUEUE = "rpc.payment"


def on_request(channel, method, properties, _body):
    channel.basic_ack(method.delivery_tag)
    print("acknowledged", flush=True)  # noqa: T201 - for the test
    reply = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to, json.dumps({"charge_id": "c-rpc"}), reply)
    print("answered", flush=True)  # noqa: T201 - for the test


channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
channel.queue_declare(QUEUE)
channel.basic_consume(QUEUE, on_request)
print("ready", flush=True)  # noqa: T201 - for the test
channel.start_consuming()
