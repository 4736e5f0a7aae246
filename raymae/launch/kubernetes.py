"""Rules for the Kubernetes manifests of a cluster: a token, cluster-internal services, no root, pinned images.

The API server checks the schema; this checks what it would accept and one would regret.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raymae.launch import Document, Finding
from raymae.launch.doors import open_ranges, token_off
from raymae.search.engine.connection import TRIAL_DRIVER

RAY_API = "ray.io/v1"
OUTWARD = {"Ingress": "an Ingress", "Gateway": "a Gateway", "HTTPRoute": "an HTTPRoute", "TCPRoute": "a TCPRoute",
           "Route": "a Route"}


def manifest_problems(document: Document, all_documents: Sequence[Document]) -> Iterator[Finding]:
    """Everything wrong with one manifest.

    Args:
        document: The manifest.
        all_documents: It and its neighbours in the file.
    """
    kind = document.get("kind")
    yield from token_off(document)
    yield from open_ranges(document)
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
    elif kind == "Service":
        yield from _service(document.get("spec") or {})
    elif kind in OUTWARD:
        yield "kind", f"{OUTWARD[kind]} opens ports to the outside; use `kubectl port-forward`"
    elif kind == "NetworkPolicy":
        yield from _network_policy(document.get("spec") or {})
    elif kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield from _rights(document)
    elif kind == "Pod":
        yield from _pod(document, "")
    elif kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"):
        yield from _pod((document.get("spec") or {}).get("template") or {}, "spec.template")
    elif kind == "Secret" and any((document.get(part) or {}) for part in ("data", "stringData")):
        yield "kind", "a secret does not belong in a file; KubeRay makes the token (authOptions: {mode: token})"
    if kind == "RayCluster" and not any(one.get("kind") == "NetworkPolicy" for one in all_documents):
        yield "kind", "needs a NetworkPolicy beside it: without one every pod there is reaches Ray's ports"


def _service(spec: Document) -> Iterator[Finding]:
    if spec.get("type") in ("LoadBalancer", "NodePort"):
        yield "spec.type", f"{spec['type']} opens ports to the outside; use `kubectl port-forward`"
    if spec.get("externalIPs"):
        yield "spec.externalIPs", "opens ports to the outside; use `kubectl port-forward`"


def _network_policy(spec: Document) -> Iterator[Finding]:
    for index, rule in enumerate(spec.get("ingress") or []):
        if not rule or not rule.get("from"):
            yield f"spec.ingress.{index}", "lets everybody in: a rule without `from`; name the pods that need it"
        for number, peer in enumerate((rule or {}).get("from") or []):
            selectors = [peer.get(key) for key in ("podSelector", "namespaceSelector") if key in peer]
            if selectors and not any(selectors):
                yield f"spec.ingress.{index}.from.{number}", "lets every pod in; name those that need it by a label"


def _rights(document: Document) -> Iterator[Finding]:
    for index, rule in enumerate(document.get("rules") or []):
        for key in ("verbs", "resources", "apiGroups"):
            if "*" in (rule.get(key) or []):
                yield f"rules.{index}.{key}", "gives a right to everything; list what is needed"
    role = (document.get("roleRef") or {}).get("name")
    if role in ("cluster-admin", "admin", "edit"):
        yield "roleRef.name", f"{role} may do everything here; bind a role that lists what is needed"


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
    spec, at = template.get("spec") or {}, f"{at}.spec".lstrip(".")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{at}.{key}", "must not be true: it opens the machine to the pod"
    if (spec.get("securityContext") or {}).get("runAsNonRoot") is not True:
        yield at, "needs securityContext: {runAsNonRoot: true}"
    containers = spec.get("containers") or []
    if not containers:
        yield at, "holds no containers"
    for index, volume in enumerate(spec.get("volumes") or []):
        if "hostPath" in volume:
            yield f"{at}.volumes.{index}", "must not be a hostPath: it opens the machine's files to the pod"
    for key in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(key) or []):
            yield from _container(container, f"{at}.{key}.{index}", gpus_allowed=gpus_allowed)


def _container(container: Document, where: str, *, gpus_allowed: bool) -> Iterator[Finding]:
    image = str(container.get("image", ""))
    if "@sha256:" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest")):
        yield f"{where}.image", f"must be pinned to a version, got {image!r}"
    context = container.get("securityContext") or {}
    if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
        yield f"{where}.securityContext", "must say allowPrivilegeEscalation: false, and not privileged"
    added = {str(one).upper().removeprefix("CAP_") for one in (context.get("capabilities") or {}).get("add") or []}
    if added & {"ALL", "SYS_ADMIN", "NET_ADMIN"}:
        yield (f"{where}.securityContext.capabilities",
               f"must not add {', '.join(sorted(added))}: it is as good as privileged")
    for number, port in enumerate(container.get("ports") or []):
        if port.get("hostPort"):
            yield f"{where}.ports.{number}", "must not have a hostPort: it opens the machine's port to everybody"
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
