"""What a user asks for, by names and paths, and making it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tosca_cache import __version__
from tosca_cache.adapt.first_task import FirstTask, ImageBatches, first_task
from tosca_cache.adapt.training import Epoch, State, Training, TrainingOptions
from tosca_cache.class_order import Protocol
from tosca_cache.config.checks import Count, one_of
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.errors import BackboneError, UsageError
from tosca_cache.extract.adapted import CARD, PARTS, AdaptedCard, is_adapted, read_card
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.names import check_options, option
from tosca_cache.extract.pipeline import ImageProgress
from tosca_cache.extract.request import ExtractRequest, default_normalisation
from tosca_cache.extract.tuning import KINDS, Tensors, settings_of
from tosca_cache.files import file_errors, replacing, strict_json, write_json
from tosca_cache.names import inside
from tosca_cache.store.locks import FileLock
from tosca_cache.store.spec import canonical
from tosca_cache.text import shortened
from tosca_cache.workers import threads_here

STATE = "state.safetensors"


@dataclass(frozen=True)
class AdaptRequest:
    """One `tosca adapt`.

    source: dataset and backbone, as `tosca extract` takes them. protocol: whose first task is adapted on.
    kind, size: of the modules, see `extract.tuning`; size None for the published one.
    out: the folder of adapted backbones. name: of the new one; None for one that says what it is. workers: threads.

    Raises `UsageError` for words and numbers that cannot be.
    """

    source: ExtractRequest
    protocol: Protocol
    out: Path
    kind: str = option("adapter", one_of(KINDS))
    size: int | None = option(None, Count)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    name: str | None = None
    workers: int | None = option(None, Count)

    def __post_init__(self) -> None:
        check_options(self)
        if self.size is not None and "size" not in KINDS[self.kind]:
            raise UsageError(f"modules of the kind {self.kind} have no size", where="--size", remedy="leave it out")
        if self.source.backbone is not None and is_adapted(self.source.backbone):
            raise UsageError(
                "this backbone is adapted already", where="--backbone", remedy="give the frozen one it was made from"
            )


@dataclass(frozen=True)
class Adapted:
    """The adapted backbone, and whether it was there already when asked for."""

    path: Path
    card: AdaptedCard
    was_there: bool


def run_adapt(request: AdaptRequest, *, show_progress: bool = True) -> Adapted:
    """Trains what is asked for, from the last finished epoch if it was begun already.

    Raises what loading dataset and backbone raises, and `BackboneError` if the disk refuses.
    """
    dataset, backbone = request.source.load_dataset(), request.source.load_backbone()
    task = first_task(dataset, request.protocol, request.training.held_out)
    plan = _plan(request, dataset, backbone, task)
    name = f"{dataset.name}--{backbone.name}--{request.kind}--s{request.protocol.seed}"
    path = inside(request.out, request.name or f"{name}--{sha256(canonical(plan).encode()).hexdigest()[:8]}")
    with _only_one(path):
        if path.exists():
            card = read_card(path)
            if card.training["plan"] != plan:
                raise UsageError(
                    f"there is another adapted backbone called {shortened(path.name)!r}",
                    where=path,
                    remedy="give another --name",
                )
            return Adapted(path, card, was_there=True)
        training, seconds = _train(request, path, plan, dataset, backbone, task, show_progress=show_progress)
        card = finish(path, training.parts(), _card(request, dataset, backbone, training, plan, seconds))
    return Adapted(path, card, was_there=False)


def _train(
    request: AdaptRequest,
    path: Path,
    plan: dict[str, Any],
    dataset: ImageDataset,
    backbone: Backbone,
    task: FirstTask,
    *,
    show_progress: bool,
) -> tuple[Training, float]:
    """The finished training, and the seconds that this process took for it."""
    transform, begun = backbone.transform(plan["normalise"]), time.monotonic()
    threads, epochs, images = request.workers or threads_here(), request.training.epochs, len(task.rows)
    training = Training(
        backbone.forward(transform, "fp32"),
        request.kind,
        settings_of(request.kind, request.size),
        task,
        request.training,
        request.protocol.seed,
    )
    state = read_state(path, plan)
    if state is not None:
        training.resume(state)
    done, before = len(training.state.history), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with (
            ThreadPoolExecutor(threads) as pool,
            ImageProgress(f"adapt {dataset.name}", epochs * images, done * images, quiet=not show_progress) as bar,
        ):
            bar.on_note(
                f"{path}: {request.kind} in {backbone.name}.{backbone.tag}, {sum(p.numel() for p in training.trained)} "
                f"parameters, {len(task.classes)} classes, {images} train images and {len(task.held_rows)} held out"
                + (f"; {done} epochs are done already" if done else "")
            )
            batches = ImageBatches(dataset, transform, request.protocol.seed, pool)
            while not training.finished:
                epoch, number = training.run_epoch(batches, bar.advance), len(training.state.history)
                write_state(path, training.state, plan)
                bar.on_note(epoch_line(f"{bar.what}: epoch {number}/{epochs}", epoch, training.state.best == number))
    finally:
        torch.set_num_threads(before)
    return training, time.monotonic() - begun


def epoch_line(what: str, epoch: Epoch, best: bool) -> str:
    """What came of an epoch, in words; best: it is the one to be kept so far."""
    held = ""
    if epoch.held_out_accuracy is not None:
        held = f", held out: loss {epoch.held_out_loss:.3f}, accuracy {epoch.held_out_accuracy:.1f} %"
        held += " (best so far)" if best else ""
    return f"{what}, loss {epoch.loss:.3f}{held}"


def _plan(request: AdaptRequest, dataset: ImageDataset, backbone: Backbone, task: FirstTask) -> dict[str, Any]:
    """All that decides what comes out, as plain JSON values."""
    normalise = request.source.normalise or default_normalisation(request.source.dataset, backbone.name)
    options = asdict(request.training) | {"lr": request.training.rate}
    del options["checkpointing"]  # the same numbers, computed twice
    return {
        "base": backbone.weights_digest,
        "kind": request.kind,
        "settings": settings_of(request.kind, request.size),
        "listing": dataset.listing_digest(),
        "classes": list(task.classes),
        "seed": request.protocol.seed,
        "normalise": normalise == "timm",
        "transform": backbone.transform(normalise == "timm").to_dict(),
        "options": options,
    }


def _card(
    request: AdaptRequest,
    dataset: ImageDataset,
    backbone: Backbone,
    training: Training,
    plan: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The fields of `AdaptedCard` but for the digests."""
    from safetensors import __version__ as safetensors_version
    from timm import __version__ as timm_version

    task, protocol, weights = training.task, request.protocol, request.source.weights
    sizes = protocol.sizes_of(len(dataset.class_names))
    return {
        "kind": request.kind,
        "settings": plan["settings"],
        "base": {
            "name": backbone.name,
            "tag": backbone.tag,
            "weights_digest": backbone.weights_digest,
            "weights": None if weights is None else str(Path(weights).absolute()),
            "image_size": backbone.image_size,
        },
        "first_task": {
            "dataset": dataset.name,
            "listing_digest": plan["listing"],
            "seed": protocol.seed,
            "shuffle": protocol.shuffle,
            "init_cls": sizes[0],
            "increment": protocol.increment or sizes[min(1, len(sizes) - 1)],
            "classes": list(task.classes),
            "class_order": list(task.class_order),
            "train_rows": len(task.rows),
            "held_out": len(task.held_rows),
        },
        "normalise": plan["normalise"],
        "transform": plan["transform"],
        "training": {"plan": plan, **training.state.to_record(), "seconds_of_last_run": round(seconds, 1)},
        "versions": {
            "tosca_cache": __version__,
            "torch": str(torch.__version__),
            "timm": timm_version,
            "safetensors": safetensors_version,
        },
    }


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Nobody else makes this one meanwhile; who comes second waits, and finds it made."""
    with adapted_files(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        yield
    finally:
        lock.release()


def adapted_files(where: Path) -> AbstractContextManager[None]:
    """Turns a failure of the file system into a `BackboneError` that says what to do about it."""
    return file_errors(where, BackboneError, option="--out")


def partial(path: Path) -> Path:
    """Where `path` is made: the last epoch's state lies there until it has its name."""
    return path.with_name(f"{path.name}.partial")


