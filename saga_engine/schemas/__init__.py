"""
Schemas of events, commands and replies: what is written, and whether its readers can read it.

    comparison         whether a JSON Schema reads all that another one writes
    object_comparison  the fields of objects and the items of arrays, for a comparison
    scalar_comparison  texts and numbers, for a comparison
    fixed_values       the values that a schema lists, and the equality of JSON
    union_choice       which member of a union pydantic chooses
    schema_side        one document of a comparison: its references and unions
    incompatibility    what a reader may refuse: where, and why
    compatibility      the modes: which versions of a schema must read each other
    canonical          the fingerprint of a schema
    declared_schema    a schema as a module declares it
    saga_schemas       the schemas of a saga's commands and replies
    examples           examples of what a schema describes, for upcasters
    judgement          whether a declared schema breaks those before it, and what to do
    stored_schema      a schema as it is registered
    registry           the registered schemas in PostgreSQL
    registration       registers what a process has loaded

    avro_schema        the Avro schema of a JSON Schema, and conversions of values
    avro_record        records in Avro
    avro_union         unions in Avro
    avro_values        single values in Avro
    avro_compatibility  compares Avro schemas with Avro's own checker
    avro_judgement     whether a declared schema breaks consumers in Avro
    avro_reader        the bytes of a value as they are read, within limits
    avro_codec         Avro on the wire, with the id of its schema
    known_schemas      registered schemas as a process has read them, with their codecs

All but `registry`, `registration` and `known_schemas` are pure: no I/O, no clock, no randomness.
"""
