"""Published values beside ours: a run of what was published, on features with the published transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tosca_cache.compare.cells import CompareRequest
from tosca_cache.compare.expectation import Expectation
from tosca_cache.compare.run import run_compare
from tosca_cache.config import TrainConfig, config_of
from tosca_cache.datasets import known
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.errors import RunError, UsageError
from tosca_cache.evaluate.summary import to_json
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.names import resolve_name
from tosca_cache.extract.request import ExtractRequest, prepare
from tosca_cache.learners import LEARNERS
from tosca_cache.store import Store, check_store, list_stores, open_store
from tosca_cache.sweep.progress import CellProgress

PUBLISHED_PRECISION = "fp32"


@dataclass(frozen=True)
class Places:
    """Where images, weights and stores are. dataset: a name or a folder, None for the name that the values are of.

    store: the store itself.
    """

    root: Path
    dataset: str | None = None
    store: Path | None = None
    data_root: Path | None = None
    weights: Path | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Resized(Backbone):
    """A backbone whose clean view is made by another resize than the reference's."""

    resize: int = 0
    interpolation: str = ""

    def transform(self, normalise: bool = True) -> TransformSpec:
        """The backbone's transform with this resize."""
        return replace(super().transform(normalise), resize=self.resize, interpolation=self.interpolation)


def reproduce(
    expectations: Sequence[Expectation],
    places: Places,
    *,
    on_note: Callable[[str], None] = lambda text: None,
    reporter: CellProgress | None = None,
) -> list[dict[str, Any]]:
    """Every published value beside ours, as plain values: one entry a measure; see `_beside`.

    Arguments:
        on_note: told about stores that are found and made.

    Raises `UsageError` before anything is extracted if a learner is not there, `RunError` if one fails.
    """
    for expected in expectations:
        if expected.method not in LEARNERS:
            raise UsageError(
                f"the published values are of the learner {expected.method!r}, which is not registered",
                where=f"method of {expected.dataset}, {expected.source}",
                remedy=f"registered are {', '.join(sorted(LEARNERS))}; a learner of your own comes with --plugin FILE.py",
            )
    found = []
    for expected in expectations:
        store = features_for(expected, places, on_note=on_note)
        on_note(f"store: {store.path} ({store.spec.precision})")
        request = CompareRequest(
            _config(expected, places.device),
            (expected.method,),
            expected.seeds,
            {expected.method: expected.options} if expected.options else {},
        )
        (row,) = run_compare(request, store, reporter=reporter)["rows"]
        for seed, reason in row["failed"].items():
            raise RunError(reason, where=f"{expected.method}, seed {seed}", remedy="mend that, then run it again")
        found += _beside(expected, list(row["seeds"].values()), str(store.path), store.spec.precision)
    return found


def _config(expected: Expectation, device: str) -> TrainConfig:
    tasks = {key: getattr(expected, key) or None for key in ("increment", "init_cls", "task_sizes", "class_order")}
    shuffle = {} if expected.class_order else {"shuffle": expected.shuffle}
    return config_of({"dataset": expected.dataset, "device": device} | tasks | shuffle)


def _beside(
    expected: Expectation, results: Sequence[dict[str, Any]], store: str, precision: str
) -> list[dict[str, Any]]:
    """One entry for each published value: what it is, ours, published, difference (ours - published), and its source.

    A curve gives a list of each, and as its difference the one of largest size.
    """
    about = {key: getattr(expected, key) for key in ("dataset", "method", "seeds", "source", "note")}
    about |= {"store": store, "precision": precision}
    entries = []
    for measure, published in expected.values.items():
        ours = [result[measure] for result in results]
        if isinstance(published, list):
            mean: Any = [fmean(column) for column in zip(*ours, strict=True)]
            if len(mean) != len(published):
                raise UsageError(
                    f"the published curve has {len(published)} tasks, ours {len(mean)}",
                    where=expected.source,
                    remedy="correct increment, init_cls or the curve",
                )
            difference, spread = max((a - b for a, b in zip(mean, published, strict=True)), key=abs), None
        else:
            mean, spread = fmean(ours), stdev(ours) if len(ours) > 1 else None
            difference = mean - published
        entry = {"measure": measure, "published": published, "published_spread": expected.spreads.get(measure)}
        entries.append(about | entry | {"ours": mean, "ours_spread": spread, "difference": difference})
    return to_json(entries)


def features_for(expected: Expectation, places: Places, *, on_note: Callable[[str], None]) -> Store:
    """The store with the features that values were made from; extracts it if there is none.

    Raises `FingerprintMismatch` if `places.store` is another one, and what extraction raises.
    """
    wanted = wanted_fields(expected)
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


def wanted_fields(expected: Expectation) -> dict[str, Any]:
    """Dotted fields of the fingerprint, and their values, that published values ask for."""
    arch, tag = resolve_name(expected.backbone)
    return {
        "dataset.name": expected.dataset,
        "backbone.name": arch,
        "backbone.tag": tag,
        "transform.normalize": expected.normalize,
        "transform.image_size": expected.image_size,
        "transform.resize": expected.resize,
        "transform.interpolation": expected.interpolation,
    }


def _extract(expected: Expectation, places: Places) -> Store:
    own = places.dataset is not None and known(places.dataset) is None  # a folder that holds the published images
    request = ExtractRequest(
        dataset=places.dataset or expected.dataset,
        root=places.root,
        backbone=expected.backbone,
        weights=places.weights,
        data_root=places.data_root,
        precision=PUBLISHED_PRECISION,
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
    return replace(asked, backbone=backbone).run()
