"""Finding datasets: by name below the data root, or as a folder; and what is there of the named ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.datasets.base import ArrayOpener, ImageDataset, Split
from tosca_cache.datasets.decoding import IMAGE_SUFFIXES, PUBLISHED, Decoding
from tosca_cache.datasets.folders import LAYOUTS, FolderScan, list_folder
from tosca_cache.datasets.lists import is_list, read_list
from tosca_cache.datasets.packed import load_packed, packed_suffix
from tosca_cache.datasets.registry import CIFAR_FOLDER, KnownDataset, known, unknown_dataset
from tosca_cache.datasets.rows import SPLITS, FileOpener, build_dataset
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.torchvision_compat import ensure_torchvision


def resolve_data_root(data_root: Path | None) -> Path:
    """The folder given, else $TOSCA_DATA, else `data`."""
    return data_root or Path(os.environ.get("TOSCA_DATA") or "data")


def load_dataset(
    name_or_path: str,
    *,
    data_root: Path | None = None,
    test_fraction: float | None = None,
    label: str | None = None,
    seed: int = 1993,
    decoding: Mapping[str, Any] | None = None,
) -> ImageDataset:
    """A dataset by its name, or by the path (also below the data root) of its folder, of the CSV file that lists it, or of
    tables or shards that hold it (`datasets.arrow`, `datasets.shards`), which are known by their files.

    Arguments:
        data_root: where named datasets lie; see `resolve_data_root`.
        test_fraction, seed: for images without a test split; see `build_dataset`.
        label: the column of the labels, of tables; `label` if None.
        decoding: fields of `Decoding` that are to be otherwise than by default, which is `Decoding()` for folders and lists
            and `PUBLISHED` for benchmarks.

    Raises:
        UsageError: there is no such name or folder; the test fraction does not fit, or there are no files to decode.
        DatasetError: files are missing, or their layout, classes or counts are not as they must be.
    """
    data_root = resolve_data_root(data_root)
    dataset = known(name_or_path)
    path = Path() if dataset else _path(name_or_path, data_root)
    suffix = None if dataset else packed_suffix(path)
    how: dict[str, Any] = {"test_fraction": test_fraction, "seed": seed}
    if label is not None and suffix not in (".arrow", ".parquet"):
        problem = f"the labels of {name_or_path} stand in no column of a table"
        raise UsageError(problem, where="--label", remedy="leave it out; it is for Arrow and Parquet")
    if dataset is not None:
        return load_known(dataset, data_root, decoding, test_fraction)
    decoded = replace(Decoding(), **(decoding or {}))
    if suffix is not None:
        return load_packed(path, suffix, name=path.resolve().name, decoding=decoded, label=label, **how)
    return load_files(path, decoding=decoded, **how)


def load_files(
    path: Path,
    *,
    name: str | None = None,
    decoding: Decoding,
    only: str | None = None,
    published: bool = False,
    **how: Any,
) -> ImageDataset:
    """The dataset in a folder of images, or in the CSV file that lists them.

    Arguments:
        only: the rows of this split, or all if there are no splits, become train rows; there are no test rows.
        published: it is a named benchmark, which is taken as it was published: no other suffixes, no remarks.
        how: the fraction and the seed of `build_dataset`.

    Raises what `build_dataset`, `list_folder` and `read_list` raise.
    """
    suffixes = IMAGE_SUFFIXES if published else decoding.suffixes
    left_out: Mapping[str, list[str]] = {}
    if is_list(path):
        root, name = path.parent, name or path.name
        rows = [row for row in read_list(path, name, suffixes) if only is None or row.split in (None, only)]
    else:
        scan, root, name = FolderScan(path, suffixes), path, name or path.resolve().name or "root"
        rows = list_folder(scan, name, (only,) if only else SPLITS)
        left_out = {} if published else scan.left_out
    opener = FileOpener(root, decoding)
    dataset = build_dataset(name, opener, rows, left_out=left_out, only_train=only is not None, **how)
    return replace(dataset, unchecked=not published and only is None, listed_in=str(path) if path != root else None)


def _path(given: str, data_root: Path) -> Path:
    for path in (Path(given), data_root / given):
        if given and "\0" not in given and path.exists():
            return path
    if os.sep in given:
        raise DatasetError("the dataset's folder does not exist", where=given, remedy=f"give a folder with {LAYOUTS}")
    raise unknown_dataset(given)


def load_known(
    dataset: KnownDataset,
    data_root: Path,
    decoding: Mapping[str, Any] | None = None,
    test_fraction: float | None = None,
) -> ImageDataset:
    """A dataset of the registry; raises `DatasetError` if its files are missing or are not the published ones.

    decoding: see `load_dataset`; raises `UsageError` for datasets whose images are no files, and for a test fraction.
    """
    from_files = dataset.layout not in ("cifar100", "embedded")
    decoded = replace(Decoding() if from_files and not dataset.benchmark else PUBLISHED, **(decoding or {}))
    if test_fraction is not None:
        problem = f"{dataset.name} has a test split of its own"
        raise UsageError(problem, where="--test-fraction", remedy="leave the option out")
    if not from_files and decoded.to_record():
        raise UsageError(
            f"the images of {dataset.name} are no files of their own, which could be decoded in one way or another",
            where=", ".join(f"--{key}" for key in decoded.to_record() if key in (decoding or {})),
            remedy="leave it out",
        )
    if dataset.layout == "embedded":
        return _embedded(dataset.name)
    folder = data_root / dataset.place
    if not folder.is_dir():
        raise DatasetError(
            f"the files of {dataset.name} are missing; wanted: {dataset.wanted}",
            where=folder,
            remedy=f"run `tosca fetch {dataset.name}`, or unpack it there, or say where it is with --data-root DIR",
        )
    return load_published(dataset, folder, decoded)


def load_published(dataset: KnownDataset, folder: Path, decoding: Decoding = PUBLISHED) -> ImageDataset:
    """A named dataset from its folder; raises `DatasetError` if it cannot be read, or has other counts than are stated."""
    try:
        if dataset.layout == "cifar100":
            loaded = _load_cifar100(folder.parent)
        else:
            loaded = load_files(folder, name=dataset.name, decoding=decoding, published=dataset.benchmark)
    except DatasetError as error:
        remedy = f"{error.remedy}; wanted: {dataset.wanted}"
        raise DatasetError(f"{dataset.name}: {error.problem}", where=error.where, remedy=remedy) from error
    if dataset.classes and (found := counts_of(loaded)) != dataset.counts:
        raise DatasetError(
            "{} has {} classes, {} train and {} test images, but the published one has {}, {} and {}".format(
                dataset.name, *found, *dataset.counts
            ),
            where=folder,
            remedy=f"get it again, from its source ({dataset.published}); to use the folder as it is, give its path: "
            f"--dataset {os.path.join('.', folder)}",  # noqa: PTH118 a Path would drop the dot, which makes it a path
        )
    return loaded


def counts_of(dataset: ImageDataset) -> tuple[int, int, int]:
    """(classes, train images, test images)."""
    return len(dataset.class_names), len(dataset.splits["train"]), len(dataset.splits["test"])


def _load_cifar100(folder: Path) -> ImageDataset:
    """CIFAR-100 in `folder`/cifar-100-python; rows sorted by class, within a class in the files' order.

    Paths are `CLASS/SPLIT-NUMBER` with the number of the image in its file. torchvision checks the files' md5 first.
    """
    ensure_torchvision()
    from torchvision.datasets import CIFAR100

    splits, pixels, names = {}, {}, ()
    for split in SPLITS:
        try:
            source = CIFAR100(str(folder), train=split == "train", download=False)
        except RuntimeError as error:
            remedy = "unpack cifar-100-python.tar.gz here again"
            problem = f"the files of CIFAR-100 are incomplete or damaged: {error}"
            raise DatasetError(problem, where=folder / CIFAR_FOLDER, remedy=remedy) from error
        names, labels = tuple(source.classes), np.asarray(source.targets, dtype=np.int64)
        order = np.argsort(labels, kind="stable")
        paths = tuple(f"{names[labels[row]]}/{split}-{row:05d}" for row in order)
        splits[split] = Split(paths, labels[order], np.zeros(len(order), dtype=np.int64))
        pixels[split] = source.data[order]
    return ImageDataset("cifar100", names, ("cifar100",), splits, ArrayOpener(pixels), root=str(folder))


def _embedded(name: str) -> ImageDataset:
    if name == "glyphs":
        from tosca_cache.datasets.glyphs import load_glyphs_dataset

        return load_glyphs_dataset()
    from tosca_cache.datasets.digits import load_digits_dataset, load_digits_domains

    return load_digits_dataset() if name == "digits" else load_digits_domains()
