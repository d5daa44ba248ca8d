"""
Typed payloads: JSON in, the author's types out, and back. A value arrives unchanged or is refused.

    payload        a type of a payload: reads JSON, and writes JSON that gives the same value
    mapping        the author's mapping functions: their parameters, annotations, file and line
    json_schema    the JSON Schema of a type: pydantic's, with what it leaves out
    annotations    whether a type annotation allows None
    round_trip     which types arrive unchanged, decided from pydantic's schema
    samples        types tried on example values when they are declared
    equality       whether a value arrived unchanged
    limits         how large a JSON body may be
    secret         a value that is sent and never shown
    serialization  frozen dataclasses to plain data and back, for the journal and for snapshots
    encryption     the port of a payload codec, and what each value is bound to
    guard          calls into the author's code
    ports          what a decision gets for payloads: codec, time limit, limits of a body
    reader         reads stored payloads and makes those of commands, for one decision

Pure: no I/O, no clock, no randomness.
"""
