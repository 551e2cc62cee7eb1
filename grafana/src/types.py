"""`python -m grafana.src.types`: checks the committed dashboards against the types that Grafana itself publishes.

Each dashboard becomes a literal of TypeScript, with the dashboard, every panel's options and its field settings bound
to Grafana's types of that release: a field that a release does not know, or a value that it does not take, is an error
of the compiler. What a data source adds to queries and annotations is not typed there, and is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .__main__ import FOLDER

PACKAGES = FOLDER.parent / "types" / "node_modules"
KINDS = {
    "heatmap": "Heatmap",
    "state-timeline": "StateTimeline",
    "stat": "Stat",
    "table": "Table",
    "timeseries": "TimeSeries",
}
PROMETHEUS_ONLY = ("expr", "step", "titleFormat", "textFormat", "tagKeys", "useValueForTime")
# Grafana's enums are written as their values in JSON.
PLAIN = """type Plain<T> = unknown extends T ? T : T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;"""


def main() -> int:
    releases = sorted(PACKAGES.glob("grafana-*"))
    if not releases:
        print("Grafana's types are missing; `make dashboards-types` fetches them.", file=sys.stderr)
        return 1
    return max(check(release) for release in releases)


def check(release: Path) -> int:
    """Compiles all dashboards with the types of one release; prints what does not fit."""
    folder = PACKAGES / ".check" / release.name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*_imports(release), PLAIN]
    places: dict[int, str] = {}
    for file in sorted(FOLDER.glob("*.json")):
        for place, kind, value in _typed(file.stem, json.loads(file.read_text(encoding="utf-8"))):
            lines.append(f"({json.dumps(value)}) satisfies {kind};")
            places["\n".join(lines).count("\n") + 1] = place
    (folder / "check.ts").write_text("\n".join(lines), encoding="utf-8")
    options = {"strict": True, "noEmit": True, "skipLibCheck": True, "module": "esnext", "moduleResolution": "bundler"}
    index = next(
        path for path in (release / "dist/esm/index.d.mts", release / "dist/types/index.d.ts") if path.exists()
    )
    paths = {"@grafana/schema": [str(index)]}  # which the types of panels import
    config = {"compilerOptions": {**options, "types": [], "paths": paths}, "files": ["check.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(config), encoding="utf-8")
    compiler = [str(PACKAGES / ".bin" / "tsc"), "--pretty", "false", "-p", str(folder)]
    result = subprocess.run(compiler, capture_output=True, text=True)  # noqa: S603
    errors = [line for line in result.stdout.splitlines() if "error TS" in line]
    for error in errors:
        number = error.partition("(")[2].partition(",")[0]
        where = places.get(int(number), "") if number.isdecimal() else ""
        print(f"{release.name}: {where}: {error.partition(': ')[2][:300]}", file=sys.stderr)
    if result.returncode and not errors:
        print(result.stdout + result.stderr, file=sys.stderr)
    print(f"{release.name}: {len(places)} parts of the dashboards, {len(errors)} do not fit its types")
    return int(result.returncode != 0)


def _imports(release: Path) -> Iterator[str]:
    yield 'import type { Dashboard } from "@grafana/schema";'
    for kind, name in KINDS.items():
        found = release.glob(f"dist/**/raw/composable/{kind.replace('-', '')}/panelcfg/x/*.gen.d.ts")
        yield f'import type * as {name} from "{min(found).as_posix().removesuffix(".d.ts")}";'


def _typed(name: str, dashboard: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(where, its type, the value) of everything in a dashboard that has a type of its own."""
    for row in dashboard["panels"]:
        for panel in [row] if row["type"] != "row" else row["panels"]:
            place, kind = f"{name}: {panel['title']}", KINDS[panel["type"]]
            yield f"{place}: options", f"Plain<Partial<{kind}.Options>>", panel["options"]
            if custom := panel["fieldConfig"]["defaults"].get("custom"):
                yield f"{place}: custom", f"Plain<Partial<{kind}.FieldConfig>>", custom
            for override in panel["fieldConfig"]["overrides"]:
                for setting in override["properties"]:
                    if setting["id"].startswith("custom."):
                        own = {setting["id"].removeprefix("custom."): setting["value"]}
                        place_of_it = f"{place}: override of {override['matcher']['options']}"
                        yield place_of_it, f"Plain<Partial<{kind}.FieldConfig>>", own
    for annotation in dashboard["annotations"]["list"]:
        for field in PROMETHEUS_ONLY:
            annotation.pop(field, None)
        for field in ("expr", "interval"):
            annotation.get("target", {}).pop(field, None)
    yield name, "Plain<Dashboard>", dashboard


if __name__ == "__main__":
    sys.exit(main())
