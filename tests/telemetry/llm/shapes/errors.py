"""Errors in the place of a whole answer, with HTTP status 200, and their type."""

from __future__ import annotations

from typing import Any

ERRORS: list[tuple[Any, str]] = [
    ({"error": {"message": "no", "code": 502}}, "server"),
    ({"error": {"message": "no", "code": "429"}}, "rate_limit"),
    ({"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}, "overloaded"),  # Gemini
    ([{"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}], "rate_limit"),  # Gemini
    ({"error": "Model is overloaded", "error_type": "overloaded"}, "overloaded"),  # text-generation-inference
    ({"error": "`inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "validation"}, "bad_request"),
    ({"error": "model requires more system memory"}, "server"),  # Ollama
    ({"object": "error", "message": "no", "type": "NotFoundError", "code": 404}, "bad_request"),  # vLLM
    ({"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}, "rate_limit"),  # Anthropic
    ({"success": False, "error": {"code": "INTERNAL_SERVER_ERROR", "status": 500}}, "server"),
    ({"error": {"code": 400, "type": "exceed_context_size_error", "message": "no"}}, "context_length"),  # llama.cpp
    ({"error": {"code": 402, "message": "Insufficient credits", "metadata": {}}}, "auth"),  # OpenRouter
    ({"error": {"code": 502, "message": "no", "metadata": {"error_type": "provider_overloaded"}}}, "server"),
    ({"id": "1", "choices": None, "error": {"message": "no", "type": "upstream_error", "code": None}}, "server"),
    ({"id": "1", "choices": [], "base_resp": {"status_code": 1008, "status_msg": "balance"}}, "auth"),  # MiniMax
]
