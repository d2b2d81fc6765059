"""From a finished store back to what it was made from: its dataset, its backbone, and how they were used.

The fingerprint says what they were, the provenance where they lay. Nothing is computed before their digests are found to be
those of the fingerprint: features of other weights or images cannot be compared with the store's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tosca_cache.datasets import ImageDataset, known, load_dataset
from tosca_cache.datasets.decoding import MAX_PIXELS, Decoding
from tosca_cache.datasets.duplicates import DROP, KEEP, without_duplicates
from tosca_cache.devices import resolve_device
from tosca_cache.errors import BackboneError, DatasetError, FingerprintMismatch, StoreError
from tosca_cache.extract.adapted import is_adapted
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.fingerprint import ExtractOptions, numerics
from tosca_cache.extract.names import LOCAL_TAG
from tosca_cache.extract.pieces import Kept
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.store import StoreSpec
from tosca_cache.store.manifest import Plan
from tosca_cache.store.spec import canonical


@dataclass(frozen=True)
class Sources:
    """Where images and weights of a store lie, if not where its provenance says; None for what it says.

    dataset: a name or a folder. data_root: where named datasets lie. test_fraction: as in `tosca extract`, for stores that
    do not say. weights: a file. device: where to compute; None for the kind of device that made the store.
    """

    dataset: str | None = None
    data_root: Path | None = None
    test_fraction: float | None = None
    weights: Path | None = None
    device: str | None = None


def rebuild_dataset(spec: StoreSpec, provenance: Mapping[str, Any], sources: Sources) -> ImageDataset:
    """Lists the images of a store's dataset again; raises `DatasetError` or `UsageError` if they are not to be found.

    Their listing may differ from the store's.
    """
    _refuse_imported(spec)
    recorded = _recorded(provenance)
    name, folder = str(spec.dataset["name"]), recorded.get("data")
    how: dict[str, Any] = {
        "data_root": sources.data_root,
        "seed": spec.views["seed"],
        "test_fraction": recorded.get("test_fraction") if sources.test_fraction is None else sources.test_fraction,
        "label": recorded.get("label"),
        "name": name,  # without domains of its own that is the name of its only domain, too
        "decoding": asdict(Decoding.recorded_in(spec.transform))
        | {"max_pixels": recorded.get("max_pixels", MAX_PIXELS)},
    }
    return without_duplicates(_listed(name, folder, how, sources), DROP if recorded.get("duplicates") == DROP else KEEP)


def _listed(name: str, folder: Any, how: Mapping[str, Any], sources: Sources) -> ImageDataset:
    if sources.dataset is not None:
        return load_dataset(sources.dataset, **how)
    found = known(name)
    if found is None and folder is None:
        raise DatasetError(
            "The store does not say where its images lie.", where=name, remedy="Give their folder with --dataset."
        )
    if found is not None and (folder is None or found.layout != "embedded"):  # else a folder that is called like ours
        try:
            return load_dataset(name, **how)
        except DatasetError:
            if folder is None or not Path(folder).is_dir() or sources.data_root is not None:
                raise
    return load_dataset(str(Path(str(folder)).absolute()), **how)


def rebuild_backbone(
    spec: StoreSpec, made: Mapping[str, Any], provenance: Mapping[str, Any], sources: Sources
) -> Backbone:
    """Loads a store's backbone again; raises `BackboneError` or `UsageError` if it is not to be had.

    made: the numerics of the store, which say on what kind of device it was made. The weights may differ from the store's.
    """
    _refuse_imported(spec)
    name, tag, recorded = spec.backbone["name"], spec.backbone["tag"], _recorded(provenance).get("weights")
    weights, adapted = sources.weights, spec.backbone.get("adapted")
    if weights is None and isinstance(recorded, str) and recorded != "published":
        weights = Path(recorded)
    if adapted is not None:
        name, tag = str(_recorded(provenance).get("adapted")), ""
        if not is_adapted(name):
            raise BackboneError(
                "The adapted backbone that made this store is not there any more.",
                where=name,
                remedy="Put its folder back, or adapt again as its card in the store's fingerprint says.",
            )
    return load_backbone(
        name if tag in ("", LOCAL_TAG) else f"{name}.{tag}",
        weights=weights,
        img_size=spec.transform.get("image_size"),
        device=resolve_device(sources.device or ("cpu" if made.get("device") == "cpu" else "auto")),
        precision=spec.precision,
        with_base=bool(adapted and adapted.get("with_base")),
        kept=Kept.recorded([name for name, _ in spec.pieces]),
    )


def rebuild(path: Path, plan: Plan, provenance: Mapping[str, Any], sources: Sources) -> Extraction:
    """The extraction that made the store at `path`, ready to compute some of it again.

    Raises `FingerprintMismatch`, naming every field with both values, if dataset or backbone are not those of the store;
    and what loading them raises.
    """
    spec = plan.spec
    dataset = rebuild_dataset(spec, provenance, sources)
    backbone = rebuild_backbone(spec, plan.numerics, provenance, sources)
    options = ExtractOptions(
        views=spec.views["count"],
        test_views=spec.views["test_count"],
        seed=spec.views["seed"],
        normalise=spec.transform.get("normalize") == "timm",
        store_dtype=spec.dtype,
        batch_size=plan.numerics.get("batch_size"),
    )
    extraction = Extraction(dataset, backbone, path.parent, options)
    differing = spec.differences(extraction.spec)
    if differing:
        raise FingerprintMismatch(
            "What there is now is not what the store was made from, so nothing was computed:\n"
            + "\n".join(
                f"    {name}: the store has {canonical(a)}, here it is {canonical(b)}" for name, a, b in differing
            ),
            where=path,
            remedy="Say where the right ones are: --weights FILE, --dataset NAME or FOLDER, --data-root DIR.",
        )
    return extraction


def other_numerics(plan: Plan, extraction: Extraction) -> list[str]:
    """What is different here of what the last bits depend on: one line each, with both values."""
    here = numerics(extraction.root, extraction.backbone, replace(extraction.options, restart=True))
    pairs = [(key, plan.numerics.get(key), value) for key, value in here.items()]
    return [f"{key}: the store has {canonical(a)}, here it is {canonical(b)}" for key, a, b in pairs if a != b]


def _recorded(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    found = provenance.get("source")
    return found if isinstance(found, dict) else {}


def _refuse_imported(spec: StoreSpec) -> None:
    if spec.imported:
        raise StoreError(
            "The features of this store were imported: there are no images and no backbone to compute them from.",
            remedy="Import the file again to have them anew.",
        )
