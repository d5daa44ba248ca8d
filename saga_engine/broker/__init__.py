"""
What travels: RabbitMQ, and the contract with participants (docs/protocol.md).

    Message -> frames -> publisher -> RabbitMQ -> consumer -> Delivery
    a command, a reply, a request: encoded and decoded by the module of that name

connection keeps a link up; topology says what exists on the broker; tolerant keeps hostile bytes
from ending it; body and token decide what may be believed of a delivery.
"""
