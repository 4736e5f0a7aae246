"""The files of a data set in a folder, a zip, a tar or tar shards, by their names below what they have in common."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from raymae.data.pixels import is_picture
from raymae.data.split_names import split_of
from raymae.errors import DataError

ARCHIVES = (".tar.xz", ".tar.gz", ".tgz", ".tar")
HIDDEN = re.compile(r"(^|/)(\.|__MACOSX(/|$))")  # what tools leave behind; cameras' names may begin with an underscore


class FileTree(NamedTuple):
    """Files of a folder or archive.

    Attributes:
        place: The folder or archive.
        members: Names of the files, and of empty folders (`name/`), below the folder that holds all pictures.
        read: Gives a file's bytes.
        beside: Names of the files that lie outside of that folder.
    """

    place: Path
    members: tuple[str, ...]
    read: Callable[[str], bytes]
    beside: tuple[str, ...] = ()


def open_tree(path: Path) -> FileTree:
    """The files of a folder, of the tar shards in a folder, of a zip or of a tar, below what they have in common.

    Raises:
        DataError: It cannot be read.
    """
    if path.is_dir():
        shards = sorted(item for item in path.iterdir() if item.name.endswith(ARCHIVES))
        return _from_shards(path, shards) if shards else _from_folder(path)
    if path.name.endswith(ARCHIVES):
        return _from_shards(path, [path])
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is neither a folder nor a whole zip or tar of images: {error}") from None
    members = {_plain(name): name for name in archive.namelist()}
    return _below_common(path, members, lambda name: archive.read(members[name]))


def _from_folder(path: Path) -> FileTree:
    return _below_common(path, folder_files(path), lambda name: (path / name).read_bytes())


def folder_files(path: Path) -> list[str]:
    """The names of all files and empty folders (`name/`) below a folder, links followed, but none in a circle."""
    names = []
    chains: dict[str, tuple[str, ...]] = {os.fspath(path): (os.path.realpath(path),)}  # the real folders to each one
    for folder, folders, files in os.walk(path, followlinks=True):
        chain, circles = chains.pop(folder), []
        for name in folders:
            below_it = os.path.join(folder, name)
            real = os.path.realpath(below_it) if os.path.islink(below_it) else os.path.join(chain[-1], name)
            if any(f"{passed}/".startswith(f"{real}/") for passed in chain):
                circles.append(name)
            chains[below_it] = (*chain, real)
        folders[:] = [name for name in folders if name not in circles]  # os.walk goes on with what is left in here
        below = Path(folder).relative_to(path)
        names += [(below / name).as_posix() for name in files]
        if not folders and not files and not circles:
            names.append(f"{below.as_posix()}/")
    return names


def _from_shards(path: Path, shards: Sequence[Path]) -> FileTree:
    """Compressed tars have no random access, so the files' bytes are kept: 2 kB an image of Tiny ImageNet."""
    contents: dict[str, bytes] = {}
    for shard in shards:
        try:
            with tarfile.open(shard) as archive:
                for item in archive:
                    stream = archive.extractfile(item) if item.isfile() or item.islnk() or item.issym() else None
                    if stream is not None or item.isdir():
                        contents[_plain(item.name if stream else f"{item.name}/")] = stream.read() if stream else b""
        except Exception as error:  # tarfile, lzma and zlib each have errors of their own
            raise DataError(f"{shard} cannot be read: {error or type(error).__name__}; is the file whole?") from None
    return _below_common(path, contents, contents.__getitem__)


def _plain(name: str) -> str:
    """A member's name without the `./` that some archives begin with."""
    return re.sub(r"^(\./)+", "", name)


def _below_common(place: Path, names: Iterable[str], read: Callable[[str], bytes]) -> FileTree:
    """Files and empty folders (`name/`), without hidden ones and without a folder that holds all pictures."""
    shown = {name for name in names if name not in ("", "/", "./") and not HIDDEN.search(name)}
    parents = {f"{parent.as_posix()}/" for name in shown for parent in PurePosixPath(name).parents}
    members = sorted(shown - parents)
    looked = [name for name in members if is_picture(name) or name.endswith("/")]
    if not any(map(is_picture, looked)):
        looked = members
    prefix = ""
    while looked:
        head, slash, _ = looked[0][len(prefix):].partition("/")
        wider = f"{prefix}{head}/"
        if not slash or split_of(head) or not all(name.startswith(wider) for name in looked):
            break
        if not any("/" in name[len(wider):] for name in looked):  # the only class
            break
        prefix = wider

    def read_named(name: str) -> bytes:
        try:
            return read(prefix + name)
        except FileNotFoundError:
            raise DataError(f"{place}/{prefix}{name} is a link to nowhere, or was removed meanwhile; mend or delete "
                            "it") from None
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{place}/{prefix}{name} cannot be read: {reason}; restore or delete it") from None

    inside = tuple(name[len(prefix):] for name in members if name.startswith(prefix))
    beside = tuple(name for name in members if not name.startswith(prefix) and not name.endswith("/"))
    return FileTree(place, inside, read_named, beside)
