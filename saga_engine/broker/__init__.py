"""
What travels: RabbitMQ, and the contract with participants (docs/protocol.md).

    out: command | reply | request | answer -> wire.Message -> publisher (frames, confirms)
    in:  consumer (deliveries, watchdog) -> wire.Delivery -> command | reply | request | answer

connection keeps a link up, on what driver and tolerant make of aiormq and pamqp; topology says what
exists on the broker; body and token decide what may be believed of a delivery, unreadable why not.
"""
