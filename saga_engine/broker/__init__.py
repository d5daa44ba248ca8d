"""
What travels: RabbitMQ, and the contract with participants (docs/protocol.md).

    out: command | reply | request | answer -> wire.Message -> publisher (frames, confirms)
    in:  consumer (deliveries, watchdog) -> wire.Delivery -> command | reply | request | answer

    wire         a message to publish, a delivery that arrived, before either means anything
    command      a command on the wire
    reply        a reply on the wire
    failure      a failure as the object that travels
    request      what clients ask of the engine: to start a run, to cancel one, how one stands
    answer       what the engine tells clients: an answer to a request, the end of a run
    token        the correlation id of a command, which only the engine can make
    body         bodies: strict JSON within limits, or the reason why not
    limits       the limits of a body, from the settings
    headers      the headers of a message within limits, or the reason why not
    unreadable   what stands for a message that cannot be handled: a reason and a sentence
    topology     exchanges, queues and bindings as data, the policy for them, declaring them
    url          the URL of RabbitMQ: its hosts, its user, and what of it may be shown
    connection   a connection that is kept up: opened, watched, opened again
    handshake    how one connection is opened, and what it means when it is not
    publisher    a batch: every message framed, one write, all confirms awaited together
    frames       a message as AMQP 0-9-1 frames
    confirms     a channel in confirm mode that accounts for whole batches
    consumer     deliveries taken in batches and acknowledged in batches
    deliveries   a channel that turns frames into deliveries
    room         how much of what has arrived is taken into one batch
    watchdog     looks at the queues from outside the consuming channel
    driver       errors, cancellations and private parts of aiormq, translated in one place
    tolerant     pamqp's decoders, made to raise nothing on what a peer sent
"""
