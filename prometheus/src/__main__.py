"""`python -m prometheus.src [--check]`: writes rules, unit tests and endpoints, or checks that they are up to date."""

from __future__ import annotations

import argparse
import sys

from app.telemetry.http.metrics import DURATION_BUCKETS

from .render import HOME, KINDS, configured, rendered
from .settings import SETTINGS, SettingsError

CONFIGURATION = "prometheus.yml"


def check_bounds() -> None:
    """Check that the latency bounds are bucket bounds of the histogram; otherwise no request would count as fast."""
    for name, value in (
        ("latency.seconds", SETTINGS.latency_seconds),
        ("latency.streaming_start_seconds", SETTINGS.start_seconds),
    ):
        if value not in DURATION_BUCKETS:
            raise SettingsError(f"{name} must be one of {', '.join(f'{bound:g}' for bound in DURATION_BUCKETS)}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m prometheus.src",
        description="Writes prometheus/{rules,tests} and the endpoints in prometheus.yml.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    check = parser.parse_args().check
    try:
        check_bounds()
        configuration = (HOME / CONFIGURATION).read_text(encoding="utf-8")
        wanted = {**rendered(), CONFIGURATION: configured(configuration)}
    except SettingsError as error:
        for mistake in str(error).splitlines():
            file = "" if mistake.startswith("prometheus/") else "prometheus/slo.toml: "
            print(f"{file}{mistake}", file=sys.stderr)
        return 1
    present = {
        f"{kind}/{file.name}": file.read_text(encoding="utf-8")
        for kind in KINDS
        for file in (HOME / kind).glob("*.yml")
    } | {CONFIGURATION: configuration}
    if check:
        stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
        if stale:
            print(f"Not up to date in prometheus: {', '.join(stale)}. Run: make generate", file=sys.stderr)
        return bool(stale)
    for name in present.keys() - wanted.keys():
        (HOME / name).unlink()
    for name, content in wanted.items():
        (HOME / name).parent.mkdir(exist_ok=True)
        (HOME / name).write_text(content, encoding="utf-8")
    print(f"Wrote {len(wanted)} files to prometheus")
    return 0


if __name__ == "__main__":
    sys.exit(main())
