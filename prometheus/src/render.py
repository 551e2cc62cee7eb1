"""Renders the templates of rules and unit tests with the values of slo.toml.

They are YAML with two additions of Jinja's: `${expression}`, and lines that begin with `#%` (for, if, set, endfor ...).
Besides the names below they may use every function of `FORMATS`, which format numbers like Prometheus' functions of
the same names in annotations.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import yaml

from . import recorded
from .filling import FILLINGS
from .settings import SETTINGS, UNITS, Settings, SettingsError, examples, seconds

SOURCES = Path(__file__).resolve().parent
HOME = SOURCES.parent
KINDS = ("rules", "tests")
WORDS = {"m": "minute", "h": "hour", "d": "day"}


def humanize_percentage(value: float) -> str:
    """0.1234 -> 12.34%."""
    return f"{value * 100:.4g}%"


def humanize(value: float) -> str:
    """1234 -> 1.234k, 0.21 -> 210m; from a millionth up."""
    if 0 < abs(value) < 1:
        return f"{value * 1e3:.4g}m" if abs(value) >= 1e-3 else f"{value * 1e6:.4g}u"
    for prefix in ("", "k", "M"):
        if abs(value) < 1000:
            return f"{value:.4g}{prefix}"
        value /= 1000
    return f"{value:.4g}G"


def humanize_duration(value: float) -> str:
    """0.25 -> 250ms, 0.6125 -> 612.5ms, 23.04 -> 23.04s, 380 -> 6m 20s."""
    if value < 1:
        return f"{value * 1000:.4g}ms"
    if value < 60:
        return f"{value:.4g}s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number}{unit}" for number, unit in parts[first:])


def words(duration: str) -> str:
    """1h -> hour, 30m -> 30 minutes, 3d -> 3 days: what follows on "the last"."""
    number, unit = int(duration[:-1]), WORDS[duration[-1]]
    return unit if number == 1 else f"{number} {unit}s"


def lasts(budget_days: int, factor: float) -> str:
    """How long a budget of so many days lasts at a burn rate: 30 at 14.4 -> 2.1 days, at 100 -> 7.2 hours."""
    days = budget_days / factor
    return f"{days:.3g} days" if days >= 1 else f"{24 * days:.2g} hours"


def mean(pieces: list[tuple[float, float]], span: str) -> float:
    """Mean over the last `span` of what had `value` until `age` seconds ago: [(age, value), ...], youngest first."""
    total, before = 0.0, 0.0
    for age, value in pieces:
        total += value * max(min(age, seconds(span)) - before, 0)
        before = age
    return total / seconds(span)


def flat(value: float) -> float:
    """Where a counter stays after steps of fractions: a hair more, as their sum may be rounded up; less is a reset."""
    return value * (1 + 1e-9)


def links(alert: str, dashboard: str) -> str:
    """The annotations with links to an alert's runbook and dashboard; empty if the base URLs are not set."""
    runbook = f'runbook_url: "{{{{ with $externalLabels.runbooks_url }}}}{{{{ . }}}}/{alert}.md{{{{ end }}}}"'
    url = f'dashboard_url: "{{{{ with $externalLabels.grafana_url }}}}{{{{ . }}}}/d/sightline-{dashboard}{{{{ end }}}}"'
    return f"{runbook}\n          {url}"


def plain(value: Any) -> Any:
    """Numbers without the noise of binary fractions: 0.1 + 0.2 is 0.3, 300.0 is 300."""
    return f"{value:.12g}" if isinstance(value, float) else value


FORMATS = {
    "humanize": humanize,
    "humanizePercentage": humanize_percentage,
    "humanizeDuration": humanize_duration,
    "words": words,
    "examples": examples,
    "mean": mean,
    "flat": flat,
    "links": links,
    "seconds": seconds,
}


def rendered(settings: Settings = SETTINGS) -> dict[str, str]:
    """`rules/http.yml` and so on -> content.

    Raises:
        SettingsError: templates that become no YAML or name a setting that slo.toml lacks, thresholds that none reads;
            a line for each.
    """
    environment = jinja2.Environment(  # noqa: S701  YAML of our own, no HTML
        loader=jinja2.FileSystemLoader(SOURCES),
        undefined=jinja2.StrictUndefined,
        variable_start_string="${",
        variable_end_string="}",
        line_statement_prefix="#%",
        block_start_string="{%",  # Jinja's other delimiters do not occur in rules
        comment_start_string="{#%",
        comment_end_string="%#}",
        keep_trailing_newline=True,
        finalize=plain,
    )
    names: dict[str, Any] = {
        **FORMATS,
        "settings": settings,
        "t": settings.thresholds,
        "lasts": partial(lasts, settings.budget_days),
        "slos": list(settings.objectives.values()),
        "windows": settings.windows,
        "fillings": FILLINGS,
        "UNITS": UNITS,
    }
    files = {"rules/dashboards.yml": recorded.rules_file()}
    mistakes = []
    for kind in KINDS:
        for source in sorted((SOURCES / kind).glob("*.yml")):
            name = f"{kind}/{source.name}"
            try:
                text = environment.get_template(name).render(names)
                yaml.load(text, yaml.CSafeLoader)
            except yaml.MarkedYAMLError as error:
                line = text.splitlines()[error.problem_mark.line] if error.problem_mark else ""
                mistakes.append(f"prometheus/src/{name} is no YAML: {error.problem}, at {line.strip()!r}")
            except jinja2.TemplateError as error:
                line = f", line {error.lineno}," if isinstance(error, jinja2.TemplateSyntaxError) else ""
                mistakes.append(f"prometheus/src/{name}{line} cannot be rendered: {error}")
            except SettingsError as error:
                mistakes.append(str(error))
            else:
                head = f"# Generated by `make generate` from prometheus/src/{name} and prometheus/slo.toml."
                files[name] = f"{head}\n{text}"
    if not mistakes:
        unread = sorted(settings.thresholds.unread)
        mistakes = [f"thresholds.{name} is unknown: no rule in prometheus/src/rules reads it" for name in unread]
    if mistakes:
        raise SettingsError("\n".join(dict.fromkeys(mistakes)))  # rule and unit test may have the same
    return files


def configured(text: str, settings: Settings = SETTINGS) -> str:
    """The text of prometheus.yml with the endpoints of slo.toml in the relabelling of the job `app`, if it has any.

    Raises:
        SettingsError: a rule that drops by these endpoints is not written as expected.
    """
    for name, mark, value, after in (
        ("ignored", "[endpoint, __name__]", f"(?:{settings.ignored})", ";http_"),
        ("streaming", "target_label: __tmp_streams", settings.streaming, '"\n        target_label: __tmp_streams'),
    ):
        expected = re.compile(f'(?<=regex: ")[^"\\n]*(?={re.escape(after)})')
        if len(expected.findall(text)) != text.count(mark):
            raise SettingsError(f"the rule with `{mark}` in prometheus.yml has no place for endpoints.{name}")
        text = expected.sub(value, text)  # without backslashes: settings.py
    return text
