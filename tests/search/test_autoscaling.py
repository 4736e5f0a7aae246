"""How far a cluster grows, who gets how much of it, and both for real with raylets as nodes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raymae.errors import ResourceError
from raymae.search.engine.autoscaling import (
    Growth,
    NodeType,
    find_file,
    find_growth,
    growth_of,
    room,
    slots_when_grown,
    workers_on,
)
from raymae.search.engine.sharing import NAMESPACE, Rival, part_of, rivals_of, share, shared
from raymae.spec.limits import ResourceSpec
from tests.search.autoscaled import autoscaled
from tests.search.conftest import ROOT, SMALL, TIMEOUT_S, Sweep, check_complete

HEAD = [{"CPU": 0.0, "trial_driver": 100.0, "node:__internal_head__": 1.0}]
ONE_GPU, FOUR_GPUS = {"CPU": 4.0, "GPU": 1.0}, {"CPU": 48.0, "GPU": 4.0}


def gpu(**changes) -> ResourceSpec:
    return ResourceSpec(**{"gpus_per_worker": 1, **changes})


@pytest.mark.parametrize(("resources", "node", "workers"), [
    ({}, {"CPU": 4}, 4),
    ({"cpus_per_worker": 0.1}, {"CPU": 0.3}, 3),
    ({"cpus_per_worker": 3}, {"CPU": 8, "GPU": 1}, 2),
    ({"gpus_per_worker": 1}, {"CPU": 8}, 0),
    ({"gpus_per_worker": 2}, {"CPU": 8, "GPU": 3}, 1),
    ({"gpus_per_worker": 0.4}, {"CPU": 8, "GPU": 2}, 4),
    ({"gpus_per_worker": 0.25}, {"CPU": 3, "GPU": 1}, 3),
])
def test_workers_on_one_node(resources, node, workers) -> None:
    assert workers_on(node, ResourceSpec(**resources)) == workers


def test_room_counts_whole_workers_on_every_node() -> None:
    assert room(ResourceSpec(cpus_per_worker=2), [{"CPU": 3}, {"CPU": 3}]) == 2
    assert room(ResourceSpec(workers=2), [{"CPU": 1}, {"CPU": 2}]) == 1
    assert room(gpu(), HEAD) == 0


def test_the_priority_decides_which_nodes_are_counted() -> None:
    spot_first = Growth([NodeType("large", FOUR_GPUS, 4, 20), NodeType("spot", ONE_GPU, 3, 40)], 4)
    assert slots_when_grown(gpu(), HEAD, spot_first) == 3 + 4
    assert slots_when_grown(gpu(), HEAD, spot_first, max_concurrent=2) == 2
    assert slots_when_grown(gpu(), HEAD, spot_first, max_concurrent=100) == 16, "as far as it could ever grow"
    assert slots_when_grown(gpu(gpus_per_worker=4), HEAD, spot_first) == 4, "only the large ones hold it"
    alike = Growth([NodeType("large", FOUR_GPUS, 4), NodeType("small", ONE_GPU, 4)], 4)
    assert slots_when_grown(gpu(), HEAD, alike) == 4, "perhaps only small ones are started"
    assert slots_when_grown(ResourceSpec(), [{"CPU": 2.0}], Growth([NodeType("small", ONE_GPU, 1)], 1)) == 6


def test_what_never_fits_is_refused_at_once() -> None:
    growth = Growth([NodeType("small", ONE_GPU, 4)], 4)
    with pytest.raises(ResourceError, match=r"never grows .*at most 4 nodes, of 4 x small with 4 CPUs, 1 GPUs"):
        slots_when_grown(gpu(gpus_per_worker=2), HEAD, growth)
    with pytest.raises(ResourceError, match="5 workers"):
        slots_when_grown(gpu(workers=5), HEAD, growth, max_concurrent=1)


def test_reading_a_cluster_file() -> None:
    config = {
        "max_workers": 3, "head_node_type": "head",
        "available_node_types": {"head": {"resources": {"CPU": 4}}, "a": {"resources": ONE_GPU, "max_workers": 2},
                                 "b": {"resources": FOUR_GPUS, "priority": 7}},
    }
    assert growth_of(config) == Growth([NodeType("a", ONE_GPU, 2), NodeType("b", FOUR_GPUS, 3, 7)], 3)
    config["available_node_types"] = {"head": {}, "unknown": {"resources": {}, "max_workers": 3}}
    assert growth_of(config) is None


def test_the_autoscaler_of_this_cluster_is_found_among_others(tmp_path: Path) -> None:
    children = []
    for port, most in ((1, 5), (2, 6)):
        file = tmp_path / f"{port}.yaml"
        file.write_text(f"max_workers: {most}\navailable_node_types: {{a: {{resources: {{CPU: 1}}}}}}\n")
        words = [f"--gcs-address=10.0.0.1:{port}", f"--autoscaling-config={file}"]
        children.append(subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE))
    try:
        found = find_growth(find_file("10.0.0.1:2"))
        assert found is not None
        assert found.most == 6
        assert find_file("10.0.0.1:3") is None
        assert find_growth(None) is None
    finally:
        for child in children:
            child.communicate(b"\n")


@pytest.mark.parametrize("capacity", [1, 2, 7])
@pytest.mark.parametrize("sweeps", [1, 2, 3])
def test_shares_are_equal_and_never_nothing(capacity: int, sweeps: int) -> None:
    shares = [share(capacity, place, sweeps) for place in range(sweeps)]
    assert sum(shares) == max(capacity, sweeps)
    assert 1 <= min(shares) <= max(shares) <= min(shares) + 1
    assert shares == sorted(shares, reverse=True), "what is left over goes to the first"


def rival(kind: str, came: str, priority: int = 0, units: float = 4) -> Rival:
    return Rival(-priority, f"{came}-x", kind, units)


def test_rivals_want_the_same_and_come_by_priority_and_in_order() -> None:
    mine, earlier, later, above = (rival("gpu", "2"), rival("gpu", "1"), rival("gpu", "3"), rival("gpu", "4", 5))
    assert rivals_of(mine, [later, rival("cpu", "1"), above, earlier]) == [above, earlier, mine, later]


@pytest.mark.parametrize("priority", [-100, -1, 0, 7])
@pytest.mark.parametrize("units", [1, 0.25, 2_000_000])
def test_a_keeper_s_name_says_what_its_sweep_is(priority: int, units: float) -> None:
    one = Rival.of(ResourceSpec(priority=priority, gpus_per_worker=min(units, 1)), round(max(units, 1)))
    assert Rival.named(f"{one.name}+12") == Rival.named(one.name) == one
    assert (one.kind, one.behind, one.units) == ("gpu", -priority, units)
    assert [Rival.named(name) for name in ("", "cpu", "cpu-1-a", "cpu-1-a-x-y", "somebody's actor-1-2-3")] == [None] * 5


@pytest.mark.parametrize(("above", "capacity", "parts"), [
    ([], 5, [3, 2]),
    ([2], 5, [2, 2]),  # each of our 5 trials takes 2 units
    ([3], 5, [2, 1]),
    ([4, 2], 5, [1, 1]),
    ([9], 5, [0, 0]),
    ([100, 100], 5, [0, 0]),
])
def test_those_above_get_what_they_can_use_and_equals_share_the_rest(
    above: list[float], capacity: int, parts: list[int]
) -> None:
    ours = [rival("cpu", "1"), rival("cpu", "2")]
    everybody = [*(rival("cpu", str(5 + number), 1, units) for number, units in enumerate(above)), *ours]
    assert [part_of(one, rivals_of(one, everybody), capacity, 2.0) for one in ours] == parts
    if above:
        first = everybody[0]
        assert part_of(first, rivals_of(first, everybody), 10, 1.0) == 10 // len(above), "those below do not count"


class Slots:
    """As much of a conductor as sharing needs."""

    def __init__(self, slots: int) -> None:
        self.slots, self.said = slots, []
        self.warn = self.said.append

    def use_slots(self, slots: int) -> None:
        self.slots = slots


def test_slots_follow_the_other_sweeps_coming_and_going(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    mine, allowed = rival("cpu", "1", units=5), []
    named = [{"name": f"{mine.name}+1", "namespace": NAMESPACE}, {"name": f"{mine.name}+2", "namespace": NAMESPACE},
             {"name": f"{rival('cpu', '0').name}+1", "namespace": "somebody else's"}]  # its first keeper has died
    monkeypatch.setattr(ray.util, "list_named_actors", lambda all_namespaces: list(named))
    conductor = Slots(5)

    def wait_for(slots: int) -> None:
        deadline = time.monotonic() + 10
        while conductor.slots != slots and time.monotonic() < deadline:
            time.sleep(0.01)
        assert conductor.slots == slots

    def come(one: Rival) -> None:
        named.append({"name": f"{one.name}+1", "namespace": NAMESPACE})

    with shared(conductor, mine, lambda: 4, allowed.append, period_s=0.01):
        assert conductor.slots == 5, "alone it has what it wants, if need be from nodes that nobody knows of"
        come(rival("cpu", "2"))
        wait_for(2)
        come(rival("gpu", "3"))
        come(rival("cpu", "4"))
        wait_for(2)
        assert not allowed, "beside equals, trials that run end"
        come(rival("cpu", "5", 1, units=10))
        wait_for(0)
        assert allowed == [0], "for one that goes first they leave"
        del named[3:]
        wait_for(5)
    assert allowed == [0, None]
    assert conductor.said[0] == "2 sweeps share the cluster now: 2 trials of this one at once"
    assert conductor.said[-1] == "no other sweep is on the cluster now: 5 trials of this one at once"


@pytest.mark.parametrize(("shares_cluster", "running", "status", "let_go"), [
    (True, 1, "RUNNING", True), (True, 1, "PENDING", False), (True, 0, "RUNNING", False), (False, 1, "RUNNING", False),
])
def test_an_idle_group_is_let_go_only_for_another_sweep(shares_cluster, running, status, let_go) -> None:
    from types import SimpleNamespace

    from raymae.search.engine.tune import ArmScheduler

    let = []
    ids = SimpleNamespace(forget=lambda controller: None, conductor=SimpleNamespace(
        plans={}, shares_cluster=shares_cluster, trials=SimpleNamespace(running=range(running)), slots=1))
    controller = SimpleNamespace(
        get_live_trials=lambda: [SimpleNamespace(status=status)], get_trials=lambda: [],
        _tune_controller=SimpleNamespace(_cleanup_cached_actors=lambda force_all: let.append(force_all)))
    assert ArmScheduler(ids).choose_trial_to_run(controller) is None
    assert bool(let) == let_go


# --- for real


@pytest.mark.slow
def test_what_never_fits_a_growing_cluster_is_refused(small) -> None:
    small.text += "resources: {gpus_per_worker: 2}\n"
    small.more = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_AUTH_MODE": "token"}
    with autoscaled(small.environment, gpu_nodes=2, idle_s=6) as cluster:
        done = small.run("--address", cluster.address)
    assert done.returncode != 0
    assert "never grows to hold that: at most 2 nodes, of 2 x gpu with 1 CPUs, 1 GPUs" in done.stderr


@pytest.mark.slow
def test_a_sweep_scales_a_cluster_up_and_down_and_a_killed_node_is_replaced(small) -> None:
    small.text = small.text.replace("epochs: 4", "epochs: 4, batch_size: 32") + "resources: {gpus_per_worker: 1}\n"
    small.more = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_AUTH_MODE": "token"}
    with autoscaled(small.environment, gpu_nodes=2, idle_s=6) as cluster:
        process = small.start("--address", cluster.address)

        def until(condition) -> None:
            small.wait_for(lambda: cluster.look() >= 0 and condition(), process)

        until(lambda: cluster.look() == 2)
        until(lambda: small.num_ended() >= 1 and small.num_checkpoints() >= 2)
        victim = cluster.workers()[0]
        victim.send_signal(signal.SIGKILL)
        until(lambda: victim.pid not in {one.pid for one in cluster.workers()} and cluster.look() < 2)
        until(lambda: cluster.look() == 2)
        while process.poll() is None:
            cluster.look()
            time.sleep(0.2)
        output = process.stdout.read()
        assert process.returncode == 0, output
        assert "waiting for nodes: room for 0 of 2 trials at once" in output
        check_complete(small.store)
        trials = small.store.trials()
        assert set(trials["status"]) == {"completed"}
        assert set(trials["device"]) == {"cpu"}
        assert trials["attempt"].max() >= 1, "somebody was on that node"
        deadline = time.monotonic() + TIMEOUT_S
        while cluster.look() and time.monotonic() < deadline:
            time.sleep(0.2)
        seen = cluster.seen
        assert seen[0] == seen[-1] == 0, seen
        assert seen[seen.index(2):].count(2) >= 2, f"the killed node was replaced: {seen}"
        assert max(seen) == 2, seen


@pytest.mark.slow
def test_a_sweep_on_two_nodes_stops_at_its_dollars(small) -> None:
    small.text = small.text.replace("num_trials: 2", "num_trials: 200") + (
        "resources: {gpus_per_worker: 1}\n"
        "budget: {dollars: 30, price_per_node_hour: {ray.head.default: 3.6, gpu: 360}}\n")  # ten cents a second
    small.more = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_AUTH_MODE": "token"}
    with autoscaled(small.environment, gpu_nodes=2, idle_s=6) as cluster:
        unpriced = small.run("--address", cluster.address, "--set", "budget.price_per_node_hour={gpu: 360}",
                             "--set", "name=unpriced")
        assert unpriced.returncode == 1
        assert "what these nodes cost is not known: ray.head.default" in unpriced.stderr
        process = small.start("--address", cluster.address)
        small.wait_for(lambda: cluster.look() == 2, process)
        began, looks = time.monotonic(), []
        while process.poll() is None:
            looks.append(cluster.look())
            time.sleep(0.2)
        wall_s, output = time.monotonic() - began, process.stdout.read()
    assert process.returncode == 0, output
    assert "charged for the nodes that are up, for an hour: ray.head.default 3.6 $, gpu 360 $" in output
    trials, spent = small.store.trials(), small.store.state()["dollars"]
    assert 15 < spent < 31.5, "a look's worth more, no further"
    assert spent > 0.15 * wall_s * (sum(looks) / len(looks) / 2), "two nodes are charged, not one"
    searched = trials[(trials["stage"] == "search") & (trials["arm"] == "scratch")]
    assert 1 <= len(searched) < 200
    assert (trials["stage"] == "replicate").sum() == 5, "the replicates are within it"


@contextmanager
def two_raylets(environment: dict[str, str]) -> Iterator[str]:
    """A cluster with two nodes of one place each beside its head; gives its address."""
    raylets = subprocess.Popen(
        [sys.executable, "-m", "tests.search.raylets"], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    try:
        address = raylets.stdout.readline().strip()
        for _ in range(2):
            raylets.stdin.write("add\n")
            raylets.stdin.flush()
            assert raylets.stdout.readline() == "done\n"
        yield address
    finally:
        raylets.stdin.close()
        raylets.stdout.close()
        raylets.wait(60)


@pytest.mark.slow
def test_a_sweep_of_higher_priority_passes_one_that_runs(small) -> None:
    """Trials that run give their places back at their next report, long before their ends, and go on afterwards."""
    small.text = small.text.replace("epochs: 4", "epochs: 60").replace("[mae, scratch, persistence]", "[scratch]")
    small.more = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_AUTH_MODE": "token"}
    second = Sweep(small.folder / "second", SMALL.replace("arms: [mae, scratch, persistence]", "arms: [scratch]"))
    second.folder.mkdir()
    second.more = small.more
    with two_raylets(small.environment) as address:
        first = small.start("--address", address)
        small.wait_for(lambda: small.num_checkpoints() == 2, first)
        ended = small.num_ended()
        done = second.run("--address", address, "--set", "resources.priority=1")
        assert done.returncode == 0, done.stderr
        assert set(second.store.trials()["status"]) == {"completed"}
        assert "sweeps share" not in done.stderr, "those below do not count"
        assert first.poll() is None, "the first goes on"
        assert small.num_ended() == ended, "its trials had not ended"
        output, _ = first.communicate(timeout=TIMEOUT_S)
    assert first.returncode == 0, output
    said = " ".join(output.split())
    assert "a sweep of higher priority is on the cluster now: 0 trials of this one at once; others give their" in said
    assert "no other sweep is on the cluster now: 2 trials of this one at once" in said
    rows = small.store.trials()
    assert set(rows["status"]) == {"completed"}
    assert sorted(rows["attempt"])[-2:] == [1, 1], "two were handed back once, and go on from their report"
    reports = small.store.reports()
    assert not reports.duplicated(["trial_id", "step"]).any()


@pytest.mark.slow
def test_a_second_sweep_gets_its_half_while_the_first_goes_on(small) -> None:
    small.text = small.text.replace("num_trials: 2", "num_trials: 100")
    small.more = {"RAY_AUTH_TOKEN": "0" * 32, "RAY_AUTH_MODE": "token"}
    second = Sweep(small.folder / "second", SMALL.replace("arms: [mae, scratch, persistence]", "arms: [scratch]"))
    second.folder.mkdir()
    second.more = small.more
    with two_raylets(small.environment) as address:
        first = small.start("--address", address)
        small.wait_for(lambda: small.num_ended() >= 2 and small.num_checkpoints() == 2, first)
        done = second.run("--address", address)
        assert done.returncode == 0, done.stderr
        assert set(second.store.trials()["status"]) == {"completed"}
        assert "2 sweeps share the cluster now: 1 trials of this one at once" in done.stderr
        assert first.poll() is None, "the first goes on"
        ended = small.num_ended()
        small.wait_for(lambda: small.num_ended() >= ended + 4 and small.num_checkpoints() == 2, first)
        first.send_signal(signal.SIGINT)
        output, _ = first.communicate(timeout=TIMEOUT_S)
        assert first.returncode == 130, output
        assert "2 sweeps share the cluster now: 1 trials of this one at once" in output
        assert "no other sweep is on the cluster now: 2 trials of this one at once" in output
