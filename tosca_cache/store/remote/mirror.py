"""The local mirror of a remote root: an ordinary root on this machine's disk that says in `.remote.json` what it mirrors.

A root stays a path everywhere, in worker processes, too: whoever has the path of a mirror finds the address in it. Mirrors
lie in `$TOSCA_CACHE_HOME`, or else in `tosca_cache/mirrors` under `$XDG_CACHE_HOME` or `~/.cache`:

    SCHEME-BUCKET-DIGEST/.remote.json         address and endpoint, of which DIGEST is made
    SCHEME-BUCKET-DIGEST/.remote/NAME...      manifests and plans as they were last seen
    SCHEME-BUCKET-DIGEST/.NAME.fetching       a store on its way here
    SCHEME-BUCKET-DIGEST/NAME, NAME.partial   stores as in any root
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, file_errors, read_limited, strict_json, write_text
from tosca_cache.store.remote.url import STORE_NAME, Url, is_address, parse

MARK = ".remote.json"
SEEN = ".remote"
_ENDPOINTS = {
    "s3": ("FSSPEC_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("FSSPEC_GS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"),
}


@dataclass(frozen=True)
class Mirror:
    """A folder here, the remote root that it mirrors, and the server that has it (None: the provider's own)."""

    folder: Path
    url: Url
    endpoint: str | None = None

    def seen(self, name: str) -> Path:
        """Where the manifest or plan of a store, or of `NAME.partial`, is kept as it was last seen."""
        return self.folder / SEEN / name


def local_root(root: str | Path) -> Path:
    """The local folder of a root: a path as it is, the mirror of an address (made if there is none yet).

    Raises `UsageError` for an address that cannot be used, `StoreError` if the mirror cannot be made.
    """
    url = parse(root) if is_address(root) else Path(root)
    return url if isinstance(url, Path) else _mirror(url)


def local_path(store: str | Path) -> Path:
    """The local folder of a store: a path as it is, ADDRESS/NAME below the mirror of ADDRESS."""
    url = parse(store) if is_address(store) else Path(store)
    if isinstance(url, Path):
        return url
    if not STORE_NAME.fullmatch(url.name) or (not url.parent.path and url.scheme != "memory"):
        raise StoreError(
            "This address names no store.",
            where=str(url),
            remedy="Give the root's address, a slash and the store's name.",
        )
    return _mirror(url.parent) / url.name


def mirror_of(folder: Path) -> Mirror | None:
    """What a folder mirrors; None if nothing. Raises `StoreError` if its note says what cannot be."""
    mark = Path(folder) / MARK
    try:
        text = read_limited(mark, Limit.NOTE)
    except OSError:
        return None
    try:
        found = strict_json(text)
        url, endpoint = parse(str(found["url"])), found["endpoint"]
        if isinstance(url, Url) and (endpoint is None or isinstance(endpoint, str)):
            return Mirror(Path(folder), url, endpoint)
        raise ValueError("no address")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            "This note of a mirror does not say what it mirrors.",
            where=mark,
            remedy=f"Remove {Path(folder)}; it only has copies of what is remote, and unfinished stores of this machine.",
        ) from error


def shown(path: Path) -> str:
    """A root or a store as its user named it: by its address if it is, or is in, a mirror."""
    mirror = mirror_of(path)
    if mirror is not None:
        return str(mirror.url)
    mirror = mirror_of(Path(path).parent)
    return str(path) if mirror is None else f"{mirror.url}/{Path(path).name}"


def cache_home() -> Path:
    """The folder of all mirrors."""
    if os.environ.get("TOSCA_CACHE_HOME"):
        return Path(os.environ["TOSCA_CACHE_HOME"]).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tosca_cache" / "mirrors"


def endpoint_of(url: Url) -> str | None:
    """The server that the environment names for this kind of address; None for the provider's own."""
    named = (os.environ.get(name) for name in _ENDPOINTS.get(url.scheme, ()))
    return next((name for name in named if name), None)


def _mirror(url: Url) -> Path:
    endpoint = endpoint_of(url)
    profile = os.environ.get("AWS_PROFILE") if url.scheme == "s3" and endpoint is None else None  # it may name a server
    digest = hashlib.sha256(json.dumps([str(url), endpoint, profile]).encode()).hexdigest()[:10]
    bucket = re.sub(r"[^A-Za-z0-9._-]+", "_", url.bucket)[:100] or "root"
    folder = cache_home() / f"{url.scheme}-{bucket}-{digest}"
    with file_errors(folder, StoreError, option="TOSCA_CACHE_HOME"):
        if not (folder / MARK).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / MARK, json.dumps({"endpoint": endpoint, "url": str(url)}) + "\n")
    return folder
