"""One `tosca learn`: from what a user asks for to a model that has learned it, on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.rows import keep_rows
from tosca_cache.devices import resolve_device
from tosca_cache.errors import ModelError, UsageError
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.names import REFERENCE_BACKBONE
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.files import replacing
from tosca_cache.learners.base import learner_type
from tosca_cache.learners.options import parse_options
from tosca_cache.model.card import BackboneCard
from tosca_cache.model.classifier import DEFAULT, Model
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.folder import BACKBONE
from tosca_cache.model.records import DIGEST, Lesson, Taught
from tosca_cache.model.saved import changing, is_model, model_folder, open_model
from tosca_cache.model.teaching import TRAIN, backbone_card, check_store, list_photos, store_backbone, store_lesson
from tosca_cache.store import Store, open_store

STORE_DTYPE = "float16"
SEED = 1993


@dataclass(frozen=True)
class Request:
    """What is asked for; the fields are the options of `tosca learn`, None for what is as the model has it."""

    model: Path
    photos: Path | None = None
    store: Path | None = None
    method: str | None = None
    options: tuple[str, ...] = ()
    seed: int | None = None
    backbone: str | None = None
    weights: Path | None = None
    img_size: int | None = None
    precision: str | None = None
    views: int | None = None
    root: Path = Path("cache")
    again: bool = False
    with_backbone: bool = False
    device: str = "auto"


def teach(request: Request) -> tuple[Model, Taught]:
    """Teaches a model what is asked for, and writes it; nothing is written if anything goes wrong.

    Raises `UsageError` for options that are not those of the model, and for known classes that its learner cannot take more
    of; `ModelError`, `DatasetError`, `StoreError`.
    """
    model = open_model(request.model, device=request.device) if is_model(request.model) else None
    if model is not None:
        _check_options(request, model)
    if request.store is not None:
        if request.with_backbone:
            raise UsageError("there is no backbone to keep", where="--with-backbone", remedy="teach photos")
        store, keep = open_store(request.store), None
        if model is None:
            pieces = learner_type(request.method or DEFAULT, "--method").pieces
            lesson, card = store_lesson(store, pieces=pieces), store_backbone(store, pieces=pieces)
            model = _create(request, lesson.features.shape[2], card, store.dtype.name, store.views("train") - 1)
        else:
            check_store(model, store)
            lesson = store_lesson(store, pieces=model.learner.pieces)
    else:
        assert request.photos is not None
        encoder = _new_encoder(request) if model is None else encoder_of(model, request.weights)
        if model is None:
            model = _create(request, encoder.backbone.dim, encoder.card, STORE_DTYPE, request.views or 0)
        lesson = photo_lesson(model, encoder, request.photos, request.root, again=request.again)
        keep = encoder.backbone if request.with_backbone else None
    return learn_lesson(request.model, model, lesson, again=request.again, keep=keep)


def learn_lesson(
    path: Path, model: Model, lesson: Lesson, *, again: bool = False, keep: Backbone | None = None
) -> tuple[Model, Taught]:
    """Teaches the newest version of a model, which somebody else may have taught meanwhile, and writes it."""
    with changing(path, device=str(model.device), new=model) as newest:
        taught = newest.learn(lesson, again=again)
        if keep is not None and (taught.new or taught.known):
            _keep_backbone(model_folder(path), keep)
    return newest, taught


def photo_lesson(
    model: Model, encoder: Encoder, path: Path, root: Path, *, again: bool = False, show: bool = True
) -> Lesson:
    """The photos of a folder or list but for those that the model knows; their features are kept in the cache `root`.

    Raises `UsageError`, before anything is computed, for known classes that the learner cannot take more of.
    """
    dataset, digests = list_photos(path, TRAIN, encoder.card.decoding)
    new = np.ones(len(digests), bool) if again else ~model.knows(digests)
    left_out = int((~new).sum())
    if not new.any():
        nothing = np.empty((0, 1 + model.card.views, model.card.dim), np.float32)
        return Lesson(nothing, [], np.empty((0, DIGEST), np.uint8), left_out=left_out)
    dataset = keep_rows(dataset, {TRAIN: np.flatnonzero(new), "test": np.empty(0, np.int64)})
    model.check_known([dataset.class_names[label] for label in dataset.splits[TRAIN].labels.tolist()])
    store = _photo_store(dataset, encoder, root, model.card.views, model.card.learner.seed, show)
    return replace(_photo_rows(dataset, digests[new], store, path), left_out=left_out)


def test_lesson(
    model: Model, photos: Path | None, store: Path | None, root: Path, weights: Path | None
) -> tuple[Lesson, list[str]]:
    """Test photos as a model sees them, and their paths: of a folder or a list through the cache, or rows of a store."""
    if photos is None:
        assert store is not None
        opened = open_store(store)
        check_store(model, opened)
        paths = [f"test/{path}" for path in opened.paths("test")]
        return store_lesson(opened, "test", pieces=model.learner.pieces), paths
    encoder = encoder_of(model, weights)
    dataset, digests = list_photos(photos, "test", encoder.card.decoding)
    made = _photo_store(dataset, encoder, root, 0, SEED, True)
    folder = photos.parent if photos.is_file() else photos
    return _photo_rows(dataset, digests, made, photos), [str(folder / path) for path in made.paths(TRAIN)]


def _photo_store(dataset: ImageDataset, encoder: Encoder, root: Path, views: int, seed: int, show: bool) -> Store:
    """The features of photos in the cache: computed, or found there; raises what `Extraction.run` raises."""
    card = encoder.card
    options = ExtractOptions(views=views, seed=seed, normalise=card.normalise, store_dtype=STORE_DTYPE)
    source = {"weights": card.weights or "published"} | ({} if card.adapted is None else {"adapted": card.adapted})
    return Extraction(dataset, encoder.backbone, root, options, source).run(show_progress=show)


def _photo_rows(dataset: ImageDataset, digests: NDArray[np.uint8], store: Store, source: Path) -> Lesson:
    """The rows of a store that `_photo_store` has made, told apart by the files that they come from."""
    place = {path: row for row, path in enumerate(dataset.splits[TRAIN].paths)}
    kept = digests[[place[path] for path in store.paths(TRAIN)]]
    return replace(store_lesson(store), digests=kept, source=str(source.absolute()))


def _create(request: Request, dim: int, card: BackboneCard | None, dtype: str, views: int) -> Model:
    method, seed = request.method or DEFAULT, SEED if request.seed is None else request.seed
    options, device = parse_options(method, request.options), request.device
    made = partial(Model.create, dim, method=method, options=options, seed=seed, device=device)
    return made(backbone=card, views=views, dtype=dtype)


def _new_encoder(request: Request) -> Encoder:
    """The backbone that is asked for."""
    found = load_backbone(
        request.backbone or REFERENCE_BACKBONE,
        weights=request.weights,
        img_size=request.img_size,
        device=resolve_device(request.device),
        precision=request.precision or "auto",
    )
    normalise = True if found.adapted is None else found.adapted.card.normalise
    card = backbone_card(found, request.weights, normalise=normalise, decoding=Decoding())
    return Encoder(card, found.device, weights=request.weights, _backbone=found)


def encoder_of(model: Model, weights: Path | None = None) -> Encoder:
    """What turns photos into features for a model; raises `ModelError` for one that has learned other features.

    weights: where the backbone's are now; in the model's folder, if they are there, or where they lay, by default.
    """
    if model.card.backbone is None:
        raise ModelError(
            "the model has learned features that were computed elsewhere, so it cannot see photos",
            where=model.path,
            remedy="give it features: --store STORE to learn, --features STORE to predict",
        )
    kept = None if model.path is None else model.path / BACKBONE
    return Encoder(model.card.backbone, model.device, weights=weights or (kept if kept and kept.is_file() else None))


def _keep_backbone(folder: Path, backbone: Backbone) -> None:
    from safetensors.torch import save_file

    if backbone.adapted is not None:
        raise UsageError(
            "an adapted backbone is kept in its own folder",
            where="--with-backbone",
            remedy=f"leave it out, and keep {backbone.adapted.path}",
        )
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in backbone.model.state_dict().items()}
    with replacing(folder / BACKBONE) as temporary:
        save_file(state, temporary)


def _check_options(request: Request, model: Model) -> None:
    """Raises `UsageError` for an option that says otherwise than the model."""
    card, backbone = model.card, model.card.backbone
    asked = {
        "--method": (request.method, card.learner.method),
        "--seed": (request.seed, card.learner.seed),
        "--views": (request.views, card.views),
        "--set": (parse_options(card.learner.method, request.options) or None, card.learner.options),
    }
    if backbone is not None:
        name = f"{backbone.name}.{backbone.tag}"
        asked |= {
            "--img-size": (request.img_size, backbone.image_size),
            "--precision": (None if request.precision == "auto" else request.precision, backbone.precision),
            "--backbone": (None if request.backbone in (backbone.name, name) else request.backbone, backbone.name),
        }
    for option, (given, has) in asked.items():
        if given is not None and given != has:
            raise UsageError(
                f"the model has {has!r}, not {given!r}", where=option, remedy="leave it out, or make another model"
            )
