"""The recorders that a sweep file asks for, or why they cannot be had."""

from __future__ import annotations

import netrc
import os
from importlib.util import find_spec
from urllib.parse import urlsplit

from raymae.errors import Problem, SpecError
from raymae.search.live.mlflow_runs import MlflowRuns
from raymae.search.live.recording import Recorder
from raymae.search.live.variables import with_variables
from raymae.search.live.wandb_runs import WandbRuns
from raymae.spec.record import MlflowSpec, RecordSpec, WandbSpec

DEFAULT = "raymae"  # the experiment and the project, where nobody names one
_CLOUD = "https://api.wandb.ai"


def recorders(spec: RecordSpec) -> list[Recorder]:
    """Make the recorders of a sweep; nothing is asked of their services yet.

    Raises:
        SpecError: A package is not installed, a variable is not set, or nobody says where to record.
    """
    made: list[Recorder] = []
    problems: list[Problem] = []
    for name, make in (("mlflow", lambda: _mlflow(spec.mlflow)), ("wandb", lambda: _wandb(spec.wandb))):
        try:
            if getattr(spec, name) is not None:
                _require(name)
                made += make()
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return made


def _require(package: str) -> None:
    found = find_spec(package)
    if found is None or found.origin is None:  # a folder of that name, such as wandb's own, is no package
        raise SpecError([Problem(f"record.{package}", "", f"{package} is not installed: pip install "
                                 f"'raymae[{package}]', or leave it out of `record`")])


def _mlflow(spec: MlflowSpec | None) -> list[Recorder]:
    spec = spec or MlflowSpec()
    uri = with_variables(spec.uri, "record.mlflow.uri", "the address") if spec.uri else ""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise SpecError([Problem("record.mlflow.uri", "", "is required where MLFLOW_TRACKING_URI is not set in the "
                                 "environment; name the server, such as http://host:5000")])
    return [MlflowRuns(uri, spec.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT)]


def _wandb(spec: WandbSpec | None) -> list[Recorder]:
    spec = spec or WandbSpec()
    mode = spec.mode or os.environ.get("WANDB_MODE") or "online"
    if mode == "disabled":  # whoever sets that wants none
        return []
    offline = mode in ("offline", "dryrun")
    if not offline and not _has_key():
        raise SpecError([Problem("record.wandb", "", "Weights & Biases has no key of yours: set WANDB_API_KEY in the "
                                 "environment or run `wandb login`; with mode: offline none is needed")])
    return [WandbRuns(spec.project or os.environ.get("WANDB_PROJECT") or DEFAULT,
                      spec.entity or os.environ.get("WANDB_ENTITY") or None, "offline" if offline else "online")]


def _has_key() -> bool:
    """Whether there is a key: wandb would ask for one, which nobody could answer while a sweep runs."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or _CLOUD).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC") or None).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
