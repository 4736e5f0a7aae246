"""Commands and receipts as files: written whole, listed in order, and whatever lies there, read or refused."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from raymae.errors import ResultsError
from raymae.results.store.commands import (
    MAX_BYTES,
    AddPoint,
    CommandFolder,
    Listed,
    Receipt,
    StopTrial,
    myself,
    now,
)
from raymae.results.store.folder import Folder

STOP = StopTrial(trial_id="mae-0003", by="ann@lab", at="2026-05-01T12:00:00+00:00")
ADD = AddPoint(arm="mae", point={"lr": 1e-3, "patch_size": 16, "norm_target": True, "depth": None, "protocol": "long"},
               by="ann@lab", at="2026-05-01T14:00:00+02:00")
NAME = "20260501T120000000000Z-0123abcd"


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "local":
        return str(tmp_path / "ett")
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{request.node.originalname}/ett"


def test_what_is_given_is_read_in_order_and_answered_once(root: str) -> None:
    folder = CommandFolder(root)
    assert folder.look() == Listed(), "nobody has asked for anything yet"
    first, second = folder.give(STOP), folder.give(ADD)
    assert folder.look() == Listed((first, second))
    assert (folder.read(first), folder.read(second)) == (STOP, ADD)
    assert folder.receipt(first) is None
    receipt = Receipt(status="applied", text="mae-0003 ends at its next report", at=now())
    folder.answer(first, receipt)
    assert folder.look() == Listed((second,), (first,))
    assert CommandFolder(root).receipt(first) == receipt
    assert ADD.told == "ann@lab, 12:00 UTC"


def test_files_of_others_are_listed_and_those_under_way_are_not(root: str) -> None:
    plain = Folder(root)
    plain.make("commands")
    for name in ("notes.txt", "x.json", f"{NAME}.JSON", f"{NAME}.receipt.json", f".{NAME}.json.7-00.tmp"):
        plain.write(f"commands/{name}", b"{}")
    assert CommandFolder(root).look() == Listed(foreign=(f"{NAME}.JSON", f"{NAME}.receipt.json", "notes.txt", "x.json"))


def test_who_asks_is_a_user_of_a_machine() -> None:
    assert myself().isprintable()
    assert 3 <= len(myself()) <= 100
    assert "@" in myself()


DAMAGED: list[tuple[bytes, str]] = [
    (b"", "not valid JSON"), (b"{", "not valid JSON"), (b"\xff\xfe", "not valid JSON"), (b"[" * 5000, "not valid JSON"),
    (b'{"kind": "stop-trial"' + b" " * MAX_BYTES + b"}", f"holds at most {MAX_BYTES} bytes"),
    (b"[]", "the file: "), (b"7", "the file: "), (b"{}", "kind"), (b'{"kind": "delete"}', "'stop-trial', 'add'"),
    (json.dumps({**STOP.model_dump(), "force": True}).encode(), "force: Extra inputs are not permitted"),
    (json.dumps({**STOP.model_dump(), "trial_id": 7}).encode(), "trial_id: Input should be a valid string, got 7"),
    (json.dumps({**STOP.model_dump(), "trial_id": ""}).encode(), "trial_id: String should have at least 1"),
    (json.dumps({**STOP.model_dump(), "by": "ann\x1b[2J"}).encode(), "by: Value error, must be printable text"),
    (json.dumps({**STOP.model_dump(), "at": "yesterday"}).encode(), "at: Value error"),
    (json.dumps({**STOP.model_dump(), "at": "2026-05-01T12:00:00"}).encode(), "must have a time zone"),
    (json.dumps({**ADD.model_dump(), "point": {}}).encode(), "point: Dictionary should have at least 1"),
    (json.dumps({**ADD.model_dump(), "point": {"lr": [1]}}).encode(), "point.lr"),
    (json.dumps({**ADD.model_dump(), "point": {"lr": float("nan")}}).encode(), "point.lr"),
]


@pytest.mark.parametrize(("raw", "said"), DAMAGED)
def test_a_damaged_command_names_its_file_and_what_is_wrong(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "commands").mkdir()
    file = tmp_path / "commands" / f"{NAME}.json"
    file.write_bytes(raw)
    with pytest.raises(ResultsError) as caught:
        CommandFolder(str(tmp_path)).read(NAME)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_links_folders_and_pipes_are_no_commands(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(STOP.model_dump_json())
    commands = tmp_path / "ett" / "commands"
    commands.mkdir(parents=True)
    (commands / f"{NAME}.json").symlink_to(tmp_path / "secret.json")
    folder = CommandFolder(str(tmp_path / "ett"))
    with pytest.raises(ResultsError, match="must be a file of the folder itself, not a link out of it"):
        folder.read(NAME)
    (commands / f"{NAME}.json").unlink()
    (commands / f"{NAME}.json").mkdir()
    os.mkfifo(commands / f"{NAME[:-1]}e.json")
    assert folder.look() == Listed(), "nothing that could hang is ever opened"


def test_whatever_a_file_holds_it_is_a_command_or_an_error() -> None:
    """Commands after accidents: bytes cut, doubled, flipped; values of other kinds."""
    import tempfile

    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        folder, path = CommandFolder(place), Path(place, "commands", f"{NAME}.json")
        path.parent.mkdir()
        whole, read = [json.dumps(one.model_dump()).encode() for one in (STOP, ADD)], 0
        odd: list[Any] = [None, 10**30, -1.5, True, "x", "", [], {"a": {}}, "\x1b[2J", "9" * 300, 1e308]
        for _ in range(600):
            raw = bytearray(rng.choice(whole))
            if rng.random() < 0.5:
                plain = json.loads(raw)
                plain[rng.choice([*plain, "more"])] = rng.choice(odd)
                raw = bytearray(json.dumps(plain).encode())
            for _ in range(rng.randrange(3)):
                at = rng.randrange(len(raw))
                match rng.randrange(3):
                    case 0:
                        raw[at] ^= 1 << rng.randrange(8)
                    case 1:
                        del raw[at:at + rng.randrange(9)]
                    case 2:
                        raw[at:at] = raw[: rng.randrange(len(raw))]
                raw = raw or bytearray(b" ")
            path.write_bytes(raw)
            try:
                found = folder.read(NAME)
            except ResultsError:
                continue
            read += 1
            assert found.by.isprintable()
            assert found.told
        assert read > 20, "some come through whole"