def write_state(path: Path, state: State, plan: dict[str, Any]) -> None:
    """Puts the state after an epoch into the partial folder, in place of the one before; whole or not at all."""
    folder = partial(path)
    record = canonical({"plan": plan, **state.to_record()})
    with adapted_files(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / STATE) as file:
            file.write_bytes(save(state.tensors, {"record": record}))


def read_state(path: Path, plan: dict[str, Any]) -> State | None:
    """The state of a partial folder; None if there is none.

    Raises `BackboneError` if it cannot be read, or is that of another plan.
    """
    file = partial(path) / STATE
    if not file.is_file():
        return None
    try:
        with adapted_files(file), safe_open(str(file), framework="pt") as opened:
            record = strict_json((opened.metadata() or {}).get("record", ""))
            if record.pop("plan") != plan:
                raise ValueError("it was begun with other options")
            names = opened.keys()
            return State.from_record({name: opened.get_tensor(name) for name in names}, record)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"the unfinished adaptation cannot be gone on with: {error}"[:300],
            where=file,
            remedy="remove its folder, then run the same command again",
        ) from error


def finish(path: Path, parts: Tensors, card: dict[str, Any]) -> AdaptedCard:
    """Writes tensors and card beside the state, removes the state, and gives the folder its name."""
    folder, data = partial(path), save(parts)
    found = AdaptedCard(**card, parts_digest=sha256(data).hexdigest())
    found = found.model_copy(update={"digest": found.own_digest()})
    with adapted_files(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / PARTS) as file:
            file.write_bytes(data)
        write_json(folder / CARD, found.model_dump())
        (folder / STATE).unlink(missing_ok=True)
        folder.rename(path)
    return found
