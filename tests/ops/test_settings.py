"""Settings: where they come from, and that those which cannot work are said at once, a line each."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from app.settings import Settings as ServiceSettings
from ops import settings
from ops.console import log
from ops.dotenv import fill
from ops.errors import OpsError
from ops.paths import PROJECT


def load(tmp_path: Path, text: str = "", **environment: str) -> settings.Settings:
    file = tmp_path / ".env"
    file.write_text(text)
    return settings.load(environment, file)


def test_the_environment_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    made = load(
        tmp_path, "APP_PORT=1111\nPROMETHEUS_PORT=2222\nGRAFANA_PORT=\n", APP_PORT=" 3333", ALERTMANAGER_PORT=""
    )
    names = ("APP_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "ALERTMANAGER_PORT")
    assert [made.get(name) for name in names] == ["3333", "2222", "3000", "9093"]
    assert made.environment()["PROMETHEUS_PORT"] == "2222", "what Compose is given"


def test_bad_and_unknown_settings_are_all_reported_with_the_nearest_name(tmp_path: Path) -> None:
    key = tmp_path / "no-key"
    text = f"""\
FAULTS_ENABLE=true
LOG_LEVEL=verbose
PROMETHEUS_RETENTION_TIME=lots
PROMETHEUS_RETENTION_SIZE=5
APP_WORKERS=many
APP_SIGN_UPS_PER_MINUTE=-1
LOCUST_PORT=٨٠٨٩
GRAFANA_URL=grafana.example
RUNBOOKS_URL=https://me:secret@wiki.example/
GRAFANA_PORT=80000
OPENAI_API_KEY_FILE={key}
"""
    with pytest.raises(OpsError) as refused:
        load(tmp_path, text).check()
    assert sorted(str(refused.value).splitlines()) == sorted(
        [
            ".env: FAULTS_ENABLE is not a setting; do you mean FAULTS_ENABLED?",
            "LOG_LEVEL in .env is 'verbose'; it must be debug, info, warning or error.",
            "PROMETHEUS_RETENTION_TIME in .env is 'lots'; it must be a duration such as 32d or 12h.",
            "PROMETHEUS_RETENTION_SIZE in .env is '5'; it must be a size such as 5GB or 500MB, 0B for no limit.",
            "APP_WORKERS in .env is 'many'; it must be a number from 1 to 64.",
            "APP_SIGN_UPS_PER_MINUTE in .env is '-1'; it must be a number, 0 for no limit.",
            "LOCUST_PORT is '٨٠٨٩'; it must be a port number from 1 to 65535.",
            "GRAFANA_URL in .env is 'grafana.example'; it must be an address such as https://grafana.example.",
            "RUNBOOKS_URL in .env is 'https://...@wiki.example'; it must be an address such as "
            "https://grafana.example.",
            "GRAFANA_PORT is '80000'; it must be a port number from 1 to 65535.",
            f"OPENAI_API_KEY_FILE in .env is '{key}'; there is no such file.",
        ]
    )


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("${A:-${B:-http://localhost:${C:-9090}}/user}", {}, "http://localhost:9090/user"),
        ("${A:-${B:-http://localhost:${C:-9090}}/user}", {"C": "1"}, "http://localhost:1/user"),
        ("${A:-${B:-http://localhost:${C:-9090}}/user}", {"B": "https://b.example"}, "https://b.example/user"),
        ("${A:-${B:-http://localhost:${C:-9090}}/user}", {"A": "https://a.example", "B": "b"}, "https://a.example"),
        ("$$__file{/run/secrets/$A}", {"A": "name"}, "$__file{/run/secrets/name}"),
        ("${A}$B-${C:-}", {"A": "${B}", "B": "$B"}, "${B}$B-"),
    ],
)
def test_variables_are_filled_in_as_compose_does(text: str, values: dict[str, str], expected: str) -> None:
    assert fill(text, values) == expected


def test_names_of_others_are_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "COMPOSE_PROJECT_NAME=mine\nHTTPS_PROXY=http://proxy\nLOG_FORMAT=json\nUSERS=5\nSOMETHING=else\n"
    given = load(tmp_path, text)
    given.check()
    with caplog.at_level(logging.WARNING, log.name):
        given.warn()
    assert [record.message for record in caplog.records if record.name == log.name] == [
        ".env: SOMETHING is not a setting, and has no effect here."
    ]


@pytest.mark.parametrize(
    "text",
    [
        "GRAFANA_URL=http://[2001:db8::1]:3000/grafana/",
        "PROMETHEUS_URL=https://größe.example/a%20b/~me,you",
        "PROMETHEUS_RETENTION_TIME=1y2w3d4h5m6s7ms",
        "LLM_PROVIDER=simulated\nLLM_MODEL=${LLM_PROVIDER:-$NOWHERE}",  # a default that is not used
    ],
)
def test_rare_values_that_work_are_taken(tmp_path: Path, text: str) -> None:
    load(tmp_path, text).check()


def test_every_setting_of_the_example_is_known_and_valid(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[A-Z_]+=)", "", (PROJECT / ".env.example").read_text(), flags=re.MULTILINE)
    load(tmp_path, text).check()


@pytest.mark.parametrize("line", ["FOO BAR", "= value", "APP_PORT='8000", 'LLM_MODEL="a" b', "2ND=2"])
def test_a_line_that_sets_nothing_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(OpsError, match=r"^\.env, line 2: write NAME=value"):
        load(tmp_path, f"APP_PORT=8000\n{line}\n")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("APP_REPLICAS= # three", "APP_REPLICAS has no value; quote one that starts with #."),
        ("LLM_MODEL=${MODEL:?is missing}", "write variables as ${NAME} or ${NAME:-default}."),
        ('LLM_MODEL="${MODEL:+large}"', "write variables as ${NAME} or ${NAME:-default}."),
        (
            "SECRETS_DIR=$ELSEWHERE/x",
            "ELSEWHERE is not set; write $$ for a dollar sign, or ${ELSEWHERE:-} for nothing.",
        ),
        (
            "SECRETS_DIR=${NOWHERE:-${NOR_HERE:-$ELSEWHERE/x}}",
            "ELSEWHERE is not set; write $$ for a dollar sign, or ${ELSEWHERE:-} for nothing.",
        ),
        ("LLM_MODEL=pa${ss}", "ss is not set; write $$ for a dollar sign, or ${ss:-} for nothing."),
        (r'SECRETS_DIR="C:\new"', "put a value with a \\ between single quotes."),
    ],
)
def test_a_line_that_others_read_otherwise_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(OpsError, match=f"^{re.escape('.env, line 2: ' + says)}$"):
        load(tmp_path, f"APP_PORT=8000\n{line}\n")
    assert load(tmp_path, "LLM_MODEL='${MODEL:?}'\nLLM_MODELS='# a'\n").get("LLM_MODEL") == "${MODEL:?}"
    assert load(tmp_path, r"LLM_MODEL='a\n$b'").get("LLM_MODEL") == r"a\n$b"
    assert load(tmp_path, "A=\nLLM_MODEL=a$A$B${C:-c}$$D\n", B="b").get("LLM_MODEL") == "abc$D"


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_a_line_ends_where_composes_lines_end(tmp_path: Path, mark: str) -> None:
    """Files of Windows have \r\n; what else Python calls the end of a line is a character to Compose."""
    file = tmp_path / ".env"
    file.write_bytes(f"LLM_MODEL='a{mark}APP_PORT=1'\r\nGRAFANA_PORT=3001\r\n".encode())
    made = settings.load({}, file)
    assert (made.get("LLM_MODEL"), made.get("APP_PORT"), made.get("GRAFANA_PORT")) == (
        f"a{mark}APP_PORT=1",
        "8000",
        "3001",
    )


def test_a_file_with_nul_bytes_is_reported(tmp_path: Path) -> None:
    """As a disk that was full, or a crash of the machine, leaves it."""
    with pytest.raises(OpsError, match=r"^\.env contains NUL bytes"):
        load(tmp_path, "APP_PORT=8001\nLLM_MODEL=\0\0\0")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_reported(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes("# Größe\nAPP_PORT=8001\n".encode(encoding))
    with pytest.raises(OpsError, match=r"^\.env is not UTF-8 text"):
        settings.load({}, file)


def test_a_setting_that_is_set_twice_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, log.name):
        load(tmp_path, "APP_PORT=8001\n#APP_PORT=1\nLOG_LEVEL=info\nexport APP_PORT='8002'\n").warn()
    said = [record.message for record in caplog.records if record.name == log.name]
    assert said == [".env: APP_PORT is set more than once; the last line counts."]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("APP_REPLICAS=6\nAPP_REPLICA_PORT=65531", "APP_REPLICA_PORT is too high for 6 replicas: the last has 65536."),
        ("PROMETHEUS_2_PORT=0", "PROMETHEUS_2_PORT is '0'; it must be a port number from 1 to 65535."),
        ("PROMETHEUS_RETENTION_TIME=300y", "PROMETHEUS_RETENTION_TIME in .env is '300y'; it must be a duration"),
        ("PROMETHEUS_RETENTION_TIME=1h30d", "PROMETHEUS_RETENTION_TIME in .env is '1h30d'; it must be a duration"),
        ("PROMETHEUS_RETENTION_TIME=1d1d", "PROMETHEUS_RETENTION_TIME in .env is '1d1d'; it must be a duration"),
        ("APP_PORT=08000", "APP_PORT is '08000'; it must be a port number"),
        pytest.param(f"APP_PORT={'9' * 5000}", "APP_PORT is '9999", id="more digits than Python reads"),
        ("PROMETHEUS_URL=https://a.example:http", "PROMETHEUS_URL in .env is 'https://a.example:http'; it must be"),
        ("ALERTMANAGER_URL=https://[::1", "ALERTMANAGER_URL in .env is 'https://[::1'; it must be an address"),
        ("GRAFANA_URL=https://a.example/100%", "GRAFANA_URL in .env is 'https://a.example/100%'; it must be"),
        ("RUNBOOKS_URL='https://a.example/$b'", "RUNBOOKS_URL in .env is 'https://a.example/$b'; it must be"),
        ("PROMETHEUS_RETENTION_SIZE=5B", "PROMETHEUS_RETENTION_SIZE in .env is '5B'; it must be a size"),
        ("LONGTERM_RETENTION=101y", "LONGTERM_RETENTION in .env is '101y'; it must be a duration"),
        ("COMPOSE_PROJECT_NAME=My Stack", "COMPOSE_PROJECT_NAME in .env is 'My Stack'; it must be a name of lower"),
        ("RELEASES_MIRROR=mirror.example", "RELEASES_MIRROR in .env is 'mirror.example'; it must be an address"),
        ("PIP_INDEX_URL=packages.example", "PIP_INDEX_URL in .env is 'packages.example'; it must be an address"),
    ],
)
def test_values_that_would_only_fail_later_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OpsError, match=f"^{re.escape(says)}"):
        load(tmp_path, text).check()


@pytest.mark.parametrize(("replicas", "said"), [("4", False), ("5", True)])
def test_more_connections_than_postgresql_allows_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, replicas: str, said: bool
) -> None:
    with caplog.at_level(logging.WARNING, log.name):
        load(tmp_path, APP_REPLICAS=replicas).warn()
    assert ("may open 100 connections, and PostgreSQL takes 97" in caplog.text) == said


def test_paths_begin_in_the_project_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = load(
        tmp_path, "SECRETS_DIR=~/secrets\nBACKUPS_DIR=elsewhere\nSIGHTLINE_STATE=$HOME/state\n", HOME="/home/me"
    )
    assert made.folder("SECRETS_DIR") == tmp_path / "secrets"
    assert made.folder("BACKUPS_DIR") == PROJECT / "elsewhere"
    assert made.folder("SIGHTLINE_STATE") == Path("/home/me/state")
    with pytest.raises(OpsError, match=r"^SECRETS_DIR is '~nobody-here/x'; there is no such home folder"):
        load(tmp_path, "SECRETS_DIR=~nobody-here/x\n")


def test_what_a_shell_did_not_fill_in_is_filled_in(tmp_path: Path) -> None:
    """As in a crontab, a systemd unit or single quotes; and blanks around a path are none of its name."""
    environment = {"HOME": str(tmp_path), "SECRETS_DIR": "$HOME/my secrets", "BACKUPS_DIR": " ${HOME}/backups "}
    made = load(tmp_path, **environment)
    assert made.folder("SECRETS_DIR") == tmp_path / "my secrets"
    assert made.folder("BACKUPS_DIR") == tmp_path / "backups"
    with pytest.raises(OpsError, match=r"^BACKUPS_DIR is '\$ARCHIVE/mine'; ARCHIVE is not set\.$"):
        load(tmp_path, BACKUPS_DIR="$ARCHIVE/mine")


@pytest.mark.parametrize("name", settings.OWN)
def test_folders_that_the_stack_closes_and_empties_are_its_alone(tmp_path: Path, name: str) -> None:
    """`/` would be closed to all other users, and `make clean` would remove the data of others."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    for place in ("/", ".", "..", str(PROJECT), str(home)):
        with pytest.raises(OpsError, match=rf"^{name} is '/.*', which contains other files; choose a new"):
            load(tmp_path, **{name: place})
    for new in (tmp_path / "new", tmp_path / "empty"):
        assert load(tmp_path, **{name: str(new)}).folder(name) == new
        (tmp_path / "empty").mkdir(exist_ok=True)
    for other in ("prometheus", "lock"):  # a folder that only has the name: /etc/prometheus, /var/lock
        (home / other).mkdir()
        with pytest.raises(OpsError, match=r", which contains other files; choose a new"):
            load(tmp_path, **{name: str(home)})
    mark = tmp_path / "used" / settings.OWN[name][0]
    mark.parent.mkdir()
    mark.touch()
    (mark.parent / "mine").touch()
    assert load(tmp_path, **{name: str(mark.parent)}).folder(name) == mark.parent


