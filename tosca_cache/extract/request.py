"""What a user asks for, by names and paths, and the objects that it stands for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tosca_cache.datasets import ImageDataset, known, load_dataset
from tosca_cache.datasets.decoding import DEPTHS, MAX_PIXELS, ORIENTATIONS, parse_background
from tosca_cache.datasets.duplicates import KEEP, POLICIES, without_duplicates
from tosca_cache.devices import resolve_device
from tosca_cache.errors import UsageError
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.names import REFERENCE_BACKBONE, VIT_NANO, resolve_name
from tosca_cache.extract.options import ExtractOptions
from tosca_cache.extract.parts import PartOutcome, extract_part, join
from tosca_cache.extract.pipeline import Extraction, extract
from tosca_cache.store import Part, Store

NORMALISATIONS = ("timm", "none")
_CHOICES = {"orientation": ORIENTATIONS, "depth": DEPTHS, "duplicates": POLICIES}


@dataclass(frozen=True)
class ExtractRequest:
    """One `tosca extract`: the fields are its options; see `extract.options` for the rest of them.

    backbone, normalise: None for what goes with the dataset; see `default_backbone` and `default_normalisation`.
    orientation, background, depth: how image files are decoded, see `Decoding`; None for what goes with the dataset: as
        published for a named one, otherwise upright, on white, scaled.
    max_pixels: most pixels of an image. duplicates: `keep`, `drop` or `fail`, see `datasets.duplicates`.
    """

    dataset: str
    root: Path
    backbone: str | None = None
    weights: Path | None = None
    data_root: Path | None = None
    test_fraction: float | None = None
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
        if self.img_size is not None and self.img_size < 1:
            raise UsageError(
                f"the image size must be at least 1, not {self.img_size}",
                where="--img-size",
                remedy="give for example 224",
            )
        if self.normalise not in (None, *NORMALISATIONS):
            raise UsageError(
                f"there is no normalisation {self.normalise!r}",
                where="--normalize",
                remedy=f"use {' or '.join(NORMALISATIONS)}",
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in (choices if name == "duplicates" else (None, *choices)):
                raise UsageError(
                    f"there is no {name} {getattr(self, name)!r}",
                    where=f"--{name}",
                    remedy=f"use {' or '.join(choices)}",
                )
        if self.background is not None:
            parse_background(self.background)
        if self.max_pixels < 1:
            raise UsageError(
                f"an image has at least 1 pixel, not {self.max_pixels}",
                where="--max-pixels",
                remedy=f"leave it out for {MAX_PIXELS}",
            )

    def load_dataset(self) -> ImageDataset:
        """Lists the images; raises `DatasetError` or `UsageError` if they are not as they must be."""
        dataset = load_dataset(
            self.dataset,
            data_root=self.data_root,
            test_fraction=self.test_fraction,
            seed=self.options.seed,
            decoding=self._decoding(),
        )
        return without_duplicates(dataset, self.duplicates)

    def _decoding(self) -> dict[str, Any]:
        """Fields of `Decoding` that are asked for."""
        background = None if self.background is None else parse_background(self.background)
        asked = {"orientation": self.orientation, "background": background, "depth": self.depth}
        return {key: value for key, value in asked.items() if value is not None} | {"max_pixels": self.max_pixels}

    def load_backbone(self) -> Backbone:
        """Loads the model; raises `BackboneError` or `UsageError` if it cannot be had."""
        return load_backbone(
            self.backbone or default_backbone(self.dataset),
            weights=self.weights,
            img_size=self.img_size,
            device=resolve_device(self.device),
            precision=self.precision,
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


@dataclass(frozen=True)
class Outcome:
    """The finished store, and whether it was finished already when asked for."""

    store: Store
    was_there: bool


def run_request(request: ExtractRequest, *, show_progress: bool = True) -> Outcome:
    """Extracts what is asked for; raises what `extract.pipeline.extract` raises, and what loading does."""
    asked = prepare(request)
    was_there = asked.path.exists()
    store = extract(
        asked.dataset, asked.backbone, asked.root, asked.options, source=source(request), show_progress=show_progress
    )
    return Outcome(store, was_there)


def run_part(request: ExtractRequest, part: Part, *, show_progress: bool = True) -> PartOutcome:
    """Makes one part of what is asked for; raises `UsageError` for a restart, and what `extract.parts` raises."""
    _refuse_restart(request, "--part", "what the other parts have done")
    return extract_part(prepare(request), part, show_progress=show_progress)


def run_join(request: ExtractRequest) -> Outcome:
    """Joins the parts of what is asked for; raises `UsageError` for a restart, and what `extract.parts.join` raises."""
    _refuse_restart(request, "--join", "what is to be joined")
    asked = prepare(request)
    was_there = asked.path.exists()
    return Outcome(join(asked, source=source(request), command=command(request)), was_there)


def prepare(request: ExtractRequest) -> Extraction:
    """Loads the dataset and the backbone; raises what loading does."""
    dataset, backbone = request.load_dataset(), request.load_backbone()
    normalise = request.normalise or default_normalisation(request.dataset, backbone.name)
    return Extraction(dataset, backbone, request.root, replace(request.options, normalise=normalise == "timm"))


def source(request: ExtractRequest) -> dict[str, Any]:
    """Where the weights come from, and how the images were chosen if they were, for the provenance."""
    found: dict[str, Any] = {"weights": str(Path(request.weights).absolute()) if request.weights else "published"}
    if request.test_fraction is not None:
        found["test_fraction"] = request.test_fraction
    if request.duplicates != KEEP:
        found["duplicates"] = request.duplicates
    if request.max_pixels != MAX_PIXELS:
        found["max_pixels"] = request.max_pixels
    return found


def command(request: ExtractRequest) -> str:
    """The `tosca extract` command that asks for this, without what only says how to run it."""
    words = ["tosca", "extract"]
    for asked, left_out in ((request, ("options",)), (request.options, ("normalise", "restart", "workers"))):
        for item in fields(asked):
            value = getattr(asked, item.name)
            name = item.name.replace("_", "-").replace("normalise", "normalize")
            if item.name not in left_out and value != item.default:
                said = str(value)
                words += [f"--no-{name}"] if value is False else [f"--{name}", said]
    return shlex.join(words)


def _refuse_restart(request: ExtractRequest, option: str, what: str) -> None:
    if request.options.restart:
        raise UsageError(
            f"{option} with --restart would throw away {what}",
            where="--restart",
            remedy="leave one of them out; to begin anew, remove the unfinished store (`tosca cache ls`) "
            "while no part is running, then run the parts without --restart",
        )
