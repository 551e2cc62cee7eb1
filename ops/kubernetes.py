"""`make kubernetes`: the rules, scrape configuration, dashboards and routes for a cluster with the Prometheus Operator.

    OUT/kustomization.yaml     kubectl apply --server-side -k OUT
        rules/http.yaml        PrometheusRule, one for each file of prometheus/rules, group for group the same
        monitors/app.yaml      ServiceMonitor of the service, and of its PostgreSQL exporter if it has one
        dashboards/*.json      ConfigMaps that Grafana's sidecar loads
        alertmanager/          Secret for the Alertmanager resource's `configSecret`

The operator adds the labels pod, container and endpoint to every target. The monitors drop them again: `endpoint` would
rename the route template's own label to `exported_endpoint`, and the other two change with every rollout, while the
rules keep whatever labels a target has. Instead, `instance` becomes the pod's name.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.errors import OpsError
from ops.paths import PROJECT

PART_OF = {"app.kubernetes.io/part-of": "sightline"}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # of objects and namespaces: RFC 1123
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")  # IANA's service names, RFC 6335
DATABASE = "postgres"  # the job of its exporter
# Kubernetes refuses an object whose ConfigMap holds more than 1 MiB; a client-side apply keeps a copy in an annotation
# of 256 KiB at most.
LARGEST_CONFIG_MAP = 256 * 1024
ALERTMANAGER_SECRETS = "sightline-alertmanager-receivers"  # a Secret of the user's, with the receivers' files
# Where the operator mounts the keys of `configSecret`, and each Secret that the Alertmanager resource lists.
CONFIG_FOLDER = "/etc/alertmanager/config"
SECRETS_FOLDER = f"/etc/alertmanager/secrets/{ALERTMANAGER_SECRETS}"


@dataclass(frozen=True)
class Cluster:
    """The properties of the cluster that the objects depend on.

    Args:
        service: name of the Kubernetes Service that serves /metrics; becomes the label `job`.
        namespace: the namespace of the Service, into which the objects go, too.
        port: the name of the Service's port.
        release: value of the label `release`, by which kube-prometheus-stack selects monitors and rules.
        token_secret: Secret whose key `token` /metrics asks for; empty where it asks for none.
        exporter: name of the Service of the database's postgres_exporter (port name `metrics`); empty for none.
        grafana_url: where links in alerts find the dashboards.
        runbooks_url: where they find the runbooks.
    """

    service: str
    namespace: str
    port: str = "http"
    release: str = "kube-prometheus-stack"
    token_secret: str = ""
    exporter: str = ""
    grafana_url: str = ""
    runbooks_url: str = ""

    def __post_init__(self) -> None:
        for setting, value in {
            "SERVICE": self.service,
            "NAMESPACE": self.namespace,
            "RELEASE": self.release,
            "TOKEN_SECRET": self.token_secret or "none",
            "EXPORTER": self.exporter or "none",
        }.items():
            if not NAME.fullmatch(value):
                raise OpsError(f"{setting}={value} is not a Kubernetes name: lower-case letters, digits and hyphens.")
        if not PORT_NAME.fullmatch(self.port):
            raise OpsError(f"PORT={self.port} must be the name of the Service's port: monitors do not accept numbers.")
        if self.exporter and self.service == DATABASE:
            raise OpsError(f"SERVICE={DATABASE} is the job of the database's exporter; give the service another name.")


def write(cluster: Cluster, out: Path) -> list[Path]:
    """Write the folder `out` and return its files.

    Raises:
        OpsError: it holds something else, which is left as it is.
    """
    mark = out / "kustomization.yaml"
    made = mark.exists() and all(f"{name}: {value}" in mark.read_text() for name, value in PART_OF.items())
    if out.exists() and any(out.iterdir()) and not made:
        raise OpsError(f"{out} contains other files; choose an empty folder, or one that this command created.")
    for folder in ("rules", "monitors", "dashboards", "alertmanager"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    for file in sorted((PROJECT / "prometheus" / "rules").glob("*.yml")):
        _dump(out / "rules" / f"{file.stem}.yaml", rule(cluster, file))
    _dump(out / "monitors" / "app.yaml", monitor(cluster, cluster.service, cluster.service, cluster.port))
    if cluster.exporter:
        _dump(out / "monitors" / "postgres.yaml", monitor(cluster, cluster.exporter, DATABASE, "metrics"))
    dashboards = _dashboards(out / "dashboards")
    _alertmanager(out / "alertmanager")
    _dump(out / "kustomization.yaml", kustomization(cluster, out, dashboards))
    return sorted(path for path in out.rglob("*") if path.is_file())


def rule(cluster: Cluster, file: Path) -> dict[str, Any]:
    """A rule file as a PrometheusRule; only the links of alerts differ, as external labels are the cluster's own."""
    text = file.read_text()
    for label, address in {"grafana_url": cluster.grafana_url, "runbooks_url": cluster.runbooks_url}.items():
        text = text.replace(f"with $externalLabels.{label} ", f"with `{address.rstrip('/')}` ")
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"sightline-{file.stem}"},
        "spec": yaml.safe_load(text),
    }


