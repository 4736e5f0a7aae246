"""Find a data set, or download it with its checksum, and say whether it is real or synthetic.

A file is looked for in this order: `data.path` (must exist), `data.root`, `$RAYMAE_DATA`, the user cache
(`$RAYMAE_CACHE/data`, by default in the system's place for caches), then downloaded into the cache unless
$RAYMAE_OFFLINE is set. The first three may be on an object store, from which every machine copies once. Files outside
the cache are the user's: another checksum is worth a note, not an error. Files in the cache are ours: another checksum
means damage, and they are fetched again.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from raymae.data.find.download import difference, digest, download_files
from raymae.data.find.registry import DATASETS, Dataset, Modality, known_dataset
from raymae.data.find.remote import copy_files, copy_path
from raymae.data.shelf import WORKER
from raymae.errors import DataError, unknown
from raymae.spec.uri import is_uri

if TYPE_CHECKING:
    from raymae.spec.sweep import DataSpec
    from raymae.spec.trial import DataSource, TrialData

SYNTHETIC: dict[Modality, str] = {  # modalities with a generated stand-in, and who gives its bytes for the fingerprint
    "series": "raymae.data.synthetic.series:series_content",
    "images": "raymae.data.synthetic.images:images_content",
    "scenes": "raymae.data.synthetic.scenes:scenes_content",
    "volumes": "raymae.data.synthetic.volumes:volumes_content",
    "tables": "raymae.data.synthetic.tables:table_content",
}


@dataclass(frozen=True)
class Located:
    """Where a data set was found.

    Attributes:
        name: As asked for.
        path: Absolute. The file, or the root folder of a data set of several files; None if synthetic.
        source: `real` or `synthetic`.
        fingerprint: `sha256:` or `synthetic:` and 16 hex digits of the content's hash.
        note: What a person should know; "" if nothing.
    """

    name: str
    path: Path | None
    source: DataSource
    fingerprint: str
    note: str = ""


class _Place(NamedTuple):
    label: str
    folder: Path | None
    ours: bool = False
    uri: str = ""  # on an object store; the folder is its copy, once there is one


class _Miss(NamedTuple):
    """Why a place does not have the data set."""

    reason: str
    surprising: bool = False  # a folder the user named, or a damaged copy: worth a note even where another place has it


def locate(data: DataSpec, *, download: bool = True, labelled: bool = True) -> Located:
    """Find the data set of a sweep file, downloading it if it is nowhere.

    Args:
        data: The `data` section.
        download: False to look on this machine only.
        labelled: Whether labels are needed: a corpus of pretraining does without.

    Raises:
        DataError: Unknown name, or one of data without labels where they are needed; or nothing found and
            `if_unavailable` is `error`: lists every place looked at. A `data.path` that does not exist is an error in
            any case.
    """
    known = DATASETS.get(data.name)
    if data.path is not None:
        if is_uri(data.path):
            return _at_path(data.name, known, copy_path(data.path, cache_folder() / "remote"))
        return _at_path(data.name, known, _absolute(data.path))
    if known is None:
        raise DataError(f"data.name: {unknown('data set', data.name, DATASETS)}; for your own file give data.path")
    if labelled and not known.labelled:
        raise DataError(f"data.name: {known.name} has no labels to learn from and be scored on; name it under "
                        f"pretraining.data, and here a labelled one: {', '.join(_labelled(known.modality))}")
    misses: list[_Miss] = []
    found = _in_places(known, data.root, misses) or _downloaded(known, misses, download=download)
    if found is not None:
        return found
    looked = [miss.reason for miss in misses]
    if data.if_unavailable == "synthetic" and known.modality in SYNTHETIC:
        return Located(known.name, None, "synthetic", _synthetic_fingerprint(known.modality), (
            f"SYNTHETIC DATA: {known.name} could not be had, a generated stand-in takes its place, and scores on it "
            f"say nothing about {known.name}. Looked in: {'; '.join(looked)}"
        ))
    raise DataError("\n  ".join([f"{known.name} was not found. Looked in", *looked]) + "\n" + _advice(known))


def _labelled(modality: Modality) -> list[str]:
    """The data sets of a kind that have labels."""
    return [one.name for one in DATASETS.values() if one.labelled and one.modality == modality]


def _in_places(known: Dataset, root: str | None, misses: list[_Miss]) -> Located | None:
    """Look in every folder, in order; adds why a place does not have it."""
    for place in _places(root):
        result = _in_place(known, place)
        if isinstance(result, _Miss):
            misses.append(result)
            continue
        found, odd, first = result
        notes = _surprises(misses)
        return _noted(found, *notes, odd, f"{first} is used" if notes or odd else "")
    return None


def _in_place(known: Dataset, place: _Place) -> tuple[Located, str, Path] | _Miss:
    """Look in one folder: what lies there, how it differs from the official files, and its first file; or why not."""
    folder = place.folder
    if place.uri:
        try:
            folder = copy_files(place.uri, known.files, cache_folder() / "remote")
        except DataError as error:
            return _Miss(f"{place.label}: {error}", surprising=True)
    files = _find(known, folder)
    if not files or folder is None:
        surprising = folder is not None and not place.ours
        return _Miss(f"{place.label}: {_absence(known, folder)}", surprising=surprising)
    found, odd = _located(known.name, known, files, folder)
    if place.ours and odd:
        return _Miss(f"{place.label}: damaged: {odd}", surprising=True)
    return found, odd, files[0]


def _downloaded(known: Dataset, misses: list[_Miss], *, download: bool) -> Located | None:
    """Download into the cache, unless that is not wanted; adds why it failed."""
    here = all(file.bundled for file in known.files)  # takes no network, and a moment
    offline = bool(os.environ.get("RAYMAE_OFFLINE"))
    if (offline or not download) and not here:
        misses.append(_Miss(f"download: not tried{', $RAYMAE_OFFLINE is set' if offline else ''}"))
        return None
    try:
        files = download_files(known, cache_folder())
        found, _ = _located(known.name, known, files, cache_folder())
        return _noted(found, *_surprises(misses), "" if here else f"downloaded to {files[0].parent}")
    except DataError as error:
        misses.append(_Miss(f"download: {error}"))
        return None


def _surprises(misses: list[_Miss]) -> list[str]:
    return [miss.reason for miss in misses if miss.surprising]


def path_of(data: TrialData) -> str | None:
    """Say where a trial's data lies, or None where it is synthetic; see `located`.

    Args:
        data: As a trial's configuration has it.

    Raises:
        DataError: It is nowhere, or damaged.
    """
    found = located(data)
    return None if found is None else str(found.path)


def located(data: TrialData) -> Located | None:
    """Find a trial's data, or None where it is synthetic; looked for once per process: looking hashes every file.

    Raises:
        DataError: It is nowhere, or damaged.
    """
    return None if data.source == "synthetic" else located_at(data.name, data.where.path, data.where.root)


@WORKER.keeps(32)
def located_at(name: str, path: str | None, root: str | None) -> Located:
    """Find data by what a sweep file says of its place; once per process, see `located`."""
    from raymae.spec.sweep import DataSpec

    return locate(DataSpec(name=name, path=path, root=root), labelled=False)


class DatasetRow(TypedDict):
    """A known data set, as `raymae data list` shows it; `where` is None where it was not found."""

    name: str
    modality: Modality
    about: str
    licence: str
    where: str | None
    verified: bool


class CopyRow(TypedDict):
    """One file of a data set at one place, as `raymae data verify` shows it; `problem` is "" where there is none."""

    name: str
    file: str
    place: str | None
    where: str | None
    verified: bool
    problem: str


def listing() -> list[DatasetRow]:
    """One row per known data set."""
    rows: list[DatasetRow] = []
    for known in DATASETS.values():
        copies = [row for row in verify(known.name) if row["where"] is not None]
        first = [row for row in copies if row["place"] == copies[0]["place"]]
        where = first[0]["where" if len(first) == 1 else "place"] if first else None
        rows.append({
            "name": known.name, "modality": known.modality, "about": known.about, "licence": known.licence,
            "where": where, "verified": bool(first) and all(row["verified"] for row in first),
        })
    return rows


def verify(name: str | None = None) -> list[CopyRow]:
    """Compare every copy in $RAYMAE_DATA and the cache with the official checksums.

    Args:
        name: A known data set; None for all.

    Returns:
        One row per file and place that has the data set, or one per file with `where` None.

    Raises:
        DataError: Unknown name.
    """
    rows: list[CopyRow] = []
    for known in DATASETS.values() if name is None else [known_dataset(name)]:
        before = len(rows)
        for place in _places(None):
            files = _find(known, place.folder)
            for file, path in zip(known.files, files, strict=False):
                comparable = file.md5 and not path.is_dir()
                problem = difference(file, path) if comparable else "no official checksum to compare with"
                rows.append({"name": known.name, "file": file.path, "place": str(place.folder), "where": str(path),
                             "verified": not problem, "problem": problem})
        if len(rows) == before:
            rows += [{"name": known.name, "file": file.path, "place": None, "where": None, "verified": False,
                      "problem": "not found"} for file in known.files]
    return rows


def fetch(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Have a verified copy, downloading it if need be.

    Args:
        name: A known data set.
        root: Folder to download into. None: $RAYMAE_DATA or the cache if one has it verified, else into the cache.

    Returns:
        The file, or the root folder of a data set of several files.

    Raises:
        DataError: Unknown name, download failed, only to be had by hand, or `root` holds another version (which is
            never overwritten).
    """
    known = known_dataset(name)
    for place in _places(None) if root is None else [_Place(f"root={root}", _absolute(root))]:
        files = _find(known, place.folder)
        if not files or place.folder is None:
            continue
        found, odd = _located(known.name, known, files, place.folder)
        if not odd and found.path is not None:
            return found.path
        if root is not None:
            raise DataError(f"{place.label} holds another version, which is not overwritten: {odd}; move it away first")
    folder = cache_folder() if root is None else _absolute(root)
    try:
        files = download_files(known, folder)
    except DataError as error:
        raise DataError(f"{name} could not be fetched into {folder}: {error}") from None
    return files[0] if len(files) == 1 else folder


