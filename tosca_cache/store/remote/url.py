"""Addresses of remote roots: which texts are one, and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tosca_cache.errors import UsageError

SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "memory": "memory", "file": "file", "local": "file"}
STORE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")  # no folder within, no `..`, not hidden
# A path that was made of an address has lost a slash: Path("s3://b/x") is s3:/b/x.
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):(//?)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Url:
    """Where a remote root is. scheme: s3, gs or memory. path: the bucket and the folder in it, without outer slashes."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    @property
    def bucket(self) -> str:
        """The first part of the path."""
        return self.path.partition("/")[0]

    @property
    def parent(self) -> Url:
        """One folder up."""
        return Url(self.scheme, self.path.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def is_address(text: str | Path) -> bool:
    """Whether this is the address of something, and not a path; `Path("s3://b/x")`, which lost a slash, is one."""
    return _split(text) is not None


def parse(text: str | Path) -> Url | Path:
    """What an address means: a remote place, or for `file://` a local path.

    Raises `UsageError` for schemes that stores cannot be at, and for addresses with passwords, `..` or empty parts.
    """
    found = _split(text)
    if found is None:
        return Path(text)
    scheme, rest = found
    if scheme not in SCHEMES:
        raise _unusable(text, f"stores cannot be at {scheme}://")
    if SCHEMES[scheme] == "file":
        return Path("/" + rest.removeprefix("localhost/").lstrip("/"))
    path = rest.strip("/")
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") or any(ord(c) < 32 for c in part) for part in parts):
        raise _unusable(text, "its path has parts that name no folder")
    if "@" in path or "?" in path or "#" in path or "*" in path:
        raise _unusable(text, "it has characters that addresses of stores do without: @ ? # *")
    if not parts and SCHEMES[scheme] != "memory":
        raise _unusable(text, "it names no bucket")
    return Url(SCHEMES[scheme], path)


def _split(text: str | Path) -> tuple[str, str] | None:
    found = _ADDRESS.fullmatch(str(text))
    if found is None:
        return None
    scheme = found[1].lower()
    return (scheme, found[3]) if found[2] == "//" or scheme in SCHEMES else None


def _unusable(text: str | Path, why: str) -> UsageError:
    return UsageError(
        f"this address cannot be used: {why}",
        where=str(text),
        remedy="give s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, memory://FOLDER or a local folder; keys and passwords "
        "belong into the environment",
    )
