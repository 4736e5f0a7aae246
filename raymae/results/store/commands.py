"""What people ask of a running sweep: small files in `commands/` that its driver takes, each answered by a receipt.

A command's name is the time at which it was given and something unique, so that a listing is in order. Both files stay:
they are part of the record of a comparison.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from raymae.errors import ResultsError, one_line, printable, shorten
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.layout import COMMANDS
from raymae.spec.space import Model, Scalar

MAX_BYTES = 10_000  # of a command, and of a receipt
MAX_TEXT = 2_000  # characters of an answer
_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")
_RECEIPT = ".receipt.json"


class _Given(Model):
    """Who gave a command, and when."""

    by: str = Field(min_length=1, max_length=100)
    at: str = Field(max_length=40)

    @field_validator("by")
    @classmethod
    def _shown(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must be printable text")
        return value

    @field_validator("at")
    @classmethod
    def _in_time(cls, value: str) -> str:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("must have a time zone")
        return value

    @property
    def told(self) -> str:
        """Who, and at what time of the day."""
        return f"{self.by}, {datetime.fromisoformat(self.at).astimezone(UTC):%H:%M} UTC"


class StopTrial(_Given):
    """End a running trial at its next report."""

    kind: Literal["stop-trial"] = "stop-trial"
    trial_id: str = Field(min_length=1, max_length=200)


class AddPoint(_Given):
    """Try a point next: in one arm, or in all that search what it names."""

    kind: Literal["add"] = "add"
    arm: str | None = Field(None, max_length=200)
    point: dict[str, Scalar] = Field(min_length=1, max_length=100)


Command = StopTrial | AddPoint


class Receipt(Model):
    """What became of a command."""

    status: Literal["applied", "refused"]
    text: str = Field(max_length=MAX_TEXT)
    at: str = Field(max_length=40)


@dataclass(frozen=True)
class Listed:
    """The folder of commands at one moment, each kind in order.

    Attributes:
        waiting: Ids of commands without a receipt.
        answered: Ids of those with one.
        foreign: Names of files that are neither.
    """

    waiting: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def now() -> str:
    """The time as commands and receipts have it: ISO, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def myself() -> str:
    """Who gives commands from this process: `user@host`."""
    import getpass

    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        user = str(os.getuid())
    return printable(f"{user}@{socket.gethostname()}")[:100]


class CommandFolder:
    """The commands of one sweep.

    Args:
        root: The sweep's folder, a path or a URI.
    """

    def __init__(self, root: str) -> None:
        self._folder = Folder(root)

    def look(self) -> Listed:
        """List what is there, by one request; files under way are hidden, and no files but regular ones count.

        Raises:
            OSError: The storage failed.
        """
        names = [name for name in self._folder.names(COMMANDS) if not name.startswith(".")]
        answered = {name.removesuffix(_RECEIPT) for name in names if name.endswith(_RECEIPT)}
        ids = {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.endswith(_RECEIPT)}
        own = {one for one in ids if _ID.fullmatch(one)}
        known = {f"{one}{end}" for one in own for end in (".json", _RECEIPT)}
        return Listed(tuple(sorted(own - answered)), tuple(sorted(own & answered)),
                      tuple(name for name in names if name not in known))

    def give(self, command: Command) -> str:
        """Write a command, whole or not at all, and return its id.

        Raises:
            ResultsError: It cannot be written.
        """
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"
        try:
            self._folder.make(COMMANDS)
            self._folder.write(f"{COMMANDS}/{name}.json", json_bytes(command.model_dump(mode="json")))
        except OSError as error:
            raise ResultsError(f"{self._folder.uri(COMMANDS)}: cannot write the command: {error}") from None
        return name

    def read(self, name: str) -> Command:
        """A command that somebody gave.

        Raises:
            ResultsError: The file holds something else, or more than a command may, or is a link out of the folder.
            OSError: The storage failed.
        """
        file = f"{COMMANDS}/{name}.json"
        if not self._folder.holds(file):
            raise ResultsError(f"{self._folder.uri(file)}: must be a file of the folder itself, not a link out of it")
        command: Command = self._checked(_commands(), file)
        return command

    def answer(self, name: str, receipt: Receipt) -> None:
        """Write what became of a command.

        Raises:
            OSError: The storage failed.
        """
        self._folder.write(f"{COMMANDS}/{name}{_RECEIPT}", json_bytes(receipt.model_dump(mode="json")))

    def receipt(self, name: str) -> Receipt | None:
        """What became of a command; None where nobody has said yet.

        Raises:
            ResultsError: The file holds something else.
            OSError: The storage failed.
        """
        try:
            receipt: Receipt = self._checked(_receipts(), f"{COMMANDS}/{name}{_RECEIPT}")
        except FileNotFoundError:
            return None
        return receipt

    def _checked(self, adapter: Any, file: str) -> Any:
        where = self._folder.uri(file)
        raw = self._folder.head(file, MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ResultsError(f"{where}: holds at most {MAX_BYTES} bytes, this has more")
        try:
            return adapter.validate_python(json.loads(raw))
        except ValidationError as error:
            raise ResultsError(f"{where}: {'; '.join(_said(error))}") from None
        except (ValueError, RecursionError) as error:
            raise ResultsError(f"{where}: not valid JSON: {one_line(error)}") from None


def _said(error: ValidationError) -> Iterator[str]:
    """The first things that are wrong, each with its key and the value."""
    for item in error.errors(include_url=False)[:3]:
        key = ".".join(str(part) for part in item["loc"])
        yield printable(f"{key or 'the file'}: {item['msg']}, got {shorten(item['input'])}")


@cache
def _commands() -> TypeAdapter[Command]:
    return TypeAdapter(Annotated[Command, Field(discriminator="kind")])


@cache
def _receipts() -> TypeAdapter[Receipt]:
    return TypeAdapter(Receipt)
