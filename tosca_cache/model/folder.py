"""A model on disk: a folder that is written whole or not at all, and remembers the version before.

    NAME.tosca/   model.json state.safetensors classes.txt README.md      the version that counts
                  backbone.safetensors                                    its weights, if asked for
                  .previous/                                              the version before
                  .next/                                                  a newer version; it counts if it is there

A new version is written into `.next.partial` with links to the old files as its `.previous`, and renamed to `.next`: that
is the moment from which it counts. Then its files take their places. A process that dies in between leaves a `.next`, which
readers prefer, and which the next writer puts in place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tosca_cache.errors import ModelError
from tosca_cache.files import Limit, file_errors, read_limited
from tosca_cache.store.disk import sync
from tosca_cache.store.locks import StoreBusy, exclusive

CARD, STATE, CLASSES, README, BACKBONE = (
    *("model.json", "state.safetensors", "classes.txt", "README.md"),
    "backbone.safetensors",
)
FILES = (STATE, CLASSES, README, CARD)  # in the order in which they take their places
NEXT, PREVIOUS, PARTIAL = ".next", ".previous", ".next.partial"
ATTEMPTS = 5  # of reading a folder that is being written


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within it, this process alone may write a model; raises `ModelError` if another one does."""
    with file_errors(folder, ModelError, option="another path of the model"), _alone(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _put_in_place(folder)
            yield
        finally:
            if folder.is_dir() and not any(folder.iterdir()):  # nothing came of it
                folder.rmdir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder.absolute()))
        except StoreBusy as error:
            raise ModelError(
                error.problem.replace("this store", "this model"),
                where=folder,
                remedy="wait until it has finished, then run the same command again",
            ) from error
        yield


def write_version(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes some files the newest version of a model; within `writing`.

    files: by the names of `FILES`.
    """
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, data in files.items():
        _write(partial / name, data)
    if (folder / CARD).exists():
        (partial / PREVIOUS).mkdir()
        for name in FILES:
            _link(folder / name, partial / PREVIOUS / name)
        sync(partial / PREVIOUS)
    sync(partial)
    partial.rename(folder / NEXT)
    sync(folder)
    _put_in_place(folder)


def undo_version(folder: Path) -> None:
    """Goes back to the version before, which then has none before it; raises `ModelError` if there is none."""
    with writing(folder):
        previous = folder / PREVIOUS
        if not previous.is_dir():
            raise ModelError(
                "there is nothing to undo: no version before this one is kept", where=folder, remedy="see its README.md"
            )
        previous.rename(folder / NEXT)
        sync(folder)
        _put_in_place(folder)


def read_version(folder: Path) -> dict[str, bytes]:
    """Card and state of the newest version; raises `ModelError` if there is none, or one that was not written whole."""
    if not folder.is_dir() or not any((folder / name).exists() for name in (CARD, NEXT)):
        raise ModelError(
            "there is no model here",
            where=folder,
            remedy="make one: tosca learn MODEL.tosca PHOTOS, or give the folder of a run",
        )
    for attempt in range(ATTEMPTS):
        current = folder / NEXT if (folder / NEXT / CARD).exists() else folder
        try:
            card = read_limited(current / CARD, Limit.MODEL_CARD)
            state = read_limited(current / STATE, Limit.LEARNER)
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                raise ModelError(
                    f"a file of the model cannot be read: {error.strerror}",
                    where=error.filename or current,
                    remedy="go back with `tosca undo`, or make the model again with `tosca learn`",
                ) from error
            continue
        if hashlib.sha256(state).hexdigest().encode() in card:
            return {CARD: card, STATE: state}
    raise ModelError(
        "the model is damaged: state.safetensors is not the one that model.json was written with",
        where=folder / STATE,
        remedy="go back with `tosca undo`, or make the model again with `tosca learn`",
    )


def _put_in_place(folder: Path) -> None:
    """Moves the files of `.next`, if there is one, to where they belong; may be repeated after it was interrupted."""
    newest = folder / NEXT
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    if not newest.is_dir():
        return
    if (newest / PREVIOUS).is_dir():
        shutil.rmtree(folder / PREVIOUS, ignore_errors=True)
        (newest / PREVIOUS).rename(folder / PREVIOUS)
    for name in FILES:
        temporary = folder / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        _link(newest / name, temporary)
        temporary.replace(folder / name)
    sync(folder)
    newest.rename(folder / PARTIAL)
    shutil.rmtree(folder / PARTIAL)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        _write(target, source.read_bytes())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
