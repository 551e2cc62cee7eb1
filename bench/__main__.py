"""Runs every bench and writes docs/benchmarks.md: `make bench`."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

BENCHES = {  # module, its title, and whether its output is Markdown already
    "bench_http": ("HTTP", True),
    "bench_database": ("Database", True),
    "bench_llm": ("LLM", False),
    "bench_users": ("Active users", True),
}
PACKAGES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "prometheus-client",
    "sqlalchemy",
    "prometheus-fastapi-instrumentator",
    "starlette-exporter",
    "starlette-prometheus",
    "aioprometheus",
    "opentelemetry-instrumentation-fastapi",
    "opentelemetry-instrumentation-sqlalchemy",
)
REPORT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main() -> int:
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    text = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Everything is measured in one run on one machine: the ratios are what carries over.",
        "",
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} cores, Python {platform.python_version()}: {versions}.",
    ]
    failed = []
    for module, (title, markdown) in BENCHES.items():
        print(f"{title} ...", flush=True)
        result = subprocess.run([sys.executable, "-m", f"bench.{module}"], capture_output=True, text=True)
        if result.returncode:
            failed.append(title)
        if result.returncode not in (0, 1) or "Traceback" in result.stderr:
            print(result.stderr, file=sys.stderr)
            print(f"bench.{module} did not finish; docs/benchmarks.md is left as it was", file=sys.stderr)
            return 2
        output = result.stdout.strip()
        print(output, result.stderr.strip(), sep="\n")
        text += ["", f"## {title}", "", output if markdown else f"```\n{output}\n```", ""]
        text.append(
            "All targets met." if not result.returncode else f"**NOT all met.** {result.stderr.strip()}".strip()
        )
    REPORT.write_text("\n".join(text) + "\n")
    if failed:
        print(f"Targets not met: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
