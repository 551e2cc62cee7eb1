"""Every recorded shape, whole, streamed and cut at every event, as dicts and as objects of the real SDKs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.telemetry import llm as telemetry
from app.telemetry.llm import Call, Usage, track_call
from tests.telemetry.llm.fake_provider import Body, FakeProvider, Reply
from tests.telemetry.llm.measured import PRICE, measured_alone
from tests.telemetry.llm.sdks import anthropic, openai
from tests.telemetry.llm.shapes import CHAT, EVERY
from tests.telemetry.llm.shapes.anthropic import ANTHROPIC
from tests.telemetry.llm.shapes.errors import ERRORS
from tests.telemetry.llm.shapes.responses import RESPONSES
from tests.telemetry.llm.shapes.shape import Shape

PROVIDER = "openai"
_numbers = itertools.count()
OVER_THE_WIRE = (*CHAT, *RESPONSES, *ANTHROPIC)


@pytest.fixture
def model() -> str:
    """A model whose series begin with its first call: a thousand of them stay small."""
    name = f"shape-{next(_numbers)}"
    telemetry.configure({}, {(PROVIDER, name): PRICE})
    return name


def found(model: str, call: Call) -> dict[str, Any]:
    """What the metrics say of one call, in the terms of a Shape."""
    numbers = measured_alone(PROVIDER, model)

    def label(metric: str, name: str) -> tuple[str, ...]:
        begin = f"{metric}{{{name}="
        return tuple(sorted(key.removeprefix(begin)[:-1] for key in numbers if key.startswith(begin)))

    (outcome,) = {key.split("outcome=")[1][:-1] for key in numbers if key.startswith("llm_requests_total")}
    usage = call.usage
    if usage is not None:
        assert numbers.get("llm_tokens_total{type=input}", 0) == usage.input_tokens
        assert numbers.get("llm_tokens_total{type=output}", 0) == usage.output_tokens
        assert numbers.get("llm_cost_usd_total", 0) == pytest.approx(PRICE.cost(usage))
    else:
        assert "llm_tokens_total{type=input}" not in numbers
        assert "llm_cost_usd_total" not in numbers
    return {
        "outcome": outcome,
        "error": next(iter(label("llm_errors_total", "error_type")), None),
        "finish": label("llm_finish_reasons_total", "reason"),
        "missing": next(iter(label("llm_usage_missing_total", "reason")), None),
        "first_token": "llm_time_to_first_token_seconds_count" in numbers,
        "usage": usage,
    }


def truth(shape: Shape, **other: Any) -> dict[str, Any]:
    names = ("outcome", "error", "finish", "missing", "first_token", "usage")
    return {name: getattr(shape, name) for name in names} | other


def streamed(model: str, events: Any, error: BaseException | None = None) -> Call:
    def source() -> Iterator[Any]:
        yield from events
        if error is not None:
            raise error

    call = track_call(PROVIDER, model)
    try:
        with call:
            for _ in call.stream(source()):
                pass
    except type(error or KeyError()):
        assert error is not None
    return call


@pytest.mark.parametrize("shape", EVERY, ids=lambda shape: f"{shape.protocol}: {shape.name}")
def test_streamed_as_dicts(shape: Shape, model: str) -> None:
    call = streamed(model, shape.events)
    assert found(model, call) == truth(shape)
    assert call.error == shape.error


@pytest.mark.parametrize("shape", EVERY, ids=lambda shape: f"{shape.protocol}: {shape.name}")
def test_after_events_that_say_nothing(shape: Shape, model: str) -> None:
    """A first event decides nothing, whatever it is."""
    assert found(model, streamed(model, [None, {"data": None}, {"type": "ping"}, *shape.events])) == truth(shape)


@pytest.mark.parametrize(
    "shape", [shape for shape in EVERY if shape.whole], ids=lambda shape: f"{shape.protocol}: {shape.name}"
)
def test_whole_as_dict(shape: Shape, model: str) -> None:
    with track_call(PROVIDER, model) as call:
        call.record(shape.whole)
    assert found(model, call) == truth(shape, first_token=False)


@pytest.mark.parametrize(("body", "kind"), ERRORS, ids=lambda value: str(value)[:60])
def test_errors_with_status_200(body: Any, kind: str, model: str) -> None:
    with track_call(PROVIDER, model) as call:
        call.record(body)
    expected = {
        "outcome": "error",
        "error": kind,
        "finish": (),
        "missing": "error",
        "first_token": False,
        "usage": None,
    }
    assert found(model, call) == expected
    streamed(model, [body])
    assert measured_alone(PROVIDER, model)[f"llm_errors_total{{error_type={kind}}}"] == 2


# By the real SDKs, over real sockets


def request(shape: Shape, fake: FakeProvider, stream: bool) -> Callable[[], Any]:
    if shape.protocol == "anthropic":
        claude = anthropic.Anthropic(api_key="k", base_url=fake.anthropic_url, max_retries=0)
        messages: Any = [{"role": "user", "content": "Hi"}]
        return lambda: claude.messages.create(model="m", max_tokens=9, messages=messages, stream=stream)
    client = openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0)
    if shape.protocol == "responses":
        return lambda: client.responses.create(model="m", input="Hi", stream=stream)
    hello: Any = [{"role": "user", "content": "Hi"}]
    return lambda: client.chat.completions.create(model="m", messages=hello, stream=stream)


def encoded(shape: Shape) -> list[tuple[str | None, Body | str]]:
    events: list[tuple[str | None, Body | str]] = [
        (event["type"] if shape.protocol in ("anthropic", "responses") else None, event) for event in shape.events
    ]
    return events if shape.protocol == "anthropic" else [*events, (None, "[DONE]")]


@pytest.mark.parametrize("shape", OVER_THE_WIRE, ids=lambda shape: f"{shape.protocol}: {shape.name}")
def test_streamed_by_the_sdk(shape: Shape, fake: FakeProvider, model: str) -> None:
    """As objects; where the SDK raises for an error inside the stream, the result is the same."""
    fake.replies = [Reply(events=encoded(shape))]
    call = track_call(PROVIDER, model)
    raised = None
    try:
        with call:
            for _ in call.stream(request(shape, fake, stream=True)()):
                pass
    except (openai.APIError, anthropic.APIError) as error:
        raised = error
    expected = truth(shape)
    if raised is not None:  # before it hands the event on
        expected |= {"usage": expected["usage"] if shape.protocol == "anthropic" else None, "missing": "error"}
        assert shape.outcome == "error"
        expected["finish"] = ()
    assert found(model, call) == expected


@pytest.mark.parametrize(
    "shape", [shape for shape in OVER_THE_WIRE if shape.whole], ids=lambda shape: f"{shape.protocol}: {shape.name}"
)
@pytest.mark.parametrize("raw", [False, True])
def test_whole_by_the_sdk(shape: Shape, raw: bool, fake: FakeProvider, model: str) -> None:
    """As objects, also inside `with_raw_response`."""
    fake.replies = [Reply(body=shape.whole)]
    with track_call(PROVIDER, model) as call:
        if raw:
            client = openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0)
            if shape.protocol == "responses":
                call.record(client.responses.with_raw_response.create(model="m", input="Hi"))
            else:
                call.record(client.chat.completions.with_raw_response.create(model="m", messages=[]))
        else:
            call.record(request(shape, fake, stream=False)())
    assert found(model, call) == truth(shape, first_token=False)


# Cut at every event


def never_silently_less(shape: Shape, got: dict[str, Any]) -> None:
    """What is counted is the truth, or the call is among those whose usage is missing; and nothing is invented."""
    counted: Usage = got["usage"] or Usage(0, 0)
    whole: Usage = shape.usage or Usage(0, 0)
    assert got["missing"] is not None or got["usage"] == shape.usage
    assert counted.input_tokens <= whole.input_tokens
    assert counted.output_tokens <= whole.output_tokens


ENDS = {
    "silence": None,
    "a broken connection": ConnectionResetError(),
    "the caller gives up": GeneratorExit(),
}


@pytest.mark.parametrize("end", ENDS, ids=str)
@pytest.mark.parametrize("shape", EVERY, ids=lambda shape: f"{shape.protocol}: {shape.name}")
def test_cut_at_every_event(shape: Shape, end: str, model: str) -> None:
    for cut in range(len(shape.events)):
        name = f"{model}-{cut}"
        telemetry.configure({}, {(PROVIDER, name): PRICE})
        got = found(name, streamed(name, shape.events[:cut], ENDS[end]))
        never_silently_less(shape, got)
        if not got["finish"] and shape.outcome == "success" and cut < len(shape.events) - 1:
            assert got["outcome"] != "success", cut


def as_objects(shape: Shape) -> list[Any]:
    """The events as one SDK's objects."""
    text = json.dumps(list(shape.events))
    kinds = {"chat": openai.types.chat.ChatCompletionChunk}
    return [kinds[shape.protocol].construct(**each) for each in json.loads(text)]


@pytest.mark.parametrize("shape", [each for each in CHAT if each.outcome != "error"], ids=lambda shape: shape.name)
def test_cut_at_every_event_as_objects(shape: Shape, model: str) -> None:
    """Mixed with dicts, as nothing depends on what came before."""
    objects = as_objects(shape)
    for cut in range(len(objects) + 1):
        name = f"{model}-{cut}"
        telemetry.configure({}, {(PROVIDER, name): PRICE})
        mixed = [objects[at] if at % 2 else shape.events[at] for at in range(cut)]
        never_silently_less(shape, found(name, streamed(name, mixed)))
    telemetry.configure({}, {(PROVIDER, model): PRICE})
    assert found(model, streamed(model, objects)) == truth(shape)
