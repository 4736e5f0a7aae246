"""A folder, local or on an object store, whose files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from raymae.errors import ResultsError
from raymae.spec.read import Tree
from raymae.spec.uri import open_uri

MAX_JSON = 20_000_000  # bytes


class Folder:
    """One folder and the files below it, named by relative paths with `/`.

    Attributes:
        root: The folder as text, as given: a path, or a URI such as `s3://bucket/x?endpoint_override=…`.
        local: The absolute path, or None on an object store.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Point at a folder; nothing is read or made.

        Args:
            root: A local path, `file://…`, or any URI that pyarrow knows (`s3://`, `gs://`, `abfs://`). For `s3://`
                the endpoint is taken from the query (`endpoint_override`, `scheme`), else from `AWS_ENDPOINT_URL`.

        Raises:
            ResultsError: The URI is malformed, its scheme unknown, or the bucket's region cannot be found.
        """
        self.root = os.fspath(root).rstrip("/") or "/"
        self.local: Path | None = None
        self._remote: tuple[Any, str] | None = None
        if self.root.startswith("file://"):
            self.local = Path(urlsplit(self.root).path)
        elif "://" in self.root:
            self._remote = self._connect()
        else:
            self.local = Path(os.path.abspath(os.path.expanduser(self.root)))

    def _connect(self) -> tuple[Any, str]:
        try:
            return open_uri(self.root)
        except ValueError as error:
            raise ResultsError(str(error)) from None

    @property
    def filesystem(self) -> Any:
        """The pyarrow filesystem that holds the folder."""
        if self._remote is not None:
            return self._remote[0]
        from pyarrow import fs

        return fs.LocalFileSystem()

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path("").rstrip("/").rpartition("/")[2]

    def path(self, name: str) -> str:
        """Where a file lies inside `filesystem`."""
        return f"{self._remote[1] if self._remote is not None else self.local}/{name}"

    def uri(self, name: str) -> str:
        """The file as a user would write it: below `root`, with the URI's query kept."""
        if self.local is not None:
            return str(self.local / name)
        parts = urlsplit(self.root)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))

    def parent(self) -> Folder:
        """The folder above."""
        if self.local is not None:
            return Folder(self.local.parent)
        parts = urlsplit(self.root)
        return Folder(urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0])))

    def make(self, name: str = "") -> None:
        """Make the folder `name`; a no-op where folders exist by holding files (S3, GCS)."""
        if self.local is not None:
            (self.local / name).mkdir(parents=True, exist_ok=True)
        elif self.filesystem.type_name not in ("s3", "gcs"):
            self.filesystem.create_dir(self.path(name), recursive=True)

    def names(self, folder: str = "") -> list[str]:
        """Names of the files in a folder, sorted; none where there is no such folder."""
        return sorted(name for name, is_file in self._entries(folder) if is_file)

    def folders(self) -> list[str]:
        """Names of the folders directly below, sorted."""
        return sorted(name for name, is_file in self._entries("") if not is_file)

    def _entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        if self.local is not None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.local / folder) as found:
                yield from ((entry.name, entry.is_file()) for entry in found)
            return
        from pyarrow import fs

        selector = fs.FileSelector(self.path(folder).rstrip("/"), allow_not_found=True)
        yield from ((info.base_name, info.is_file) for info in self.filesystem.get_file_info(selector))

    def read(self, name: str) -> bytes:
        """A regular file's bytes.

        Raises:
            FileNotFoundError: No such file.
            OSError: The storage failed, or there is a pipe, a device or a socket, which might never end.
        """
        if self.local is not None:
            return self._regular(name).read_bytes()
        with self.filesystem.open_input_file(self.path(name)) as stream:
            return bytes(stream.read())

    def size(self, name: str) -> int:
        """Bytes of a regular file; raises what `read` does."""
        with self._stream(name) as stream:
            return int(stream.size())

    def head(self, name: str, num_bytes: int) -> bytes:
        """The start of a regular file, at most so many bytes; raises what `read` does."""
        with self._stream(name) as stream:
            return bytes(stream.read(num_bytes))

    def tail(self, name: str, num_bytes: int) -> bytes:
        """The end of a regular file, at most so many bytes; raises what `read` does."""
        with self._stream(name) as stream:
            stream.seek(max(0, stream.size() - num_bytes))
            return bytes(stream.read(num_bytes))

    def _stream(self, name: str) -> Any:
        if self.local is not None:
            self._regular(name)
        return self.filesystem.open_input_file(self.path(name))

    def _regular(self, name: str) -> Path:
        assert self.local is not None
        path = self.local / name
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return path

    def read_json(self, name: str) -> Tree | None:
        """A JSON object, or None where there is no such file.

        Raises:
            ResultsError: The file holds something else.
            OSError: The storage failed.
        """
        try:
            raw = self.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            if len(raw) > MAX_JSON:
                raise ValueError(f"{len(raw)} bytes, of at most {MAX_JSON}")
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ResultsError(f"{self.uri(name)}: not valid JSON: {error}. Restore or delete it") from None
        if not isinstance(value, dict):
            raise ResultsError(f"{self.uri(name)}: must hold a JSON object, got {type(value).__name__}")
        return value

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that a reader sees the old one or the new one, never a part.

        Locally a hidden temporary file is synced and renamed; an object store shows an object once it is complete.
        Writing the same name again is harmless, which is what makes retries safe.

        Raises:
            OSError: The storage failed; an earlier file of this name is still whole.
        """
        if self.local is None:
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(data)
            return
        final = self.local / name
        temporary = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        # the rename itself is durable only once the folder is synced
        descriptor = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def holds(self, name: str) -> bool:
        """Whether a file is there and lies in the folder itself: not where a link leads out of it."""
        folder, _, file = name.rpartition("/")
        if file not in self.names(folder):
            return False
        return self.local is None or os.path.realpath(self.local / name).startswith(
            os.path.realpath(self.local) + os.sep)

    def remove(self, name: str) -> None:
        """Delete a file; no error where it is already gone."""
        with contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                (self.local / name).unlink()
            else:
                self.filesystem.delete_file(self.path(name))


def json_bytes(value: Mapping[str, object]) -> bytes:
    """A JSON file's contents.

    Raises:
        TypeError: Something in it is not a plain value.
        ValueError: Something in it is NaN or infinite.
    """
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
