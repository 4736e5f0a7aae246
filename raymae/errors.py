"""Every error RayMAE raises on purpose.

    RayMAEError
    ├── SpecError          a sweep file (or --set) says something impossible; carries every problem at once
    ├── DataError          a data set is missing, malformed or too small
    ├── ResultsError       a results folder cannot be read, written or continued
    ├── ModelError         a kept model is not there, damaged, or not what its card says
    ├── ResourceError      the machine or cluster can never satisfy the request
    ├── InterruptedSweepError  Ctrl-C; what was done is kept
    ├── BudgetSpentError   the budget ended before the verdict; what was done is kept
    ├── QueryError         SQL over the results failed
    ├── TaskError          a method of a task raises, or returns what the training loop cannot use
    └── TrialError         one trial failed, the sweep goes on
        ├── CheckpointError  a checkpoint is damaged or belongs to another trial
        ├── EncoderError   the encoder that a trial starts from is gone or damaged
        └── TransferError  pretrained weights did not reach the fine-tuned network

The command line prints the message of a RayMAEError and exits 1 to 3 (130 after Ctrl-C);
anything else is a bug and shows a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAX_LINES = 40
MAX_LINE = 2_000


class RayMAEError(Exception):
    """Base of all errors raised on purpose. The message is complete: rule, value, origin, what to do."""

    exit_code = 1

    def __str__(self) -> str:
        """The message, no longer than a screen and without control characters: a name may hold any."""
        return on_a_screen(super().__str__())


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a sweep file.

    Attributes:
        where: The file and, if known, line: `sweeps/ett.yaml:12`, or `--set`.
        key: Dotted key path, such as `space.lookback`.
        message: The rule that is broken, the value got, and what to do.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.key}{': ' if self.key else ''}{self.message}")


class SpecError(RayMAEError):
    """A sweep file that cannot be run. `problems` lists everything found, in file order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...]]]:
        return (SpecError, (self.problems,))


class DataError(RayMAEError):
    """A data set is missing, malformed or too small for what is asked of it."""


class ResultsError(RayMAEError):
    """A results folder cannot be read, written or continued."""


class ModelError(RayMAEError):
    """A model that a sweep kept is not there, damaged, not what its card says, or cannot do what is asked of it."""


class ResourceError(RayMAEError):
    """The machine or cluster can never satisfy the request, so nothing was started."""


class InterruptedSweepError(RayMAEError):
    """The user ended a sweep early. Everything reported is kept; the same command goes on."""

    exit_code = 130


class BudgetSpentError(RayMAEError):
    """The budget of a sweep ended before every arm had its replicates. Everything reported is kept."""

    exit_code = 3


class QueryError(RayMAEError):
    """SQL over the results failed."""

    exit_code = 2


class TaskError(RayMAEError):
    """A method of a task raises, or returns what the training loop cannot use: a mistake in the task's own code."""


class TrialError(RayMAEError):
    """One trial failed (NaN loss, impossible configuration). The sweep records the reason and goes on."""


class CheckpointError(TrialError):
    """A checkpoint is damaged or belongs to another trial; the trial can be started over."""


class EncoderError(TrialError):
    """The encoder that a trial starts from is gone or damaged; it can be made again."""


class TransferError(TrialError):
    """Pretrained encoder weights did not reach the fine-tuned network key by key."""


def printable(text: str) -> str:
    """Text in which control characters, line ends among them, are written as Python writes them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def on_a_screen(text: str) -> str:
    """A message of at most MAX_LINES lines, each of at most MAX_LINE characters, without control characters."""
    lines = [printable(line) for line in text.split("\n")]
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES - 1], f"… and {len(lines) - MAX_LINES + 1} more lines"]
    return "\n".join(line if len(line) <= MAX_LINE else f"{line[:MAX_LINE - 1]}…" for line in lines)


def unknown(what: str, name: object, allowed: Iterable[str]) -> str:
    """The message for an unknown name: the nearest valid one, and all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    hint = f"; did you mean `{close[0]}`?" if close else ";"
    return f"unknown {what} {name!r}{hint} allowed: {', '.join(names) or 'none'}"


def shorten(value: object) -> str:
    """A value as Python writes it, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def line_of(key: str, lines: Mapping[str, int]) -> int | None:
    """The line of a dotted key, or of the nearest key around it that has one; None where none has."""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return lines[key] if key else None


def one_line(error: object, at: int = 0) -> str:
    """The first line of what an error says, with -1 the last; the error's type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[at]
