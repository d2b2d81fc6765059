"""A store's rows against the images that there are now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.store import SPLITS, Store

SHOWN = 10  # paths of a kind that are named

Identity = tuple[str | None, str | None]  # names of class and domain; None where they are not known


@dataclass(frozen=True)
class ListingDifference:
    """What has become of a store's images, `SPLIT: PATH` each, sorted.

    same: whether the digest of the listing is the store's. added, removed: images that only the dataset, only the store
    has; rows that were skipped count as the store's. relabelled: image -> its class and domain in the store, and now.
    names: what is wrong with class and domain names as such.
    """

    same: bool
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    relabelled: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What differs, in words; up to 10 images of each kind."""
        if self.same:
            return []
        lines = [f"{len(found)} {kind}: {_few(found)}" for kind, found in self._kinds().items() if found]
        return [*lines, *self.names] or ["the same images with the same labels, but in another order"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: counts, and up to 10 images of each kind."""
        kinds = {kind: {"count": len(f), "first": list(f)[:SHOWN]} for kind, f in self._kinds().items()}
        return {"same": self.same, **kinds, "names": list(self.names)}

    def _kinds(self) -> dict[str, tuple[str, ...]]:
        changes = tuple(f"{path} ({change})" for path, change in self.relabelled.items())
        return {"added": self.added, "removed": self.removed, "relabelled": changes}


def compare_listing(store: Store, dataset: ImageDataset) -> ListingDifference:
    """Compares the dataset's listing with the digest in the store's fingerprint, and says what differs if they do.

    Raises `StoreError` if the store's paths, labels or domains are damaged.
    """
    if dataset.listing_digest() == store.spec.dataset["listing_digest"]:
        return ListingDifference(True)
    there, here = _rows_of(store), _rows_now(dataset)
    both = sorted(there.keys() & here.keys())
    relabelled = {path: _change(there[path], here[path]) for path in both if _differ(there[path], here[path])}
    names = [
        f"{what}: {len(old)} in the store, {len(new)} now ({_few(sorted(set(old) ^ set(new))) or 'in another order'})"
        for what, old, new in (
            ("classes", store.class_names, dataset.class_names),
            ("domains", store.domain_names, dataset.domain_names),
        )
        if old != new
    ]
    return ListingDifference(
        False,
        tuple(sorted(here.keys() - there.keys())),
        tuple(sorted(there.keys() - here.keys())),
        relabelled,
        tuple(names),
    )


def _rows_of(store: Store) -> dict[str, Identity]:
    rows: dict[str, Identity] = {}
    for split in SPLITS:
        labels, domains = store.labels(split).tolist(), store.domains(split).tolist()
        for path, label, domain in zip(store.paths(split), labels, domains, strict=True):
            rows[f"{split}: {path}"] = store.class_names[label], store.domain_names[domain]
        rows |= {f"{split}: {row.path}": (None, None) for row in store.manifest.skipped[split]}
    return rows


def _rows_now(dataset: ImageDataset) -> dict[str, Identity]:
    rows: dict[str, Identity] = {}
    for split, found in dataset.splits.items():
        for path, label, domain in zip(found.paths, found.labels.tolist(), found.domains.tolist(), strict=True):
            rows[f"{split}: {path}"] = dataset.class_names[label], dataset.domain_names[domain]
    return rows


def _differ(there: Identity, here: Identity) -> bool:
    return there not in ((None, None), here)


def _change(there: Identity, here: Identity) -> str:
    return ", ".join(f"{a!r} is {b!r} now" for a, b in zip(there, here, strict=True) if a != b)


def _few(found: Any) -> str:
    names = list(found)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
