"""The model that is served: its newest version, what it is asked, and its changes, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import ModelError, UsageError
from tosca_cache.model.classifier import Model
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.folder import CARD, PREVIOUS, undo_version
from tosca_cache.model.records import Lesson, Taught
from tosca_cache.model.saved import changing, model_folder, open_model
from tosca_cache.model.serve.nearest import Nearest
from tosca_cache.model.session import encoder_of, learn_lesson
from tosca_cache.model.teaching import digests_of
from tosca_cache.names import name_problem

MOST_NAME = 200  # bytes of a class's name


class Served:
    """A model in its folder, opened to be asked and changed by many threads.

    Arguments:
        path: as in `saved.open_model`. weights: where the backbone's weights are now. max_pixels: of a photo.

    Raises what opening it and loading its backbone raise.
    """

    def __init__(self, path: Path, *, device: str = "auto", weights: Path | None = None, max_pixels: int) -> None:
        self.path, self.folder, self._device = path, model_folder(path), device
        self._stamp = self._stamp_now()
        model = open_model(path, device=device)
        self.encoder: Encoder = encoder_of(model, weights)
        self.encoder.max_pixels = max_pixels
        assert self.encoder.backbone  # loaded before anybody waits for it
        self._changing = threading.RLock()
        self._version = model, Nearest.of(model)

    @property
    def current(self) -> tuple[Model, Nearest]:
        """The newest version, whoever has written it, and its training photos; the one before while it is being changed.

        Raises `ModelError` if that has another backbone, or cannot be read.
        """
        if self._stamp_now() != self._stamp and self._changing.acquire(blocking=False):
            try:
                stamp = self._stamp_now()
                self._take(open_model(self.path, device=self._device))
                self._stamp = stamp
            finally:
                self._changing.release()
        return self._version

    @property
    def can_undo(self) -> bool:
        """Whether a version before this one is kept."""
        return (self.folder / PREVIOUS).is_dir()

    def learn(self, name: str, photos: Sequence[bytes], features: NDArray[np.floating]) -> tuple[Model, Taught]:
        """Teaches photos of one class, and writes the model; those that were taught before are left out.

        Arguments:
            photos: bytes of files, [n]. features: of these, [n, d]; views are made here for a model that learns them.

        Raises `UsageError` for a name that is none, and what `session.learn_lesson` raises.
        """
        if problem := name_problem(name, MOST_NAME):
            raise UsageError(f"a class cannot be called so: {problem}", where="name", remedy="give a plain name")
        digests = digests_of(photos)
        kept = np.sort(np.unique(digests, axis=0, return_index=True)[1])
        rows = features[kept][:, None]
        if (card := self.current[0].card).views:
            rows = self.encoder.with_views([photos[place] for place in kept], card.views, seed=card.tasks)
        lesson = Lesson(rows, [name] * len(kept), digests[kept], source="tosca serve")
        with self._changing:
            model, taught = learn_lesson(self.path, self.current[0], lesson)
            self._take(model)
        return model, taught

    def forget(self, name: str) -> bool:
        """Forgets a class, and writes the model; whether nothing of it is left. Raises `UsageError` for an unknown one."""
        with self._changing:
            with changing(self.path, device=self._device) as model:
                exact = model.forget(name)
            self._take(model)
        return exact

    def undo(self) -> None:
        """Goes back to the version before; raises `ModelError` if none is kept."""
        with self._changing:
            undo_version(self.folder)
            self._take(open_model(self.path, device=self._device))

    def _take(self, model: Model) -> None:
        """Serves a model from now on; raises `ModelError` if another process has put one of another backbone there."""
        card = model.card.backbone
        if card is None or card.weights_digest != self.encoder.card.weights_digest:
            problem = "the model was replaced by one with another backbone"
            raise ModelError(problem, where=self.path, remedy="start `tosca serve` anew")
        self._version, self._stamp = (model, Nearest.of(model, self._version[1])), self._stamp_now()

    def _stamp_now(self) -> tuple[int, int]:
        """What changes whenever a version is written; zeros for a run, which has no model of its own yet."""
        try:
            found = (self.folder / CARD).stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino
