"""`.env`, read as Docker Compose reads it. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ops.errors import OpsError

_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*"""
    r"""(?:'(?P<literal>[^']*)'|"(?P<quoted>[^"]*)"|(?P<bare>[^'"\s].*?|))(?:\s+\#.*|\s*)""",
    re.ASCII,
)
_NESTED = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"  # a default with a default that has another one
REFERENCE = re.compile(
    rf"\$(?:(?P<dollar>\$)|\{{(?P<braced>\w+)(?::?-(?P<default>{_NESTED}))?\}}|(?P<bare>[A-Za-z_]\w*))", re.ASCII
)


def read(file: Path, environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The settings in a file, and the names of those that it sets more than once.

    Raises:
        OpsError: it is not UTF-8 text, or a line sets nothing.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise OpsError(f"{file.name} is not UTF-8 text; save it as UTF-8.") from None
    if "\0" in text:
        raise OpsError(f"{file.name} contains NUL bytes; write it again as text.")
    pairs = _pairs(text, environment, file.name)
    names = [name for name, _ in pairs]
    return dict(pairs), tuple(sorted({name for name in names if names.count(name) > 1}))


def parse(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings in the text of a file. Values are quoted, or end at a space and a #; ${NAME} is expanded.

    Raises:
        OpsError: a line sets nothing; names file and line.
    """
    return dict(_pairs(text, environment))


def _pairs(text: str, environment: Mapping[str, str], file: str = ".env") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    given = {name: value for name, value in environment.items() if value}
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() also splits at other characters
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise OpsError(f"{file}, line {number}: write NAME=value, with quotes around both ends or none.")
        value = found["literal"]
        if value is None:
            bare = found["bare"] or ""
            text_ = found["quoted"] or bare
            if bare.startswith("#"):  # a comment to readers, a value to Compose
                raise OpsError(f"{file}, line {number}: {found['name']} has no value; quote one that starts with #.")
            if "${" in REFERENCE.sub("", text_):
                raise OpsError(f"{file}, line {number}: write variables as ${{NAME}} or ${{NAME:-default}}.")
            if "\\" in (found["quoted"] or ""):  # Compose supports escapes such as \n there
                raise OpsError(f"{file}, line {number}: put a value with a \\ between single quotes.")
            values = {**dict(pairs), **given}
            for variable in _without_default(text_, values):
                if variable not in values and variable not in environment:
                    raise OpsError(
                        f"{file}, line {number}: {variable} is not set; write $$ for a dollar sign,"
                        f" or ${{{variable}:-}} for nothing."
                    )
            value = fill(text_, values)
        pairs.append((found["name"], value))
    return pairs


def _without_default(text: str, values: Mapping[str, str]) -> Iterator[str]:
    """The variables without a default that `fill` expands, including those in the defaults that it uses."""
    for found in REFERENCE.finditer(text):
        variable = found["braced"] or found["bare"]
        if variable and found["default"] is None:
            yield variable
        elif variable and not values.get(variable):
            yield from _without_default(found["default"], values)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Expand variables as Compose does: $NAME, ${NAME}, ${NAME:-default}, with nested defaults; $$ is a $."""

    def value(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        return values.get(found["braced"] or found["bare"]) or fill(found["default"] or "", values)

    return REFERENCE.sub(value, text)
