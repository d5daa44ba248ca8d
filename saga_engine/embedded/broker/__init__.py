"""
A development broker: AMQP 0-9-1 in this process and in memory, for the demo and fault tests.

Clients reach it over TCP with any AMQP library and see RabbitMQ's behaviour for what the engine
uses; tests/embedded/test_contract.py holds it to the real one. It forgets everything at its end. It
does not do TLS, clustering, permissions, transactions, streams or plugins.
"""

from saga_engine.embedded.broker.server import DevelopmentBroker

__all__ = ["DevelopmentBroker"]