def monitor(cluster: Cluster, service: str, job: str, port: str) -> dict[str, Any]:
    """A ServiceMonitor for the Service with this name.

    It is found by the recommended label app.kubernetes.io/name, as Services have no selector by name.
    """
    endpoint: dict[str, Any] = {
        "port": port,
        "path": "/metrics",
        "relabelings": [
            {"action": "labeldrop", "regex": "endpoint|container|pod"},
            {"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"},
            {"targetLabel": "job", "replacement": job},
            {"targetLabel": "service", "replacement": cluster.service},  # ties the database to its service
        ],
    }
    if service == cluster.service:
        endpoint["metricRelabelings"] = _dropped()
        if cluster.token_secret:
            endpoint["authorization"] = {"credentials": {"name": cluster.token_secret, "key": "token"}}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": f"sightline-{job}"},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": service}},
            "namespaceSelector": {"matchNames": [cluster.namespace]},
            "endpoints": [endpoint],
            "sampleLimit": 50_000,
            "labelLimit": 32,
            "labelNameLengthLimit": 64,
            "labelValueLengthLimit": 1024,
        },
    }


def _dropped() -> list[dict[str, Any]]:
    """The relabelling with which prometheus.yml drops series of the service, in the format of a monitor."""
    configuration = yaml.safe_load((PROJECT / "prometheus" / "prometheus.yml").read_text())
    app = next(job for job in configuration["scrape_configs"] if job["job_name"] == "app")
    return [{_camel(key): value for key, value in step.items()} for step in app["metric_relabel_configs"]]


def _camel(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)


def kustomization(cluster: Cluster, out: Path, dashboards: list[str]) -> dict[str, Any]:
    """The file that names all others."""
    resources = sorted(
        str(file.relative_to(out)) for folder in ("rules", "monitors") for file in (out / folder).iterdir()
    )
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": cluster.namespace,
        "labels": [{"pairs": {**PART_OF, "release": cluster.release}, "includeSelectors": False}],
        "resources": resources,
        "generatorOptions": {"disableNameSuffixHash": True},
        "configMapGenerator": [
            {
                "name": f"sightline-dashboard-{name}",
                "files": [f"dashboards/{name}.json"],
                "options": {"labels": {"grafana_dashboard": "1"}, "annotations": {"grafana_folder": "Sightline"}},
            }
            for name in dashboards
        ],
        "secretGenerator": [
            {
                "name": "sightline-alertmanager",
                "files": sorted(str(file.relative_to(out)) for file in (out / "alertmanager").iterdir()),
            }
        ],
    }


def _dashboards(out: Path) -> list[str]:
    """Write the dashboards without white space; returns their names."""
    names = []
    for file in sorted((PROJECT / "grafana" / "dashboards").glob("*.json")):
        text = json.dumps(json.loads(file.read_text()), separators=(",", ":"))
        if len(text.encode()) > LARGEST_CONFIG_MAP:
            raise OpsError(f"{file.name} is larger than a ConfigMap may be ({LARGEST_CONFIG_MAP // 1024} KiB).")
        (out / file.name).write_text(text)
        names.append(file.stem)
    return names


def _alertmanager(out: Path) -> None:
    """Write the routes and the templates, with the paths that they have in the operator's pods."""
    text = (PROJECT / "alertmanager" / "alertmanager.yml").read_text()
    text = text.replace("templates/*.tmpl", f"{CONFIG_FOLDER}/*.tmpl")
    (out / "alertmanager.yaml").write_text(re.sub(r"(_file: )secrets/", rf"\g<1>{SECRETS_FOLDER}/", text))
    for file in (PROJECT / "alertmanager" / "templates").glob("*.tmpl"):
        shutil.copy(file, out)


def _dump(file: Path, document: dict[str, Any]) -> None:
    file.write_text(yaml.dump(document, sort_keys=False, width=120, allow_unicode=True))
