"""What providers and gateways really send, and the truth about it. Sources: docs/llm-providers.md."""

from __future__ import annotations

from tests.telemetry.llm.shapes.anthropic import ANTHROPIC
from tests.telemetry.llm.shapes.bedrock import CONVERSE
from tests.telemetry.llm.shapes.chat import USAGES
from tests.telemetry.llm.shapes.chat_streams import STREAMS
from tests.telemetry.llm.shapes.responses import RESPONSES

CHAT = [*USAGES, *STREAMS]
EVERY = [*CHAT, *RESPONSES, *ANTHROPIC, *CONVERSE]
