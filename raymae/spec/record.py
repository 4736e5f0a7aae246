"""Where else a sweep is recorded as it goes: the key `record` of a sweep file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from raymae.errors import shorten, unknown
from raymae.spec.read import Tree
from raymae.spec.space import Model


class MlflowSpec(Model):
    """An MLflow server. Who may write to it stands in MLflow's own variables of the environment, and never here."""

    uri: str | None = Field(None, min_length=1, description="Its address, such as http://host:5000, or `${NAME}`, a "
                            "variable of the environment. By default $MLFLOW_TRACKING_URI.")
    experiment: str | None = Field(None, min_length=1, description="The experiment that the runs are in, made as "
                                   "needed. By default $MLFLOW_EXPERIMENT_NAME, else `raymae`.")

    @field_validator("uri")
    @classmethod
    def _open(cls, value: str | None) -> str | None:
        try:
            text = value or ""
            secret = "@" in (urlsplit(text).netloc if "://" in text else text)
        except ValueError:
            raise ValueError("must be an address such as http://host:5000") from None
        if secret:  # the file is copied to the results: the value is in no message either
            raise ValueError("holds a name or a password before its @; set MLFLOW_TRACKING_USERNAME and "
                             "MLFLOW_TRACKING_PASSWORD in the environment, or the whole address in a variable, and "
                             "write ${NAME} here")
        return value


class WandbSpec(Model):
    """Weights & Biases. The key is $WANDB_API_KEY or what `wandb login` has kept, and never here."""

    project: str | None = Field(None, min_length=1, max_length=128, description="The project that the runs are in. By "
                                "default $WANDB_PROJECT, else `raymae`.")
    entity: str | None = Field(None, min_length=1, description="The user or team. By default $WANDB_ENTITY, else the "
                               "account's own.")
    mode: Literal["online", "offline"] | None = Field(
        None, description="offline: written to this machine alone, below `wandb/` in the results, for `wandb sync`. By "
        "default $WANDB_MODE, else online."
    )

    @field_validator("project")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and (bad := set(value) & set("/\\#?%:")):
            raise ValueError(f"must be without {' '.join(sorted(bad))}, which Weights & Biases refuses, got {value!r}")
        return value


class RecordSpec(Model):
    """Services that are told of every trial as it goes; a list of their names has everything of the environment."""

    mlflow: MlflowSpec | None = Field(None, description="A run for each trial, below one for the sweep.")
    wandb: WandbSpec | None = Field(None, description="A run for each trial and one for the sweep, in a group.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, (RecordSpec, Mapping)):
            return value if isinstance(value, RecordSpec) else {
                name: {} if item is None else item for name, item in value.items()}
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"must be a list such as [mlflow] or a mapping such as {{mlflow: {{uri: …}}}}, got "
                             f"{shorten(value)}")
        for name in value:
            if not isinstance(name, str) or name not in cls.model_fields:
                raise ValueError(unknown("recorder", name, cls.model_fields))
        return {name: {} for name in value}

    @model_serializer(mode="wrap")
    def _used(self, plain: SerializerFunctionWrapHandler) -> Tree:
        """Without those that are not used: a name without a value stands for one with the environment's values."""
        return {name: value for name, value in plain(self).items() if value is not None}
