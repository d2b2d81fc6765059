"""Finding datasets: by name below the data root, or as a folder; and what is there of the named ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.cifar import FOLDER, load_cifar100
from tosca_cache.datasets.decoding import IMAGE_SUFFIXES, PUBLISHED, Decoding, as_published
from tosca_cache.datasets.folders import LAYOUTS, FolderScan, list_folder
from tosca_cache.datasets.lists import is_list, read_list
from tosca_cache.datasets.packed import load_packed, packed_suffix
from tosca_cache.datasets.registry import REGISTRY, KnownDataset, known, unknown_dataset
from tosca_cache.datasets.rows import SPLITS, FileOpener, build_dataset
from tosca_cache.errors import DatasetError, UsageError

DEFAULT_DATA_ROOT = Path("data")
DATA_ROOT_VARIABLE = "TOSCA_DATA"

State = Literal["here", "embedded", "missing"]


@dataclass(frozen=True)
class DatasetStatus:
    """What is there of a named dataset.

    known: what it should be; that it is, is checked when it is loaded.
    state: `here`, `embedded` (made by this package) or `missing`.
    folder: where it was found; for a missing one, the first place looked in; None for embedded ones.
    """

    known: KnownDataset
    state: State
    folder: Path | None


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
        test_fraction, seed: for images without a test split; see `build_dataset`.
        name: what to call a folder or a list; by default as the folder or file is called.
        decoding: fields of `Decoding` that are to be otherwise than by default, which is `Decoding()` for folders and lists
            and `PUBLISHED` for named datasets.
        label: the column or key of the labels, of tables and shards.

    Raises:
        UsageError: there is no such name or folder; the test fraction does not fit, or there are no files to decode.
        DatasetError: files are missing, or their layout, classes or counts are not as they must be.
    """
    data_root = resolve_data_root(data_root)
    dataset = known(name_or_path)
    path = Path() if dataset else _path(name_or_path, data_root)
    suffix = None if dataset else packed_suffix(path)
    if label is not None and suffix is None:
        raise UsageError(
            f"the labels of {name_or_path} are the names of folders or stand in its list",
            where="--label",
            remedy="leave it out; it is for tables and shards",
        )
    if dataset is not None:
        if test_fraction is not None:
            raise UsageError(
                f"{dataset.name} has a test split of its own", where="--test-fraction", remedy="leave the option out"
            )
        return load_known(dataset, data_root, decoding)
    how: dict[str, Any] = {"test_fraction": test_fraction, "seed": seed}
    decoded = replace(Decoding(), **(decoding or {}))
    if suffix is not None:
        return load_packed(path, suffix, name=name or path.resolve().name, decoding=decoded, label=label, **how)
    return load_files(path, name=name, decoding=decoded, **how)


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
    left_out: Mapping[str, list[str]]
    if is_list(path):
        root, name = path.parent, name or path.name
        rows, columns = read_list(path, name, suffixes)
        rows = [row for row in rows if only is None or row.split in (None, only)]
        left_out = {"columns of the list": columns} if columns else {}
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
        return load_files(folder, name=dataset.name, decoding=decoding, published=True)
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
    """The status of every named dataset; nothing is opened."""
    root = resolve_data_root(data_root)
    return [_status(dataset, root) for dataset in REGISTRY.values()]


def _status(dataset: KnownDataset, data_root: Path) -> DatasetStatus:
    if dataset.layout == "embedded":
        return DatasetStatus(dataset, "embedded", None)
    folder = _find(dataset, data_root)
    return DatasetStatus(dataset, "here" if folder else "missing", folder or dataset.candidates(data_root)[0])
