"""What a user asks for, by names and paths, and making it: alone, in parts (`--part`), or by workers (`--jobs`)."""

from __future__ import annotations

import time
import timeit
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tosca_cache.config.checks import Count, one_of
from tosca_cache.datasets import ImageDataset, known, load_dataset, resolve_data_root
from tosca_cache.datasets.decoding import DEPTHS, MAX_PIXELS, ORIENTATIONS, parse_background
from tosca_cache.datasets.duplicates import KEEP, POLICIES, without_duplicates
from tosca_cache.devices import one_thread, resolve_device
from tosca_cache.errors import StoreError, UsageError
from tosca_cache.extract.adapted import Adaptation, is_adapted
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.names import REFERENCE_BACKBONE, VIT_NANO, check_options, option, resolve_name
from tosca_cache.extract.pieces import Kept
from tosca_cache.extract.pipeline import Extraction, ImageProgress
from tosca_cache.store import Part, Store, StoreBusy, StoreInProgress, partial_path, read_unfinished
from tosca_cache.store.locks import exclusive
from tosca_cache.workers import WorkerDied, Workers, threads_here

TIMED_BATCH, TIMED = 8, 5  # views in a batch, and batches
PARTS_A_JOB = 8  # so that at the end nobody waits long for the slowest
MOST_PARTS = 256
TRIES = 2  # rounds in a row that end without one more shard
PAUSE = 1.0  # seconds after such a round: a worker that was killed may not have ended yet


