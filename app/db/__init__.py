"""PostgreSQL: models, engine and migrations."""
