"""A store's features for several processes: one copy in files that all of a machine map into their memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from tosca_cache.errors import StoreError
from tosca_cache.files import file_errors
from tosca_cache.processes import is_alive
from tosca_cache.store import SPLITS, Store, open_store
from tosca_cache.sweep.scenario import Data
from tosca_cache.tasks import Arrays, load_splits

PREFIX = "tosca-sweep-"


def read_data(store: Store, incremental: str = "classes") -> Data:
    """Both splits, in this process's own memory; raises `StoreError` if tasks are to be domains and there is only one."""
    train, test = load_splits(store, incremental)
    return Data(train, test, store.class_names, store.domain_names)


class SharedFeatures:
    """Files of a store's features, for as long as the context lasts. folder: where they are.

    A killed process leaves its files; the next one that makes some removes them.
    """

    def __init__(self, data: Data) -> None:
        with file_errors(Path(tempfile.gettempdir()), StoreError, option="the environment variable TMPDIR"):
            _remove_left_over()
            self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            try:
                for split in SPLITS:
                    np.save(self.folder / f"{split}.npy", getattr(data, split).features)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Removes the files; processes that have them mapped keep them until they end."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _remove_left_over() -> None:
    """Removes the folders of this user's dead processes; those of living ones and of others are left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and folder.lstat().st_uid == os.getuid() and not is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=2)
def shared_data(path: str, folder: str) -> Data:
    """A store's splits, features mapped from `folder`; on a machine that has no such folder, read from the store."""
    store = open_store(Path(path))
    files = {split: Path(folder) / f"{split}.npy" for split in SPLITS}
    if not all(file.exists() for file in files.values()):
        return read_data(store)
    parts = {
        split: Arrays(
            np.load(file, mmap_mode="r", allow_pickle=False), store.labels(split), domains=store.domains(split)
        )
        for split, file in files.items()
    }
    return Data(parts["train"], parts["test"], store.class_names, store.domain_names)
