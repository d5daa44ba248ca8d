"""
Servers for the demo and for tests: a private PostgreSQL and a development broker.

    postgres        a private PostgreSQL server
    broker/         the development broker, in this process and in memory
    server_process  a server program as a child process
    programs        finds PostgreSQL's programs and the user that runs them
"""
