"""The features that published values were made from: a store that has them, or one extracted with the same transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tosca_cache.datasets import known
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.names import resolve_name
from tosca_cache.extract.pipeline import extract
from tosca_cache.extract.request import ExtractRequest, prepare, source
from tosca_cache.reproduce.expectation import Expectation
from tosca_cache.store import Store, check_store, list_stores, open_store

PUBLISHED_PRECISION = "fp32"


@dataclass(frozen=True)
class Places:
    """Where images, weights and stores are. dataset: a name or a folder, None for the name that the values are of.

    store: the store itself. precision: that the features must have; None takes any that are there, and makes float32.
    """

    root: Path
    dataset: str | None = None
    store: Path | None = None
    data_root: Path | None = None
    weights: Path | None = None
    precision: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Resized(Backbone):
    """A backbone whose clean view is made by another resize than the reference's."""

    resize: int = 0
    interpolation: str = ""

    def transform(self, normalise: bool = True) -> TransformSpec:
        """The backbone's transform with this resize."""
        return replace(super().transform(normalise), resize=self.resize, interpolation=self.interpolation)


def features_for(expected: Expectation, places: Places, *, on_note: Callable[[str], None]) -> Store:
    """The store with the features that values were made from; extracts it if there is none.

    Raises `FingerprintMismatch` if `places.store` is another one, and what extraction raises.
    """
    wanted = wanted_fields(expected, places.precision)
    if places.store is not None:
        opened = open_store(places.store)
        check_store(opened, wanted)
        return opened
    flats = [(s.path, s.spec.flat()) for s in list_stores(places.root) if s.spec is not None and s.state == "finished"]
    fitting = [
        (flat["precision"] != PUBLISHED_PRECISION, flat["views.count"], path)
        for path, flat in flats
        if all(flat.get(key) == value for key, value in wanted.items()) and flat["views.count"] >= expected.views
    ]
    if fitting:
        return open_store(min(fitting)[-1])
    on_note(f"no store in {places.root} has these features; extracting them")
    return _extract(expected, places)


def wanted_fields(expected: Expectation, precision: str | None = None) -> dict[str, Any]:
    """Dotted fields of the fingerprint, and their values, that published values ask for."""
    arch, tag = resolve_name(expected.backbone)
    wanted: dict[str, Any] = {
        "dataset.name": expected.dataset,
        "backbone.name": arch,
        "backbone.tag": tag,
        "transform.normalize": expected.normalize,
        "transform.image_size": expected.image_size,
        "transform.resize": expected.resize,
        "transform.interpolation": expected.interpolation,
    }
    return wanted if precision is None else wanted | {"precision": precision}


def _extract(expected: Expectation, places: Places) -> Store:
    own = places.dataset is not None and known(places.dataset) is None  # a folder that holds the published images
    request = ExtractRequest(
        dataset=places.dataset or expected.dataset,
        root=places.root,
        backbone=expected.backbone,
        weights=places.weights,
        data_root=places.data_root,
        precision=places.precision or PUBLISHED_PRECISION,
        normalise=expected.normalize,
        img_size=expected.image_size,
        device=places.device,
        orientation=PUBLISHED.orientation if own else None,
        background=PUBLISHED.background if own else None,
        depth=PUBLISHED.depth if own else None,
        options=ExtractOptions(views=expected.views),
    )
    asked = prepare(request)
    same = {item.name: getattr(asked.backbone, item.name) for item in fields(Backbone)}
    backbone = Resized(**same, resize=expected.resize, interpolation=expected.interpolation)
    return extract(asked.dataset, backbone, places.root, asked.options, source=source(request))
