"""Runs every bench and writes docs/benchmarks.md: `make bench`; `make bench ONLY="HTTP"` measures one section anew."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

BENCHES = {  # title of a section: the module that prints it
    "HTTP": "bench_http",
    "Database": "bench_database",
    "LLM": "bench_llm",
    "Active users": "bench_users",
    "Over replicas": "bench_users_store",
    "Dashboards": "bench_dashboards",
    "Scale": "bench_scale",
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
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-fastapi",
    "opentelemetry-instrumentation-sqlalchemy",
)
REPORT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`. All values of a section are measured in one run on one machine: only ratios are comparable
between machines. A target is met only if the whole confidence interval meets it, beyond the noise.
"""


def machine() -> str:
    """What this ran on."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    try:
        valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True).stdout.strip()
    except OSError:
        valgrind = "no valgrind"
    name = processor[1] if processor else platform.machine()
    return (
        f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {valgrind}"
    )


def section(title: str) -> tuple[str, bool]:
    """Its text, and whether all its targets are met."""
    module = BENCHES[title]
    began = time.monotonic()
    result = subprocess.run([sys.executable, "-m", f"bench.{module}"], capture_output=True, text=True)
    said = result.stderr.strip()
    print(result.stdout.strip(), said, sep="\n", flush=True)
    when = f"{datetime.date.today().isoformat()}, in {time.monotonic() - began:.0f} seconds."
    if result.returncode not in (0, 1) or "Traceback" in said:
        print(f"bench.{module} did not finish", file=sys.stderr)
        return f"{when}\n\n**Did not finish:** `{said.splitlines()[-1] if said else result.returncode}`", False
    stretch = " but the stretch" if re.search(r"^\| Stretch.*\*\*", result.stdout, re.MULTILINE) else ""
    verdict = "**Not all targets are met.**" if result.returncode else f"All targets{stretch} are met."
    return f"{when}\n\n{result.stdout.strip()}\n\n{verdict}", result.returncode == 0


def main() -> int:
    only = " ".join(sys.argv[1:])
    wanted = [title for title in BENCHES if title.lower() in only.lower()] if only else list(BENCHES)
    if not wanted:
        print(f"There is no section {only}; the sections are {', '.join(BENCHES)}.", file=sys.stderr)
        return 2
    known = {}
    if REPORT.exists():
        known = dict(re.findall(r"(?ms)^## (.*?)\n\n(.*?)(?=^## |\Z)", REPORT.read_text()))
    failed = []
    for title in wanted:
        print(f"{title} ...", flush=True)
        known[title], met = section(title)
        failed += [] if met else [title]
        versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
        sections = [f"## {title}\n\n{known[title].strip()}\n" for title in BENCHES if title in known]
        REPORT.write_text("\n".join([HEAD, f"{machine()}; {versions}.\n", *sections]))
    if failed:
        print(f"Not all targets met: {', '.join(failed)}; see docs/benchmarks.md", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
