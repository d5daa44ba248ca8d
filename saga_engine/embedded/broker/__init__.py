"""
A development broker: AMQP 0-9-1 in this process and in memory, for the demo and fault tests.

Clients reach it over TCP with any AMQP library and see RabbitMQ's behaviour for what the engine
uses; tests/embedded/test_broker_contract.py holds it to the real one. It forgets everything at its
end. It
does not do TLS, clustering, permissions, transactions, streams or plugins.

    server         DevelopmentBroker: listens, and accepts connections
    connection     frames to their channels, heartbeats, blocking, the end
    handshake      how a connection begins: the peers, the limits, the virtual host
    frames         a stream of bytes cut into frames, and frames written
    outgoing       what a connection has to send, gathered for one turn of the event loop
    channel        what a channel consumes, holds unacknowledged and is about to publish
    declaring      exchanges, queues and bindings: made, looked at and deleted
    arguments      a queue's properties, checked and compared
    publishing     a message put together, routed and confirmed
    properties     a message's properties as the bytes they came in
    consuming      basic.qos, consume, cancel, get, ack, nack, reject and recover
    virtual_host   exchanges and queues, and the way of a message between them
    exchange       which queues get a message
    queue          messages in order, consumers, and how a message leaves
    message        what was published, and its place in one queue
    refusal        how a broker refuses: by closing the channel or the connection
    faults         faults on demand, for tests
"""

from saga_engine.embedded.broker.server import DevelopmentBroker

__all__ = ["DevelopmentBroker"]
