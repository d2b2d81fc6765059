"""A folder of images as a dataset: its rows in order, and the split by `--test-fraction`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tosca_cache.datasets.base import ImageDataset, IntArray, Split
from tosca_cache.datasets.decoding import IMAGE_SUFFIXES, Decoding
from tosca_cache.datasets.folders import (
    SPLITS,
    ClassFiles,
    FolderScan,
    check_same_classes,
    detect_layout,
    list_classes,
    subfolders,
)
from tosca_cache.datasets.images import open_rgb
from tosca_cache.datasets.names import check_twins
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.seeds import numpy_generator


class Row(NamedTuple):
    """One image before classes and domains have numbers; sorts by class, then by path."""

    class_name: str
    path: tuple[str, ...]
    domain: str


@dataclass(frozen=True)
class FileOpener:
    """Opens the image of a row by its path; see `ImageDataset.opener`."""

    root: Path
    splits: Mapping[str, Split]
    decoding: Decoding

    def __call__(self, split: str, row: int) -> Image.Image:
        return open_rgb(self.root / self.splits[split].paths[row], self.decoding)


def load_folder(
    root: Path,
    *,
    name: str | None = None,
    test_fraction: float | None = None,
    seed: int = 1993,
    decoding: Decoding | None = None,
    published: bool = False,
) -> ImageDataset:
    """The dataset in a folder of one of the three layouts of `datasets.folders`; rows sorted by class, then by path.

    Arguments:
        name: what to call it; the folder's own name by default.
        test_fraction: share of each class that becomes its test split; for a folder of classes only.
        seed: which images those are.
        decoding: how its files are decoded; `Decoding()` by default.
        published: whether it is a named benchmark, which is taken as it was published: no other suffixes, no remarks.

    Raises:
        UsageError: `test_fraction` is out of (0, 1), missing where it is needed, or given where test folders exist.
        DatasetError: the layout is not one of the three, or classes do not match; see `datasets.folders`.
    """
    check_fraction(test_fraction)
    name = name or root.resolve().name or "root"
    decoding = decoding or Decoding()
    scan = FolderScan(root, IMAGE_SUFFIXES if published else decoding.suffixes)
    try:
        rows = _list_rows(scan, name, test_fraction, seed)
    except OSError as error:
        raise DatasetError(
            f"the dataset's folder cannot be read: {error.strerror or error}",
            where=error.filename or root,
            remedy="check the permissions",
        ) from error
    dataset = build_dataset(root, name, rows, decoding)
    return dataset if published else replace(dataset, left_out=dict(scan.left_out), unchecked=True)


def load_photos(path: Path, split: str, *, decoding: Decoding | None = None) -> ImageDataset:
    """All photos of a folder of classes or of a list, as train rows; there are no test rows.

    One with splits of its own gives only the photos of `split`. Raises `DatasetError` as `load_folder` and `load_list` do.
    """
    from tosca_cache.datasets.lists import is_list, load_list

    decoding = decoding or Decoding()
    if is_list(path):
        return load_list(path, decoding=decoding, only=split)
    scan, name = FolderScan(path, decoding.suffixes), path.resolve().name or "root"
    layout = detect_layout(scan)
    if layout == "classes":
        rows = _rows(list_classes(path, scan), name)
    elif layout == "splits":
        rows = _rows(list_classes(path / split, scan), name)
    else:
        folders = [folder for folder in subfolders(path) if (folder / split).is_dir()]
        rows = [row for folder in folders for row in _rows(list_classes(folder / split, scan), folder.name)]
    dataset = build_dataset(path, name, {"train": rows, "test": []}, decoding)
    return replace(dataset, left_out=dict(scan.left_out))


def build_dataset(root: Path, name: str, rows: Mapping[str, list[Row]], decoding: Decoding) -> ImageDataset:
    """Numbers classes and domains in the order of their names; raises `DatasetError` for names that are one to the eye."""
    class_names = tuple(sorted({row.class_name for split in rows.values() for row in split}))
    domain_names = tuple(sorted({row.domain for split in rows.values() for row in split}))
    check_twins("classes", class_names, root)
    check_twins("domains", domain_names, root)
    label_of = {class_name: index for index, class_name in enumerate(class_names)}
    domain_of = {domain: index for index, domain in enumerate(domain_names)}
    splits = {
        split: Split(
            paths=tuple("/".join(row.path) for row in ordered),
            labels=np.array([label_of[row.class_name] for row in ordered], dtype=np.int64),
            domains=np.array([domain_of[row.domain] for row in ordered], dtype=np.int64),
        )
        for split, ordered in ((split, sorted(members)) for split, members in rows.items())
    }
    for split in splits.values():
        check_twins("images", split.paths, root)
    opener = FileOpener(root, splits, decoding)
    return ImageDataset(name, class_names, domain_names, splits, opener, root=str(root), decoding=decoding)


def keep_rows(dataset: ImageDataset, rows: Mapping[str, IntArray]) -> ImageDataset:
    """A dataset of files with some of its rows, in their order; classes and domains stay as they are numbered."""
    splits = {
        name: Split(
            tuple(split.paths[row] for row in rows[name].tolist()), split.labels[rows[name]], split.domains[rows[name]]
        )
        for name, split in dataset.splits.items()
    }
    assert isinstance(dataset.opener, FileOpener)
    return replace(dataset, splits=splits, opener=replace(dataset.opener, splits=splits))


def check_fraction(test_fraction: float | None) -> None:
    """Raises `UsageError` unless the fraction is None or lies between 0 and 1."""
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise UsageError(
            f"the test fraction must lie between 0 and 1, not {test_fraction}",
            where="--test-fraction",
            remedy="give for example --test-fraction 0.2",
        )


def _list_rows(scan: FolderScan, name: str, test_fraction: float | None, seed: int) -> dict[str, list[Row]]:
    layout, root = detect_layout(scan), scan.root
    if layout == "classes":
        return _divided(scan, name, test_fraction, seed)
    if test_fraction is not None:
        trains_only = layout == "splits" and not (root / "test").is_dir()
        raise UsageError(
            "--test-fraction is for one folder of classes, and this one has train or test folders",
            where=root,
            remedy=f"give --dataset {root / 'train'}" if trains_only else "leave --test-fraction out",
        )
    if layout == "splits":
        return _split_rows(scan, root, name)
    domains = [_split_rows(scan, folder, folder.name) for folder in subfolders(root) if _has_split(folder)]
    return {split: [row for domain in domains for row in domain[split]] for split in SPLITS}


def _has_split(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in SPLITS)


def _split_rows(scan: FolderScan, folder: Path, domain: str) -> dict[str, list[Row]]:
    """Rows of FOLDER/train/CLASS and FOLDER/test/CLASS."""
    classes = {split: list_classes(folder / split, scan) for split in SPLITS}
    check_twins("classes", [name for files in classes.values() for name in files], folder)
    check_same_classes(classes, folder, scan)
    return {split: _rows(files, domain) for split, files in classes.items()}


def _divided(scan: FolderScan, name: str, test_fraction: float | None, seed: int) -> dict[str, list[Row]]:
    """Rows of ROOT/CLASS, of each class a share for the test split."""
    root = scan.root
    if test_fraction is None:
        raise UsageError(
            "this folder of classes has no test split of its own", where=root, remedy="add --test-fraction 0.2"
        )
    divided: dict[str, ClassFiles] = {split: {} for split in SPLITS}
    for class_name, files in list_classes(root, scan).items():
        if len(files) < 2:
            raise DatasetError(
                f"class {class_name!r} has one image, which cannot be in both train and test",
                where=root / class_name,
                remedy="add images to the class, or remove it",
            )
        in_test = choose_test(files, test_fraction, seed, class_name)
        divided["train"][class_name] = [file for file in files if file not in in_test]
        divided["test"][class_name] = [file for file in files if file in in_test]
    return {split: _rows(classes, name) for split, classes in divided.items()}


def choose_test(files: list[str], test_fraction: float, seed: int, *names: str) -> set[str]:
    """The nearest whole number to the share, at least one and not all; other classes play no part in which.

    names: of the class, and of the domain if there are several.
    """
    count = min(max(round(test_fraction * len(files)), 1), len(files) - 1)
    order = numpy_generator(seed, "test-fraction", *names).permutation(len(files))
    return {files[index] for index in order[:count]}


def _rows(classes: ClassFiles, domain: str) -> list[Row]:
    return [Row(name, tuple(file.split("/")), domain) for name, files in classes.items() for file in files]
