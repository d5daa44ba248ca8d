"""
An event-sourced shop: an order is the fold of its events, and a saga confirms it.

    orders          the aggregate: its events, its commands, and version 2 of an event
    first_version   version 1 of that event, as the shop declared it at first
    sagas           checkout: create the order, charge the card, confirm the order
    messages        the messages of that saga
    services        the participants; the shop's steps and its events are committed together
    projections     the read model: an order by its id, the orders of a customer
    feeds           what happens to orders, published to the exchange of RabbitMQ
    stream_feeds    the same in a stream of RabbitMQ, with 10 partitions
    kafka_feeds     the same in a topic of Kafka, with 10 partitions, in Avro
    consumers       another service, which writes an invoice for each order that was published
    database        where the events and the read model are
    create_tables   creates the tables of the read model and of the invoices
    show_order      asks the read model for an order, and for the orders of its customer
    replay          compares the read model with a replay of all events
    check_invoices  compares the invoices with the events

The events are in the database of the shop, which may be the engine's:

    saga-engine migrate
    python -m examples.shop.create_tables
    saga-engine worker examples.shop.sagas
    saga-engine participant examples.shop.services --port 9465
    saga-engine projector examples.shop.projections examples.shop.feeds --port 9466
    saga-engine consume examples.shop.consumers --port 9467
    saga-engine start checkout --wait --input \
        '{"order_id": "o-1", "customer": "mara", "items": {"tea": 2}, "card": "ok"}'
    python -m examples.shop.show_order o-1
    python -m examples.shop.replay
    python -m examples.shop.check_invoices

With a database of its own, SHOP_DATABASE_URL is the shop's: `saga-engine migrate --events` and the
projector get the same URL as SAGA_ENGINE_DATABASE_URL, and so does the consumer, unless its service
has a third one.

All of this needs RabbitMQ and PostgreSQL only. docs/streams.md shows what the other feeds need; run
them with

    saga-engine projector examples.shop.stream_feeds --port 9468
    saga-engine projector examples.shop.kafka_feeds --port 9469

and SHOP_INVOICES_FROM=stream or =kafka lets the consumer read there.
"""
