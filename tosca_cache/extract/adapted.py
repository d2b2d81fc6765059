"""An adapted backbone on disk: a folder with the trained modules and a card that says what they were trained in and on.

    adapted/digits--vit_nano--adapter--s1993--3f2c.../
        card.json            base backbone, kind, first task, training record, digests
        parts.safetensors    the added tensors alone; the base's weights stay where they are

Imports no torch by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tosca_cache.errors import BackboneError
from tosca_cache.files import Limit, file_errors, read_limited, strict_json
from tosca_cache.store.spec import canonical

CARD, PARTS = "card.json", "parts.safetensors"
FORMAT = 1
AGAIN = "put the right file back, or run `tosca adapt` again"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BaseCard(_Record):
    """The frozen backbone. weights: the file that they lay in; None for published ones."""

    name: str
    tag: str
    weights_digest: str
    weights: str | None = None
    image_size: int = Field(ge=1)


class FirstTaskCard(_Record):
    """What the modules were trained on.

    classes: of the first task, in order. class_order: all classes, in order. held_out: rows that decided when to stop.
    """

    dataset: str
    listing_digest: str
    seed: int
    shuffle: bool = True
    init_cls: int
    increment: int
    classes: list[str] = Field(min_length=1)
    class_order: list[str]
    train_rows: int
    held_out: int


class AdaptedCard(_Record):
    """Everything about an adapted backbone that is no tensor.

    settings: of the modules, see `tuning.KINDS`. transform: what an image goes through, as in a store's fingerprint.
    training: how they were trained, and every epoch. parts_digest: SHA-256 of parts.safetensors. digest: see `own_digest`.
    """

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    kind: Literal["adapter", "ssf", "lora", "vpt", "film"]
    settings: dict[str, float]
    base: BaseCard
    first_task: FirstTaskCard
    normalise: bool
    transform: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    parts_digest: str
    digest: str = ""

    def own_digest(self) -> str:
        """SHA-256 over what decides the features (base, kind, settings, tensors, transform) and over the first task."""
        decides = self.model_dump(include={"kind", "settings", "transform", "parts_digest"})
        decides |= {"base": self.base.weights_digest, "classes": self.first_task.classes}
        return hashlib.sha256(canonical(decides).encode()).hexdigest()


@dataclass(frozen=True)
class Adaptation:
    """An adapted backbone as it is used: its card, where it lies, and whether the frozen features stand beside its own."""

    card: AdaptedCard
    path: Path
    with_base: bool = False

    @property
    def tag(self) -> str:
        """What tells it from the frozen backbone wherever `name.tag` is shown: `glyphs_v1+adapter@1a2b3c4d`."""
        return f"{self.card.base.tag}+{self.card.kind}@{self.card.digest[:8]}{'+base' if self.with_base else ''}"

    def record(self) -> dict[str, Any]:
        """What a store's fingerprint says of it."""
        card = self.card
        return {
            "kind": card.kind,
            "digest": card.digest,
            "base_digest": card.base.weights_digest,
            "parts_digest": card.parts_digest,
            "with_base": self.with_base,
            "first_task": list(card.first_task.classes),
        }


def is_adapted(name: str | Path) -> bool:
    """Whether a backbone's name is the path of an adapted one."""
    try:
        return (Path(name) / CARD).is_file()
    except (OSError, ValueError):
        return False


def read_card(path: Path) -> AdaptedCard:
    """The card of an adapted backbone; raises `BackboneError` if it cannot be read or says something that cannot be."""
    with file_errors(path / CARD, BackboneError, option="--backbone"):
        data = read_limited(path / CARD, Limit.MODEL_CARD)
    try:
        card = AdaptedCard.model_validate(strict_json(data))
        if card.digest != card.own_digest():
            raise ValueError("its digest is not that of what it says")
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", path / CARD) from error
    except ValueError as error:
        raise _damaged(str(error), path / CARD) from error
    return card


def read_parts(path: Path, card: AdaptedCard) -> dict[str, Any]:
    """The trained tensors, whose bytes are checked; raises `BackboneError` if they are not those of the card."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    with file_errors(path / PARTS, BackboneError, option="--backbone"):
        data = read_limited(path / PARTS, Limit.LEARNER)
    if hashlib.sha256(data).hexdigest() != card.parts_digest:
        raise _damaged("the tensors are not those that the card was written for", path / PARTS)
    try:
        return dict(load(data))
    except SafetensorError as error:
        raise _damaged(str(error), path / PARTS) from error


def _damaged(why: str, where: Path) -> BackboneError:
    return BackboneError(f"this is no adapted backbone, or a damaged one: {why}"[:300], where=where, remedy=AGAIN)
