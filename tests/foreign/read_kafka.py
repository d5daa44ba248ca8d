"""Prints events of a topic, with confluent-kafka alone: SERVERS TOPIC COUNT."""

import json
import sys
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.foreign.event_data import read_data

servers, topic, count = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": servers, "group.id": "foreign"})
partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
for _ in range(int(count)):
    message: Any = consumer.poll(30)
    headers = {name: value.decode() for name, value in message.headers()}
    event = {name[3:]: value for name, value in headers.items() if name.startswith("ce_")}
    event["data"] = read_data(headers["content-type"], event["type"], message.value())
    print(json.dumps({**event, "content_type": headers["content-type"]}, default=str))  # noqa: T201 - for the test
consumer.close()
