"""
Servers that come with the engine: PostgreSQL, RabbitMQ when installed, a development broker.

    postgres   a private PostgreSQL, for the demo and for tests
    broker/    the development broker, in this process and in memory
    process    one server program as a child process
    programs   where PostgreSQL's programs are, and the account that runs them
"""
