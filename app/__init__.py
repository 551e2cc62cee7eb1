"""The reference service: a small but real FastAPI service, instrumented with `app.telemetry`."""

__version__ = "0.1.0"
