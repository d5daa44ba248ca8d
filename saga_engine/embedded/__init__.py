"""Servers that come with the engine: PostgreSQL, RabbitMQ when installed, a development broker."""
