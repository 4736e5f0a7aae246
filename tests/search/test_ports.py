"""An embedded Ray is for this machine: nobody else in its network can talk to it."""

from __future__ import annotations

import signal

import psutil
import pytest


def test_every_port_of_an_embedded_ray_is_on_loopback(small):
    process = small.start("--set", "arms=[scratch]", "--set", "search.num_trials=2", "--set", "replicates=1")
    # Ray's agents may come to listen after the trials have ended, or under another name: they count where they are seen
    seen = _listeners_until_a_trial_has_ended(small, process)
    assert {"gcs_server", "raylet"} <= {name for name, _ in seen}, seen
    assert not {(name, host) for name, host in seen if host != "127.0.0.1"}


@pytest.mark.slow
def test_of_a_trial_with_two_workers_pytorch_s_store_alone_is_on_every_address(small):
    process = small.start("--set", "arms=[scratch]", "--set", "search.num_trials=1", "--set", "replicates=1",
                          "--set", "resources.workers=2")
    seen = _listeners_until_a_trial_has_ended(small, process)
    assert {(name, host) for name, host in seen if host != "127.0.0.1"} <= {("RayTrainWorker", "::")}


def _listeners_until_a_trial_has_ended(small, process) -> set[tuple[str, str]]:
    """The name of every process of a running sweep that listens, with the address that it listens on."""
    seen: set[tuple[str, str]] = set()

    def ended() -> bool:
        for one in small.processes():
            try:
                listening = [c.laddr.ip for c in one.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
                name = one.cmdline()[0].rpartition("/")[2].removeprefix("ray::").partition(".")[0]
            except (psutil.NoSuchProcess, psutil.AccessDenied, IndexError):
                continue
            seen.update((name, host.removeprefix("::ffff:")) for host in listening)
        return small.num_ended() > 0

    small.wait_for(ended, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    return seen
