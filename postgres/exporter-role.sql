-- The role of postgres_exporter in a database that you already have, also on a managed server without superuser:
--
--   EXPORTER_PASSWORD_FILE=secrets/exporter_password psql -X -d my_database -f exporter-role.sql
--
-- Run it as a role that may create roles. Running it again changes the password and nothing else. psql reads the password
-- from the file, so no argument and no environment variable holds it. Where a step needs more privileges than you have, a
-- notice says which; docs/adopt.md has the details.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
\getenv password_file EXPORTER_PASSWORD_FILE
\if :{?password_file}
\else
    \set VERBOSITY terse
    DO $$ BEGIN RAISE EXCEPTION 'set EXPORTER_PASSWORD_FILE to a file with the new password of postgres_exporter'; END $$;
\endif
\set empty `grep -q . "$EXPORTER_PASSWORD_FILE" && echo no || echo yes`
\if :empty
    \set VERBOSITY terse
    DO $$ BEGIN RAISE EXCEPTION 'EXPORTER_PASSWORD_FILE is missing, empty or not readable'; END $$;
\endif

-- Keep the password out of the server's log. Only a superuser may change these settings; else those of the server decide.
DO $$
BEGIN
    PERFORM set_config('log_statement', 'none', false);
    PERFORM set_config('log_min_duration_statement', '-1', false);
    PERFORM set_config('log_min_error_statement', 'panic', false);
EXCEPTION WHEN insufficient_privilege THEN
    IF current_setting('log_statement') IN ('ddl', 'all') THEN
        RAISE EXCEPTION 'log_statement = % would log the password; set it to none meanwhile', current_setting('log_statement');
    ELSIF current_setting('log_min_duration_statement') = '0' THEN
        RAISE EXCEPTION 'log_min_duration_statement = 0 would log the password; set it to 1s meanwhile';
    END IF;
END $$;
\set password `cat "$EXPORTER_PASSWORD_FILE"`

SELECT 'CREATE ROLE postgres_exporter' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'postgres_exporter') \gexec
ALTER ROLE postgres_exporter LOGIN CONNECTION LIMIT 5 PASSWORD :'password';
ALTER ROLE postgres_exporter SET default_transaction_read_only = on;
ALTER ROLE postgres_exporter SET statement_timeout = '10s';
ALTER ROLE postgres_exporter SET lock_timeout = '1s'; -- rather miss one table's size than the whole scrape

DO $$
BEGIN
    IF has_database_privilege(current_database(), 'CONNECT WITH GRANT OPTION') THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO postgres_exporter', current_database());
    ELSIF NOT has_database_privilege('postgres_exporter', current_database(), 'CONNECT') THEN
        RAISE WARNING 'postgres_exporter may not connect to %: only its owner may grant that', current_database();
    END IF;
END $$;
DO $$
BEGIN
    GRANT pg_monitor TO postgres_exporter; -- statistics of all users, no row of any table
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'pg_monitor is not granted: GRANT pg_monitor TO postgres_exporter needs a role with ADMIN OPTION on it';
END $$;
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
    RAISE WARNING 'pg_stat_statements is not created (%): panels of queries stay empty', SQLERRM;
END $$;
DO $$
BEGIN
    ALTER ROLE postgres_exporter SET pg_stat_statements.track = 'none'; -- its own queries would fill it
EXCEPTION WHEN insufficient_privilege THEN
    NULL; -- they show among the others
END $$;
SELECT 'pg_stat_statements counts nothing yet: add it to shared_preload_libraries and restart the server' AS notice
WHERE current_setting('shared_preload_libraries') !~ 'pg_stat_statements' \g (tuples_only=on format=unaligned)
