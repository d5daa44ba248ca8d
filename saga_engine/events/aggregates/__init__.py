"""
Aggregates: a state folded from a stream, and commands that decide on its next events.

    aggregate           Aggregate: its state, events, commands and upcasters, as declared
    aggregate_rules     what makes aggregates valid
    decision            from a command and a state to events
    returned_events     which events a command may return, and which it has returned
    folding             from the events of a stream to the state of its aggregate
    aggregate_stream    the state of an aggregate from its snapshot and the events after it
    command_handling    handle_in: load an aggregate, decide a command, append its events
    command_time_limit  the time limit of calls into an aggregate's code
    fingerprint         which code a snapshot was made by
    source_hash         the source of a module as a hash
"""
