"""What is shipped to a cluster or to compose is valid, closed by default, and speaks of things that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import prometheus_client
import pytest
import yaml

from serving import metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
K8S = sorted(path for path in (DEPLOY / "k8s").glob("*.yaml") if path.name != "kustomization.yaml")
DOCUMENTS = [(path.name, one) for path in K8S for one in yaml.safe_load_all(path.read_text())]
KUBERNETES = "1.31"
# Each with the reason why the policy does not apply as it stands.
NOT_KEPT = {
    "CKV_K8S_43": "images are pinned by digest in the overlay of a release (runbook, first deployment)",
    "CKV_K8S_35": "the address of Redis comes from a secret by variable; the API keys come as a file",
    "CKV_K8S_8": "the worker has no port to ask; its lease is watched (homeranker status)",
    "CKV_K8S_9": "the worker takes no traffic",
}


def pods() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for _, one in DOCUMENTS:
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found.append((one["metadata"]["name"], spec["template"]["spec"]))
    return found


@pytest.mark.parametrize(("name", "document"), DOCUMENTS, ids=lambda one: one if isinstance(one, str) else one["kind"])
def test_every_manifest_fits_the_schema_of_kubernetes(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_kustomization_names_every_file() -> None:
    told = yaml.safe_load((DEPLOY / "k8s" / "kustomization.yaml").read_text())
    assert sorted(told["resources"]) == [path.name for path in K8S]


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda one: one if isinstance(one, str) else "")
def test_no_container_is_root_writes_its_root_or_takes_what_it_likes(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"]) & set(container["resources"]["requests"])


def test_the_service_can_be_drained_and_survives_a_node() -> None:
    kinds = {one["kind"] for _, one in DOCUMENTS}
    assert {"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "CronJob"} <= kinds
    [container] = dict(pods())["service"]["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert "preStop" in container["lifecycle"]


def test_every_variable_in_the_deployment_is_read_by_the_code() -> None:
    code = "\n".join(p.read_text() for name in ("serving", "flows", "features") for p in (ROOT / name).rglob("*.py"))
    texts = [path.read_text() for path in [*K8S, DEPLOY / "compose.yaml"]]
    named = {name for text in texts for name in re.findall(r"HOMERANKER_[A-Z_]+", text)}
    assert named and {name for name in named if f'"{name}"' not in code} == set()


def test_compose_holds_the_platform_and_no_secret() -> None:
    told = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    wanted = {"postgres", "prefect", "worker", "redis", "service", "prometheus", "grafana"}
    assert wanted == set(told["services"])
    ports = [port for one in told["services"].values() for port in one.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert set(told["secrets"]) == {"postgres_password", "api_keys", "grafana_password"}
    assert told["services"]["service"]["read_only"] and told["services"]["service"]["user"] == "10001:10001"


def test_dashboard_and_alerts_speak_of_metrics_that_the_service_has() -> None:
    families = {one.name for one in prometheus_client.REGISTRY.collect() if one.name.startswith("homeranker_")}
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "homeranker.json").read_text())
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]] + [
        one["expr"] for one in rules
    ]
    named = {name for text in asked for name in re.findall(r"homeranker_[a-z_]+", text)}
    short = {re.sub(r"_(total|bucket)$", "", name) for name in named}
    assert len(board["panels"]) >= 10 and short and short - families == set()
    assert metrics.REQUESTS is not None


def test_every_alert_has_its_cure_in_the_runbook() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    book = (DEPLOY / "runbook.md").read_text()
    headings = re.findall(r"^### (\w+)$", book, re.M)
    assert sorted(headings) == sorted(one["alert"] for one in rules)
    assert all(one["annotations"]["runbook"] == f"deploy/runbook.md#{one['alert'].lower()}" for one in rules)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_policy_checker_finds_nothing_but_what_is_explained(tmp_path: Path) -> None:
    """Checkov, in an environment of its own: its pins do not fit beside the project's."""
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    subprocess.run([place / "bin" / "pip", "install", "--quiet", "checkov==3.3.30"], check=True, capture_output=True)
    words = ["-d", str(DEPLOY / "k8s"), "--framework", "kubernetes", "-o", "json", "--skip-download", "--quiet"]
    done = subprocess.run([place / "bin" / "checkov", *words], capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    failed = {one["check_id"] for one in told["results"]["failed_checks"]}
    assert told["summary"]["passed"] > 200
    assert failed - set(NOT_KEPT) == set()
