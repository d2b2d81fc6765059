"""Objects of one remote root: read, written, listed and removed through fsspec, with patience and errors in words.

Keys are relative to the root, with slashes. Objects appear whole or not at all, as on every object store; there is no
rename. fsspec and the libraries below it are imported when the first object is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from tosca_cache.errors import StoreError
from tosca_cache.store.remote.failures import Kind, failure, kind_of, missing_library
from tosca_cache.store.remote.mirror import Mirror

THREADS = 4  # requests under way at a time
QUICK, PATIENT = 1, 6  # tries: for a look that a mirror can do without; for work that should not end with a bad minute
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between tries, doubled from one to the next
# Of botocore, whose own would be 60 seconds and four more tries, below five tries of s3fs.
_TIMES = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}
T = TypeVar("T")


class Access:
    """The objects below a mirror's address. tries: how often a request that fails for now is made.

    Every method raises `StoreError`, of which `Unreachable` says that the remote side cannot be looked at.
    """

    def __init__(self, mirror: Mirror, tries: int = PATIENT) -> None:
        self.mirror = mirror
        self.tries = tries
        try:
            self._fs = _file_system(mirror.url.scheme, mirror.endpoint, os.getpid())
        except ImportError as error:
            raise missing_library(mirror.url, error) from error
        except Exception as error:
            raise failure(error, str(mirror.url)) from error

    def where(self, key: str) -> str:
        """The address of an object, for messages."""
        return f"{self.mirror.url}/{key}" if key else str(self.mirror.url)

    def read(self, key: str, start: int, stop: int) -> bytes | None:
        """At most bytes `start` to `stop` of an object; None if there is none."""
        try:
            found = self._do(key, lambda path: self._fs.cat_file(path, start=start, end=stop), {Kind.MISSING: None})
        except StoreError as error:
            if "range" in error.problem.lower():  # nothing is left from `start` on
                return b""
            raise
        return None if found is None else bytes(found)

    def write(self, key: str, data: bytes) -> None:
        """Puts an object in place, whole; an old one is there until then."""
        self._do(key, lambda path: self._fs.pipe_file(path, data))

    def create(self, key: str, data: bytes) -> bool:
        """Puts an object in place if there is none; False if there was one.

        Where a server does not know exclusive creation (If-None-Match), two that come at once may both succeed.
        """

        def make(path: str) -> bool:
            """One try, which is repeated where the server was not reached."""
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except (TypeError, NotImplementedError):
                if self._fs.exists(path):
                    return False
                self._fs.pipe_file(path, data)
            return True

        return self._do(key, make)

    def copy(self, source: str, target: str) -> None:
        """Copies an object within the server."""
        self._do(target, lambda path: self._fs.cp_file(self._path(source), path))

    def remove(self, *keys: str) -> None:
        """Removes objects that may be gone already, one behind the other."""
        for key in keys:
            self._do(key, self._fs.rm_file, {Kind.MISSING: None})

    def remove_all(self, keys: Iterable[str]) -> None:
        """Removes objects in no order."""
        in_threads(self.remove, keys)

    def children(self, key: str) -> dict[str, int | None]:
        """What lies directly in a folder: {name: bytes, or None for a folder}; empty if it does not exist."""
        found = self._do(key, lambda path: self._fs.ls(path, detail=True), {Kind.MISSING: []})
        names = {self._relative(entry["name"], key): entry for entry in found}
        return {
            name: None if entry["type"] == "directory" else int(entry["size"] or 0)
            for name, entry in names.items()
            if name and "/" not in name
        }

    def objects(self, key: str) -> dict[str, int]:
        """Every object below a folder, relative to it, with its bytes."""
        found = self._do(key, lambda path: self._fs.find(path, detail=True), {Kind.MISSING: {}})
        sizes = {self._relative(path, key): int(entry["size"] or 0) for path, entry in found.items()}
        return {name: size for name, size in sizes.items() if name}

    def modified(self, key: str) -> datetime | None:
        """When an object was written, by the server's clock; None if it is gone."""
        return self._do(key, self._fs.modified, {Kind.MISSING: None})

    def _path(self, key: str) -> str:
        url = self.mirror.url
        path = "/".join(part for part in (url.path, key) if part)
        return f"/{path}" if url.scheme == "memory" else path

    def _relative(self, path: str, key: str) -> str:
        """The rest of a listed path; empty for what does not lie below `key`."""
        base = self._path(key).strip("/") + "/"
        path = path.strip("/")
        return path.removeprefix(base) if path.startswith(base) else ""

    def _do(self, key: str, request: Callable[[str], T], instead: dict[Kind, Any] | None = None) -> T:
        """Makes a request; `instead` has results for kinds of failures that are none."""
        pause = FIRST_PAUSE
        for left in reversed(range(self.tries)):
            try:
                return request(self._path(key))
            except ImportError as error:
                raise missing_library(self.mirror.url, error) from error
            except Exception as error:
                kind = kind_of(error)
                if kind in (instead or {}):
                    result: T = (instead or {})[kind]
                    return result
                if not left or not kind.may_pass:
                    raise failure(error, self.where(key)) from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("tries is at least 1")


def in_threads(function: Callable[[T], object], jobs: Iterable[T]) -> None:
    """Calls `function` with each job, a few at a time; raises the first thing that was raised, and begins no more then."""
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for _ in pool.map(function, jobs):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@lru_cache
def _file_system(scheme: str, endpoint: str | None, process: int) -> Any:
    """One for each process: connections do not survive a fork."""
    import fsspec
    from fsspec.config import conf

    options: dict[str, Any] = {}
    if scheme in ("s3", "gs"):
        options = {"use_listings_cache": False, "skip_instance_cache": True}
        options |= {} if endpoint is None else {"endpoint_url": endpoint}
    if scheme == "s3" and "config_kwargs" not in conf.get("s3", {}):
        options["config_kwargs"] = _TIMES
    return fsspec.filesystem(scheme, **options)
