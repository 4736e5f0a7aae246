"""The command line: parse, call one library function, print. `base` holds what commands share; one module a family."""

from raymae.cli.base import main

# isort: off
# each module adds its commands to `main`; help lists them in this order
from raymae.cli import run  # noqa: F401
from raymae.cli import results  # noqa: F401
from raymae.cli import models  # noqa: F401
from raymae.cli import predict  # noqa: F401
from raymae.cli import watch  # noqa: F401
from raymae.cli import control  # noqa: F401
from raymae.cli import data  # noqa: F401
from raymae.cli import task  # noqa: F401
from raymae.cli import cluster  # noqa: F401
from raymae.cli import jobs  # noqa: F401

__all__ = ["main"]
