"""Logging to standard error, one line per record, plain or JSON, each with the id of its request."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from app.middleware import request_id


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id()
        return True


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id(),
            "process": record.process,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def log_config(level: str, log_format: str) -> dict[str, Any]:
    """Configuration for logging.config.dictConfig, and for uvicorn, whose workers apply it themselves."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": _RequestIdFilter}},
        "formatters": {
            "plain": {"format": "%(asctime)s %(levelname)-7s [%(process)d] %(name)s %(request_id)s %(message)s"},
            "json": {"()": _JsonFormatter},
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": log_format, "filters": ["request_id"]},
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # The SDKs' HTTP client logs every request that it sends.
            "httpx": {"level": "WARNING"},
            "httpx2": {"level": "WARNING"},
            "alembic": {"level": "WARNING"},
        },
    }
