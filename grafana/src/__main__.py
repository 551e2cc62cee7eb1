"""`python -m grafana.src [--check]`: writes the dashboards, or checks that the committed ones are up to date."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from .dashboards import MODULES
from .errors import DashboardError

FOLDER = Path(__file__).parent.parent / "dashboards"


def rendered() -> dict[str, str]:
    """File name -> content of every dashboard.

    Raises:
        DashboardError: source files make no dashboard; a line for each mistake.
    """
    files, mistakes = {}, []
    for module in MODULES:
        try:  # a mistake in a panel shows when its module is read
            dashboard = import_module(f".{module}", __package__).DASHBOARD
            content = json.dumps(dashboard.to_json(), indent=2) + "\n"
        except DashboardError as error:
            mistakes.append(str(error))
        else:
            files[f"{dashboard.uid.removeprefix('sightline-')}.json"] = content
    if mistakes:
        raise DashboardError("\n".join(dict.fromkeys(mistakes)))  # several may have the same panel
    return files


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.src", description="Write grafana/dashboards/*.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    check = parser.parse_args().check
    try:
        wanted = rendered()
    except DashboardError as error:
        for mistake in str(error).splitlines():
            print(f"grafana/src: {mistake}", file=sys.stderr)
        return 1
    present = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if check:
        stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
        if stale:
            print(f"Not up to date in grafana/dashboards: {', '.join(stale)}. Run: make generate", file=sys.stderr)
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for name in present.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, content in wanted.items():
        (FOLDER / name).write_text(content, encoding="utf-8")
    print(f"Wrote {len(wanted)} dashboards to grafana/dashboards")
    return 0


if __name__ == "__main__":
    sys.exit(main())
