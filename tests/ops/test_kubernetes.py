"""What `make kubernetes` writes: whole, equal to its sources, and right under the labels that the operator sets.

No cluster runs here. What an API server, the operator's admission webhook and Grafana's sidecar do with the objects
only a cluster can show; docs/kubernetes.md says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.errors import OpsError
from ops.kubernetes import LARGEST_CONFIG_MAP, Cluster, write
from ops.paths import PROJECT
from tests import servers, traffic
from tests.grafana.dashboards import DASHBOARDS, is_number, selectors, targets
from tests.grafana.live import APPEARS_LATER, LATER, NEEDS_MORE, answer
from tests.running import Running, wait_until
from tests.servers import Postgres, Prometheus

CLUSTER = Cluster(
    "shop", "sales", exporter="shop-db", grafana_url="https://grafana.example/", runbooks_url="https://runbooks.example"
)
RULES = sorted((PROJECT / "prometheus" / "rules").glob("*.yml"))
SHOWN = {"overview", "http", "llm", "database"}  # dashboards whose targets the objects scrape


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kubernetes") / "out"
    write(CLUSTER, folder)
    return folder


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    return {str(file.relative_to(folder)): yaml.safe_load(file.read_text()) for file in folder.rglob("*.yaml")}


def test_the_kustomization_names_every_file_and_no_other(out: Path) -> None:
    found = documents(out)
    kustomization = found.pop("kustomization.yaml")
    generated = [name for maps in kustomization["configMapGenerator"] for name in maps["files"]]
    secrets = [name for secret in kustomization["secretGenerator"] for name in secret["files"]]
    present = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()} - {"kustomization.yaml"}
    assert sorted([*kustomization["resources"], *generated, *secrets]) == sorted(present)
    assert kustomization["namespace"] == "sales"
    kinds = {found[name]["kind"] for name in kustomization["resources"]}
    assert kinds == {"PrometheusRule", "ServiceMonitor"}


def test_every_rule_is_its_source_but_for_the_links(out: Path) -> None:
    for file in RULES:
        source = file.read_text()
        for label, address in {
            "grafana_url": "https://grafana.example",
            "runbooks_url": "https://runbooks.example",
        }.items():
            source = source.replace(f"with $externalLabels.{label} ", f"with `{address}` ")
        expected = yaml.safe_load(source)
        written = yaml.safe_load((out / "rules" / f"{file.stem}.yaml").read_text())
        assert written["kind"] == "PrometheusRule"
        assert written["spec"] == expected, file.name
        assert "externalLabels" not in json.dumps(written)


def test_dashboards_are_the_committed_ones_and_fit_a_config_map(out: Path) -> None:
    kustomization = yaml.safe_load((out / "kustomization.yaml").read_text())
    files = {name: maps["options"]["labels"] for maps in kustomization["configMapGenerator"] for name in maps["files"]}
    assert set(files) == {f"dashboards/{name}.json" for name in DASHBOARDS}
    for name, labels in files.items():
        text = (out / name).read_text()
        assert json.loads(text) == DASHBOARDS[Path(name).stem]
        assert len(text.encode()) <= LARGEST_CONFIG_MAP
        assert labels == {"grafana_dashboard": "1"}


def test_alertmanager_takes_the_routes(out: Path, tmp_path: Path) -> None:
    """The secret's files are the ones of this project, at the paths that they have in the operator's pods."""
    written = yaml.safe_load((out / "alertmanager" / "alertmanager.yaml").read_text())
    source = yaml.safe_load((PROJECT / "alertmanager" / "alertmanager.yml").read_text())
    assert written["route"] == source["route"]
    assert written["inhibit_rules"] == source["inhibit_rules"]
    assert written["templates"] == ["/etc/alertmanager/config/*.tmpl"]
    files = [value for receiver in written["receivers"] for value in _files(receiver)]
    assert files
    assert all(file.startswith("/etc/alertmanager/secrets/sightline-alertmanager-receivers/") for file in files)
    here = (
        (out / "alertmanager" / "alertmanager.yaml")
        .read_text()
        .replace("/etc/alertmanager/config", str(out / "alertmanager"))
    )
    with servers.alertmanager(here) as alertmanager:
        assert alertmanager.alerts() == []


def _files(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if key.endswith("_file") else _files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _files(inner)


def test_a_token_of_metrics_is_a_secret_by_name(tmp_path: Path) -> None:
    write(Cluster("shop", "sales", token_secret="shop-metrics"), tmp_path / "out")
    (endpoint,) = yaml.safe_load((tmp_path / "out/monitors/app.yaml").read_text())["spec"]["endpoints"]
    assert endpoint["authorization"] == {"credentials": {"name": "shop-metrics", "key": "token"}}
    assert not (tmp_path / "out/monitors/postgres.yaml").exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"service": "Shop"}, "SERVICE=Shop"),
        ({"namespace": ""}, "NAMESPACE="),
        ({"release": "a b"}, "RELEASE=a b"),
        ({"exporter": "db/x"}, "EXPORTER=db/x"),
        ({"token_secret": "-x"}, "TOKEN_SECRET=-x"),
    ],
)
def test_names_that_no_object_may_have(settings: dict[str, str], named: str) -> None:
    with pytest.raises(OpsError, match=f"{named} is not a Kubernetes name"):
        Cluster(**{"service": "shop", "namespace": "sales", **settings})


@pytest.mark.parametrize("port", ["8000", "", "a-port-that-is-too-long", "http_metrics", "-http"])
def test_a_port_that_no_monitor_finds(port: str) -> None:
    with pytest.raises(OpsError, match=f"^PORT={port} must be the name of the Service's port"):
        Cluster("shop", "sales", port)
    assert Cluster("shop", "sales", "http-metrics").port == "http-metrics"


def test_the_service_has_another_job_than_its_database() -> None:
    with pytest.raises(OpsError, match=r"^SERVICE=postgres is the job of the database's exporter"):
        Cluster("postgres", "sales", exporter="pg-exporter")


def test_a_kustomization_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    """A repository of deployments has folders of these names, too."""
    (tmp_path / "kustomization.yaml").write_text("resources: [dashboards/mine.json]\n")
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "mine.json").write_text("{}")
    with pytest.raises(OpsError, match="contains other files"):
        write(Cluster("shop", "sales"), tmp_path)
    assert (tmp_path / "dashboards" / "mine.json").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(OpsError, match="contains other files"):
        write(CLUSTER, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_written_again_it_has_no_leftovers(tmp_path: Path) -> None:
    first = write(CLUSTER, tmp_path / "out")
    (tmp_path / "out" / "rules" / "old.yaml").write_text("x")
    assert write(CLUSTER, tmp_path / "out") == first


# The operator's configuration of a scrape, as its `generateServiceMonitorConfig` (pkg/prometheus/promcfg.go, v0.93)
# orders it: its own labels first, then the monitor's relabelings. Discovery is replaced by its labels.


def scrape_config(monitor: dict[str, Any], pods: dict[str, str]) -> dict[str, Any]:
    """`pods`: address -> name of the pod behind it."""
    (endpoint,) = monitor["spec"]["endpoints"]
    (service,) = monitor["spec"]["selector"]["matchLabels"].values()
    copied = {
        "__meta_kubernetes_namespace": "namespace",
        "__meta_kubernetes_service_name": "service",
        "__meta_kubernetes_pod_name": "pod",
        "__meta_kubernetes_pod_container_name": "container",
    }
    operators = [{"source_labels": [source], "target_label": target} for source, target in copied.items()]
    operators.append({"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"})
    operators.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    own, kept = (
        [{_snake(key): value for key, value in step.items()} for step in endpoint.get(name, [])]
        for name in ("relabelings", "metricRelabelings")
    )
    return {
        "job_name": f"serviceMonitor/sales/{monitor['metadata']['name']}/0",
        "honor_labels": False,
        "metrics_path": endpoint["path"],
        "sample_limit": monitor["spec"]["sampleLimit"],
        "label_limit": monitor["spec"]["labelLimit"],
        "label_name_length_limit": monitor["spec"]["labelNameLengthLimit"],
        "label_value_length_limit": monitor["spec"]["labelValueLengthLimit"],
        "static_configs": [
            {
                "targets": [address],
                "labels": {
                    "__meta_kubernetes_namespace": "sales",
                    "__meta_kubernetes_service_name": service,
                    "__meta_kubernetes_pod_name": pod,
                    "__meta_kubernetes_pod_container_name": "main",
                },
            }
            for address, pod in pods.items()
        ],
        "relabel_configs": [*operators, *own],
        "metric_relabel_configs": kept,
    }


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@dataclass(frozen=True)
class InCluster:
    prometheus: Prometheus
    pods: dict[str, Running]


@pytest.fixture(scope="module")
def cluster(
    out: Path, postgres: Postgres, postgres_exporter: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InCluster]:
    """Two pods of the service and the exporter, scraped as the operator would, with the rules out of the objects."""
    folder = tmp_path_factory.mktemp("cluster")
    rules = []
    for file in (out / "rules").iterdir():
        spec = yaml.safe_load(file.read_text())["spec"]
        for group in spec["groups"] if file.stem == "dashboards" else ():
            group.pop("interval", None)  # longer than that of the test
        (folder / f"{file.stem}.yml").write_text(yaml.dump(spec))
        rules.append(str(folder / f"{file.stem}.yml"))
    with ExitStack() as stack:
        environment = {**postgres.environment(), "LLM_PROVIDER": "simulated"}
        pods = {f"shop-{number}": stack.enter_context(servers.app(environment)) for number in range(2)}
        monitors = documents(out)
        app = scrape_config(monitors["monitors/app.yaml"], {f"127.0.0.1:{run.port}": pod for pod, run in pods.items()})
        database = scrape_config(
            monitors["monitors/postgres.yaml"], {f"127.0.0.1:{postgres_exporter.port}": "shop-db-0"}
        )
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [app, database],
        }
        (folder / "prometheus.yml").write_text(yaml.dump(config))
        prometheus = stack.enter_context(servers.prometheus(folder / "prometheus.yml"))
        wait_until(lambda: len(prometheus.query("up == 1")) == 3)
        for running in pods.values():
            traffic.drive(running.url, seconds=8)
        wait_until(lambda: prometheus.query("rate(llm_tokens_total[10s])"))
        yield InCluster(prometheus, pods)


def test_targets_have_no_label_that_splits_or_collides(cluster: InCluster) -> None:
    found = {tuple(sorted(dict(labels).items())) for labels in cluster.prometheus.query("up")}
    common = {"__name__": "up", "namespace": "sales", "service": "shop"}
    expected = [
        {**common, "job": "shop", "instance": "shop-0"},
        {**common, "job": "shop", "instance": "shop-1"},
        {**common, "job": "postgres", "instance": "shop-db-0"},
    ]
    assert found == {tuple(sorted(labels.items())) for labels in expected}
    assert not cluster.prometheus.query('{exported_endpoint!=""}')
    wait_until(lambda: cluster.prometheus.query('http_requests_total{endpoint="/items"}'))


def test_what_the_stack_does_not_keep_is_not_kept_here(out: Path, cluster: InCluster) -> None:
    configuration = yaml.safe_load((PROJECT / "prometheus" / "prometheus.yml").read_text())
    rules = next(job["metric_relabel_configs"] for job in configuration["scrape_configs"] if job["job_name"] == "app")
    monitor = documents(out)["monitors/app.yaml"]
    assert scrape_config(monitor, {})["metric_relabel_configs"] == rules
    names = set(cluster.prometheus.api("label/__name__/values"))
    assert "http_request_duration_seconds_bucket" in names
    assert "http_request_size_bytes_count" not in names


def test_recorded_series_are_of_the_service_not_of_pods(cluster: InCluster) -> None:
    def requests() -> dict[str, str]:
        (labels,) = cluster.prometheus.query("job:http_requests:rate5m")
        return dict(labels)

    wait_until(lambda: requests()["job"] == "shop")
    recorded = cluster.prometheus.query('{__name__=~"job.*:.+"}')
    assert len(recorded) > 20
    assert not [labels for labels in recorded if {"instance", "pod", "container"} & set(dict(labels))]


def test_every_applicable_query_of_the_dashboards_works(cluster: InCluster) -> None:
    """Where all series of a query are scraped, it has an answer."""
    names = set(cluster.prometheus.api("label/__name__/values")) - APPEARS_LATER.keys()
    asked = [target for target in targets() if target.dashboard in SHOWN and target.panel not in NEEDS_MORE]
    asked = [target for target in asked if not any(part in target.expr for part in LATER)]
    applicable = [target for target in asked if {selector.metric for selector in selectors(target.expr)} <= names]
    assert len(applicable) > 100

    def all_work() -> bool:
        traffic.drive(next(iter(cluster.pods.values())).url, seconds=2)  # without any, tiles are idle after a minute
        silent = [str(one) for one in applicable if not any(map(is_number, answer(cluster.prometheus, one).values()))]
        assert not silent, silent
        return True

    wait_until(all_work, timeout=60, interval=1)  # a scrape may have taken longer than its second


def test_every_rule_is_evaluated_and_nothing_fires_but_the_watchdog(cluster: InCluster) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in cluster.prometheus.api("rules")["groups"] for rule in group["rules"]]

    assert len(rules()) > 100
    wait_until(lambda: {rule["health"] for rule in rules()} == {"ok"}, timeout=150)
    firing = {rule["name"] for rule in rules() if rule.get("state") == "firing"}
    assert firing == {"Watchdog"}


def test_the_service_down_is_noticed(cluster: InCluster) -> None:
    """Last, as it ends the pods."""
    for running in cluster.pods.values():
        running.stop()

    def states() -> dict[str, str]:
        return {alert["labels"]["alertname"]: alert["state"] for alert in cluster.prometheus.api("alerts")["alerts"]}

    wait_until(lambda: states().get("ServiceDown") == "firing")
    (alert,) = (a for a in cluster.prometheus.api("alerts")["alerts"] if a["labels"]["alertname"] == "ServiceDown")
    assert alert["labels"]["job"] == "shop"
    assert alert["annotations"]["runbook_url"].startswith("https://runbooks.example/ServiceDown")
    assert alert["annotations"]["dashboard_url"].startswith("https://grafana.example/d/")
