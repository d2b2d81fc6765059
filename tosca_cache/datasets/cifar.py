"""CIFAR-100 from the files that torchvision unpacks; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.datasets.base import ArrayOpener, ImageDataset, Split
from tosca_cache.errors import DatasetError
from tosca_cache.torchvision_compat import ensure_torchvision

FOLDER = "cifar-100-python"


def load_cifar100(folder: Path) -> ImageDataset:
    """CIFAR-100 in `folder`/cifar-100-python; rows sorted by class, within a class in the files' order.

    Paths are `CLASS/SPLIT-NUMBER` with the number of the image in its file. torchvision checks the files' md5 first.

    Raises:
        DatasetError: the files are not those that were published.
    """
    ensure_torchvision()
    from torchvision.datasets import CIFAR100

    try:
        sources = {split: CIFAR100(str(folder), train=split == "train", download=False) for split in ("train", "test")}
    except RuntimeError as error:
        raise DatasetError(
            f"the files of CIFAR-100 are incomplete or damaged: {error}",
            where=folder / FOLDER,
            remedy="unpack cifar-100-python.tar.gz (md5 eb9058c3a382ffc7106e4002c42a8d85) here again",
        ) from error
    return _dataset(folder, sources)


def _dataset(folder: Path, sources: dict[str, Any]) -> ImageDataset:
    class_names = tuple(sources["train"].classes)
    splits, pixels = {}, {}
    for split, source in sources.items():
        labels = np.asarray(source.targets, dtype=np.int64)
        order = np.argsort(labels, kind="stable")
        paths = tuple(f"{class_names[labels[row]]}/{split}-{row:05d}" for row in order)
        splits[split] = Split(paths, labels[order], np.zeros(len(order), dtype=np.int64))
        pixels[split] = source.data[order]
    return ImageDataset("cifar100", class_names, ("cifar100",), splits, ArrayOpener(pixels), root=str(folder))
