"""Locations on object stores: `s3://`, `gs://`, `abfs://`, whatever pyarrow opens."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def is_uri(text: str) -> bool:
    """Whether a text names a place on an object store, not a path on this machine."""
    return "://" in text


def open_uri(uri: str) -> tuple[Any, str]:
    """The pyarrow filesystem of a URI, and the path inside it without a slash at its end.

    For `s3://` the endpoint is taken from the query (`endpoint_override`, `scheme`), else from `AWS_ENDPOINT_URL`.

    Raises:
        ValueError: The URI is malformed, its scheme unknown, or its bucket's region cannot be found.
    """
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(_s3_options(uri))
    except (ValueError, OSError, NotImplementedError) as error:
        raise ValueError(
            f"{uri}: not a usable storage location: {error}. "
            "Use a local path or a URI such as s3://bucket/folder or gs://bucket/folder"
        ) from None
    return filesystem, path.rstrip("/")


def _s3_options(uri: str) -> str:
    """The URI with the endpoint of the environment, and with small files as one PUT instead of a multipart upload."""
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        return uri
    query = {"allow_delayed_open": "true", **dict(parse_qsl(parts.query))}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in query:
        scheme, _, host = endpoint.rpartition("://")
        query |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
    return urlunsplit(parts._replace(query=urlencode(query)))
