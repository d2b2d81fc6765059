"""What is answered, as JSON; the schema of the OpenAPI is made from these."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """What every answer holds that is no success: what is wrong, where, and what to do about it."""

    error: str
    where: str | None = None
    do: str | None = None


class Neighbour(BaseModel):
    """A training photo that is near. similarity: cosine of the features. photo: address of a thumbnail, if it is there."""

    label: str
    similarity: float
    photo: str | None


class AnswerOut(BaseModel):
    """What is said of one photo: the fields of `tosca predict --json`, whether it is novel, and the nearest photos."""

    path: str
    label: str | None = Field(
        description="The likeliest class; unknown below the threshold; null if it cannot be read."
    )
    probability: float | None
    top: list[tuple[str, float]]
    novelty: float | None
    error: str | None
    is_novel: bool
    nearest: list[Neighbour]


class PredictOut(BaseModel):
    """Answers, in the order of the photos."""

    answers: list[AnswerOut]


class ClassOut(BaseModel):
    """A class. accuracy: in percent on its held-out photos, null if it has none."""

    name: str
    images: int
    accuracy: float | None


class ClassesOut(BaseModel):
    """The model as it is now. digest: of its state: another one is another version. limits: of a request."""

    model: str
    digest: str
    classes: list[ClassOut]
    held_out_images: int
    accuracy: float | None
    read_only: bool
    can_undo: bool
    limits: dict[str, int]


class LearnOut(BaseModel):
    """What was learned. left_out: photos that had been learned before. classes: how many there are now."""

    name: str
    new: bool
    taught: int
    left_out: int
    classes: int


class ForgetOut(BaseModel):
    """What was forgotten. exact: whether the model is as if it had never learned it. classes: how many are left."""

    name: str
    exact: bool
    classes: int
