"""
RabbitMQ: connections that are kept up, messages published and consumed in batches.

    out: protocol -> message.Message -> publisher (frames, confirm_channel)
    in:  consumer (delivery_channel, consumer_watchdog) -> message.Delivery -> protocol

    url                 the URL of RabbitMQ: its hosts, its user, and what of it may be shown
    connection          a connection that is kept up: opened, watched, opened again
    handshake           how one connection is opened, and what it means when it is not
    declare             exchanges, queues and bindings, declared or checked
    publisher           a batch: every message framed, one write, all confirms awaited together
    frames              a message as AMQP 0-9-1 frames
    confirm_channel     a channel in confirm mode that accounts for whole batches
    consumer            deliveries taken in batches and acknowledged in batches
    delivery_channel    a channel that turns frames into deliveries
    interfaces          what worker and participant use of publisher and consumer, as protocols
    headers             the headers of a message within limits, or the reason why not
    batch_budget        how much of what has arrived is taken into one batch
    consumer_watchdog   looks at the queues from outside the consuming channel
    driver              errors, cancellations and private parts of aiormq, translated in one place
    tolerant_decoding   pamqp's decoders, made to raise nothing on what a peer sent
"""
