-- The service's own user and database: it owns its tables and is no superuser.
\set password `cat /run/secrets/postgres/orders`
CREATE ROLE orders LOGIN PASSWORD :'password';
CREATE DATABASE orders OWNER orders;