def cache_folder() -> Path:
    """Root of downloaded data: `$RAYMAE_CACHE/data`, or `data` in the user's cache for raymae. May not exist yet."""
    import platformdirs

    return _absolute(os.environ.get("RAYMAE_CACHE") or platformdirs.user_cache_dir("raymae")) / "data"


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()  # trials run in other working folders


def _places(root: str | None) -> list[_Place]:
    shared = os.environ.get("RAYMAE_DATA")
    places = [] if root is None else [_named(f"data.root={root}", root)]
    places.append(_named(f"$RAYMAE_DATA={shared}", shared) if shared else _Place("$RAYMAE_DATA", None))
    places.append(_Place(f"the cache {cache_folder()}", cache_folder(), ours=True))
    return places


def _named(label: str, root: str) -> _Place:
    return _Place(label, None, uri=root) if is_uri(root) else _Place(label, _absolute(root))


def _find(known: Dataset, folder: Path | None) -> tuple[Path, ...]:
    """Every file of the data set in a folder; empty if one is missing."""
    if folder is None:
        return ()
    options = [[folder / part for part in (file.path, *file.alternatives)] for file in known.files]
    found = [next((path for path in paths if os.path.exists(path)), None) for paths in options]
    return tuple(path for path in found if path) if all(found) else ()


