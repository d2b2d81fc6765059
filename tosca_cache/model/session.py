"""One `tosca learn`: from what a user asks for to a model that has learned it, on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tosca_cache.datasets.decoding import Decoding
from tosca_cache.devices import resolve_device
from tosca_cache.errors import ModelError, UsageError
from tosca_cache.extract.backbone import Backbone, load_backbone
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.names import REFERENCE_BACKBONE
from tosca_cache.files import replacing
from tosca_cache.learners.base import learner_type
from tosca_cache.learners.options import parse_options
from tosca_cache.model.card import BackboneCard
from tosca_cache.model.classifier import DEFAULT, Model
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.folder import BACKBONE, writing
from tosca_cache.model.records import Lesson, Taught
from tosca_cache.model.saved import is_model, model_folder, open_model, save_model
from tosca_cache.model.teaching import (
    backbone_card,
    check_store,
    list_photos,
    part_of,
    photo_lesson,
    photo_store,
    store_backbone,
    store_lesson,
    width,
)
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
    on_error: str = "fail"
    with_backbone: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Done:
    """The model as it is now, and what it was taught, None if nothing was new.

    left_out: how many photos it knew already. otherwise: how many of these as another class.
    """

    model: Model
    taught: Taught | None
    left_out: int
    otherwise: int = 0


def teach(request: Request, *, note: Callable[[str], None] = lambda line: None) -> Done:
    """Teaches a model what is asked for, and writes it; nothing is written if anything goes wrong.

    Raises `UsageError` for options that are not those of the model, and for known classes that its learner cannot take more
    of; `ModelError`, `DatasetError`, `StoreError`.
    """
    model = open_model(request.model, device=request.device) if is_model(request.model) else None
    if model is not None:
        _check_options(request, model)
    if request.store is not None:
        return _teach_store(request, model, open_store(request.store))
    assert request.photos is not None
    return _teach_photos(request, model, request.photos, note)


def _teach_store(request: Request, model: Model | None, store: Store) -> Done:
    if model is None:
        pieces = learner_type(request.method or DEFAULT, "--method").pieces
        card, dim = store_backbone(store, pieces=pieces), width(store, pieces)
        model = _create(request, dim, card, store.dtype.name, store.views("train") - 1)
    else:
        check_store(model, store)
    return learn_lesson(request, model, store_lesson(store, pieces=model.learner.pieces))


def _teach_photos(request: Request, model: Model | None, folder: Path, note: Callable[[str], None]) -> Done:
    if model is not None and model.card.backbone is None:
        raise UsageError(
            "the model has learned features that were computed elsewhere, so it cannot see photos",
            where=request.model,
            remedy="give features: --store STORE",
        )
    known = None if model is None else model.card.backbone
    photos = list_photos(folder, "train", Decoding().to_dict() if known is None else known.decoding)
    before = Done(model, None, 0) if model is not None else None
    if model is not None and not request.again:
        new, before = _new(model, photos.digests, photos.names)
        photos = photos.part(new)
        if not len(photos):
            return before
        model.check_known(photos.names)
    backbone, card = _backbone(request, model)
    if model is None:
        model = _create(request, backbone.dim, card, STORE_DTYPE, request.views or 0)
    options = _options(model, card, request.on_error)
    store = photo_store(photos, backbone, card, request.root, options, show=True)
    for skipped in store.manifest.skipped["train"] if request.on_error == "skip" else ():
        note(f"skipped: {skipped.path}: {skipped.reason}")
    done = learn_lesson(request, model, photo_lesson(photos, store, folder), backbone)
    if before is None:
        return done
    return Done(done.model, done.taught, before.left_out + done.left_out, before.otherwise + done.otherwise)


def learn_lesson(request: Request, model: Model, lesson: Lesson, backbone: Backbone | None = None) -> Done:
    """Teaches the newest version of the model, which somebody else may have taught in the meantime."""
    folder = model_folder(request.model)
    with writing(folder):
        if is_model(request.model):
            model = open_model(request.model, device=request.device)
        before = Done(model, None, 0)
        if not request.again:
            new, before = _new(model, lesson.digests, lesson.names)
            lesson = part_of(lesson, new)
        if not len(lesson.names):
            return before
        taught = model.learn(lesson)
        if request.with_backbone:
            _keep_backbone(folder, backbone)
        save_model(model, folder)
    return Done(model, taught, before.left_out, before.otherwise)


def folder_lesson(model: Model, photos: Path, root: Path) -> Lesson:
    """The photos of a folder or list as a lesson for a model, but for those that it knows."""
    encoder = encoder_of(model)
    listed = list_photos(photos, "train", encoder.card.decoding)
    listed = listed.part(_new(model, listed.digests, listed.names)[0])
    if not len(listed):
        raise UsageError("the model has learned all these photos", where=photos, remedy="give others")
    options = _options(model, encoder.card)
    return photo_lesson(listed, photo_store(listed, encoder.backbone, encoder.card, root, options, show=False), photos)


def _options(model: Model, card: BackboneCard, on_error: str = "fail") -> ExtractOptions:
    return ExtractOptions(
        views=model.card.views,
        seed=model.card.learner.seed,
        normalise=card.normalise,
        store_dtype=STORE_DTYPE,
        on_error=on_error,
    )


def _new(model: Model, digests: NDArray[np.uint8], names: Sequence[str]) -> tuple[NDArray[np.bool_], Done]:
    """Which photos are new, and how many are not."""
    known = model.known_as(digests)
    otherwise = sum(a is not None and a != b for a, b in zip(known, names, strict=True))
    new = np.array([name is None for name in known], bool)
    return new, Done(model, None, int((~new).sum()), otherwise)


def _create(request: Request, dim: int, card: BackboneCard | None, dtype: str, views: int) -> Model:
    method, seed = request.method or DEFAULT, SEED if request.seed is None else request.seed
    made = partial(Model.create, dim, method=method, options=parse_options(method, request.options), seed=seed)
    return made(backbone=card, views=views, dtype=dtype, device=request.device)


def _backbone(request: Request, model: Model | None) -> tuple[Backbone, BackboneCard]:
    if model is not None and model.card.backbone is not None:
        return encoder_of(model, request.weights).backbone, model.card.backbone
    found = load_backbone(
        request.backbone or REFERENCE_BACKBONE,
        weights=request.weights,
        img_size=request.img_size,
        device=resolve_device(request.device),
        precision=request.precision or "auto",
    )
    normalise = True if found.adapted is None else found.adapted.card.normalise
    return found, backbone_card(found, request.weights, normalise=normalise, decoding=Decoding())


def encoder_of(model: Model, weights: Path | None = None) -> Encoder:
    """What turns photos into features for a model; raises `ModelError` for one that has learned other features."""
    if model.card.backbone is None:
        raise ModelError(
            "the model has learned features that were computed elsewhere, so it cannot see photos",
            where=model.path,
            remedy="ask it about features: --features STORE",
        )
    return Encoder(model.card.backbone, model.device, weights=weights_of(model, weights))


def test_lesson(
    model: Model, photos: Path | None, store: Path | None, root: Path, weights: Path | None
) -> tuple[Lesson, list[str]]:
    """Test photos as a model sees them, and their paths: of a folder or a list through the cache, or rows of a store."""
    if photos is None:
        assert store is not None
        opened = open_store(store)
        check_store(model, opened)
        return store_lesson(opened, "test", pieces=model.learner.pieces), [
            f"test/{path}" for path in opened.paths("test")
        ]
    encoder = encoder_of(model, weights)
    listed = list_photos(photos, "test", encoder.card.decoding)
    options = ExtractOptions(views=0, normalise=encoder.card.normalise, store_dtype=STORE_DTYPE)
    made = photo_store(listed, encoder.backbone, encoder.card, root, options, show=True)
    folder = photos.parent if photos.is_file() else photos
    return photo_lesson(listed, made, photos), [str(folder / path) for path in made.paths("train")]


def weights_of(model: Model, given: Path | None) -> Path | None:
    """The weights to be used: those that are given, or those in the model's folder; None for where they lay."""
    kept = None if model.path is None else model.path / BACKBONE
    return given or (kept if kept is not None and kept.is_file() else None)


def _keep_backbone(folder: Path, backbone: Backbone | None) -> None:
    from safetensors.torch import save_file

    if backbone is None:
        raise UsageError("there is no backbone to keep", where="--with-backbone", remedy="teach photos, not a store")
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
