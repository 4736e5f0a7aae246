"""The name of every file in a results folder, once.

    sweep.json                           what was asked for: the resolved spec, the data, the task's arms and columns
    environment.json                     versions, commit and device of the last start, earlier ones under `earlier`
    state.json                           what the driver was doing when it last gave a sign of life
    verdict.json                         the answer
    report.html, report.md               the answer as a page and as Markdown; `raymae report` writes them
    trials/part-*.parquet                one row per ended trial
    reports/part-*.parquet               one row per report
    scores/<trial_id>.parquet            a replicate's test score, example by example
    configs/<trial_id>.json              the config of every trial that was started
    commands/<id>.json                   what somebody asked of the running sweep; <id>.receipt.json, what became of it
    encoders/<encoder_id>.safetensors    a masked autoencoder that trials start from; and <encoder_id>.json, its card
    models/<trial_id>.safetensors        the network of a replicate as it was scored; and <trial_id>.json, its card
    checkpoints/<trial_id>.pt            the latest state of a trial that has not ended
    checkpoints/<trial_id>@<epoch>.pt    its state after an epoch, kept for a child of population-based training
    pictures/<trial_id>-<name>.png       what a replicate does
    tensorboard/<trial_id>/              event files
    wandb/                               runs of Weights & Biases, where the sweep file asks for them
    logs/driver.log                      what the driver and Ray said
"""

from __future__ import annotations

import re

from raymae.errors import ResultsError

SWEEP = "sweep.json"
ENVIRONMENT = "environment.json"
STATE = "state.json"
VERDICT = "verdict.json"
REPORT_HTML = "report.html"
REPORT_MD = "report.md"

TRIALS = "trials"
REPORTS = "reports"
SCORES = "scores"
CONFIGS = "configs"
COMMANDS = "commands"
ENCODERS = "encoders"
MODELS = "models"
CHECKPOINTS = "checkpoints"
PICTURES = "pictures"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
LOGS = "logs"

DRIVER_LOG = f"{LOGS}/driver.log"

_TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def config(trial_id: str) -> str:
    """The file of a trial's config.

    Raises:
        ResultsError: The name cannot be a file's.
    """
    if not _TRIAL_ID.fullmatch(trial_id):
        raise ResultsError(f"a trial_id is letters, digits, dot, dash and underscore, got {trial_id!r}")
    return f"{CONFIGS}/{trial_id}.json"


def weights(name: str) -> str:
    """The file of an encoder's or a model's weights, in their folder."""
    return f"{name}.safetensors"


def card(name: str) -> str:
    """The file that says what an encoder or a model is, in their folder."""
    return f"{name}.json"


def named_by_card(file: str) -> str | None:
    """Whom a file in a folder of encoders or models is the card of; None where it is no card."""
    name = file.removesuffix(".json")
    return name if name != file and _TRIAL_ID.fullmatch(name) else None


def checkpoint(trial_id: str) -> str:
    """The file of a trial's latest state."""
    return f"{CHECKPOINTS}/{trial_id}.pt"


def milestone(trial_id: str, epoch: int) -> str:
    """The file of a trial's state after an epoch of fine-tuning."""
    return f"{CHECKPOINTS}/{trial_id}@{epoch}.pt"


def owner_of(checkpoint: str) -> tuple[str, bool]:
    """The trial of a file in `checkpoints/`, and whether the file is a milestone."""
    trial_id, at, _ = checkpoint.removesuffix(".pt").partition("@")
    return trial_id, bool(at)


def scores(trial_id: str) -> str:
    """The file of a replicate's test scores, example by example."""
    return f"{SCORES}/{trial_id}.parquet"


def picture(trial_id: str, name: str) -> str:
    """The file of a trial's picture."""
    return f"{PICTURES}/{trial_id}-{name}.png"


def picture_name(file: str, trial_id: str) -> str | None:
    """The name of the picture in a file of `pictures/`; None where it is another trial's."""
    name = file.removeprefix(f"{trial_id}-").removesuffix(".png")
    return name if name and file == f"{trial_id}-{name}.png" else None
