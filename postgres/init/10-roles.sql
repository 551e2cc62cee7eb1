-- Roles, database and extension of the stack. psql runs it as superuser; running it again repairs and changes nothing
-- else (it is also how a changed password gets into the server).
--
-- Docker: the postgres image runs every file of /docker-entrypoint-initdb.d once, when the volume is empty.
-- Native: SECRETS_DIR=secrets psql -X -q -v ON_ERROR_STOP=1 -d postgres -f postgres/init/10-roles.sql
--
-- Passwords are read from files by psql itself: no argument, environment variable or log line ever holds one.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET pg_stat_statements.track = 'none';

\set secrets_dir /run/secrets
\getenv secrets_dir SECRETS_DIR
\setenv SECRETS_DIR :secrets_dir
\set app_password `cat "$SECRETS_DIR/app_db_password" 2>/dev/null || true`
\set exporter_password `cat "$SECRETS_DIR/exporter_db_password" 2>/dev/null || true`
SELECT :'app_password' = '' OR :'exporter_password' = '' AS missing \gset
\if :missing
    \set VERBOSITY terse
    DO $$ BEGIN RAISE EXCEPTION 'put a password each into app_db_password and exporter_db_password, readable for psql, in the folder SECRETS_DIR (default /run/secrets)'; END $$;
\endif

-- The service's role owns its database and nothing else.
SELECT 'CREATE ROLE sightline' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sightline') \gexec
ALTER ROLE sightline LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'app_password';

-- The exporter's role reads statistics (pg_monitor) and no row of any table. Its limits keep a stuck exporter harmless.
SELECT 'CREATE ROLE sightline_exporter' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sightline_exporter') \gexec
ALTER ROLE sightline_exporter LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5
    PASSWORD :'exporter_password';
ALTER ROLE sightline_exporter SET default_transaction_read_only = on;
ALTER ROLE sightline_exporter SET statement_timeout = '10s';
-- A table's size cannot be asked for while a migration holds the table: give that up long before Prometheus gives up the
-- whole scrape, or nothing of the server would be seen just then.
ALTER ROLE sightline_exporter SET lock_timeout = '1s';
-- Its own queries would be most of pg_stat_statements.
ALTER ROLE sightline_exporter SET pg_stat_statements.track = 'none';
GRANT pg_monitor TO sightline_exporter;

SELECT 'CREATE DATABASE sightline OWNER sightline' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'sightline') \gexec
ALTER DATABASE sightline OWNER TO sightline;
REVOKE ALL ON DATABASE sightline FROM PUBLIC;
GRANT CONNECT ON DATABASE sightline TO sightline_exporter;

\connect sightline
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
