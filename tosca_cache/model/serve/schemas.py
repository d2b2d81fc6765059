"""What is answered, as JSON; the schema of the OpenAPI is made from these."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """What every answer holds that is no success."""

    error: str = Field(description="What is wrong.")
    where: str | None = Field(None, description="The part of the request, or the file, that is concerned.")
    do: str | None = Field(None, description="What to do about it.")


class Neighbour(BaseModel):
    """A training photo that is near."""

    label: str
    similarity: float = Field(description="Cosine of the features.")
    photo: str | None = Field(description="Address of a thumbnail, if the image is still there.")


class AnswerOut(BaseModel):
    """What is said of one photo; the same fields as those of `tosca predict --json`."""

    path: str = Field(description="Name of the file, as it was sent.")
    label: str | None = Field(
        description="The likeliest class; unknown below the threshold; null if it cannot be read."
    )
    probability: float | None
    top: list[tuple[str, float]] = Field(description="The likeliest classes with their probabilities.")
    novelty: float | None = Field(description="From 0 to 1.")
    error: str | None = Field(description="Why the photo cannot be read.")
    is_novel: bool = Field(description="Whether it looks like none of the classes.")
    nearest: list[Neighbour] = []


class PredictOut(BaseModel):
    """Answers, in the order of the photos."""

    answers: list[AnswerOut]


class ClassOut(BaseModel):
    """A class. accuracy: in percent on its held-out photos, null if it has none."""

    name: str
    images: int
    accuracy: float | None


class ClassesOut(BaseModel):
    """The model as it is now."""

    model: str
    digest: str = Field(description="SHA-256 of its state: another one is another version.")
    classes: list[ClassOut]
    held_out_images: int
    accuracy: float | None = Field(description="In percent on all held-out photos.")
    read_only: bool
    can_undo: bool
    limits: dict[str, int] = Field(description="What a request may have: bytes, images, pixels of each.")


class LearnOut(BaseModel):
    """What was learned."""

    name: str
    new: bool = Field(description="Whether the class is new.")
    taught: int = Field(description="Photos that were learned.")
    left_out: int = Field(description="Photos that had been learned before.")
    classes: int


class ForgetOut(BaseModel):
    """What was forgotten. exact: whether the model is as if it had never learned it."""

    name: str
    exact: bool
    classes: int
