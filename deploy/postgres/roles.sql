-- The roles of docs/security.md, section 3, and the database of the place-order services.
-- The passwords are for trying it out.
CREATE ROLE saga_owner LOGIN PASSWORD 'saga_owner';
CREATE ROLE saga_worker LOGIN PASSWORD 'saga_worker';
CREATE ROLE saga_operator LOGIN PASSWORD 'saga_operator';
CREATE ROLE saga_shop LOGIN PASSWORD 'saga_shop';
GRANT CREATE ON DATABASE saga TO saga_owner;

CREATE ROLE place_order LOGIN PASSWORD 'place_order';
CREATE DATABASE place_order OWNER place_order;
