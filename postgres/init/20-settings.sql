-- Server settings that observability needs, kept in the data directory (postgresql.auto.conf), so that Docker and native
-- mode share them. Effective after the next start: Docker's first start restarts the server by itself, native mode too.
\set ON_ERROR_STOP on
ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements';
-- Time spent on reads and writes; costs nothing where reading the clock is cheap (see pg_test_timing).
ALTER SYSTEM SET track_io_timing = on;
-- Lines worth reading in the log: long lock waits, temporary files over 10 MB, statements slower than 1 s, and never the
-- values of their parameters, which may be personal data.
ALTER SYSTEM SET log_lock_waits = on;
ALTER SYSTEM SET log_temp_files = '10MB';
ALTER SYSTEM SET log_min_duration_statement = '1s';
ALTER SYSTEM SET log_parameter_max_length = 0;
ALTER SYSTEM SET log_parameter_max_length_on_error = 0;
