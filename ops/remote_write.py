"""Remote write: where Prometheus sends every sample, to be kept longer, or together with those of others.

LONGTERM_RETENTION makes VictoriaMetrics a part of the stack. REMOTE_WRITE_URL names a store elsewhere; its credentials
are files that Prometheus reads, in SECRETS_DIR/prometheus:

    remote_write_token                              a bearer token, or
    remote_write_user and remote_write_password     basic authentication
    remote_write_ca.crt                             the authority behind its certificate, where that is a private one

Prometheus fills no variables into addresses, so `make up` and `make reload` write a prometheus.yml of their own: the
project's, and this section. Standard library only.
"""

from __future__ import annotations

import json
import re
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops import http
from ops.configs import PROMETHEUS
from ops.console import log
from ops.errors import OpsError
from ops.settings import Settings

URL, TENANT, RETENTION = "REMOTE_WRITE_URL", "REMOTE_WRITE_TENANT", "LONGTERM_RETENTION"
TOKEN, USER, PASSWORD, CA = (f"remote_write_{name}" for name in ("token", "user", "password", "ca.crt"))
TENANT_HEADERS = ("X-Scope-OrgID", "THANOS-TENANT")  # Mimir's and Thanos Receive's; each ignores the other's
PATHS = "VictoriaMetrics has /api/v1/write, Mimir /api/v1/push, Thanos Receive /api/v1/receive"
TIMEOUT = 5.0  # seconds
EMPTY = b"\0"  # a request without samples: no bytes, compressed by snappy
HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
BEHIND = 60.0  # seconds; samples come every 15 s, and leave within 5 s


def is_on(settings: Settings) -> bool:
    """Whether Prometheus sends its samples anywhere."""
    return bool(settings.get(URL) or settings.get(RETENTION))


def grafana(settings: Settings) -> dict[str, str]:
    """The variable for docker-compose.yml that gives Grafana the data source of the stack's own store."""
    return {"GRAFANA_PROVISIONING": "longterm"} if settings.get(RETENTION) else {}


def section(settings: Settings, own: str) -> str:
    """What prometheus.yml needs in addition; empty where nothing is set. JSON is YAML, too.

    `own`: the address of the stack's own store.
    """
    stores = [_store("longterm", f"{own}/api/v1/write")] if settings.get(RETENTION) else []
    stores += [_elsewhere(settings)] if settings.get(URL) else []
    if not stores:
        return ""
    return f"\n# Of `make up`: {RETENTION}, {URL}.\nremote_write: {json.dumps(stores, indent=2)}\n"


def _store(name: str, url: str) -> dict[str, Any]:
    return {
        "name": name,
        "url": url,
        # External labels go with every series; these two are the addresses for links in alerts.
        "write_relabel_configs": [{"action": "labeldrop", "regex": "grafana_url|runbooks_url"}],
        "queue_config": {"retry_on_http_429": True},  # otherwise samples that a store rejects with 429 are lost
    }


def _elsewhere(settings: Settings) -> dict[str, Any]:
    folder = _folder(settings)
    made = _store("remote", settings.get(URL))
    if (folder / TOKEN).exists():
        made["authorization"] = {"credentials_file": f"secrets/{TOKEN}"}
    elif (folder / USER).exists():
        made["basic_auth"] = {"username_file": f"secrets/{USER}", "password_file": f"secrets/{PASSWORD}"}
    if (folder / CA).exists():
        made["tls_config"] = {"ca_file": f"secrets/{CA}"}
    if tenant := settings.get(TENANT):
        made["headers"] = dict.fromkeys(TENANT_HEADERS, tenant)
    return made


def write(file: Path, settings: Settings, own: str) -> None:
    """Write the project's prometheus.yml and the section to `file`, in place: a container has it mounted."""
    file.write_text(PROMETHEUS.read_text() + section(settings, own))