def test_secrets_that_were_interrupted_are_made_on(tmp_path: Path) -> None:
    (tmp_path / "begun" / "prometheus").mkdir(parents=True)
    assert load(tmp_path, SECRETS_DIR=str(tmp_path / "begun")).folder("SECRETS_DIR") == tmp_path / "begun"


@pytest.mark.parametrize(
    ("secrets", "state", "backups", "says"),
    [
        ("one", "one", "b", "SIGHTLINE_STATE is '.*/one', in SECRETS_DIR, '.*/one'; keep them apart"),
        ("one", "one/state", "b", "SIGHTLINE_STATE is '.*/one/state', in SECRETS_DIR"),
        ("s/run/secrets", "s", "b", "SECRETS_DIR is '.*', in a folder that the stack empties"),
        ("secrets", "s", "s/data", "BACKUPS_DIR is '.*/s/data', in a folder that the stack empties"),
        ("secrets", "s", "s/data.old/b", "BACKUPS_DIR is '.*', in a folder that the stack empties"),
        ("s/secrets", "s", "s/backups", None),
    ],
)
def test_no_folder_is_closed_or_emptied_by_the_setting_of_another(
    tmp_path: Path, secrets: str, state: str, backups: str, says: str | None
) -> None:
    names = {"SECRETS_DIR": secrets, "SIGHTLINE_STATE": state, "BACKUPS_DIR": backups}
    environment = {name: str(tmp_path / place) for name, place in names.items()}
    if says is None:
        load(tmp_path, **environment)
        return
    with pytest.raises(OpsError, match=f"^{says}"):
        load(tmp_path, **environment)


