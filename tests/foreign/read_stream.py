"""Prints events of a stream, with pika alone: URL STREAM COUNT."""

import json
import sys

import pika

from tests.foreign.event_data import read_data

url, stream, count = sys.argv[1:]
channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
channel.basic_qos(prefetch_count=100)
messages = channel.consume(stream, arguments={"x-stream-offset": "first"}, inactivity_timeout=30)
for _ in range(int(count)):
    method, properties, body = next(messages)
    headers = properties.headers.items()
    event = {name[12:]: value for name, value in headers if name.startswith("cloudEvents_")}
    event["data"] = read_data(properties.content_type, event["type"], body)
    print(json.dumps({**event, "content_type": properties.content_type}, default=str))  # noqa: T201 - for the test
    channel.basic_ack(method.delivery_tag)
