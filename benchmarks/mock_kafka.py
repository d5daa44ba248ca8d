"""
librdkafka's mock cluster as a process: `python benchmarks/mock_kafka.py TOPIC PARTITIONS FILE`.

As Kafka, and unlike noida-db, it holds back its answer while there are no messages. It knows no
configuration of topics, so a feed cannot publish to it. Its address is written to the file.
"""

import ctypes
import signal
import sys
from pathlib import Path

import confluent_kafka

_PRODUCER, _BROKERS, _REPLICATION, _ERROR_BYTES = 0, 1, 1, 512


def run(topic: str, partitions: int, address_file: Path) -> None:
    """Run a cluster with one topic until the process is ended."""
    library = _librdkafka()
    error = ctypes.create_string_buffer(_ERROR_BYTES)
    client = library.rd_kafka_new(_PRODUCER, library.rd_kafka_conf_new(), error, _ERROR_BYTES)
    cluster = library.rd_kafka_mock_cluster_new(client, _BROKERS)
    if library.rd_kafka_mock_topic_create(cluster, topic.encode(), partitions, _REPLICATION):
        raise RuntimeError(f"The mock cluster of librdkafka does not create topic {topic!r}")
    written = address_file.with_suffix(".new")
    written.write_bytes(library.rd_kafka_mock_cluster_bootstraps(cluster))
    written.rename(address_file)
    signal.pause()


def _librdkafka() -> ctypes.CDLL:
    """Return the librdkafka in the wheel of confluent-kafka, whose binding has no mock cluster."""
    directory = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(directory.glob("librdkafka-*"))))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, number]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, number, number]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    return library


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
