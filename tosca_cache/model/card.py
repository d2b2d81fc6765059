"""What a model says it is: the schema of `model.json`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tosca_cache.errors import ModelError
from tosca_cache.extract.names import LOCAL_TAG
from tosca_cache.files import strict_json
from tosca_cache.names import twice

FORMAT = 2
MOST_CLASSES = 1_000_000


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LearnerCard(_Part):
    """Which learner, with what; enough to make it again before its state is loaded."""

    method: str
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    seed: int = 1993


class BackboneCard(_Part):
    """The backbone that turns photos into features, and how photos are prepared for it.

    name, tag, weights_digest: as in a store's fingerprint. weights: the file that they lay in; None for published ones.
    normalise: whether mean and std of the weights are used. transform: what becomes of a decoded photo, as in a store's
    fingerprint. decoding: orientation, background and depth. adapted: the folder of an adapted backbone; None for a frozen
    one. with_base: the frozen features stand before its own. layers, pool: what is kept of a view, see `extract.pieces`.
    """

    name: str
    tag: str
    weights_digest: str
    weights: str | None = None
    image_size: int = Field(ge=1)
    precision: str = Field(pattern="^(fp32|bf16|fp16)$")
    normalise: bool = True
    transform: dict[str, Any] = {}
    decoding: dict[str, str] = {}
    adapted: str | None = None
    with_base: bool = False
    layers: int = Field(default=1, ge=1)
    pool: str = "cls"

    @property
    def loaded_as(self) -> str:
        """The name that `extract.backbone.load_backbone` takes."""
        if self.adapted is not None:
            return self.adapted
        return self.name if self.tag in ("", LOCAL_TAG) else f"{self.name}.{self.tag}"


class ClassCard(_Part):
    """A class that is answered.

    indices: its numbers in the learner: one, or one a domain. images: how many it was taught with.
    """

    name: str = Field(min_length=1)
    indices: list[int] = Field(min_length=1)
    images: int = Field(ge=0)


class HeldOutCard(_Part):
    """What the held-out photos say. accuracy: in percent. temperature, doubt: of `held_out.probabilities`."""

    images: int = 0
    accuracy: float | None = None
    temperature: float = Field(default=1.0, gt=0)
    doubt: float = Field(default=0.0, ge=0, lt=1)


class Step(_Part):
    """One change of a model. store, fingerprint: the features that were learned, if they lie in a store."""

    what: Literal["learn", "forget", "import"]
    when: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    classes: list[str]
    images: int = 0
    source: str | None = None
    store: str | None = None
    fingerprint: str | None = None
    exact: bool = True
    seconds: float = 0.0


class ModelCard(_Part):
    """Everything about a model that is no tensor.

    dim: width d of a feature. views: augmented views of every row that it learns from. dtype: how features are rounded.
    labels: kind of the labels whose texts the names are, in NumPy's letters; U for names.
    classes: in the order of the scores. indices: class numbers of the learner, forgotten ones included. tasks: how often
    it has learned. digest: SHA-256 of state.safetensors.
    """

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    learner: LearnerCard
    dim: int = Field(ge=1)
    dtype: str = Field(default="float32", pattern="^float(16|32)$")
    labels: str = Field(default="U", pattern="^[iubfU]$")
    views: int = Field(default=0, ge=0)
    backbone: BackboneCard | None = None
    classes: list[ClassCard] = Field(max_length=MOST_CLASSES)
    indices: int = Field(ge=0, le=MOST_CLASSES)
    tasks: int = Field(ge=0)
    held_out: HeldOutCard = HeldOutCard()
    history: list[Step] = []
    digest: str = ""

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        indices = [index for one in self.classes for index in one.indices]
        if name := twice(tuple(one.name for one in self.classes)):
            raise ValueError(f"class {name!r} stands twice")
        if len(set(indices)) < len(indices) or any(not 0 <= index < self.indices for index in indices):
            raise ValueError("two classes have one index, or one that the learner has not")
        return self


def parse_card(data: bytes, where: Any) -> ModelCard:
    """A card from the bytes of model.json; raises `ModelError` naming the first entry that cannot be right."""
    try:
        return ModelCard.model_validate(strict_json(data))
    except ValueError as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = str(error) if first is None else f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        remedy = "go back with `tosca undo`, or make the model again with `tosca learn`"
        problem = f"this is no model of ours, or a damaged one: {why}"[:300]
        raise ModelError(problem, where=where, remedy=remedy) from error
