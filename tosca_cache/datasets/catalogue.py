"""Finding datasets: by name below the data root, or as a folder; and what is there of the named ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tosca_cache.datasets.arrow import is_tables, load_tables
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.cifar import FOLDER, load_cifar100
from tosca_cache.datasets.decoding import IMAGE_SUFFIXES, PUBLISHED, Decoding, as_published
from tosca_cache.datasets.folder_dataset import check_fraction, load_folder
from tosca_cache.datasets.folders import LAYOUTS, SPLITS, FolderScan
from tosca_cache.datasets.lists import is_list, load_list
from tosca_cache.datasets.registry import REGISTRY, KnownDataset, known, unknown_dataset
from tosca_cache.datasets.shards import is_shards, load_shards
from tosca_cache.errors import DatasetError, UsageError

DEFAULT_DATA_ROOT = Path("data")
DATA_ROOT_VARIABLE = "TOSCA_DATA"

State = Literal["ready", "embedded", "missing", "counts differ"]


@dataclass(frozen=True)
class DatasetStatus:
    """What is there of a named dataset.

    known: what it should be.
    state: `ready`, `embedded` (made by this package), `missing`, or `counts differ`.
    folder: where it was found; for a missing one, the first place looked in; None for embedded ones.
    found: (classes, train, test) counted in that folder; None where there is nothing to count, or no counting it.
    """

    known: KnownDataset
    state: State
    folder: Path | None
    found: tuple[int, int, int] | None


def resolve_data_root(data_root: Path | None) -> Path:
    """The folder given, else $TOSCA_DATA, else `data`."""
    return data_root or Path(os.environ.get(DATA_ROOT_VARIABLE) or DEFAULT_DATA_ROOT)


def load_dataset(
    name_or_path: str,
    *,
    data_root: Path | None = None,
    test_fraction: float | None = None,
    seed: int = 1993,
    name: str | None = None,
    decoding: Mapping[str, Any] | None = None,
    label: str | None = None,
) -> ImageDataset:
    """A dataset by its name, or by the path (also below the data root) of its folder, of the CSV file that lists it, or of
    tables or shards that hold it (`datasets.arrow`, `datasets.shards`), which are known by their files.

    Arguments:
        data_root: where named datasets lie; see `resolve_data_root`.
        test_fraction, seed: for a folder of classes or a list without a test split; see `load_folder`.
        name: what to call a folder or a list; by default as the folder or file is called.
        decoding: fields of `Decoding` that are to be otherwise than by default, which is `Decoding()` for folders and lists
            and `PUBLISHED` for named datasets.
        label: the column or key of the labels, of tables and shards.

    Raises:
        UsageError: there is no such name or folder; the test fraction does not fit, or there are no files to decode.
        DatasetError: files are missing, or their layout, classes or counts are not as they must be.
    """
    check_fraction(test_fraction)
    data_root = resolve_data_root(data_root)
    dataset = known(name_or_path)
    if dataset is not None:
        if label is not None:
            raise _no_label(dataset.name)
        if test_fraction is not None:
            raise UsageError(
                f"{dataset.name} has a test split of its own", where="--test-fraction", remedy="leave the option out"
            )
        return load_known(dataset, data_root, decoding)
    path = _path(name_or_path, data_root)
    how = replace(Decoding(), **(decoding or {}))
    if (load_packed := _packed(path)) is not None:
        return load_packed(path, name=name, test_fraction=test_fraction, seed=seed, decoding=how, label=label)
    if label is not None:
        raise _no_label(name_or_path)
    load = load_list if is_list(path) else load_folder
    return load(path, name=name, test_fraction=test_fraction, seed=seed, decoding=how)


def _packed(path: Path) -> Callable[..., ImageDataset] | None:
    """What loads tables or shards, if those are what is there, and no images of their own in folders."""
    load = load_shards if is_shards(path) else load_tables if is_tables(path) else None
    if load is None or path.is_file():
        return load
    images = (file for depth in ("*/*", "*/*/*") for file in path.glob(depth) if file.suffix.lower() in IMAGE_SUFFIXES)
    return None if next(images, None) else load


def _no_label(dataset: str) -> UsageError:
    return UsageError(
        f"the labels of {dataset} are the names of folders or stand in its list",
        where="--label",
        remedy="leave it out; it is for tables and shards",
    )


def _path(given: str, data_root: Path) -> Path:
    for path in (Path(given), data_root / given):
        if given and "\0" not in given and path.exists():
            return path
    if os.sep in given:
        raise DatasetError("the dataset's folder does not exist", where=given, remedy=f"give a folder with {LAYOUTS}")
    raise unknown_dataset(given)


def load_known(dataset: KnownDataset, data_root: Path, decoding: Mapping[str, Any] | None = None) -> ImageDataset:
    """A dataset of the registry; raises `DatasetError` if its files are missing or are not the published ones.

    decoding: see `load_dataset`; raises `UsageError` for datasets whose images are no files.
    """
    how = replace(PUBLISHED, **(decoding or {}))
    if dataset.layout != "folders" and how.to_record():
        raise UsageError(
            f"the images of {dataset.name} are no files of their own, which could be decoded in one way or another",
            where=", ".join(f"--{key}" for key, value in how.to_record().items() if value != as_published()[key]),
            remedy="leave it out",
        )
    if dataset.layout == "embedded":
        return _embedded(dataset.name)
    folder = _find(dataset, data_root)
    if folder is None:
        raise _missing(dataset, data_root)
    loaded = load_cifar100(folder) if dataset.layout == "cifar100" else _load_tree(dataset, folder, how)
    found = (len(loaded.class_names), len(loaded.splits["train"]), len(loaded.splits["test"]))
    wanted = (dataset.classes, dataset.train, dataset.test)
    if found != wanted:
        raise DatasetError(
            "{} has {} classes, {} train and {} test images, but the published one has {}, {} and {}".format(
                dataset.name, *found, *wanted
            ),
            where=folder,
            remedy=f"unpack it again ({_source(dataset)}); to use the folder as it is, give its path: "
            f"--dataset {os.path.join('.', folder)}",  # noqa: PTH118 a Path would drop the dot, which makes it a path
        )
    return loaded


def _load_tree(dataset: KnownDataset, folder: Path, decoding: Decoding) -> ImageDataset:
    try:
        return load_folder(folder, name=dataset.name, decoding=decoding, published=True)
    except DatasetError as error:
        remedy = f"{error.remedy}; wanted is {dataset.wanted}; published: {_source(dataset)}"
        raise DatasetError(f"{dataset.name}: {error.problem}", where=error.where, remedy=remedy) from error


def _embedded(name: str) -> ImageDataset:
    if name == "digits":
        from tosca_cache.datasets.digits import load_digits_dataset

        return load_digits_dataset()
    if name == "digits-domains":
        from tosca_cache.datasets.digits import load_digits_domains

        return load_digits_domains()
    from tosca_cache.datasets.glyphs import load_glyphs_dataset

    return load_glyphs_dataset()


def _find(dataset: KnownDataset, data_root: Path) -> Path | None:
    """The first of its places that has something of it."""
    parts = (FOLDER,) if dataset.layout == "cifar100" else SPLITS
    return next((place for place in dataset.candidates(data_root) if any((place / p).is_dir() for p in parts)), None)


def _missing(dataset: KnownDataset, data_root: Path) -> DatasetError:
    first, *others = dataset.candidates(data_root)
    also = f" (nor in {', '.join(str(place) for place in others)})" if others else ""
    return DatasetError(
        f"the files of {dataset.name} are missing; wanted: {dataset.wanted}",
        where=f"{first}{also}",
        remedy=f"run `tosca fetch {dataset.name}`; or get it from {_source(dataset)}, and unpack it there; or say where it "
        "is with --data-root DIR",
    )


def _source(dataset: KnownDataset) -> str:
    return dataset.published + (f", archive with md5 {dataset.md5}" if dataset.md5 else "")


def list_datasets(data_root: Path | None = None) -> list[DatasetStatus]:
    """The status of every named dataset; folders are counted, no image is opened."""
    root = resolve_data_root(data_root)
    return [_status(dataset, root) for dataset in REGISTRY.values()]


def _status(dataset: KnownDataset, data_root: Path) -> DatasetStatus:
    if dataset.layout == "embedded":
        return DatasetStatus(dataset, "embedded", None, None)
    folder = _find(dataset, data_root)
    if folder is None:
        return DatasetStatus(dataset, "missing", dataset.candidates(data_root)[0], None)
    wanted = (dataset.classes, dataset.train, dataset.test)
    if dataset.layout == "cifar100":
        whole = all((folder / FOLDER / file).is_file() for file in (*SPLITS, "meta"))
        return DatasetStatus(dataset, "ready" if whole else "counts differ", folder, wanted if whole else None)
    found = _count(folder)
    return DatasetStatus(dataset, "ready" if found == wanted else "counts differ", folder, found)


def _count(folder: Path) -> tuple[int, int, int] | None:
    """(classes, train, test) as `load_folder` would list them; None for a folder that cannot be listed."""
    scan, found = FolderScan(folder, IMAGE_SUFFIXES), dict.fromkeys(SPLITS, 0)
    classes: set[str] = set()
    try:
        for split in SPLITS:
            for path in scan.class_folders(folder / split) if (folder / split).is_dir() else []:
                classes.add(path.name)
                found[split] += len(scan.images(path))
    except (OSError, DatasetError):
        return None
    return len(classes), found["train"], found["test"]
