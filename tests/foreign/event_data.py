"""The data of events, as docs/protocol.md, section 17, reads it: in JSON, or in Avro."""

import io
import json
import subprocess
from functools import cache

import fastavro


@cache
def avro_schema(event_type, schema_id):
    command = ["saga-engine", "schemas", "export", event_type, "--id", str(schema_id), "--avro"]
    return fastavro.parse_schema(json.loads(subprocess.check_output(command)))


def read_data(content_type, event_type, body):
    if content_type != "application/avro":
        return json.loads(body)
    schema = avro_schema(event_type, int.from_bytes(body[1:5], "big"))
    return fastavro.schemaless_reader(io.BytesIO(body[5:]), schema, None)
