-- What docs/security.md, section 3, grants after `migrate`; run as saga_owner, any number of times.
GRANT USAGE ON SCHEMA saga_engine TO saga_worker, saga_operator, saga_shop;
GRANT SELECT ON ALL TABLES IN SCHEMA saga_engine TO saga_worker, saga_operator;
REVOKE SELECT ON saga_engine.engine FROM saga_operator;

GRANT INSERT ON saga_engine.definition, saga_engine.run, saga_engine.event, saga_engine.run_key,
    saga_engine.outbox, saga_engine.inbox, saga_engine.incident, saga_engine.dead_letter,
    saga_engine.audit, saga_engine.engine TO saga_worker;
GRANT UPDATE ON saga_engine.run, saga_engine.outbox, saga_engine.inbox, saga_engine.incident,
    saga_engine.audit TO saga_worker;
GRANT DELETE ON saga_engine.outbox, saga_engine.inbox, saga_engine.run_key TO saga_worker;
GRANT USAGE ON SEQUENCE saga_engine.event_position TO saga_worker;

-- The coming months' partitions are made with the owner's rights, whoever asks for them.
ALTER FUNCTION saga_engine.add_partitions(integer)
    SECURITY DEFINER SET search_path = pg_catalog, saga_engine, pg_temp;
REVOKE ALL ON FUNCTION saga_engine.add_partitions(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION saga_engine.add_partitions(integer) TO saga_worker;

-- `cancel`, `resolve`, `dead-letters redrive` and `discard`.
GRANT INSERT, UPDATE ON saga_engine.audit TO saga_operator;
GRANT INSERT ON saga_engine.inbox TO saga_operator;
GRANT UPDATE ON saga_engine.dead_letter TO saga_operator;

-- A service that starts runs in its own transactions, with `start_in`.
GRANT SELECT ON saga_engine.definition, saga_engine.run, saga_engine.run_key TO saga_shop;
GRANT INSERT ON saga_engine.run_key, saga_engine.inbox TO saga_shop;

-- What is recorded in `inbox` is believed, whoever it says it is from: a service may record starts alone.
ALTER TABLE saga_engine.inbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON saga_engine.inbox TO saga_worker USING (true) WITH CHECK (true);
CREATE POLICY look ON saga_engine.inbox FOR SELECT TO saga_operator USING (true);
CREATE POLICY requests ON saga_engine.inbox FOR INSERT TO saga_operator
    WITH CHECK (kind IN ('cancel', 'resolve'));
CREATE POLICY starts ON saga_engine.inbox FOR INSERT TO saga_shop WITH CHECK (kind = 'start');