@pytest.mark.parametrize("path", [r"C:\backups", r"\\server\share", "file:///srv/backups"])
def test_paths_of_other_systems_make_no_folder_here(tmp_path: Path, path: str) -> None:
    with pytest.raises(OpsError, match=r"^BACKUPS_DIR is '.*'; write the path as Linux does"):
        load(tmp_path, BACKUPS_DIR=path)


@pytest.mark.parametrize(
    ("name", "kind"), [("ANTHROPIC_API_KEY_FILE", "file"), ("GRAFANA_HOME", "folder"), ("CERTIFICATES_DIR", "folder")]
)
def test_what_is_to_be_read_must_be_there(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    if name == "GRAFANA_HOME":
        with pytest.raises(OpsError, match=r"which has no bin/grafana; name an unpacked release\.$"):
            load(tmp_path, **{name: str(tmp_path / kind)}).check()
        (tmp_path / "folder" / "bin").mkdir()
        (tmp_path / "folder" / "bin" / "grafana").touch()
    load(tmp_path, **{name: str(tmp_path / kind)}).check()
    wrong = {"missing", "file", "folder"} - {kind}
    for other in wrong:
        with pytest.raises(
            OpsError, match=rf"^{name} is '{tmp_path}/{other}'(; there is no such {kind}|, which is not)"
        ):
            load(tmp_path, **{name: str(tmp_path / other)}).check()


def test_empty_variables_of_composes_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say: strconv.ParseBool: parsing "": invalid syntax."""
    monkeypatch.setenv("COMPOSE_DISABLE_ENV_FILE", "")
    monkeypatch.setenv("COMPOSE_PROFILES", "mine")
    given = load(tmp_path).environment()
    assert "COMPOSE_DISABLE_ENV_FILE" not in given
    assert given["COMPOSE_PROFILES"] == "mine"


def test_what_kubernetes_calls_our_ports_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = load(tmp_path, APP_PORT="tcp://10.0.0.1:80")
    assert made.get("APP_PORT") == "8000"
    assert "APP_PORT=tcp://10.0.0.1:80 is set by Kubernetes" in caplog.text


def test_the_services_settings_are_read_as_it_has_them() -> None:
    assert settings.of_service() == [field.upper() for field in ServiceSettings.model_fields]
