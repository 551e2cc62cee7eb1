"""Settings of a load test and the shapes of load: no server needed."""

import re
from pathlib import Path

import pytest

from loadtest import settings
from loadtest.settings import SHAPES, SettingError, Settings, duration_seconds
from loadtest.shapes import STEPS, step_at, users_at


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h0m1s", 3601), (" 2m ", 120)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 m", "-5m", "1d", "five", "1.5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration_seconds(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USERS", "0"),
        ("USERS", "many"),
        ("USERS", "20000"),
        ("DURATION", "1s"),
        ("DURATION", "2d"),
        ("SHAPE", "wave"),
        ("HOST", "localhost"),
        ("HOST", "localhost:8000"),
        ("HOST", "http://"),
        ("HOST", "http://localhost:abc"),
        ("HOST", "http://[::1"),
        ("HOST", "http://local host"),
        ("APP_PORT", "abc"),
        ("THINK", "3-1"),
        ("THINK", "1"),
        ("WEIGHTS", "sleep=1"),
        ("WEIGHTS", "browse=0,write=0,chat=0,stream=0,abandon=0"),
        ("WEIGHTS", "browse=-1"),
        ("LOCUST_METRICS_PORT", "70000"),
        ("LOCUST_PORT", "page"),
        ("WORKERS", "all"),
        ("WORKERS", "0"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name):
        Settings.from_environment({name: value})


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {"APP_PORT": "8100", "USERS": "7", "DURATION": "1m", "THINK": "0-1", "WEIGHTS": "chat=0,abandon=3"}
    )
    assert settings.host == "http://127.0.0.1:8100"
    assert (settings.users, settings.duration, settings.think_min, settings.think_max) == (7, 60, 0, 1)
    assert settings.weights["chat"] == 0
    assert settings.weights["abandon"] == 3
    assert Settings.from_environment({"SHAPE": "soak"}).duration == 3600


def test_the_page_on_load_tests_has_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "loadtest.md").read_text()
    rows = re.findall(r"^\| (`[A-Z].*?) \| (.*?) \|", page, re.MULTILINE)
    defaults = dict(rows)
    read = re.findall(r'take\("(\w+)"|environ\.get\("(\w+)"', Path(settings.__file__).read_text())
    own = {name for pair in read for name in pair if name} - {"APP_PORT", "LOCUST_METRICS_HOST"}  # the stack's
    assert own == set(re.findall(r"`(\w+)`", " ".join(defaults)))
    given = {
        name: defaults[f"`{name}`"].split(",")[0].strip("`")
        for name in ("USERS", "DURATION", "SHAPE", "WORKERS", "THINK")
    }
    given["WEIGHTS"] = defaults["`WEIGHTS`"].strip("`")
    assert Settings.from_environment(given) == Settings.from_environment({})
    assert float(defaults["`LOADTEST_LINGER`"]) == Settings().linger
    for shape in SHAPES:
        assert f"`{shape}`" in page


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_begins_reaches_all_users_and_ends(shape: str) -> None:
    settings = Settings(users=50, duration=100, shape=shape)
    wanted = [users_at(settings, second) for second in range(100)]
    assert all(users is not None and 1 <= users <= 50 for users in wanted)
    assert max(users for users in wanted if users) == 50
    assert users_at(settings, 100) is None


def test_shapes_differ_where_they_must() -> None:
    def at(shape: str, second: float) -> int | None:
        return users_at(Settings(users=100, duration=100, shape=shape), second)

    assert [at("spike", second) for second in (10, 50, 90)] == [20, 100, 20]
    assert [at("steady", second) for second in (5, 10, 99)] == [50, 100, 100]
    assert [at("ramp", second) for second in (25, 50, 75)] == [25, 50, 75]
    assert [at("step", second) for second in (0, 15, 99)] == [10, 20, 100]
    step = Settings(users=100, duration=100, shape="step")
    assert [step_at(step, second) for second in (0, 99, 100)] == [0, STEPS - 1, STEPS]