def check(settings: Settings) -> None:
    """Check for errors that would keep samples from arriving; warn if a store does not respond now.

    Raises:
        OpsError: the configuration or the secrets are wrong.
    """
    if not is_on(settings):
        return
    if re.search(r"^remote_write:", PROMETHEUS.read_text(), re.MULTILINE):
        which = URL if settings.get(URL) else RETENTION
        raise OpsError(f"{which} is set, and prometheus.yml has a remote_write of its own: remove one of them.")
    if not settings.get(URL):
        return
    folder = _folder(settings)
    present = [name for name in (TOKEN, USER, PASSWORD) if (folder / name).exists()]
    if present not in ([], [TOKEN], [USER, PASSWORD]):
        wanted = f"{TOKEN} alone, or {USER} and {PASSWORD}"
        raise OpsError(f"{folder} has {' and '.join(present)}; {URL} needs {wanted}, or none of them.")
    credentials = {name: (folder / name).read_text(errors="replace").strip() for name in present}
    for name, value in credentials.items():
        if not value:
            raise OpsError(f"{folder / name} is empty.")
        if not value.isprintable() or (name == TOKEN and not value.isascii()):
            raise OpsError(f"{folder / name} contains more than one line, or characters not allowed in a header.")
    _try(settings, folder, credentials)


def _try(settings: Settings, folder: Path, credentials: Mapping[str, str]) -> None:
    """Send a request without samples."""
    url = settings.get(URL)
    request = urllib.request.Request(url, EMPTY, _headers(credentials, settings.get(TENANT)), method="POST")  # noqa: S310
    trusted = _trusted(folder / CA)
    try:
        other, _ = http.request(request, TIMEOUT, trusted)
        if other != url:
            raise OpsError(f"{URL}: {url} redirects to {other}, where Prometheus would not send samples. {PATHS}.")
        return
    except urllib.error.HTTPError as error:
        code = error.code
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise OpsError(
                f"{URL}: the certificate of {url} is not trusted here ({reason.verify_message});"
                f" put the certificate of its authority into {folder / CA}."
            ) from None
        log.warning("%s: %s cannot be reached from here now (%s); Prometheus keeps trying.", URL, url, reason)
        return
    if code in (401, 403):
        raise OpsError(
            f"{URL}: {url} responds with {code}. In {folder} put a token into {TOKEN}, or a user into {USER} and the"
            f" password into {PASSWORD}; {TENANT} sets a tenant (Mimir requires one)."
        )
    if code == 429 or code >= 500:
        log.warning("%s: %s responds with %s now; Prometheus keeps trying.", URL, url, code)
        return
    raise OpsError(f"{URL}: {url} responds with {code}, so it accepts no samples there. {PATHS}.")


def _trusted(file: Path) -> ssl.SSLContext:
    """This machine's authorities, and that in `file` where there is one."""
    try:
        return ssl.create_default_context(cafile=str(file) if file.exists() else None)
    except ssl.SSLError:
        raise OpsError(f"{file} is not a certificate.") from None


def _headers(credentials: Mapping[str, str], tenant: str) -> dict[str, str]:
    made = {**HEADERS, **(dict.fromkeys(TENANT_HEADERS, tenant) if tenant else {})}
    if TOKEN in credentials:
        made["Authorization"] = f"Bearer {credentials[TOKEN]}"
    elif USER in credentials:
        user = f"{credentials[USER]}:{credentials[PASSWORD]}"
        made["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"
    return made


def _folder(settings: Settings) -> Path:
    return settings.folder("SECRETS_DIR") / "prometheus"


def report(metrics: str) -> dict[str, str | None]:
    """Store -> its problem or None, by Prometheus' own metrics; empty without a store.

    Names of 2.53 and of 3.13, where the first one is deprecated.
    """
    newest = _values(metrics, "highest_timestamp_in_seconds").get("", 0.0)
    found: dict[str, str | None] = {}
    all_sent = _values(metrics, "queue_highest_sent_timestamp_seconds")
    for labels in _values(metrics, "shards_max"):
        sent = all_sent.get(labels, 0.0)  # before the first: 0 in 3.13, absent in 2.53
        address = re.search(r'url="([^"]*)"', labels)
        lost = _values(metrics, "samples_failed_total").get(labels, 0.0)
        problem = None
        if lost:
            problem = f"has refused {lost:.0f} samples since Prometheus started"
        elif not sent:
            problem = "has got nothing yet"
        elif newest - sent > BEHIND:
            problem = f"is {newest - sent:.0f} s behind"
        found[address[1] if address else labels] = problem
    return found


def _values(metrics: str, name: str) -> dict[str, float]:
    """Labels -> value of one of the metrics of remote storage."""
    lines = re.findall(rf"^prometheus_remote_storage_{name}(?:\{{(.*)\}})? (\S+)$", metrics, re.MULTILINE)
    return {labels: float(value) for labels, value in lines}
