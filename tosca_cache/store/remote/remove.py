"""Removing stores from a remote root, and how many bytes they take there."""

from __future__ import annotations

import shutil
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.store.manifest import MANIFEST, PLAN
from tosca_cache.store.remote.access import PATIENT, Access
from tosca_cache.store.remote.lease import Lease
from tosca_cache.store.remote.mirror import mirror_of
from tosca_cache.store.remote.state import SEALED
from tosca_cache.store.remote.url import STORE_NAME


def delete_store(root: Path, name: str) -> int:
    """Removes a store from the remote root that `root` mirrors; returns the bytes that it took there.

    name: with `.partial` for an unfinished one only, a finished one of that name then stays. What vouches for the other
    objects goes first. Copies in the mirror stay; `store.remove.remove_store` removes both.

    Raises `StoreBusy` while somebody is writing it, `StoreError` if `root` mirrors nothing or the remote side refuses.
    """
    access, unfinished = _access(root), name.endswith(".partial")
    name = name.removesuffix(".partial")
    if not STORE_NAME.fullmatch(name):
        raise StoreError("This is no name of a store.", where=ascii(name), remedy="See `tosca cache ls` for the names.")
    lease = Lease.take(access, name)
    try:
        keys = access.objects(name)
        if unfinished and MANIFEST in keys:
            return 0
        access.remove(*(f"{name}/{key}" for key in (MANIFEST, f"{SEALED}/{MANIFEST}", PLAN) if key in keys))
        access.remove_all(f"{name}/{key}" for key in keys)
    finally:
        lease.release()
    for seen in (access.mirror.seen(name), access.mirror.seen(f"{name}.partial")):
        shutil.rmtree(seen, ignore_errors=True)
    return sum(keys.values())


def sizes(root: Path) -> dict[str, int]:
    """{name: bytes} of every store, finished or not, at the remote root that `root` mirrors."""
    found: dict[str, int] = {}
    for key, size in _access(root).objects("").items():
        name, _, rest = key.partition("/")
        if rest and STORE_NAME.fullmatch(name):
            found[name] = found.get(name, 0) + size
    return dict(sorted(found.items()))


def _access(root: Path) -> Access:
    mirror = mirror_of(root)
    if mirror is None:
        raise StoreError("This folder mirrors no remote root.", where=root, remedy="Give --root s3://BUCKET/FOLDER.")
    return Access(mirror, PATIENT)
