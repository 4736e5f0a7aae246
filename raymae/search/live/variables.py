"""Addresses that may hold a secret: filled in from the environment, and never shown."""

from __future__ import annotations

import os
import re
from string import Template

from raymae.errors import Problem, SpecError

SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY")


def with_variables(text: str, key: str, shown: str) -> str:
    """An address with the environment's values for every `${NAME}` in it.

    Args:
        text: The address.
        key: Where it stands in the sweep file, for messages.
        shown: What messages may show of it.

    Raises:
        SpecError: A variable is not set, or a `$` begins none.
    """
    try:
        return Template(text).substitute(os.environ)
    except KeyError as error:
        raise SpecError([Problem(key, "", f"${{{error.args[0]}}} is not set in the environment")]) from None
    except ValueError as error:
        raise SpecError([Problem(key, "", f"{shown}: {error}; a $ itself is written $$")]) from None


def redacted(text: str) -> str:
    """A service's message without what lets anybody in: names and passwords in addresses, their queries, keys."""
    for name in SECRETS:
        if len(value := os.environ.get(name, "")) > 3:
            text = text.replace(value, "…")
    return re.sub(r"(://[^\s?]*)\?[^\s'\")]*", r"\1?…", re.sub(r"://[^\s/'\"]*@", "://…@", text))
