"""Which pretraining the trials of a sweep started from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


def encoder_trials(last: pd.DataFrame) -> dict[str, str]:
    """From a trial to the pretraining that made its encoder; trials without one are left out.

    Args:
        last: The `trials` dataset, one row per trial, of whatever version.
    """
    if "encoder_id" not in last:
        return {}
    known = last[last["encoder_id"].notna()]
    is_made = known["stage"] == "pretrain"
    maker = dict(zip(known["encoder_id"][is_made], known["trial_id"][is_made], strict=True))
    pairs = zip(known["trial_id"][~is_made], known["encoder_id"][~is_made], strict=True)
    return {str(trial): str(maker[encoder]) for trial, encoder in pairs if encoder in maker}


def with_pretraining(reports: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    """Reports, with those of each trial's pretraining among its own.

    Args:
        reports: The `reports` dataset.
        last: The `trials` dataset, one row per trial.
    """
    import pandas as pd

    maker = encoder_trials(last)
    if not maker:
        return reports
    links = pd.DataFrame({"trial": list(maker), "trial_id": list(maker.values())})
    theirs = reports.merge(links, on="trial_id").drop(columns="trial_id").rename(columns={"trial": "trial_id"})
    theirs["step"] -= theirs["step"].max() + 1  # before their own
    return pd.concat([theirs[reports.columns], reports], ignore_index=True)
