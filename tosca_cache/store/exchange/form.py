"""The form of an exported store: one HDF5 file, whose layout docs/exchange.md describes.

    /                 attributes: format, version, name (of the store's folder), zarr (version that encoded it)
    /manifest         bytes of manifest.json: fingerprint, numerics, names, digests of all objects, skipped rows
    /provenance       bytes of provenance.json
    /zarr/KEY         bytes of zarr's own metadata objects
    /class_names      texts; domain_names likewise
    /SPLIT/features   [N, 1+V, d], train and test; labels [N], domains [N], views [N, 1+V, 6], paths [N] texts

Every dataset is chunked and has fletcher32; the texts are compressed, because they are padded to one length.
"""

from __future__ import annotations

import re

from tosca_cache.store.layout import ARRAYS, SPLITS, VIEW_PARAMETERS, metadata_keys
from tosca_cache.store.manifest import Plan

FORMAT = "tosca-cache-exchange"
VERSION = 1
MANIFEST_SET, PROVENANCE_SET, METADATA_GROUP = "manifest", "provenance", "zarr"
NAMES = ("class_names", "domain_names")
STORE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")  # one visible folder, nowhere else


def is_store_name(name: object) -> bool:
    """Whether a store's folder may be called so."""
    return isinstance(name, str) and STORE_NAME.fullmatch(name) is not None and not name.endswith(".partial")


def row_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """The shape of every dataset of rows, by its path: {"train/features": (N, 1+V, d), ...}."""
    shapes: dict[str, tuple[int, ...]] = {}
    for split in SPLITS:
        layout = plan.layouts[split]
        tails = {"features": (layout.views, layout.dim), "views": (layout.views, VIEW_PARAMETERS)}
        shapes |= {f"{split}/{array}": (layout.rows, *tails.get(array, ())) for array in ARRAYS}
    return shapes


def every_set() -> list[str]:
    """Every dataset that an exported store has, but for the provenance, which a store need not have."""
    rows = [f"{split}/{array}" for split in SPLITS for array in ARRAYS]
    return [MANIFEST_SET, *NAMES, *rows, *(f"{METADATA_GROUP}/{key}" for key in metadata_keys())]


def shown(text: str) -> str:
    """A text as HDF5 keeps it: valid Unicode, no NUL at its end. The manifest has it as it is."""
    return text.encode("utf-8", "replace").rstrip(b"\0").decode()
