"""`make adopt TARGET=...`: copy pieces into another service, and list the next steps.

Nothing is overwritten unless OVERWRITE=1: a file that exists and differs is named, and nothing at all is copied. No
symbolic link leads anything out of the target. Standard library only.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ops import configs
from ops.errors import OpsError
from ops.paths import PROJECT

LISTED = 10  # files that a message lists at most


@dataclass(frozen=True)
class Piece:
    """A set of files to copy, with what to do afterwards."""

    files: tuple[str, ...]
    """Globs, relative to `source`."""
    source: str
    destination: str
    then: str
    """The next step, for the list at the end."""
    also: dict[str, str] = field(default_factory=dict)
    """Further files: name in the destination, path in this project."""


TELEMETRY = "app/telemetry"
COMMON = ("__init__.py", "py.typed", "install.py", "exposition/*.py", "storage/*.py")
SECRETS = {"secrets/.gitignore": "prometheus/secrets/.gitignore"}


def _module(files: str, then: str, also: dict[str, str] | None = None) -> Piece:
    """A part of app/telemetry, with what all parts need."""
    return Piece((*COMMON, files), TELEMETRY, "{package}", then, also or {})


PIECES = {
    "middleware": _module("http/*.py", "add PrometheusMiddleware and the /metrics route (docs/adopt.md, Middleware)"),
    "database": _module(
        "database/*.py", "call instrument_engine(engine) after the engine is created (docs/adopt.md, Database)"
    ),
    "users": _module("users*.py", "pass the authenticated user on (docs/adopt.md, Active users)"),
    "llm": _module(
        "llm/**/*.py",
        "set models and prices, wrap each call (docs/adopt.md, LLM calls)",
        {"prices.toml": "app/llm/prices.toml"},
    ),
    "prometheus": Piece(
        ("prometheus.yml", "targets/*.yml", "rules/*.yml", "tests/*.yml", "secrets/.gitignore"),
        "prometheus",
        "monitoring/prometheus",
        "write your addresses into targets/*.yml, create the token (docs/adopt.md, Prometheus)",
    ),
    "postgres": Piece(
        ("exporter.args", "exporter-role.sql"),
        "postgres",
        "monitoring/postgres",
        "create the exporter's role, start the exporter (docs/adopt.md, Database)",
        SECRETS,
    ),
    "alertmanager": Piece(
        ("alertmanager.yml", "templates/*", "secrets/.gitignore"),
        "alertmanager",
        "monitoring/alertmanager",
        "switch a receiver on (docs/adopt.md, Alertmanager)",
    ),
    "dashboards": Piece(
        ("dashboards/*.json", "provisioning/*/sightline.yml"),
        "grafana",
        "monitoring/grafana",
        "mount both folders into Grafana, or import the JSON (docs/adopt.md, Dashboards)",
    ),
    "runbooks": Piece(
        ("*.md",),
        "docs/runbooks",
        "monitoring/runbooks",
        "serve them from Prometheus: --web.user-assets (docs/adopt.md, Prometheus)",
    ),
}

SOURCES = "grafana/provisioning/datasources/sightline.yml"
# What is this project's own in the files: (files, text, text for the adopting service). Grafana overwrites a data
# source of the same name, and does not start with two defaults.
REPLACED = (
    (SOURCES, "name: Prometheus\n    uid: prometheus\n", "name: Sightline Prometheus\n    uid: sightline-prometheus\n"),
    (SOURCES, "isDefault: true", "isDefault: false"),
    (SOURCES, "alertmanagerUid: alertmanager\n", "alertmanagerUid: sightline-alertmanager\n"),
    (
        SOURCES,
        "name: Alertmanager\n    uid: alertmanager\n",
        "name: Sightline Alertmanager\n    uid: sightline-alertmanager\n",
    ),
    ("prometheus/prometheus.yml", "job_name: app\n", "job_name: {service}\n"),
    ("prometheus/prometheus.yml", "replacement: sightline\n", "replacement: {service}\n"),
    ("docs/runbooks/*.md", 'job="app"', 'job="{service}"'),
)


def plan(pieces: list[str], target: Path, package: str, service: str) -> dict[Path, bytes]:
    """What to write: absolute path to content."""
    sources: dict[Path, Path] = {}
    for name in pieces:
        piece = PIECES[name]
        destination = target / piece.destination.format(package=package)
        sources |= {destination / file: PROJECT / source for file, source in piece.also.items()}
        for pattern in piece.files:
            found = sorted(path for path in (PROJECT / piece.source).glob(pattern) if path.is_file())
            if not found:
                raise FileNotFoundError(f"{piece.source}/{pattern}")
            sources |= {destination / source.relative_to(PROJECT / piece.source): source for source in found}
    return {destination: _content(source, service) for destination, source in sources.items()}


def _content(source: Path, service: str) -> bytes:
    content = source.read_bytes()
    if source.name == "prometheus.yml":
        content = configs.without_dns(content.decode()).encode()  # of the stack's own containers
    for files, ours, theirs in REPLACED:
        if source.relative_to(PROJECT).match(files):
            content = content.replace(ours.encode(), theirs.format(service=service).encode())
    return content


def misplaced(target: Path, package: Path) -> str | None:
    """Why the modules cannot be in this folder of the service, None if they can."""
    folder = target / package
    module = folder.with_suffix(".py")
    modules = folder.is_dir() and any(folder.glob("*.py"))
    advice = f"Choose a folder for these modules alone, such as PACKAGE={_free(target, package)}."
    if folder == target or (modules and not (folder / "__init__.py").exists()):
        return f"PACKAGE={package}: on the import path, its http would hide the standard library's http. {advice}"
    if not package.name.isidentifier() or keyword.iskeyword(package.name):
        name = re.sub(r"^(?=\d)|\W", "_", package.name) + "_" * keyword.iskeyword(package.name)
        return f"Python cannot import a package named {package.name!r}. Use PACKAGE={package.with_name(name)}."
    if package.name in sys.stdlib_module_names and not (folder.parent / "__init__.py").exists():
        return f"PACKAGE={package}: the standard library has a module of the same name. {advice}"
    if module.exists():
        return f"{module} exists, and Python would import the folder {package.name} instead. {advice}"
    if modules and not _ours(folder):
        return f"PACKAGE={package} already is a package of your service. {advice}"
    return None


def _ours(folder: Path) -> bool:
    """Whether the folder contains an earlier copy of app/telemetry."""
    install = folder / "install.py"
    return install.is_file() and "sightline_telemetry" in install.read_text(errors="replace")


def _free(target: Path, package: Path) -> Path:
    names = ("telemetry", "sightline_telemetry", *(f"sightline_telemetry{number}" for number in range(2, 100)))
    taken = {path.stem for path in (target / package).iterdir()} if (target / package).is_dir() else set()
    parent = package if (target / package).is_dir() else package.parent
    return parent / next(name for name in names if name not in taken and name != package.name)


def _refuse(reason: str, files: list[Path], advice: str = "") -> OpsError:
    listed = [f"  {file}" for file in files[:LISTED]]
    if len(files) > LISTED:
        listed.append(f"  and {len(files) - LISTED} more")
    return OpsError("\n".join(["Nothing was copied. " + reason, *listed, *filter(None, [advice])]))


def _copy(target: Path, contents: dict[Path, bytes], overwrite: bool) -> Counter[str]:
    """Write the files.

    Returns:
        How many files each of "copied", "replaced" and "unchanged" counts.

    Raises:
        OpsError: something stands in the way; nothing was written.
    """
    if outside := sorted(file for file in contents if not file.resolve().is_relative_to(target)):
        raise _refuse("Symbolic links lead outside the target:", outside, "Remove the links, or copy fewer PIECES.")
    above = {folder for file in contents for folder in file.parents if target in folder.parents}
    if files := sorted(folder for folder in above if folder.exists() and not folder.is_dir()):
        raise _refuse("These are files where folders are needed:", files)
    if folders := sorted(file for file in contents if file.is_dir()):
        raise _refuse("These are folders where files are needed:", folders)
    differing = {file for file, content in contents.items() if file.exists() and file.read_bytes() != content}
    if differing and not overwrite:
        advice = "OVERWRITE=1 replaces them; commit them first."
        raise _refuse("These files exist and differ:", sorted(differing), advice)
    counts: Counter[str] = Counter()
    for file, content in contents.items():
        if file.exists() and file not in differing:
            counts["unchanged"] += 1
            continue
        counts["replaced" if file in differing else "copied"] += 1
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return counts


def adopt(folder: str, pieces: str, package: str, service: str, overwrite: bool) -> None:
    """Copy pieces into the service in `folder`, and print a summary and the next steps.

    Args:
        folder: the service's folder.
        pieces: names, separated by blanks or commas; empty: all.
        package: folder for the Python modules, inside `folder`; empty: telemetry.
        service: the service's name in Prometheus; empty: the name of `folder`.
        overwrite: replace files that differ.

    Raises:
        OpsError: an argument is not usable or something stands in the way; nothing was copied.
    """
    if not folder:
        raise OpsError("Set TARGET= to the folder of your service.")
    names = pieces.replace(",", " ").split() or list(PIECES)
    package = os.path.normpath(package or "telemetry")
    if unknown := [name for name in names if name not in PIECES]:
        raise OpsError(f"Unknown piece: {', '.join(unknown)}. Pieces are {', '.join(PIECES)}.")
    target = Path(folder).resolve()
    if not target.is_dir():
        raise OpsError(f"{folder} is not a folder. Set TARGET= to the folder of your service.")
    if target == PROJECT or PROJECT in target.parents:
        raise OpsError("TARGET is inside this project; choose the folder of your own service.")
    if Path(package).is_absolute() or ".." in Path(package).parts:
        raise OpsError("PACKAGE is a folder inside TARGET, such as src/myservice/telemetry.")
    if any(PIECES[name].source == TELEMETRY for name in names) and (reason := misplaced(target, Path(package))):
        raise OpsError(reason)
    service = service or target.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", service):
        usable = re.sub(r"[^A-Za-z0-9_.-]+", "-", service).strip("-_.") or "my-service"
        raise OpsError(
            f"The service cannot be called {service!r}: a name has letters, digits, dots, hyphens and underscores. "
            f"Use SERVICE={usable}."
        )
    contents = plan(names, target, package, service)
    counts = _copy(target, contents, overwrite)
    _report(target, names, package, contents, counts)


def _report(target: Path, names: list[str], package: str, contents: dict[Path, bytes], counts: Counter[str]) -> None:
    print(f"{target}: {', '.join(f'{count} files {what}' for what, count in counts.items())}")
    for destination in dict.fromkeys(PIECES[name].destination.format(package=package) for name in names):
        files = sum((target / destination) in file.parents for file in contents)
        print(f"  {files:>4}  {destination}")
    print("\nNext steps:")
    if any(PIECES[name].source == TELEMETRY for name in names):
        print(
            f"  {'dependency':<14}add prometheus-client>=0.19 to yours; exclude {package} from linters (docs/adopt.md)"
        )
    for name in names:
        print(f"  {name:<14}{PIECES[name].then}")
