"""
The messages on the wire, as docs/protocol.md describes them. Nothing here needs a broker.

    message             a message to publish, a delivery that arrived, before either means anything
    command             a command on the wire
    reply               a reply on the wire
    failure             a failure as the object that travels
    request             what clients ask of the engine: start or cancel a run, or its status
    answer              what the engine sends to clients: an answer to a request, the end of a run
    token               the correlation id of a command, which only the engine can make
    body                bodies: strict JSON within limits, or the reason why not
    limits              the limits of a body, from the settings
    dead_letter_reason  why a message that can be read is dead-lettered
    unreadable          what stands for a message that cannot be handled: a reason and a sentence
    topology            exchanges, queues and bindings as data, and the policy for them
"""
