"""All dashboards, from general to specific: modules of this package, each with its DASHBOARD."""

MODULES = ("overview", "http", "llm", "database", "host", "loadtest", "monitoring")
