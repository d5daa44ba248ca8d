"""
RabbitMQ: supervised connections; messages published and consumed in batches.

    out: protocol -> message.Message -> publisher (frames, confirm_channel)
    in:  frame_stream (content_frames, delivery_channel, delivery_decoding) -> message.Delivery
         -> consumer (consumer_watchdog) -> protocol

    url                 the URL of RabbitMQ: its hosts, its user, and what may be shown of it
    connection          a supervised connection: opened, watched, and reopened when it is lost
    handshake           opening one connection, and what its errors mean
    declaring_channel   declares what is missing, or checks what exists
    stream_queues       the partitions of a stream, declared and compared
    declare             exchanges, queues and bindings, declared or checked
    publisher           publishes a batch in one write and awaits its confirms together
    single_publisher    publishes single messages with aio-pika: requests, redriven dead letters
    frames              a message as AMQP 0-9-1 frames
    content_frames      received bytes, split into messages and confirms in one pass
    frame_stream        hands messages and confirms to their channels as they arrive
    confirm_channel     a channel in confirm mode that accounts for whole batches
    consumer            takes deliveries in batches and acknowledges them in batches
    delivery_channel    a channel that turns messages into deliveries
    delivery_decoding   a delivery made of the frames of a message
    interfaces          what worker and participant use of publisher and consumer, as protocols
    headers             the headers of a message within limits, or the reason why not
    batch_budget        how many buffered deliveries are taken into one batch
    consumer_watchdog   checks the queues over another channel than the consuming one
    optional_queues     finds queues that are consumed if they exist
    queue_sharing       shares queues out among the processes that consume them
    driver              the errors, cancellations and private hooks of aiormq, in one place
    tolerant_decoding   decoders for pamqp that raise no error on what a peer sent
"""
