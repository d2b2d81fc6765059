"""Models as data: what of one lies in which file, and runs as models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tosca_cache.errors import ModelError, RunError, StoreError, UsageError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.learners.files import FILE, load_learner
from tosca_cache.model.card import ClassCard, LearnerCard, ModelCard, Step, now, parse_card
from tosca_cache.model.classifier import Model
from tosca_cache.model.folder import CARD, CLASSES, NEXT, README, STATE, read_version, write_version
from tosca_cache.model.held_out import HeldOut
from tosca_cache.model.readme import readme
from tosca_cache.model.records import TAUGHT, Lesson, taught_rows
from tosca_cache.model.teaching import store_backbone, store_lesson
from tosca_cache.store import Store, open_store
from tosca_cache.text import one_line

MODEL = "model"  # folder within the seed of a run, once it was taught more
METRICS = "metrics.json"  # what every finished run has


def open_model(path: Path, *, device: str = "auto") -> Model:
    """The model in a folder, or of the first seed of a run; raises `ModelError` if there is none, or it is damaged."""
    if (path / METRICS).is_file():
        return _of_run(path, device)
    if path.parent.joinpath(METRICS).is_file() and path.name.startswith("seed-"):
        return _of_seed(path, device)
    return _of_folder(path, device)


def is_model(path: Path) -> bool:
    """Whether a model is there, or a run; raises `ModelError` for anything else that is in the way."""
    if any((path / name).exists() for name in (CARD, NEXT, METRICS, FILE)):
        return True
    if path.exists() and (not path.is_dir() or any(not one.name.startswith(".") for one in path.iterdir())):
        raise ModelError("this is no model, and it is in the way of one", where=path, remedy="give another path")
    return False


def model_folder(path: Path) -> Path:
    """Where the model of a path is written: itself, or within the seed of a run."""
    if (path / METRICS).is_file():
        path = _first_seed(path)
    return path / MODEL if (path / FILE).is_file() else path


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
    return {STATE: state, CARD: card, CLASSES: classes, README: readme(name, model.card)}


def from_bytes(files: Mapping[str, bytes], where: Path, device: str) -> Model:
    """The model of some files; raises `ModelError` if they are damaged or belong to different versions."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    card = parse_card(files[CARD], where / CARD)
    if hashlib.sha256(files[STATE]).hexdigest() != card.digest:
        raise _damaged("state.safetensors belongs to another version", where)
    try:
        model = Model(card, device=device)
        _load(model, load(files[STATE]))
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, UsageError) as error:
        raise _damaged(str(error).splitlines()[0] if str(error) else type(error).__name__, where) from error
    return model


def _of_folder(folder: Path, device: str) -> Model:
    model = from_bytes(read_version(folder), folder, device)
    model.path = folder
    return model


def _state(model: Model) -> dict[str, torch.Tensor]:
    state = {f"learner.{name}": tensor for name, tensor in model.learner.state().items()}
    if model.held_out is not None:
        state |= {f"held_out.{name}": tensor for name, tensor in model.held_out.state().items()}
    state |= {f"novelty.{name}": tensor for name, tensor in model.novelty.state().items()}
    return state | {
        f"taught.{name}": torch.from_numpy(np.ascontiguousarray(model.taught[name])) for name in TAUGHT.names or ()
    }


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
    model.taught = np.empty(len(table["indices"]), TAUGHT)
    for name in TAUGHT.names or ():
        model.taught[name] = table[name]


def _of_run(run: Path, device: str) -> Model:
    return _of_seed(_first_seed(run), device)


def _first_seed(run: Path) -> Path:
    seeds = sorted(run.glob("seed-*"), key=lambda path: path.name)
    if not seeds:
        raise ModelError("this run has no learner", where=run, remedy="train it again")
    return seeds[0]


def _of_seed(seed: Path, device: str) -> Model:
    """The learner of a run; the test rows of its store, which it has not learned, are its held-out rows."""
    if any((seed / MODEL / name).exists() for name in (CARD, NEXT)):  # it was taught more
        return _of_folder(seed / MODEL, device)
    learner, facts = load_learner(seed / FILE, device="cpu")
    store = _store_of(seed.parent)
    names = [str(name) for name in facts["class_names"]]
    train = None if store is None else store_lesson(store, pieces=learner.pieces)
    images = {} if train is None else dict(zip(*np.unique(np.array(train.names), return_counts=True), strict=True))
    classes = [
        ClassCard(name=name, indices=[i for i, one in enumerate(names) if one == name], images=int(images.get(name, 0)))
        for name in dict.fromkeys(names)
    ]
    card = ModelCard(
        learner=LearnerCard(
            method=learner.name, options=facts["options"], settings=asdict(learner.settings), seed=learner.seed
        ),
        dim=facts["dim"],
        dtype="float32" if store is None else store.dtype.name,
        views=0 if store is None else store.views("train") - 1,
        backbone=None if store is None else store_backbone(store, pieces=learner.pieces),
        classes=classes,
        indices=len(names),
        tasks=len(facts["task_sizes"]),
        history=[
            Step(
                what="import",
                when=now(),
                classes=[one.name for one in classes],
                images=0 if train is None else len(train.names),
                source=str(seed.parent),
            )
        ],
    )
    model = Model(card, device=device)
    model.learner = load_learner(seed / FILE, device=model.device)[0]
    model.path = seed
    model.held_out = None if store is None else HeldOut(load_learner(seed / FILE, device=model.device)[0])
    _hold_out(model, store, train)
    return model


def _hold_out(model: Model, store: Store | None, train: Lesson | None) -> None:
    """Test rows of a run's store, which its learner has not seen, are held out of a second one that is taught on."""
    if store is None or train is None or model.held_out is None:
        return
    place = {one.name: one.indices[0] for one in model.card.classes}
    test = store_lesson(store, "test", pieces=model.learner.pieces)
    known = np.array([name in place for name in test.names], bool)
    model.held_out.add(test.features[known, 0], np.array([place[name] for name in test.names if name in place]))
    learned = np.array([name in place for name in train.names], bool)
    indices = np.array([place[name] for name in train.names if name in place], np.int64)
    model.novelty.observe(train.features[learned, 0], indices, model.card.indices, np.zeros(int(learned.sum()), bool))
    model.taught = taught_rows(train.digests[learned], indices, 0, -1)
    model.calibrate()


def _store_of(run: Path) -> Store | None:
    """The store of a run; None if it is not there any more."""
    try:
        recorded = strict_json(read_limited(run / "provenance.json", Limit.PROVENANCE))["store"]
        store = open_store(str(recorded["path"]))
        return store if store.spec.digest() == recorded["fingerprint"] else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError("the run does not say which store it used", where=run, remedy="train it again") from error
    except StoreError:
        return None


def _damaged(why: str, folder: Path) -> ModelError:
    return ModelError(
        f"the model is damaged: {why}"[:300],
        where=folder,
        remedy="go back with `tosca undo`, or make it again with `tosca learn`",
    )
