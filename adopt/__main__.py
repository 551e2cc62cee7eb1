"""`python -m adopt TARGET`: copy pieces into another service, and say what is to be done there.

Nothing is overwritten unless `--overwrite` says so: a file that is already there and differs is named, nothing at all
is copied, and the exit code is 1.
"""

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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
            copies[destination / Path(piece.beside).name] = ROOT / piece.beside
        for pattern in piece.files:
            sources = sorted(path for path in (ROOT / piece.source).glob(pattern) if path.is_file())
            if not sources:
                raise FileNotFoundError(f"{piece.source}/{pattern}")
            for source in sources:
                copies[destination / source.relative_to(ROOT / piece.source)] = source
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


def adopt(target: Path, pieces: list[str], package: str, overwrite: bool) -> int:
    """Copy, or name what stands in the way.

    Returns:
        The exit code: 0 copied, 1 nothing copied.
    """
    copies = plan(pieces, target, package)
    above = {folder for destination in copies for folder in destination.parents if target in folder.parents}
    if files := sorted(folder for folder in above if folder.exists() and not folder.is_dir()):
        print("Nothing was copied. These are files, and folders are wanted there:", file=sys.stderr)
        print("\n".join(f"  {file}" for file in files), file=sys.stderr)
        return 1
    differing = [
        destination
        for destination, source in copies.items()
        if destination.exists() and (not destination.is_file() or destination.read_bytes() != source.read_bytes())
    ]
    if differing and not overwrite:
        print("Nothing was copied. These are already there and differ:", file=sys.stderr)
        for destination in differing:
            print(f"  {destination}", file=sys.stderr)
        print("OVERWRITE=1 replaces them; your version control keeps what they were.", file=sys.stderr)
        return 1
    for destination, source in copies.items():
        verb = "replace" if destination in differing else "keep" if destination.exists() else "copy"
        print(f"  {verb:<8}{destination}")
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    print("\nWhat is to be done now:")
    for name in pieces:
        print(f"  {name:<14}{PIECES[name].then}")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="adopt",
        description="Copy pieces of the project into a service.",
        epilog="Pieces: " + "; ".join(f"{name}: {piece.what}" for name, piece in PIECES.items()),
    )
    parser.add_argument("target", type=Path, help="the service's folder")
    parser.add_argument("--pieces", default=" ".join(PIECES), help="which ones, separated by spaces (default: all)")
    parser.add_argument("--package", default="telemetry", help="folder for the Python modules, inside the target")
    parser.add_argument("--overwrite", action="store_true", help="replace files that differ")
    arguments = parser.parse_args()
    pieces = arguments.pieces.replace(",", " ").split()
    if unknown := [name for name in pieces if name not in PIECES]:
        sys.exit(f"adopt: no such piece: {', '.join(unknown)}. There are {', '.join(PIECES)}.")
    target = arguments.target.resolve()
    if not target.is_dir():
        sys.exit(f"adopt: {arguments.target} is not a folder. TARGET= names the folder of your service.")
    if target == ROOT or ROOT in target.parents:
        sys.exit("adopt: TARGET is inside this project; name the folder of your own service.")
    package = Path(arguments.package)
    if package.is_absolute() or ".." in package.parts:
        sys.exit("adopt: PACKAGE is a folder inside TARGET, such as src/myservice/telemetry.")
    modules = any(PIECES[name].source == TELEMETRY for name in pieces)
    if modules and (reason := misplaced(target, package)):
        sys.exit(f"adopt: {reason}")
    try:
        sys.exit(adopt(target, pieces, arguments.package, arguments.overwrite))
    except OSError as error:
        sys.exit(f"adopt: {error}")


if __name__ == "__main__":
    main()
