"""What a user asks about, and the answers, one after the other in bounded memory; as JSON, and as files sorted by class."""

from __future__ import annotations

import csv
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.lists import is_list
from tosca_cache.datasets.rows import is_visible
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.files import file_errors
from tosca_cache.model.classifier import Model
from tosca_cache.model.encoder import AT_ONCE, Encoded, Encoder
from tosca_cache.model.novelty import LIMIT
from tosca_cache.names import name_problem
from tosca_cache.store import SPLITS, Store

UNKNOWN, STDIN = "unknown", "-"


@dataclass(frozen=True)
class Answer:
    """What is said of one photo.

    label: the likeliest class, or `unknown` below the threshold; None if the photo cannot be read. top: the likeliest
    classes and their probabilities. novelty: from 0 to 1. error: why it cannot be read.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    novelty: float | None = None
    error: str | None = None

    @property
    def is_novel(self) -> bool:
        """Whether it looks like none of the classes: fewer than 1 in 20 known photos are as strange."""
        return self.novelty is not None and self.novelty > LIMIT

    def to_json(self) -> str:
        """One line."""
        values: dict[str, Any] = dict(vars(self)) | {"top": [list(pair) for pair in self.top]}
        return json.dumps(values, ensure_ascii=True, allow_nan=False)


def answer_photos(
    model: Model,
    encoder: Encoder,
    paths: Iterable[str],
    *,
    top: int,
    threshold: float = 0.0,
    on_progress: Callable[[int], None] = lambda n: None,
) -> Iterator[Answer]:
    """Answers for photos, in order; one that cannot be read has an error and costs no other."""
    waiting = iter(paths)
    while some := list(islice(waiting, AT_ONCE)):
        encoded = encoder.encode([Path(path) for path in some], on_progress)
        yield from answers(model, some, encoded, top=top, threshold=threshold)


def answer_store(model: Model, store: Store, *, top: int, threshold: float = 0.0) -> Iterator[Answer]:
    """Answers for all rows of a store; paths are those of its images, below `train` or `test`."""
    pieces = model.learner.pieces
    for split in SPLITS:
        names = [f"{split}/{path}" for path in store.paths(split)]
        for start in range(0, len(names), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            features = store.features(split, rows=rows, views=0, pieces=pieces)[:, 0]
            yield from answers(model, names[rows], Encoded(features, {}), top=top, threshold=threshold)


def answers(model: Model, paths: list[str], encoded: Encoded, *, top: int, threshold: float = 0.0) -> Iterator[Answer]:
    """Answers for photos; one that cannot be read has an error."""
    found = model.predict(encoded.features, top=top)
    for place, path in enumerate(paths):
        if (error := encoded.errors.get(place)) is not None:
            yield Answer(path, error=error)
            continue
        labels, probabilities = found.labels[place].tolist(), found.probabilities[place].tolist()
        label = labels[0] if probabilities[0] >= threshold else UNKNOWN
        likeliest = tuple(zip(labels, probabilities, strict=True))
        yield Answer(path, label, probabilities[0], likeliest, float(found.novelty[place]))


def check_sortable(model: Model, folder: Path) -> None:
    """Raises `UsageError` if a class has a name that no folder can have."""
    for name in (*model.class_names, UNKNOWN):
        if problem := name_problem(name):
            raise UsageError(
                f"photos cannot be sorted into a folder called so: {problem}",
                where=folder,
                remedy="leave --link and --move out",
            )


def sort_photo(answer: Answer, folder: Path, *, move: bool) -> None:
    """Puts a photo (or a link to it) into the folder of its class; one that cannot be read stays where it is.

    A name that is taken gets a number behind it. Raises `DatasetError` if the file system refuses.
    """
    if answer.label is None:
        return
    source, target = Path(answer.path).absolute(), folder / answer.label
    with file_errors(target, DatasetError, option="--move" if move else "--link"):
        target.mkdir(parents=True, exist_ok=True)
        names = (f"{source.stem}{'' if number == 1 else f'-{number}'}{source.suffix}" for number in count(1))
        place = next(target / name for name in names if not os.path.lexists(target / name))
        if move:
            shutil.move(source, place)
        else:
            place.symlink_to(source)


def photo_paths(asked: Sequence[str], stdin: IO[str]) -> Iterator[str]:
    """Paths of photos, in order; nothing is opened but lists and folders.

    Arguments:
        asked: files, folders (with all images below them), globs, lists (.csv with a column path), and `-` for paths from
            standard input, a line each.

    Raises `DatasetError` for a list that cannot be read, and `UsageError` for a glob or a folder without images.
    """
    for one in asked:
        path = Path(one)
        if one == STDIN:
            yield from (line for line in (line.rstrip("\r\n") for line in stdin) if line)
        elif path.is_dir():
            yield from _some(_below(path), one, "a folder without images")
        elif not path.exists() and glob.has_magic(one):
            yield from _some(sorted(glob.glob(one, recursive=True)), one, "no file is called so")  # noqa: PTH207
        elif is_list(path):
            yield from _listed(path)
        else:
            yield one  # one that is not there is answered as one that cannot be read


def _some(paths: Iterable[str], asked: str, problem: str) -> Iterator[str]:
    empty = True
    for path in paths:
        empty = False
        yield path
    if empty:
        raise UsageError(
            problem, where=asked, remedy="give photos, a folder of them, or a feature store: --features STORE"
        )


def _below(folder: Path) -> Iterator[str]:
    suffixes = Decoding().suffixes
    for path in sorted(folder.rglob("*")):
        hidden = any(not is_visible(part) for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield str(path)


def _listed(file: Path) -> Iterator[str]:
    """Paths of a list, relative to its folder."""
    try:
        rows = csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("the list cannot be read", where=file, remedy="give a text file in UTF-8") from error
    if "path" not in (rows.fieldnames or ()):
        raise DatasetError("the list has no column path", where=file, remedy="name its columns in the first line")
    yield from (str(file.parent / row["path"]) for row in rows if row["path"])
