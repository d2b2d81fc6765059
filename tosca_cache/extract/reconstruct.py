"""From a finished store back to what it was made from: its dataset, its backbone, and how they were used.

The fingerprint says what they were, the provenance where they lay. Nothing is computed before their digests are found to be
those of the fingerprint: features of other weights or images cannot be compared with the store's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tosca_cache.datasets import known
from tosca_cache.datasets.decoding import MAX_PIXELS, Decoding
from tosca_cache.datasets.duplicates import DROP, KEEP
from tosca_cache.errors import BackboneError, DatasetError, FingerprintMismatch, StoreError
from tosca_cache.extract.adapted import is_adapted
from tosca_cache.extract.fingerprint import ExtractOptions, numerics
from tosca_cache.extract.names import LOCAL_TAG
from tosca_cache.extract.pieces import Kept
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.request import ExtractRequest, prepare
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


def request_again(
    root: Path, spec: StoreSpec, made: Mapping[str, Any], provenance: Mapping[str, Any], sources: Sources
) -> ExtractRequest:
    """The request that a store was made by; made: its numerics, which say on what kind of device.

    Raises `StoreError` for imported features, `DatasetError` or `BackboneError` if nothing says where it lies.
    """
    if spec.imported:
        raise StoreError(
            "The features of this store were imported: there are no images and no backbone to compute them from.",
            remedy="Import the file again to have them anew.",
        )
    found = provenance.get("source")
    recorded: Mapping[str, Any] = found if isinstance(found, dict) else {}
    dataset, data_root = _dataset(str(spec.dataset["name"]), recorded.get("data"), sources)
    adapted, weights = spec.backbone.get("adapted"), recorded.get("weights")
    name, tag = (recorded.get("adapted"), "") if adapted else (spec.backbone["name"], spec.backbone["tag"])
    if adapted and not is_adapted(str(name)):
        raise BackboneError(
            "The adapted backbone that made this store is not there any more.",
            where=str(name),
            remedy="Put its folder back, or adapt again as its card in the store's fingerprint says.",
        )
    most = recorded.get("max_pixels")
    decoding, kept = Decoding.recorded_in(spec.transform), Kept.recorded([piece for piece, _ in spec.pieces])
    return ExtractRequest(
        dataset=dataset,
        root=root,
        backbone=name if tag in ("", LOCAL_TAG) else f"{name}.{tag}",
        weights=sources.weights or (None if weights in (None, "published") else Path(str(weights))),
        with_base=bool(adapted and adapted.get("with_base")),
        layers=kept.layers,
        pool=kept.pool,
        data_root=data_root,
        test_fraction=recorded.get("test_fraction") if sources.test_fraction is None else sources.test_fraction,
        label=recorded.get("label"),
        precision=spec.precision,
        normalise="timm" if spec.transform.get("normalize") == "timm" else "none",
        img_size=spec.transform.get("image_size"),
        device=sources.device or ("cpu" if made.get("device") == "cpu" else "auto"),
        orientation=decoding.orientation,
        background=decoding.background,
        depth=decoding.depth,
        max_pixels=most if type(most) is int and most > 0 else MAX_PIXELS,
        duplicates=DROP if recorded.get("duplicates") == DROP else KEEP,
        options=ExtractOptions(
            views=spec.views["count"],
            test_views=spec.views["test_count"],
            seed=spec.views["seed"],
            store_dtype=spec.dtype,
            batch_size=made.get("batch_size"),
        ),
    )


def _dataset(name: str, data: Any, sources: Sources) -> tuple[str, Path | None]:
    """(dataset, data root) as `tosca extract` takes them; data: where the provenance says that the images lay."""
    found, folder = known(name), None if data is None else Path(str(data)).absolute()
    if sources.dataset is not None:
        return sources.dataset, sources.data_root
    if found is None or (found.layout == "embedded" and folder is not None):  # a folder that is called like ours
        if folder is None:
            raise DatasetError(
                "The store does not say where its images lie.", where=name, remedy="Give their folder with --dataset."
            )
        return str(folder), sources.data_root
    roots = [] if folder is None or not folder.exists() else [folder, *folder.parents]
    return name, sources.data_root or next((root for root in roots if folder in found.candidates(root)), None)


def rebuild(path: Path, plan: Plan, provenance: Mapping[str, Any], sources: Sources) -> Extraction:
    """The extraction that made the store at `path`, ready to compute some of it again.

    Raises `FingerprintMismatch`, naming every field with both values, if dataset or backbone are not those of the store;
    and what loading them raises.
    """
    request = request_again(path.parent, plan.spec, plan.numerics, provenance, sources)
    extraction = prepare(request, str(plan.spec.dataset["name"]))
    differing = plan.spec.differences(extraction.spec)
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
    here = numerics(extraction.backbone, extraction.options.batch_size)
    pairs = [(key, plan.numerics.get(key), value) for key, value in here.items()]
    return [f"{key}: the store has {canonical(a)}, here it is {canonical(b)}" for key, a, b in pairs if a != b]