@dataclass(frozen=True)
class ExtractRequest:
    """One `tosca extract`: the fields are its options; see `ExtractOptions` for the rest of them.

    backbone, normalise: None for what goes with the dataset; see `default_backbone` and `default_normalisation`. A backbone
        may be the folder of an adapted one; inputs are then normalised as it was trained with.
    with_base: the frozen backbone's features before those of the adapted one.
    label: the column of the labels, of tables; `label` if None.
    layers, pool: what is kept of a view, see `extract.pieces`.
    orientation, background, depth: how image files are decoded, see `Decoding`; None for what goes with the dataset: as
        published for a benchmark, otherwise upright, on white, scaled.
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
    normalise: str | None = option(None, one_of(("timm", "none")))
    img_size: int | None = option(None, Count)
    device: str = "auto"
    orientation: str | None = option(None, one_of(ORIENTATIONS))
    background: str | None = None
    depth: str | None = option(None, one_of(DEPTHS))
    max_pixels: int = option(MAX_PIXELS, Count)
    duplicates: str = option(KEEP, one_of(POLICIES))
    options: ExtractOptions = field(default_factory=ExtractOptions)

    def __post_init__(self) -> None:
        check_options(self)

    def load_dataset(self) -> ImageDataset:
        """Lists the images; raises `DatasetError` or `UsageError` if they are not as they must be."""
        background = None if self.background is None else parse_background(self.background)
        asked = {"orientation": self.orientation, "background": background, "depth": self.depth}
        decoding = {key: value for key, value in asked.items() if value is not None} | {"max_pixels": self.max_pixels}
        dataset = load_dataset(
            self.dataset,
            data_root=self.data_root,
            test_fraction=self.test_fraction,
            label=self.label,
            seed=self.options.seed,
            decoding=decoding,
        )
        return without_duplicates(dataset, self.duplicates)

    def load_backbone(self, *, untrained: bool = False) -> Backbone:
        """Loads the model, or makes it untrained; raises `BackboneError` or `UsageError` if it cannot be had."""
        return load_backbone(
            self.backbone or default_backbone(self.dataset),
            weights=self.weights,
            img_size=self.img_size,
            device=resolve_device(self.device),
            precision=self.precision,
            untrained=untrained,
            with_base=self.with_base,
            kept=Kept(self.layers, self.pool),
        )


def default_backbone(dataset: str) -> str:
    """Ours for the embedded datasets of tiny images, otherwise the one of the published numbers."""
    found = known(dataset)
    return VIT_NANO if found is not None and found.layout == "embedded" else REFERENCE_BACKBONE


def default_normalisation(dataset: str, backbone: str) -> str:
    """`none` for a published benchmark under a backbone of the reference, as its numbers were made; otherwise `timm`."""
    found, reference = known(dataset), resolve_name(REFERENCE_BACKBONE)[0]
    return "none" if found is not None and found.benchmark and resolve_name(backbone)[0] == reference else "timm"


def prepare(request: ExtractRequest) -> Extraction:
    """Loads the dataset and the backbone; raises what loading does."""
    dataset, backbone = request.load_dataset(), request.load_backbone()
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


@dataclass(frozen=True)
class Estimate:
    """images: of both splits. passes: views through the backbone. seconds: of these alone. bytes: of the features."""

    images: int
    passes: int
    seconds: float
    bytes: int


def estimate(request: ExtractRequest, train: int, test: int) -> Estimate:
    """What so many train and test images take, before anything is downloaded or written.

    A few passes are timed, with weights as they are drawn, on pixels of noise; the fastest counts: the others shared the
    machine. Raises `BackboneError` if there is no such model.
    """
    backbone, options = request.load_backbone(untrained=True), request.options
    forward, side = backbone.forward(backbone.transform()), backbone.image_size
    pixels = torch.randint(0, 256, (TIMED_BATCH, side, side, 3), dtype=torch.uint8)
    on_cpu = backbone.device.type == "cpu"  # there every worker computes on one thread
    with one_thread() if on_cpu else nullcontext():
        each = min(timeit.repeat(lambda: forward(pixels).cpu(), number=1, repeat=TIMED)) / TIMED_BATCH
    each /= (options.workers or threads_here()) if on_cpu else 1
    passes = train * (1 + options.views) + test * (1 + options.test_views)
    size = 2 if options.store_dtype == "float16" else 4
    return Estimate(train + test, passes, passes * each, passes * backbone.dim * size)


def extract_part(extraction: Extraction, part: Part, *, show_progress: bool = True) -> StoreInProgress:
    """Makes the shards of a part that nobody has made yet; other processes may make other parts at the same time.

    Returns the unfinished store as it is then: `Extraction.run` finishes it. Raises what that raises; `StoreBusy` if this
    part, or all of the store, is being written; `StoreError` if it is finished.
    """
    with extraction.open_writer(part) as writer:
        extraction.write_shards(writer, show_progress=show_progress)
    return _read(extraction.path)


def run_jobs(request: ExtractRequest, extraction: Extraction, n_jobs: int) -> Store:
    """Extracts what is asked for in `n_jobs` processes of this machine, which take parts until every shard is done.

    A process that dies costs the shards that it was making; others make them. If this ends early, by an error or by Ctrl-C,
    the same call goes on.

    Raises what `Extraction.run` raises, and `WorkerDied` if workers die time and again without getting anything done.
    """
    begun, path = time.monotonic(), extraction.path
    with Workers("loky", n_jobs) as workers:
        with extraction.open_writer() as writer:
            lines, done = extraction.summary(writer, f"{n_jobs} jobs"), writer.done_rows
        kept = replace(request.options, restart=False)
        name = f"extract {extraction.dataset.name}"
        with ImageProgress(name, writer.total_rows, done) as progress:
            for line in lines:
                progress.on_note(line)
            _make_all(workers, replace(request, options=kept), path, progress)
    last_run = {"seconds": round(time.monotonic() - begun, 3), "images": writer.total_rows - done, "jobs": n_jobs}
    extraction = replace(extraction, options=replace(extraction.options, restart=False))
    with extraction.open_writer() as writer:
        return extraction.finish(writer, last_run)


def _make_all(workers: Workers, request: ExtractRequest, path: Path, progress: ImageProgress) -> None:
    """Gives parts to workers until every shard is done; the store says what is, also when a worker has died."""
    found, fruitless = _read(path), 0
    count = max(1, min(len(found.shards), PARTS_A_JOB * workers.n_jobs, MOST_PARTS))
    with exclusive(path, Part(count, 0)):  # who shares the parts out
        while missing := [part for k in range(count) if found.pending(part := Part(count, k + 1))]:
            try:
                for _ in workers.run(_make_part, ((request, part) for part in missing)):
                    progress.advance(_read(path).done_rows - progress.done)
            except WorkerDied as death:
                if fruitless == TRIES:
                    raise
                progress.on_note(f"{death.problem.splitlines()[0]} Going on with what is missing.")
            before, found = len(found.done), _read(path)
            progress.advance(found.done_rows - progress.done)
            fruitless = 0 if len(found.done) > before else fruitless + 1
            if fruitless > TRIES:
                remedy = "Run the same command again later."
                raise StoreBusy("Another process is making what is missing.", where=path, remedy=remedy)
            time.sleep(PAUSE if fruitless else 0)


def _make_part(request: ExtractRequest, part: Part) -> None:
    """What a job does: makes one part of the store that was begun, unless a worker that was killed is still at it."""
    with suppress(StoreBusy):
        extract_part(_loaded(request), part, show_progress=False)


@lru_cache(maxsize=1)
def _loaded(request: ExtractRequest) -> Extraction:
    """Kept from one job of a worker to the next."""
    return prepare(request)


def _read(path: Path) -> StoreInProgress:
    found = read_unfinished(partial_path(path))
    if found is None:
        raise StoreError(
            "The unfinished store is gone: somebody has removed or finished it.",
            where=partial_path(path),
            remedy="Run the same command again.",
        )
    return found
