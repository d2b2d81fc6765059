"""A trained classifier that is used: it is asked, taught more, made to forget, and kept as data in a folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import get_num_threads

from tosca_cache.devices import on_cores, resolve_device
from tosca_cache.errors import ModelError, UsageError
from tosca_cache.learners.base import learner_type
from tosca_cache.learners.options import check_options
from tosca_cache.model.card import BackboneCard, ClassCard, HeldOutCard, LearnerCard, ModelCard, Step
from tosca_cache.model.folder import writing
from tosca_cache.model.held_out import (
    HeldOut,
    best_temperature,
    choose_held_out,
    doubt,
    likeliest,
    make_learner,
    probabilities,
    teach,
)
from tosca_cache.model.novelty import Novelty
from tosca_cache.model.records import TAUGHT, Answers, FloatArray, IntArray, Lesson, Taught, taught_rows
from tosca_cache.shown import Shown

ROWS_AT_ONCE = 1024  # on each core
DEFAULT = "pool"


class Model(Shown):
    """A learner with the names of its classes, what held-out photos say of it, and how photos become its features.

    card: everything that is no tensor. learner: what answers. held_out: None for a model without held-out photos.
    taught: a table of all rows that it has learned, see `records.taught_rows`.
    """

    def __init__(self, card: ModelCard, *, device: str = "auto") -> None:
        self.card, self.device = card, resolve_device(device)
        self.learner, self.novelty = make_learner(card.learner, self.device), Novelty()
        self.held_out: HeldOut | None = HeldOut(make_learner(card.learner, self.device))
        self.taught = np.empty(0, TAUGHT)
        self.path: Path | None = None

    @classmethod
    def create(
        cls,
        dim: int,
        *,
        method: str = DEFAULT,
        options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int = 1993,
        backbone: BackboneCard | None = None,
        views: int = 0,
        dtype: str = "float32",
        device: str = "auto",
    ) -> Self:
        """A model that knows nothing yet; raises `UsageError` for a learner or options that do not exist.

        Arguments:
            method, options, settings, seed: of its learner. dim, views, dtype: of its features.
        """
        if learner_type(method).bound:
            raise UsageError(f"{method} is a bound, and no classifier", where="--method", remedy="see `tosca methods`")
        check_options({method: dict(options or {})})
        learner = LearnerCard(method=method, options=dict(options or {}), settings=dict(settings or {}), seed=seed)
        card = ModelCard(
            learner=learner, dim=dim, dtype=dtype, views=views, backbone=backbone, classes=[], indices=0, tasks=0
        )
        return cls(card, device=device)

    @staticmethod
    def open(path: str | Path, *, device: str = "auto") -> Model:
        """A model from its folder, or from a run; raises `ModelError` if it is none, or damaged."""
        from tosca_cache.model.saved import open_model

        return open_model(Path(path), device=device)

    def save(self, path: str | Path) -> None:
        """Writes it as the newest version of a folder; the version before is kept there."""
        from tosca_cache.model.saved import save_model

        with writing(Path(path)):
            save_model(self, Path(path))

    def __getstate__(self) -> dict[str, Any]:
        """Its files and where they lie, for processes that work side by side; a folder is how to keep it."""
        from tosca_cache.model.saved import to_bytes

        return {"files": to_bytes(self, "model"), "path": self.path, "device": str(self.device)}

    def __setstate__(self, kept: Mapping[str, Any]) -> None:
        from tosca_cache.model.saved import from_bytes

        vars(self).update(vars(from_bytes(kept["files"], Path("model"), kept["device"])) | {"path": kept["path"]})

    def facts(self) -> dict[str, Any]:
        """What it is."""
        card, accuracy = self.card, self.card.held_out.accuracy
        return {"method": card.learner.method, "classes": len(card.classes), "held_out_accuracy": accuracy}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the scores."""
        return tuple(one.name for one in self.card.classes)

    def knows(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether it has been taught each photo (or row), [n]."""
        known = {one.tobytes() for one in self.taught["digests"]}
        return np.array([one.tobytes() in known for one in digests], bool)

    def learn(self, lesson: Lesson | str | Path, *, again: bool = False, root: str | Path = "cache") -> Taught:
        """Teaches rows, or the photos of a folder of classes or of a list, whose features are kept in the cache `root`.

        Classes may be new, or known where the learner can take more rows of them. Rows that it knows are left out unless
        they are to be learned `again`.

        Raises `UsageError`, before anything is learned, for rows of known classes where it cannot.
        """
        if not isinstance(lesson, Lesson):
            from tosca_cache.model.session import encoder_of, photo_lesson

            lesson = photo_lesson(self, encoder_of(self), Path(lesson), Path(root), again=again, show=False)
        begun, card = time.perf_counter(), self.card
        if lesson.features.shape[1:] != (1 + card.views, card.dim):
            raise UsageError(
                f"features of shape {list(lesson.features.shape)} are not what the model learns",
                where=self.path,
                remedy=f"give rows of {1 + card.views} views of {card.dim} numbers",
            )
        if not again and (known_rows := self.knows(lesson.digests)).any():
            lesson = replace(lesson.part(~known_rows), left_out=lesson.left_out + int(known_rows.sum()))
        images = dict(sorted(Counter(lesson.names).items()))
        place = {one.name: one.indices[0] for one in card.classes}
        known = {name: count for name, count in images.items() if name in place}
        new = {name: count for name, count in images.items() if name not in place}
        if not images:
            return Taught(new, known, left_out=lesson.left_out)
        self.check_known(known)
        columns, before = self.columns(), self.held_out_accuracy()
        numbers = place | {name: card.indices + number for number, name in enumerate(new)}
        indices = np.array([numbers[name] for name in lesson.names], np.int64)
        self._observe(lesson, indices, range(card.indices, card.indices + len(new)))
        classes = [one.model_copy(update={"images": one.images + known.get(one.name, 0)}) for one in card.classes]
        classes += [ClassCard(name=name, indices=[numbers[name]], images=count) for name, count in new.items()]
        of = {name: getattr(lesson, name) for name in ("source", "store", "fingerprint")}
        seconds = round(time.perf_counter() - begun, 3)
        step = Step(what="learn", classes=list(images), images=len(indices), seconds=seconds, **of)
        self._changed(classes, step, indices=card.indices + len(new), tasks=card.tasks + 1)
        old, fresh = (self.held_out_accuracy(columns), self.held_out_accuracy(self.columns()[len(columns) :]))
        return Taught(new, known, time.perf_counter() - begun, before, old, fresh, lesson.left_out)

    def check_known(self, names: Iterable[str]) -> None:
        """Raises `UsageError` if there are rows of known classes, and the learner cannot take more of them."""
        known = sorted(set(names) & set(self.class_names))
        if known and not self.learner.adds_rows:
            raise UsageError(
                f"{self.learner.name} cannot take more photos of a class that it knows: {', '.join(map(repr, known[:5]))}",
                where=self.path,
                remedy="leave these out, or learn anew with --method pool",
            )

    def predict(self, asked: FloatArray | Sequence[Any], *, top: int = 5) -> Answers:
        """The likeliest classes of clean features [n, d], or of photos: paths, bytes of files, or images.

        Raises `ModelError` for a model that knows no class, and `ImageError` for a photo that cannot be read.
        """
        if not isinstance(asked, np.ndarray):
            from tosca_cache.model.session import encoder_of

            asked = encoder_of(self).features([Path(one) if isinstance(one, str) else one for one in asked])
        step = max(len(asked), 1) if self.learner.transductive else ROWS_AT_ONCE
        starts, names = range(0, max(len(asked), 1), step), np.array(self.class_names, dtype=object)

        def answered(start: int) -> Answers:
            """What is said of some rows."""
            features = asked[start : start + step]
            probability = self.probabilities(features)
            order = likeliest(probability, min(top, probability.shape[1]))
            return Answers(names[order], np.take_along_axis(probability, order, 1), self.novelty.of(features))

        parts = [answered(0)]  # alone: what is left to solve is solved
        if len(starts) > 1:
            parts += on_cores(answered, starts[1:], get_num_threads() if self.device.type == "cpu" else 1)
        return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))

    def probabilities(self, features: FloatArray) -> NDArray[np.float64]:
        """Calibrated probabilities of all classes, [n, C]; see `held_out.probabilities`."""
        return probabilities(self.scores(features), self.card.held_out.temperature, self.card.held_out.doubt)

    def scores(self, features: FloatArray) -> NDArray[np.float64]:
        """Scores of all classes for clean features [n, d], [n, C]."""
        if not self.card.classes:
            remedy = "teach it: tosca learn MODEL PHOTOS"
            raise ModelError("the model knows no class yet", where=self.path, remedy=remedy)
        if features.ndim != 2 or features.shape[1] != self.card.dim:
            raise UsageError(
                f"features of shape {list(features.shape)} are no rows of {self.card.dim} numbers",
                where=self.path,
                remedy="give features of the backbone that the model was learned under",
            )
        if not len(features):
            return np.empty((0, len(self.card.classes)))
        return self._by_class(self.learner.scores(np.ascontiguousarray(features, np.float32)))

    def forget(self, name: str) -> bool:
        """Forgets a class. True: the model is as if it had never been taught; False: it is no longer answered.

        Exact where the learner keeps classes apart. Raises `UsageError` for an unknown class.
        """
        forgotten = [one for one in self.card.classes if one.name == name]
        if not forgotten:
            problem = f"the model knows no class {name!r}"[:200]
            raise UsageError(problem, where=self.path, remedy="see the names in its classes.txt")
        indices, exact, begun = forgotten[0].indices, True, time.perf_counter()
        for index in indices:
            exact &= self.learner.forget_class(index)
            if self.held_out is not None:
                self.held_out.forget(index)
            self.novelty.forget(index)
        self.taught = self.taught[~np.isin(self.taught["indices"], indices)]
        step = Step(what="forget", classes=[name], exact=exact, seconds=time.perf_counter() - begun)
        self._changed([one for one in self.card.classes if one.name != name], step)
        return exact

    def held_out_accuracy(self, columns: IntArray | None = None) -> float | None:
        """Accuracy on the held-out photos of some classes (class numbers; all by default) in percent, or None."""
        indices, scores, targets = self._held_out_scores()
        asked = np.isin(indices, self.columns() if columns is None else columns)
        return 100 * float((scores.argmax(1) == targets)[asked].mean()) if asked.any() else None

    def class_accuracies(self) -> list[float | None]:
        """Accuracy on the held-out photos of each class in percent, in the order of `class_names`; None without any."""
        _, scores, targets = self._held_out_scores()
        right = scores.argmax(1) == targets
        found = [right[targets == place] for place in range(len(self.card.classes))]
        return [100 * float(mine.mean()) if len(mine) else None for mine in found]

    def _held_out_scores(self) -> tuple[IntArray, NDArray[np.float64], IntArray]:
        """Class number of each held-out row, its scores, and the place of its class among all: [h], [h, C], [h]."""
        held, places = self.held_out, np.full(self.card.indices, -1, np.int64)
        if held is None or not len(held.indices) or not self.card.classes:
            return np.empty(0, np.int64), np.empty((0, 1)), np.empty(0, np.int64)
        for place, one in enumerate(self.card.classes):
            places[one.indices] = place
        return held.indices, self._by_class(held.all_scores()), places[held.indices]

    def columns(self) -> IntArray:
        """All class numbers that are answered."""
        return np.array([index for one in self.card.classes for index in one.indices], np.int64)

    def _observe(self, lesson: Lesson, indices: IntArray, classes: range) -> None:
        """Both learners see the rows, the second one without those that are held out."""
        features, number = np.ascontiguousarray(lesson.features, dtype=self.card.dtype), self.card.tasks
        held, out = self.held_out, np.zeros(len(indices), bool)
        if held is not None:
            already = {one.name: int(np.isin(held.indices, one.indices).sum()) for one in self.card.classes}
            out = choose_held_out(lesson.names, already, self.card.learner.seed, number)
            teach(held.learner, features[~out], indices[~out], classes, number)
            held.add(features[out, 0], indices[out])
        teach(self.learner, features, indices, classes, number)
        self.novelty.observe(features[:, 0], indices, classes.stop, held_out=out)
        rows = lesson.rows if len(lesson.rows) else -1
        seen = taught_rows(lesson.digests, indices, len(self.card.history), rows)
        self.taught = np.concatenate([self.taught, seen])

    def _changed(self, classes: list[ClassCard], step: Step, **changes: int) -> None:
        """Card and calibration after the classes changed."""
        history = [*self.card.history, step]
        self.card = self.card.model_copy(update={"classes": classes, "history": history, **changes})
        self.calibrate()

    def calibrate(self) -> None:
        """Finds accuracy, temperature and novelty from the held-out rows."""
        _, scores, targets = self._held_out_scores()
        found = HeldOutCard(doubt=0.0 if self.held_out is None else doubt(0))
        if self.held_out is not None and len(targets):
            sure = {"temperature": best_temperature(scores, targets), "doubt": doubt(len(targets))}
            found = HeldOutCard(images=len(targets), accuracy=self.held_out_accuracy(), **sure)
            self.novelty.calibrate(self.held_out.features)
        self.card = self.card.model_copy(update={"held_out": found})

    def _by_class(self, scores: FloatArray) -> NDArray[np.float64]:
        """Scores by class number [n, L] as scores of the classes that are answered, [n, C]."""
        columns = self.columns()
        if len(columns) == len(self.card.classes):
            return np.asarray(scores[:, columns], np.float64)
        parts = [scores[:, one.indices].max(1) for one in self.card.classes]
        return np.stack(parts, 1).astype(np.float64)