def _absence(known: Dataset, folder: Path | None) -> str:
    if folder is None:
        return "not set"
    if not folder.is_dir():
        return "no such folder"
    names = [(file.path, *file.alternatives) for file in known.files]
    return "no " + " or ".join(next(row for row in names if not any(os.path.exists(folder / name) for name in row)))


def _at_path(name: str, known: Dataset | None, path: Path) -> Located:
    if not path.exists():
        raise DataError(f"data.path={path} does not exist; correct it, or leave it out to look for {name} elsewhere")
    files: tuple[Path, ...] = (path,)
    if known is not None and path.is_dir():
        files = _find(known, path)
        if not files and len(known.files) == 1 and known.files[0].md5 is None:
            files = (path,)  # the data set's own folder under another name; its reader says what is missing
        if not files and known.modality == "images" and ((path / "train").is_dir() or list(path.glob("*.tar.xz"))):
            known, files = None, (path,)  # images as folders or shards, which have no official checksum
        if known is not None and not files:
            raise DataError(f"data.path={path} is a folder that does not hold {name}: {_absence(known, path)}")
    elif known is not None and len(known.files) > 1:
        raise DataError(f"data.path={path} must be the folder that holds the {len(known.files)} files of {name}")
    found, odd = _located(name, known, files, path)
    return _noted(found, odd, "it is used" if odd else "")


def _located(name: str, known: Dataset | None, files: tuple[Path, ...], root: Path) -> tuple[Located, str]:
    """What was found, and how it differs from the official files ("" if it does not)."""
    hashes = [digest(path, "sha256") for path in files]
    total = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    pairs = zip(known.files, files, strict=True) if known else ()
    odd = "; ".join(filter(None, (difference(file, path) for file, path in pairs)))
    path = files[0] if len(files) == 1 else root
    return Located(name, path, "real", f"sha256:{total[:16]}"), odd


def _noted(found: Located, *notes: str) -> Located:
    return replace(found, note="; ".join(filter(None, notes)))


def _synthetic_fingerprint(modality: Modality) -> str:
    module, _, function = SYNTHETIC[modality].partition(":")
    content: bytes = getattr(importlib.import_module(module), function)()
    return f"synthetic:{hashlib.sha256(content).hexdigest()[:16]}"


def _advice(known: Dataset) -> str:
    ways = ["set $RAYMAE_DATA or data.root to a folder that holds it"]
    if all(file.url for file in known.files):
        ways.append(f"run `raymae data fetch {known.name}` where there is a network")
    if known.manual:
        ways.append(known.manual)
    if known.modality in SYNTHETIC:
        ways.append("put `if_unavailable: synthetic` under `data:` to run on a generated stand-in")
    return "What to do: " + ", or ".join(ways)
