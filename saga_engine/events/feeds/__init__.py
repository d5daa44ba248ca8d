"""
Feeds: events published in the order of their streams, at least once.

    feed               Feed: the events it selects, and where it publishes them
    feed_rules         what makes feeds valid
    feed_batch         the events of a feed that are on their way: which is next, how far it is
    cloud_event        an event as a message of a feed: CloudEvents 1.0
    event_encoder      the data of events as bodies of messages: JSON or Avro
    feed_publisher     FeedPublisher: the process that publishes feeds
    feed_runner        one feed and sink in one process: publish, wait, save the position
    feed_checkpoint    the position and the lease of one feed, as one process keeps them
    feed_sink          what publishes the events of a feed
    sink_opener        opens the sinks of feeds
    exchange_sink      the exchange `saga.feed` as a sink
    stream_sink        a stream of RabbitMQ as a sink
    stream_message     an event as a message of a stream, and its partition
    stream_topology    the partitions of a stream: made, or compared
    stream_publishers  the publishers of one connection, and what is confirmed of each
    stream_connection  a connection by the stream protocol, opened again when it is lost
    stream_client      rstream's client, with an end that is noticed
    stream_address     where RabbitMQ speaks the stream protocol
    producer_name      the name by which RabbitMQ drops what it has already
    webhook_sink       a webhook as a sink
    webhook_backlog    the streams that wait for an event which a webhook has refused
    webhook_endpoint   the receiver of a webhook: whether it takes events now
    webhook_client     one request over HTTP, with httpx
    webhook_request    an event as an HTTP request: CloudEvents 1.0
    webhook_signature  the signature of a request: Standard Webhooks
    webhook_answer     what an answer means, and what to do about it
    webhook_target     the rules for the URL of a webhook and for the addresses of its host
    kafka_sink         a Kafka topic as a sink
    kafka_topic        that topic: made when it is missing, compared when it exists
    confirmed_offsets  how far the partitions of the topic reach, because Kafka has confirmed it
    kafka_producer     one producer of librdkafka, which lives until an event is not delivered
    kafka_message      an event as a message for Kafka
    kafka_partition    the partition of a stream in a topic
    kafka_client       the configuration of clients of Kafka, and their errors as sentences
    interfaces         the database as the loop of a feed uses it, and the broker for the exchange
    sql_feed_store     that database in PostgreSQL
    feed_table         how far each feed is, and which process runs it
    feed_failures      the events that feeds could not publish
    owned_feed         a feed as its sink needs it that keeps something in the database
    waiting_streams    the streams that wait for an event which was refused
    feed_actions       what an operator does with a feed
    feed_monitor       the lag of feeds, and which of them do not move
"""
