-- What docs/security.md, section 3, grants after `migrate`; run as saga_owner, any number of times.
GRANT USAGE ON SCHEMA saga_engine TO saga_worker, saga_operator, saga_shop;

-- A worker.
GRANT SELECT ON ALL TABLES IN SCHEMA saga_engine TO saga_worker;
REVOKE SELECT ON saga_engine.start_grant FROM saga_worker;
GRANT INSERT ON saga_engine.definition, saga_engine.run, saga_engine.journal, saga_engine.business_key,
    saga_engine.outbox, saga_engine.pending_request, saga_engine.incident, saga_engine.dead_letter,
    saga_engine.engine_identity, saga_engine.crash_suspect TO saga_worker;
GRANT UPDATE ON saga_engine.run, saga_engine.outbox, saga_engine.pending_request, saga_engine.incident,
    saga_engine.crash_suspect TO saga_worker;
GRANT UPDATE (last_seen, present_until) ON saga_engine.definition TO saga_worker;
GRANT UPDATE (outcome, message) ON saga_engine.audit TO saga_worker;
GRANT DELETE ON saga_engine.outbox, saga_engine.pending_request, saga_engine.business_key, saga_engine.crash_suspect
    TO saga_worker;
GRANT USAGE, SELECT ON SEQUENCE saga_engine.event_position TO saga_worker;
GRANT EXECUTE ON FUNCTION saga_engine.announce_positions, saga_engine.draw_positions TO saga_worker;

-- A worker registers the schemas of its commands and replies.
GRANT INSERT, UPDATE ON saga_engine.schema_subject TO saga_worker;
GRANT INSERT ON saga_engine.schema TO saga_worker;

-- A worker adds the partitions of the coming months with the owner's rights.
ALTER FUNCTION saga_engine.add_partitions(integer)
    SECURITY DEFINER SET search_path = pg_catalog, saga_engine, pg_temp;
GRANT EXECUTE ON FUNCTION saga_engine.add_partitions(integer), saga_engine.missing_partitions
    TO saga_worker;

-- A worker counts dead letters beyond their quota, and deletes rows after their retention.
GRANT INSERT, UPDATE ON saga_engine.dead_letter_dropped TO saga_worker;
GRANT EXECUTE ON FUNCTION saga_engine.purge_expired TO saga_worker;

-- A worker with `--events` fills the tables of statistics.
GRANT EXECUTE ON FUNCTION saga_engine.event_horizon TO saga_worker;
GRANT INSERT, UPDATE ON saga_engine.projection, saga_engine.projection_failure, saga_engine.run_statistics,
    saga_engine.step_duration, saga_engine.failure_cause TO saga_worker;

-- An operator reads, and acts through functions: `cancel`, `resolve`, `dead-letters`.
GRANT SELECT ON ALL TABLES IN SCHEMA saga_engine TO saga_operator;
REVOKE SELECT ON saga_engine.engine_identity FROM saga_operator;
GRANT EXECUTE ON FUNCTION saga_engine.record_actions, saga_engine.request_cancel,
    saga_engine.cancel_start, saga_engine.request_resolve, saga_engine.lock_dead_letters,
    saga_engine.resolve_dead_letters, saga_engine.purge_dead_letters TO saga_operator;

-- A service that starts runs in its own transactions, with `start_in_transaction`: of these sagas only.
GRANT EXECUTE ON FUNCTION saga_engine.request_start TO saga_shop;
INSERT INTO saga_engine.start_grant (role, saga)
    VALUES ('saga_shop', 'buy'), ('saga_shop', 'place-order') ON CONFLICT DO NOTHING;
