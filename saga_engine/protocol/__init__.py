"""
The wire contract of docs/protocol.md. Nothing here does I/O or knows an AMQP library.

    message             a message to publish and a delivery, before their content is read
    command             a command, written and read; it carries the idempotency key of the decider
    reply               a reply: written by a participant, read by the engine
    failure             a failure as a JSON object
    rejection           what user code raises instead of returning a result: Rejected or Failed
    request             a client's request: start a run, cancel it, or read its status
    answer              the messages for clients: an answer to a request, the end of a run
    run_result          what a client sees of a run
    open_incident       what a client sees of an open incident
    token               the correlation id of a command, signed by the engine
    body                a body: strict JSON within limits, or the reason why not
    limits              the limits of a body, from the settings
    dead_letter_reason  why a message is dead-lettered
    unreadable          what stands for a message that cannot be read: a reason and a sentence
    topology            exchanges, queues and bindings as data, and the policy for them
"""
