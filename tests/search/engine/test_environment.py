"""Ray takes the variables that its connection sets, under the names that this version of Ray has for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ASK = """
from raymae.search.engine.connection import set_environment
set_environment()
from ray._private import ray_constants
print(ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S)
"""


def asked(**variables: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=300,
                          env={**plain, "PYTHONPATH": str(ROOT), **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_busy_machine_s_dashboard_is_waited_for() -> None:
    """Beside other work Ray's dashboard takes more than the minute that Ray gives it, and Ray then refuses to start."""
    assert asked() == "600"


def test_what_the_user_has_set_wins() -> None:
    assert asked(RAY_DASHBOARD_STARTUP_TIMEOUT_S="30") == "30"


def test_this_ray_knows_what_makes_it_patient() -> None:
    """A name that it does not know would do nothing, and say nothing."""
    import ray
    from ray._private import node

    from raymae.search.engine.connection import ENVIRONMENT
    from raymae.search.engine.patience import WAITS

    assert ENVIRONMENT["RAY_worker_niceness"] == "0", "at Ray's 15 a sweep stands still beside other work"
    known = Path(ray.__file__).parent.joinpath("core/src/ray/raylet/raylet").read_bytes() + \
        Path(node.__file__).read_bytes()
    assert [name for name in (*WAITS, "RAY_worker_niceness") if name.encode() not in known] == []
