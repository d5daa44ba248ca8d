"""
AsyncAPI 3.1: the messages that modules declare, as one document for other programs and people.

    document          the whole document, from sagas, participants, aggregates and feeds
    command_messages  the commands of sagas and participants, their queues and their replies
    event_messages    the events of aggregates, and the feeds that publish them
    feed_channels     the exchange, streams, webhooks: their channels, headers and bindings
    channels          queues, exchanges, and references to channels and their messages
    components        the messages and schemas of a document, each once, and references to them
    headers           the JSON Schemas of the headers of commands, replies and events

The document is derived from declarations alone: nothing is connected to. docs/protocol.md explains
the messages.
"""
