"""The stores under one root: their names, what there is, and finding the one that is meant.

NAME.partial                          an unfinished store
.NAME.fetching                        one that is being pulled
.NAME.*lock                           a lock; its file alone says nothing, it counts while somebody holds it
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tosca_cache.errors import FingerprintMismatch, StoreError
from tosca_cache.store.disk import storage
from tosca_cache.store.journal import read_unfinished
from tosca_cache.store.layout import SPLITS
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN, Manifest, Plan, load_manifest
from tosca_cache.store.reader import Store, open_store
from tosca_cache.store.spec import ABSENT, StoreSpec, canonical

LONGEST_NAME = 220  # of a store's folder: leaves room for what locks and parts add to it
FINISHED, UNFINISHED, DAMAGED = "finished", "unfinished", "damaged"
_OPTIONS = {
    "backbone.name": "--backbone",
    "views.count": "--views",
    "views.seed": "--seed",
    "precision": "--precision",
    "dtype": "--store-dtype",
    "transform.image_size": "--img-size",
    "transform.normalize": "--normalize",
}


@dataclass(frozen=True)
class StoreSummary:
    """One store, finished or not, as its manifest or plan describes it; the features are not looked at.

    path: its folder (with `.partial` while it is unfinished). state: `finished`, `unfinished` or `damaged`.
    spec: the fingerprint; None if damaged. rows: rows a split; for unfinished stores those of the listing.
    views: 1+V a split. done_rows: rows of both splits that are there. size: bytes. problem: why it is damaged.
    """

    path: Path
    state: str
    spec: StoreSpec | None = None
    rows: dict[str, int] | None = None
    views: dict[str, int] | None = None
    done_rows: int = 0
    size: int = 0
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        spec = self.spec
        return {
            "path": str(self.path),
            "name": self.path.name,
            "state": self.state,
            "fingerprint": None if spec is None else spec.to_dict(),
            "fingerprint_digest": None if spec is None else spec.digest(),
            "rows": self.rows,
            "views": self.views,
            "done_rows": self.done_rows,
            "bytes": self.size,
            "problem": self.problem,
        }


def store_path(root: Path, spec: StoreSpec) -> Path:
    """Where the store of a specification belongs: ROOT/DATASET--BACKBONE--vV--DIGEST.

    Names are cut where the folder's would be too long, and never begin with a dot: such folders are ours, not stores.
    """
    named = (spec.dataset["name"], spec.shown_backbone)
    dataset, backbone = (re.sub(r"[^A-Za-z0-9._-]+", "_", name) for name in named)
    if dataset.startswith("."):
        dataset = f"_{dataset[1:]}"
    rest = f"v{spec.views['count']}--{spec.digest()[:10]}"
    if len(f"{dataset}--{backbone}--{rest}") > LONGEST_NAME:
        backbone = backbone[:60]
        dataset = dataset[: LONGEST_NAME - len(f"--{backbone}--{rest}")]
    return Path(root) / f"{dataset}--{backbone}--{rest}"


def list_stores(root: Path) -> list[StoreSummary]:
    """Every store directly under a root, finished or not, by name; empty if the root does not exist."""
    root = Path(root)
    with storage(root):
        if not root.exists():
            return []
        folders = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    return [summary for path in folders if (summary := _summarise(path)) is not None]


def find_store(root: Path, dataset: str, wanted: Mapping[str, Any] | None = None) -> Store:
    """The one finished store of a dataset whose fingerprint has the wanted values.

    wanted: {dotted field: value}, such as {"backbone.name": "vit_nano", "views.count": 8}.

    Raises `StoreError` if there is none (with the command that makes it) or several (naming them), and
    `FingerprintMismatch` if there are some but none is as wanted, naming every field that differs with both values.
    """
    return open_store(choose_store(list_stores(root), root, dataset, wanted).path)


def choose_store(
    summaries: Sequence[StoreSummary], root: Path | str, dataset: str, wanted: Mapping[str, Any] | None = None
) -> StoreSummary:
    """The one of these stores that `find_store` means; raises what that raises."""
    wanted = dict(wanted or {})
    stores = [(s, s.spec) for s in summaries if s.spec is not None and s.spec.dataset["name"] == dataset]
    finished = [(s, spec) for s, spec in stores if s.state == FINISHED]
    matching = [s for s, spec in finished if not _unlike(spec, wanted)]
    if len(matching) == 1:
        return matching[0]
    command, problem, where = extract_command(root, dataset, wanted), f"There is no store of {dataset} yet.", root
    remedy = f"Make it: {command}"
    if matching:
        problem = f"{len(matching)} stores of {dataset} fit:\n" + "\n".join(f"    {s.path}" for s in matching)
        remedy = "Name the one you mean with --store PATH."
    elif finished:
        found = ("\n".join([f"  {s.path}", *_lines(_unlike(spec, wanted))]) for s, spec in finished)
        problem = f"No store of {dataset} is as asked for:\n" + "\n".join(found)
        remedy = f"Ask for what a store has, or make the one asked for: {command}"
        raise FingerprintMismatch(problem, where=root, remedy=remedy)
    elif stores:
        problem, where = f"The store of {dataset} is unfinished.", stores[0][0].path
        remedy = "Run the `tosca extract` command that began it again; what is done is kept."
    elif damaged := [s for s in summaries if s.state == DAMAGED and s.path.name.startswith(f"{dataset}--")]:
        problem, where = str(damaged[0].problem), damaged[0].path
        remedy = f"Mend it: tosca cache verify {shlex.quote(str(where))} --repair"
    raise StoreError(problem, where=where, remedy=remedy)


def check_store(store: Store, wanted: Mapping[str, Any]) -> None:
    """Raises `FingerprintMismatch`, naming every field that differs, unless a store has the wanted values."""
    differing = _unlike(store.spec, wanted)
    if differing:
        raise FingerprintMismatch(
            "This store is not the one asked for:\n" + "\n".join(_lines(differing)),
            where=store.path,
            remedy="Ask for what it has, name another one with --store, or leave --store out to search in --root.",
        )


def extract_command(root: Path | str, dataset: str, wanted: Mapping[str, Any] | None = None) -> str:
    """The `tosca extract` command that makes a store with the wanted values, as far as it has options for them."""
    given = {field: value for field, value in (wanted or {}).items() if value is not None}
    if {"backbone.tag", "backbone.name"} <= given.keys():  # timm's arch.tag: the architecture alone means other weights
        given["backbone.name"] = f"{given['backbone.name']}.{given['backbone.tag']}"
    words = ["tosca", "extract", "--dataset", dataset]
    for key, option in _OPTIONS.items():
        words += [option, str(given[key])] if key in given else []
    if str(root) != "cache" and "://" not in str(root):
        words += ["--root", str(root)]
    return shlex.join(words)


def _summarise(path: Path) -> StoreSummary | None:
    try:
        if path.name.endswith(".partial"):
            if (found := read_unfinished(path)) is None:
                return None
            size = sum(record.size for done in found.done.values() for record in done.objects.values())
            rows = {split: layout.rows for split, layout in found.plan.layouts.items()}
            return _summary(path, UNFINISHED, found.plan, rows, found.done_rows, size)
        if not any((path / name).exists() for name in (MANIFEST, MANIFEST_COPY)):
            return None
        return summary_of(path, load_manifest(path / MANIFEST))
    except StoreError as error:
        if not any((path / name).exists() for name in (MANIFEST, MANIFEST_COPY, PLAN)):
            return None  # it has been finished or removed while it was looked at
        return StoreSummary(path, DAMAGED, problem=error.problem)


def summary_of(path: Path, manifest: Manifest) -> StoreSummary:
    """The summary of a whole store that a manifest describes."""
    rows = {split: manifest.rows(split) for split in SPLITS}
    return _summary(path, FINISHED, manifest.plan, rows, sum(rows.values()), manifest.size)


def _summary(path: Path, state: str, plan: Plan, rows: dict[str, int], done_rows: int, size: int) -> StoreSummary:
    views = {split: plan.layouts[split].views for split in SPLITS}
    return StoreSummary(path, state, plan.spec, rows, views, done_rows, size)


def _unlike(spec: StoreSpec, wanted: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, wanted value, the store's value) of every wanted field that the store does not have."""
    flat = spec.flat()
    if spec.imported:  # no images were transformed, so that whoever asks for a transform does not mean these features
        wanted = {field: value for field, value in wanted.items() if not field.startswith("transform.")}
    pairs = [(field, value, flat.get(field, ABSENT)) for field, value in sorted(wanted.items())]
    return [(field, value, has) for field, value, has in pairs if canonical(value) != canonical(has)]


def _lines(differing: list[tuple[str, Any, Any]]) -> list[str]:
    return [f"    {field}: asked for {canonical(value)}, it has {canonical(has)}" for field, value, has in differing]
