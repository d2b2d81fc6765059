"""What a user asks for, by names and paths, and making it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tosca_cache.datasets import ImageDataset, known, load_dataset, resolve_data_root
from tosca_cache.datasets.decoding import DEPTHS, MAX_PIXELS, ORIENTATIONS, parse_background
from tosca_cache.datasets.duplicates import KEEP, POLICIES, without_duplicates
from tosca_cache.devices import resolve_device
from tosca_cache.errors import UsageError
from tosca_cache.extract.adapted import Adaptation, is_adapted
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.fingerprint import ExtractOptions, refuse_option
from tosca_cache.extract.names import REFERENCE_BACKBONE, VIT_NANO, resolve_name
from tosca_cache.extract.pieces import Kept
from tosca_cache.extract.pipeline import Extraction

_CHOICES = {  # None goes with the dataset
    "normalise": (None, "timm", "none"),
    "orientation": (None, *ORIENTATIONS),
    "depth": (None, *DEPTHS),
    "duplicates": POLICIES,
}


@dataclass(frozen=True)
class ExtractRequest:
    """One `tosca extract`: the fields are its options; see `ExtractOptions` for the rest of them.

    backbone, normalise: None for what goes with the dataset; see `default_backbone` and `default_normalisation`. A backbone
        may be the folder of an adapted one; inputs are then normalised as it was trained with.
    with_base: the frozen backbone's features before those of the adapted one.
    layers, pool: what is kept of a view, see `extract.pieces`.
    orientation, background, depth: how image files are decoded, see `Decoding`; None for what goes with the dataset: as
        published for a named one, otherwise upright, on white, scaled.
    label: the column or key of the labels, of tables and shards.
    max_pixels: most pixels of an image. duplicates: `keep`, `drop` or `fail`, see `datasets.duplicates`.
    """

    dataset: str
    root: Path
    backbone: str | None = None
    weights: Path | None = None
    with_base: bool = False
    layers: int = 1
    pool: str = "cls"
    data_root: Path | None = None
    test_fraction: float | None = None
    label: str | None = None
    precision: str = "auto"
    normalise: str | None = None
    img_size: int | None = None
    device: str = "auto"
    orientation: str | None = None
    background: str | None = None
    depth: str | None = None
    max_pixels: int = MAX_PIXELS
    duplicates: str = KEEP
    options: ExtractOptions = field(default_factory=ExtractOptions)

    def __post_init__(self) -> None:
        for name in ("img_size", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                refuse_option(name, "at least 1", value)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                refuse_option(name, " or ".join(filter(None, choices)), getattr(self, name))
        if self.background is not None:
            parse_background(self.background)
        Kept(self.layers, self.pool)  # refuses what cannot be

    def load_dataset(self, name: str | None = None) -> ImageDataset:
        """Lists the images; raises `DatasetError` or `UsageError` if they are not as they must be.

        name: what to call a folder or a list, if not by its own name.
        """
        background = None if self.background is None else parse_background(self.background)
        asked = {"orientation": self.orientation, "background": background, "depth": self.depth}
        decoding = {key: value for key, value in asked.items() if value is not None} | {"max_pixels": self.max_pixels}
        dataset = load_dataset(
            self.dataset,
            data_root=self.data_root,
            test_fraction=self.test_fraction,
            seed=self.options.seed,
            decoding=decoding,
            label=self.label,
            name=name,
        )
        return without_duplicates(dataset, self.duplicates)

    def load_backbone(self) -> Backbone:
        """Loads the model; raises `BackboneError` or `UsageError` if it cannot be had."""
        return load_backbone(
            self.backbone or default_backbone(self.dataset),
            weights=self.weights,
            img_size=self.img_size,
            device=resolve_device(self.device),
            precision=self.precision,
            with_base=self.with_base,
            kept=Kept(self.layers, self.pool),
        )


def default_backbone(dataset: str) -> str:
    """Ours for the embedded datasets of tiny images, otherwise the one of the published numbers."""
    found = known(dataset)
    return VIT_NANO if found is not None and found.layout == "embedded" else REFERENCE_BACKBONE


def default_normalisation(dataset: str, backbone: str) -> str:
    """`none` for a published benchmark under a backbone of the reference, as its numbers were made; otherwise `timm`."""
    found = known(dataset)
    published = found is not None and found.layout != "embedded"
    reference = resolve_name(REFERENCE_BACKBONE)[0]
    return "none" if published and resolve_name(backbone)[0] == reference else "timm"


def prepare(request: ExtractRequest, name: str | None = None) -> Extraction:
    """Loads the dataset, which may be called otherwise, and the backbone; raises what loading does."""
    dataset, backbone = request.load_dataset(name), request.load_backbone()
    if backbone.adapted is not None:
        normalise = _as_adapted(request, dataset, backbone.adapted)
    else:
        normalise = (request.normalise or default_normalisation(request.dataset, backbone.name)) == "timm"
    options = replace(request.options, normalise=normalise)
    return Extraction(dataset, backbone, request.root, options, source(request))


def _as_adapted(request: ExtractRequest, dataset: ImageDataset, adapted: Adaptation) -> bool:
    """Whether inputs are normalised; raises `UsageError` for inputs or classes that the backbone was not adapted for."""
    card = adapted.card
    if request.normalise is not None and (request.normalise == "timm") != card.normalise:
        raise UsageError(
            f"the backbone was adapted with --normalize {'timm' if card.normalise else 'none'}",
            where="--normalize",
            remedy="leave it out, or adapt with the one you want",
        )
    missing = [name for name in card.first_task.classes if name not in dataset.class_names]
    if missing:
        raise UsageError(
            f"the backbone was adapted on a first task with the class {missing[0]!r}, which {dataset.name} has not",
            where=adapted.path,
            remedy=f"extract {card.first_task.dataset}, or adapt on this dataset",
        )
    return card.normalise


def source(request: ExtractRequest) -> dict[str, Any]:
    """Where weights and images come from, and how the images were chosen, for the provenance; see `extract.recompute`."""
    found: dict[str, Any] = {"weights": str(Path(request.weights).absolute()) if request.weights else "published"}
    if request.backbone is not None and is_adapted(request.backbone):
        found["adapted"] = str(Path(request.backbone).absolute())
    if known(request.dataset) is not None:
        found |= {"dataset": request.dataset, "data_root": str(resolve_data_root(request.data_root).absolute())}
    for name in ("test_fraction", "label", "duplicates", "max_pixels"):
        if getattr(request, name) != _DEFAULTS[name]:
            found[name] = getattr(request, name)
    return found


_DEFAULTS = {item.name: item.default for item in fields(ExtractRequest)}
