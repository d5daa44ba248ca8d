"""
A development broker: AMQP 0-9-1 in this process, with queues in memory.

The demo and the tests use it where RabbitMQ is not installed or where a test must control what
happens to a message (see `interceptor`). Clients connect over TCP with any AMQP library. For the
methods, arguments and error codes that the engine uses, the broker behaves like RabbitMQ;
tests/embedded/test_broker.py runs the same tests against both.

It is not for production. It listens on 127.0.0.1 only, and it loses all messages when it stops. It
has no TLS, clustering, permissions, AMQP transactions, streams or plugins.

    server         DevelopmentBroker: listens and accepts connections
    connection     dispatches frames to channels; heartbeats, backpressure, closing
    handshake      login, negotiated limits, the virtual host
    frames         reads frames from a byte stream and writes frames
    outgoing       collects the writes of one iteration of the event loop
    channel        consumers, unacknowledged messages and the publish being received
    declaring      declares, checks and deletes exchanges, queues and bindings
    arguments      validates and compares the properties of a queue
    publishing     assembles, routes and confirms published messages
    interceptor    a hook that decides what happens to each published message
    properties     message properties, kept as the bytes that arrived
    consuming      basic.qos, consume, cancel, get, ack, nack, reject and recover
    virtual_host   exchanges, queues and the routing of messages
    exchange       bindings and how they match routing keys
    queue          one queue: its messages, its consumers and their delivery
    message        a published message, and a message in a queue
    refusal        errors that close the channel or the connection
"""

from saga_engine.embedded.broker.interceptor import PublishAttempt, PublishInterceptor
from saga_engine.embedded.broker.server import DevelopmentBroker

__all__ = ["DevelopmentBroker", "PublishAttempt", "PublishInterceptor"]
