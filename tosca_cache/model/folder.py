"""A model on disk: a folder that is written whole or not at all, and remembers the version before.

    NAME.tosca/   model.json state.safetensors classes.txt README.md      the version that counts
                  backbone.safetensors                                    its weights, if asked for
                  .previous/                                              the version before
                  .saving/                                                the same, while a newer one is written

A new version replaces the files one after the other, model.json last; it names the digest of its state. Until then, card
and state do not belong together, and `.saving` is what readers take instead. The next writer clears up what was left:
it puts `.saving` back, or makes it the version before if the new one was complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tosca_cache.errors import ModelError
from tosca_cache.files import Limit, file_errors, read_limited, replacing
from tosca_cache.store.disk import sync
from tosca_cache.store.locks import StoreBusy, exclusive

CARD, STATE, CLASSES, README = "model.json", "state.safetensors", "classes.txt", "README.md"
BACKBONE = "backbone.safetensors"
FILES = (STATE, CLASSES, README, CARD)  # in the order in which they are written
PREVIOUS, SAVING, UNDONE = ".previous", ".saving", ".undone.tmp"
ATTEMPTS = 5  # of reading a folder that is being written


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within it, this process alone may write a model; raises `ModelError` if another one does."""
    with file_errors(folder, ModelError, option="another path of the model"), ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder.absolute()))
        except StoreBusy as error:
            raise ModelError(
                error.problem.replace("this store", "this model"),
                where=folder,
                remedy="wait until it has finished, then run the same command again",
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _clear_up(folder)
            yield
        finally:
            if folder.is_dir() and not any(folder.iterdir()):  # nothing came of it
                folder.rmdir()


def write_version(folder: Path, files: Mapping[str, bytes]) -> None:
    """Makes some files, by the names of `FILES`, the newest version of a model; within `writing`."""
    if (folder / CARD).exists():
        (folder / SAVING).mkdir()
        for name in FILES:
            _link(folder / name, folder / SAVING / name)
        sync(folder / SAVING)
    for name in FILES:
        sync(folder)
        with replacing(folder / name) as temporary:
            temporary.write_bytes(files[name])
    sync(folder)
    _clear_up(folder)


def undo_version(folder: Path) -> None:
    """Goes back to the version before, which then has none before it; raises `ModelError` if there is none."""
    with writing(folder):
        if not (folder / PREVIOUS).is_dir():
            problem = "there is nothing to undo: no version before this one is kept"
            raise ModelError(problem, where=folder, remedy="see the history in its model.json")
        write_version(folder, {name: read_limited(folder / PREVIOUS / name, Limit.LEARNER) for name in FILES})
        (folder / PREVIOUS).rename(folder / UNDONE)
        _clear_up(folder)


def read_version(folder: Path) -> dict[str, bytes]:
    """Card and state of the newest version; raises `ModelError` if there is none, or one that was not written whole."""
    if not (folder / CARD).exists():
        remedy = "make one: tosca learn MODEL.tosca PHOTOS, or give the folder of a run"
        raise ModelError("there is no model here", where=folder, remedy=remedy)
    problem = ""
    for _ in range(ATTEMPTS):
        for place in (folder, folder / SAVING):
            try:
                card, state = read_limited(place / CARD, Limit.MODEL_CARD), read_limited(place / STATE, Limit.LEARNER)
            except OSError as error:
                problem = problem or f"a file cannot be read: {error.strerror}"
                continue
            if hashlib.sha256(state).hexdigest().encode() in card:
                return {CARD: card, STATE: state}
            problem = problem or "state.safetensors is not the one that model.json was written with"
    raise ModelError(
        f"the model is damaged: {problem}",
        where=folder,
        remedy="go back with `tosca undo`, or make the model again with `tosca learn`",
    )


def _clear_up(folder: Path) -> None:
    """Ends what a writer has begun, be it this one or one that was interrupted; may be interrupted itself."""
    saving = folder / SAVING
    for left in folder.glob(".*.tmp*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    if (saving / CARD).exists():
        if (folder / CARD).read_bytes() == (saving / CARD).read_bytes():  # the newer one is not complete
            for name in reversed(FILES):  # the state last: until then it may not be that of the card
                temporary = folder / f".{name}.tmp"
                _link(saving / name, temporary)
                temporary.replace(folder / name)
                temporary.unlink(missing_ok=True)  # a link to the same file is not moved
        else:
            shutil.rmtree(folder / PREVIOUS, ignore_errors=True)
            saving.rename(folder / PREVIOUS)
        sync(folder)
    shutil.rmtree(saving, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
        sync(target)
