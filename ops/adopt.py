"""`make adopt TARGET=...`: copy pieces into another service, and say what is to be done there.

Nothing is overwritten unless OVERWRITE=1 says so: a file that is already there and differs is named, and nothing at all
is copied. Standard library only.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ops.errors import OpsError
from ops.paths import PROJECT


@dataclass(frozen=True)
class Piece:
    """Something that people copy: files (globs from the project's root), where they go, what is to be done then."""

    what: str
    files: tuple[str, ...]
    source: str
    destination: str
    then: str
    beside: str = ""
    """A file from elsewhere in the project that goes with them."""


TELEMETRY = "app/telemetry"
COMMON = ("__init__.py", "py.typed", "install.py", "exposition/*.py", "storage/*.py")
PIECES = {
    "middleware": Piece(
        "HTTP metrics and /metrics, exact with several workers",
        (*COMMON, "http/*.py"),
        TELEMETRY,
        "{package}",
        "app.add_middleware(PrometheusMiddleware) and the /metrics route (docs/adopt.md, Middleware)",
    ),
    "llm": Piece(
        "tokens, latency, errors and cost of LLM calls",
        (*COMMON, "llm/*.py"),
        TELEMETRY,
        "{package}",
        "set the prices, wrap each call of a model (docs/adopt.md, LLM calls)",
        beside="app/llm/prices.toml",
    ),
    "database": Piece(
        "queries, transactions and the pool of a SQLAlchemy engine",
        (*COMMON, "database/*.py"),
        TELEMETRY,
        "{package}",
        "instrument_engine(engine) after the engine is made (docs/adopt.md, Database)",
    ),
    "users": Piece(
        "active users, distinct, without keeping an identifier",
        (*COMMON, "users.py"),
        TELEMETRY,
        "{package}",
        "tell it who is signed in (docs/adopt.md, Active users)",
    ),
    "prometheus": Piece(
        "scrape configuration, recording rules, SLOs, alerts and their unit tests",
        ("prometheus.yml", "targets/*.yml", "rules/*.yml", "tests/*.yml", "secrets/.gitignore"),
        "prometheus",
        "monitoring/prometheus",
        "put your addresses into targets/*.yml and a token into secrets/ (docs/adopt.md, Prometheus)",
    ),
    "alertmanager": Piece(
        "routes, grouping, inhibition, receivers and templates",
        ("alertmanager.yml", "templates/*", "secrets/.gitignore"),
        "alertmanager",
        "monitoring/alertmanager",
        "switch on a receiver (docs/adopt.md, Alertmanager)",
    ),
    "dashboards": Piece(
        "seven Grafana dashboards and their provisioning",
        ("dashboards/*.json", "provisioning/**/*.y*ml"),
        "grafana",
        "monitoring/grafana",
        "mount both folders into Grafana, or import the JSON (docs/adopt.md, Dashboards)",
    ),
    "runbooks": Piece(
        "a page for each alert",
        ("*.md",),
        "docs/runbooks",
        "monitoring/runbooks",
        "let Prometheus serve them: --web.user-assets (docs/adopt.md, Prometheus)",
    ),
}


def plan(pieces: list[str], target: Path, package: str) -> dict[Path, Path]:
    """Which file goes where: destination to source, both absolute."""
    copies: dict[Path, Path] = {}
    for name in pieces:
        piece = PIECES[name]
        destination = target / piece.destination.format(package=package)
        if piece.beside:
            copies[destination / Path(piece.beside).name] = PROJECT / piece.beside
        for pattern in piece.files:
            sources = sorted(path for path in (PROJECT / piece.source).glob(pattern) if path.is_file())
            if not sources:
                raise FileNotFoundError(f"{piece.source}/{pattern}")
            for source in sources:
                copies[destination / source.relative_to(PROJECT / piece.source)] = source
    return copies


def misplaced(target: Path, package: Path) -> str | None:
    """Why the modules can't live in this folder of the service, None if they can."""
    folder = target / package
    module = folder.with_name(f"{folder.name}.py")
    if module.exists():
        return (
            f"PACKAGE={package}: {module} is there, and Python would import the folder in its place. Name another one."
        )
    shared = folder.is_dir() and not (folder / "__init__.py").exists() and any(folder.rglob("*.py"))
    if folder == target or shared:
        return (
            f"PACKAGE={package}: imports may begin in that folder, and http in it would hide Python's own http."
            f" Name a folder for these modules alone, such as {package / 'telemetry'}."
        )
    return None


def _copy(target: Path, pieces: list[str], package: str, overwrite: bool) -> None:
    """Copy. Raises OpsError that names what stands in the way; then nothing was copied."""
    copies = plan(pieces, target, package)
    above = {folder for destination in copies for folder in destination.parents if target in folder.parents}
    if files := sorted(folder for folder in above if folder.exists() and not folder.is_dir()):
        listed = "\n".join(f"  {file}" for file in files)
        raise OpsError(f"Nothing was copied. These are files, and folders are wanted there:\n{listed}")
    differing = [
        destination
        for destination, source in copies.items()
        if destination.exists() and (not destination.is_file() or destination.read_bytes() != source.read_bytes())
    ]
    if differing and not overwrite:
        listed = "\n".join(f"  {destination}" for destination in differing)
        raise OpsError(
            f"Nothing was copied. These are already there and differ:\n{listed}\n"
            "OVERWRITE=1 replaces them; your version control keeps what they were."
        )
    for destination, source in copies.items():
        verb = "replace" if destination in differing else "keep" if destination.exists() else "copy"
        print(f"  {verb:<8}{destination}")
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    print("\nWhat is to be done now:")
    for name in pieces:
        print(f"  {name:<14}{PIECES[name].then}")


def adopt(folder: str, pieces: str, package: str, overwrite: bool) -> None:
    """Copy `pieces` (names, separated by blanks or commas; none: all) into the service in `folder`.

    Raises OpsError where that can't be; then nothing was copied.
    """
    if not folder:
        raise OpsError("TARGET= names the folder of your service.")
    names = pieces.replace(",", " ").split() or list(PIECES)
    package = package or "telemetry"
    if unknown := [name for name in names if name not in PIECES]:
        raise OpsError(f"No such piece: {', '.join(unknown)}. There are {', '.join(PIECES)}.")
    target = Path(folder).resolve()
    if not target.is_dir():
        raise OpsError(f"{folder} is not a folder. TARGET= names the folder of your service.")
    if target == PROJECT or PROJECT in target.parents:
        raise OpsError("TARGET is inside this project; name the folder of your own service.")
    if Path(package).is_absolute() or ".." in Path(package).parts:
        raise OpsError("PACKAGE is a folder inside TARGET, such as src/myservice/telemetry.")
    if any(PIECES[name].source == TELEMETRY for name in names) and (reason := misplaced(target, Path(package))):
        raise OpsError(reason)
    _copy(target, names, package, overwrite)
