"""Models as data: what of one lies in which file, and runs as models."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tosca_cache import __version__
from tosca_cache.devices import resolve_device
from tosca_cache.errors import ModelError, StoreError, UsageError
from tosca_cache.learners.files import FILE, load_learner
from tosca_cache.model.card import ClassCard, LearnerCard, ModelCard, Step, parse_card
from tosca_cache.model.classifier import Model
from tosca_cache.model.folder import (
    BACKBONE,
    CARD,
    CLASSES,
    FILES,
    README,
    STATE,
    read_version,
    write_version,
    writing,
)
from tosca_cache.model.held_out import HeldOut
from tosca_cache.model.records import TAUGHT, taught_rows
from tosca_cache.model.teaching import store_backbone, store_lesson
from tosca_cache.runs.directory import METRICS, read_json, store_used
from tosca_cache.text import markdown, one_line

MODEL = "model"  # folder within the seed of a run, once it was taught more


def open_model(path: Path, *, device: str = "auto") -> Model:
    """The model in a folder, or of the first seed of a run; raises `ModelError` if there is none, or it is damaged."""
    folder = model_folder(path)
    if folder.name == MODEL and not (folder / CARD).exists() and (folder.parent / FILE).is_file():
        return _of_seed(folder.parent, device)
    model = from_bytes(read_version(folder), folder, device)
    model.path = folder
    return model


def is_model(path: Path) -> bool:
    """Whether a model is there, or a run; raises `ModelError` for anything else that is in the way."""
    if any((path / name).exists() for name in (CARD, METRICS, FILE)):
        return True
    there = {one.name for one in path.iterdir() if not one.name.startswith(".")} if path.is_dir() else {path.name}
    # A first version that was not written whole is in nobody's way.
    begun = bool(there & {STATE, BACKBONE}) and there <= {*FILES, BACKBONE}
    if path.exists() and there and not begun:
        raise ModelError("this is no model, and it is in the way of one", where=path, remedy="give another path")
    return False


def model_folder(path: Path) -> Path:
    """Where the model of a path is written: itself, or within the (first) seed of a run."""
    if (path / METRICS).is_file():
        path = min(path.glob("seed-*"), key=lambda seed: seed.name, default=path)
    return path / MODEL if (path / FILE).is_file() else path


@contextmanager
def changing(path: Path, *, device: str = "auto", new: Model | None = None) -> Iterator[Model]:
    """Within it, the newest version of a model, which nobody else may write; then, if it was changed, it is written.

    new: the model, where there is none yet. Raises what `open_model` and `folder.writing` raise.
    """
    folder = model_folder(path)
    if new is None and not is_model(path):
        read_version(folder)  # which says that there is none; nothing is made there
    with writing(folder):
        model = open_model(path, device=device) if new is None or is_model(path) else new
        before = model.card
        yield model
        if model.card is not before:
            save_model(model, folder)


def save_model(model: Model, folder: Path) -> None:
    """Makes a model the newest version of a folder; within `folder.writing`."""
    write_version(folder, to_bytes(model, folder.name))
    model.path = folder


def to_bytes(model: Model, name: str) -> dict[str, bytes]:
    """The files of a model called `name`; its card then has the digest of its state."""
    from safetensors.torch import save

    state = save({key: tensor.detach().cpu().contiguous().clone() for key, tensor in _state(model).items()})
    model.card = model.card.model_copy(update={"digest": hashlib.sha256(state).hexdigest()})
    card = model.card.model_dump_json(indent=1).encode()
    classes = "".join(f"{one_line(one)}\n" for one in model.class_names).encode()
    return {STATE: state, CLASSES: classes, README: _readme(name, model.card), CARD: card}


def from_bytes(files: Mapping[str, bytes], where: Path, device: str) -> Model:
    """The model of some files; raises `ModelError` if they are damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    card = parse_card(files[CARD], where / CARD)
    try:
        model = Model(card, device=device)
        _load(model, load(files[STATE]))
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, UsageError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the model is damaged: {why}"[:300],
            where=where,
            remedy="go back with `tosca undo`, or make it again with `tosca learn`",
        ) from error
    return model


