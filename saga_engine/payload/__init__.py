"""
Typed payloads: JSON in, the author's types out, and back. A value arrives unchanged or is refused.

    payload        a type of a payload: it reads JSON, and writes it so that the same value is read
    annotations    what a type annotation says of None
    round_trip     which types arrive as they were given
    samples        types tried on example values when they are declared
    equality       whether a value arrived as it was given
    limits         how large a JSON body may be
    secret         a value that travels and is never shown
    serialization  frozen dataclasses to plain data and back, for the journal and for snapshots
    encryption     the port of a payload codec, and what each value is tied to
    guard          calls into the author's code

Pure: no I/O, no clock, no randomness.
"""
