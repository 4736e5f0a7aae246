"""Rules for the Kubernetes manifests of a cluster: a token, cluster-internal services, no root, pinned images.

The API server checks the schema; this checks what it would accept and one would regret.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raymae.launch import Document, Finding
from raymae.search.engine.connection import TRIAL_DRIVER

RAY_API = "ray.io/v1"


def manifest_problems(document: Document, all_documents: Sequence[Document]) -> Iterator[Finding]:
    """Everything wrong with one manifest.

    Args:
        document: The manifest.
        all_documents: It and its neighbours in the file.
    """
    kind = document.get("kind")
    if "name" not in (document.get("metadata") or {}):
        yield "metadata", "needs a name"
    if document.get("apiVersion") == RAY_API and kind in ("RayCluster", "RayJob"):
        spec = document.get("spec") or {}
        cluster = spec.get("rayClusterSpec") if kind == "RayJob" else spec
        at = "spec.rayClusterSpec" if kind == "RayJob" else "spec"
        if cluster is not None:
            yield from _cluster(cluster, at)
        elif not spec.get("clusterSelector"):
            yield "spec", "a RayJob needs a rayClusterSpec or a clusterSelector"
        if kind == "RayJob" and not spec.get("entrypoint"):
            yield "spec", "a RayJob needs an entrypoint"
        if kind == "RayJob" and spec.get("submitterPodTemplate"):
            yield from _pod(spec["submitterPodTemplate"], "spec.submitterPodTemplate")
    elif kind == "Service" and (document.get("spec") or {}).get("type") in ("LoadBalancer", "NodePort"):
        yield "spec.type", f"{document['spec']['type']} opens ports to the outside; use `kubectl port-forward`"
    elif kind == "Ingress":
        yield "kind", "an Ingress opens ports to the outside; use `kubectl port-forward`"
    elif kind == "Secret" and any((document.get(part) or {}) for part in ("data", "stringData")):
        yield "kind", "a secret does not belong in a file; KubeRay makes the token (authOptions: {mode: token})"
    if kind == "RayCluster" and not any(one.get("kind") == "NetworkPolicy" for one in all_documents):
        yield "kind", "needs a NetworkPolicy beside it: without one every pod there is reaches Ray's ports"


def _cluster(cluster: Document, at: str) -> Iterator[Finding]:
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield f"{at}.authOptions", "must say mode: token: without, whoever reaches a port may run code"
    if not cluster.get("rayVersion"):
        yield at, "needs a rayVersion"
    if not cluster.get("enableInTreeAutoscaling"):
        yield at, "needs enableInTreeAutoscaling: true: workers would cost all the time"
    head = cluster.get("headGroupSpec") or {}
    start = head.get("rayStartParams") or {}
    if str(start.get("num-cpus")) != "0":
        yield f"{at}.headGroupSpec.rayStartParams", 'must say num-cpus: "0": a trial there would starve the drivers'
    if TRIAL_DRIVER not in str(start.get("resources")):
        yield (f"{at}.headGroupSpec.rayStartParams",
               f"must offer `{TRIAL_DRIVER}` as a resource: drivers live on the head")
    service = (head.get("serviceType") or "ClusterIP")
    if service != "ClusterIP":
        yield f"{at}.headGroupSpec.serviceType", f"must be ClusterIP, {service} opens ports to the outside"
    yield from _pod(head.get("template") or {}, f"{at}.headGroupSpec.template", gpus_allowed=False)
    for index, group in enumerate(cluster.get("workerGroupSpecs") or []):
        where = f"{at}.workerGroupSpecs.{index}"
        if "trial_driver" in str((group.get("rayStartParams") or {}).get("resources")):
            yield f"{where}.rayStartParams", "puts trials' drivers on workers, which come and go"
        if group.get("maxReplicas") is None or group.get("minReplicas", 0) > group["maxReplicas"]:
            yield where, "needs minReplicas <= maxReplicas"
        yield from _pod(group.get("template") or {}, f"{where}.template")


def _pod(template: Document, at: str, *, gpus_allowed: bool = True) -> Iterator[Finding]:
    spec = template.get("spec") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{at}.spec.{key}", "must not be true: it opens the machine to the pod"
    if (spec.get("securityContext") or {}).get("runAsNonRoot") is not True:
        yield f"{at}.spec", "needs securityContext: {runAsNonRoot: true}"
    containers = spec.get("containers") or []
    if not containers:
        yield f"{at}.spec", "holds no containers"
    for index, container in enumerate(containers):
        where = f"{at}.spec.containers.{index}"
        image = str(container.get("image", ""))
        if "@sha256:" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
            yield f"{where}.image", f"must be pinned to a version, got {image!r}"
        context = container.get("securityContext") or {}
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            yield f"{where}.securityContext", "must say allowPrivilegeEscalation: false, and not privileged"
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        if not {"cpu", "memory"} <= set(requests) or "memory" not in limits:
            yield f"{where}.resources", "needs requests of cpu and memory, and a limit of memory"
        if not gpus_allowed and "nvidia.com/gpu" in limits:
            yield f"{where}.resources", "the head runs all the time and trains nothing: no GPU for it"
        for number, variable in enumerate(container.get("env") or []):
            if variable.get("name") == "RAY_AUTH_TOKEN" and "value" in variable:
                yield f"{where}.env.{number}", "a secret does not belong in a file; take it with valueFrom"
            if variable.get("name") == "RAY_AUTH_MODE" and variable.get("value") != "token":
                yield f"{where}.env.{number}", "switches the token off"