def _state(model: Model) -> dict[str, torch.Tensor]:
    parts: dict[str, Mapping[str, torch.Tensor]] = {
        "learner": model.learner.state(),
        "held_out": {} if model.held_out is None else model.held_out.state(),
        "novelty": model.novelty.state(),
        "taught": {name: torch.from_numpy(np.ascontiguousarray(model.taught[name])) for name in TAUGHT.names or ()},
    }
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def _load(model: Model, state: Mapping[str, torch.Tensor]) -> None:
    def part(mine: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(mine): tensor for name, tensor in state.items() if name.startswith(mine)}

    if model.card.tasks:
        model.learner.load_state(part("learner."))
    held_out = part("held_out.")
    if not held_out:
        model.held_out = None
    elif model.card.tasks and model.held_out is not None:
        model.held_out.load_state(held_out)
    model.novelty.load_state(part("novelty."))
    table = {name: tensor.numpy() for name, tensor in part("taught.").items()}
    if {len(column) for column in table.values()} != {len(table["indices"])}:
        raise ValueError("the list of what it was taught is no table")
    model.taught = taught_rows(*(table[name] for name in TAUGHT.names or ()))


def _readme(name: str, card: ModelCard) -> bytes:
    """The card of a model called `name`, with the YAML header (values are JSON) that the Hugging Face Hub reads."""
    accuracy, backbone, images = card.held_out.accuracy, card.backbone, sum(one.images for one in card.classes)
    head = ["library_name: tosca_cache", "pipeline_tag: image-classification"]
    said, features = "not measured", f"features of {card.dim} numbers"
    if accuracy is not None:
        said = f"{accuracy:.1f} %"
        result: dict[str, Any] = {"task": {"type": "image-classification"}}
        result |= {"dataset": {"name": "held-out photos", "type": "custom"}}
        result |= {"metrics": [{"type": "accuracy", "value": round(accuracy / 100, 4)}]}
        head += [f"model-index: {json.dumps([{'name': name, 'results': [result]}])}"]
    if backbone is not None:
        features = f"`{backbone.name}` at {backbone.image_size} pixels in {backbone.precision}"
    body = [
        f"# {markdown(name)}\n",
        f"{len(card.classes)} classes (classes.txt), {images} images. Learner `{card.learner.method}` on {features}.",
        f"Accuracy on {card.held_out.images} held-out photos: {said}.\n",
        f"Written by tosca_cache {__version__}: `pip install tosca-cache`, then `tosca predict` with this folder.",
    ]
    return "\n".join(["---", *head, "---\n", *body, ""]).encode("utf-8", "backslashreplace")


def _of_seed(seed: Path, device: str) -> Model:
    """The learner of a run; the test rows of its store, which it has not learned, are its held-out rows."""
    learner, facts = load_learner(seed / FILE, device=resolve_device(device))
    store, indices = None, dict[str, list[int]]()
    with suppress(StoreError):  # it is not there any more
        store = store_used(read_json(seed.parent / "provenance.json"), seed.parent)
    for index, name in enumerate(map(str, facts["class_names"])):
        indices.setdefault(name, []).append(index)
    train = None if store is None else store_lesson(store, pieces=learner.pieces)
    images = Counter(() if train is None else train.names)
    what = {"what": "import", "classes": list(indices), "source": str(seed.parent)}
    settings = asdict(learner.settings)
    card = ModelCard(
        learner=LearnerCard(method=learner.name, options=facts["options"], settings=settings, seed=learner.seed),
        dim=facts["dim"],
        dtype="float32" if store is None else store.dtype.name,
        views=0 if store is None else store.views("train") - 1,
        backbone=None if store is None else store_backbone(store, pieces=learner.pieces),
        classes=[ClassCard(name=name, indices=mine, images=images[name]) for name, mine in indices.items()],
        indices=len(facts["class_names"]),
        tasks=len(facts["task_sizes"]),
        history=[Step.model_validate(what | {"images": images.total()})],
    )
    model = Model(card, device=device)
    model.learner, model.held_out, model.path = learner, None, seed
    if store is not None and train is not None:
        model.held_out = HeldOut(load_learner(seed / FILE, device=model.device)[0])
        test = store_lesson(store, "test", pieces=learner.pieces)
        train, test = (one.part(np.array([name in indices for name in one.names], bool)) for one in (train, test))
        learned, asked = (np.array([indices[name][0] for name in one.names], np.int64) for one in (train, test))
        model.held_out.add(test.features[:, 0], asked)
        model.novelty.observe(train.features[:, 0], learned, card.indices, np.zeros(len(learned), bool))
        model.taught = taught_rows(train.digests, learned, 0, -1)
        model.calibrate()
    return model
