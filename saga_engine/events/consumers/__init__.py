"""
Consumers: published events take effect once in the database of another service.

    consumer             Consumer: where its events come from, and a function for each event
    consumer_rules       what makes consumers valid
    source_options       from_queue, from_stream, from_kafka: where a consumer's events come from
    received             Received: an event as a consumer receives it
    interfaces           a source and its partitions, as the loop of a consumer uses them
    source_opener        opens the sources of the consumers of a process
    queue_source         a queue of RabbitMQ as a source
    stream_source        a stream of RabbitMQ as a source: its partitions
    stream_subscription  one partition of a stream while it is consumed
    stream_probe         how much of a stream waits
    stream_chunk         the messages of a chunk, alone or in batches
    amqp_message         a message of a stream as a consumer takes it
    amqp_sections        the sections of a message of AMQP 1.0
    kafka_source         a topic of Kafka as a source
    changed_source       whether a source is still the one that was consumed
    header_attributes    attributes of an event in headers that are bytes
    event_reader         from a message to an event, or to why it cannot be read
    avro_messages        messages in Avro as JSON, with the schemas of a registry
    reader_schemas       whether consumers can read what is registered
    event_consumption    EventConsumption: the consumers of one process
    partition_runner     one partition in one process: take the lease, apply, acknowledge
    consumer_batch       one batch: applied together, or one by one to find what fails
    late_events          events that arrive after a later one of their stream
    batch_result         what became of a batch, and what is kept of it
    partition_writer     transactions: effects, and the note that events are consumed
    consumer_table       how far each partition is, and which process consumes it
    consumer_lag         what waits for each partition, as it was measured
    consumed_events      which events were consumed
    kept_messages        messages that could not be applied or read, and those behind
    consumer_failures    what operators see of them, and decide about them
    failure_retry        messages that were kept, applied again
    consumer_monitor     how far consumers are, and which of them do not move
    consumer_actions     what an operator does with a consumer
    service              ConsumerService: the process, its readiness and its shutdown
"""
