"""Folders of images: finding out which of three layouts a folder has, and listing its rows.

    ROOT/train/CLASS/*.jpg          ROOT/test/CLASS/*.jpg           splits
    ROOT/CLASS/*.jpg                                                classes, to be split by --test-fraction
    ROOT/DOMAIN/train/CLASS/*.jpg   ROOT/DOMAIN/test/CLASS/*.jpg    domains

A class is a folder; its label is the index of its name in lexicographic order, as torchvision's ImageFolder has it. Images
may lie at any depth within a class; hidden files and folders, and what systems leave behind, are ignored, suffixes are
compared without regard to case.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tosca_cache.datasets.decoding import IMAGE_SUFFIXES
from tosca_cache.datasets.names import check_unicode, counted, is_visible, listed
from tosca_cache.datasets.rows import SPLITS, Row, instead
from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

LAYOUTS = "train/CLASS/ and test/CLASS/, or CLASS/ with --test-fraction, or DOMAIN/train/CLASS/ and DOMAIN/test/CLASS/"

FolderLayout = Literal["splits", "classes", "domains"]
LINKS = "links to folders"
BESIDE = "images beside the class folders"
OTHERS = "folders beside train and test"
ODD = "pipes, sockets and devices"
TWICE = "folders that were listed already"


class FolderScan:
    """Lists images below folders of one dataset.

    Links to folders are not followed below a split: a folder that they lead to is listed where it really is, or is no part
    of the dataset. Links to files are read like files.

    left_out: why -> paths relative to `root` of what is no row of the dataset.
    """

    def __init__(self, root: Path, suffixes: frozenset[str]) -> None:
        self.root = root
        self.suffixes = suffixes
        self.left_out: dict[str, list[str]] = defaultdict(list)
        self._visited: set[tuple[int, int]] = set()

    def class_folders(self, folder: Path) -> list[Path]:
        """The folders directly in a split, sorted by name.

        Raises `DatasetError` if the split is a folder that has been listed already, under another name.
        """
        if not self._enter(folder):
            raise DatasetError(
                f"{folder.name} is the same folder as another part of the dataset",
                where=folder,
                remedy="give every split a folder of its own",
            )
        folders, images = self._look(folder)
        for path in images:
            self.leave_out(BESIDE, path)
        return folders

    def images(self, folder: Path) -> list[str]:
        """Images at any depth below a folder, as paths relative to the root with forward slashes.

        Raises `DatasetError` for a path that is no UTF-8.
        """
        files, waiting = [], [folder]
        while waiting:
            directory = waiting.pop()
            if not self._enter(directory):
                self.leave_out(TWICE, directory)
                continue
            folders, images = self._look(directory)
            waiting += folders
            files += [path.relative_to(self.root).as_posix() for path in images]
        for file in files:
            check_unicode(file, file)
        return files

    def is_image(self, name: str) -> bool:
        """Whether a file of that name is taken for an image."""
        return is_visible(name) and Path(name).suffix.lower() in self.suffixes

    def leave_out(self, why: str, path: Path) -> None:
        """Notes what is no row."""
        self.left_out[why].append(one_line(path.relative_to(self.root).as_posix()))

    def _enter(self, folder: Path) -> bool:
        """Whether a real folder is listed for the first time."""
        found = folder.stat()
        new = (found.st_dev, found.st_ino) not in self._visited
        self._visited.add((found.st_dev, found.st_ino))
        return new

    def _look(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """(real folders, images) directly in a folder, in order of their names; what is neither is left out."""
        folders, images = [], []
        for entry in _entries(folder):
            path = folder / entry.name
            if entry.is_symlink() and path.is_dir():
                self.leave_out(LINKS, path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif not entry.is_file(follow_symlinks=False) and path.exists() and not path.is_file():
                self.leave_out(ODD, path)
            elif not self.is_image(entry.name):
                suffix = path.suffix.lower()
                self.leave_out(f"{suffix} files" if suffix else "files without a suffix", path)
            else:
                images.append(path)  # also a link that leads nowhere, which is named when it is opened
        return folders, images


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The visible entries of a folder, in order of their names."""
    with os.scandir(folder) as entries:
        yield from sorted((entry for entry in entries if is_visible(entry.name)), key=lambda entry: entry.name)


def count_images(folder: Path, parts: Sequence[str] = SPLITS) -> tuple[int, ...] | None:
    """(classes, images of each part) of a folder, as they would be listed; None if it cannot be."""
    scan, classes, counts = FolderScan(folder, IMAGE_SUFFIXES), set(), []
    try:
        for part in parts:
            found = scan.class_folders(folder / part)
            classes |= {path.name for path in found}
            counts.append(sum(len(scan.images(path)) for path in found))
    except (OSError, DatasetError):
        return None
    return len(classes), *counts


def list_folder(scan: FolderScan, name: str, splits: Sequence[str] = SPLITS) -> list[Row]:
    """The rows of a folder in one of the three layouts, of these splits if it has any; without domains that is `name`.

    Raises `DatasetError`: it has none of the layouts, or mixes two; a split is missing or has no classes; a class has no
    images; a name is no UTF-8; or the folder cannot be read.
    """
    try:
        layout, root = _layout(scan), scan.root
        if layout == "classes":
            return _rows(scan, root, name, None)
        domains = {name: root} if layout == "splits" else {f.name: f for f in _subfolders(root) if _has_split(f)}
        return [
            row for domain, folder in domains.items() for split in splits for row in _rows(scan, folder, domain, split)
        ]
    except OSError as error:
        raise DatasetError(
            f"the dataset's folder cannot be read: {error.strerror or error}",
            where=error.filename or scan.root,
            remedy="check the permissions",
        ) from error


def _layout(scan: FolderScan) -> FolderLayout:
    """Which of the three layouts a folder has; folders that belong to no split are noted as left out."""
    root = scan.root
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DatasetError(f"the dataset's folder {what}", where=root, remedy=f"give a folder with {LAYOUTS}")
    folders = _subfolders(root)
    found: dict[FolderLayout, list[Path]] = {"splits": [f for f in folders if f.name in SPLITS]}
    others = [folder for folder in folders if folder.name not in SPLITS]
    found["domains"] = [folder for folder in others if _has_split(folder)]
    classes = [folder for folder in others if folder not in found["domains"]]
    found["classes"] = [f for f in classes if any(scan.is_image(path.name) for path in f.iterdir())]
    present = [layout for layout, members in found.items() if members]
    if len(present) > 1:
        examples = " and ".join(f"{found[layout][0].name}/" for layout in present)
        raise DatasetError(
            f"the folder mixes layouts: {examples} do not belong together", where=root, remedy=f"have either {LAYOUTS}"
        )
    if not present:
        for folder in folders:
            scan.images(folder)  # to say what there is instead
        raise _no_images(root, scan)
    if present[0] != "classes":
        for folder in folders:
            if folder not in found[present[0]]:
                scan.leave_out(OTHERS, folder)
    return present[0]


def _has_split(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in SPLITS)


def _subfolders(folder: Path) -> list[Path]:
    """The visible folders directly in a folder, sorted by name."""
    return sorted((path for path in folder.iterdir() if is_visible(path.name) and path.is_dir()), key=lambda p: p.name)


def _rows(scan: FolderScan, folder: Path, domain: str, split: str | None) -> list[Row]:
    """The images of each class folder of a split, or of a folder without splits."""
    folder = folder if split is None else folder / split
    if not folder.is_dir():
        raise DatasetError("a folder of classes is missing", where=folder, remedy=f"give a folder with {LAYOUTS}")
    classes = {path: scan.images(path) for path in scan.class_folders(folder)}
    for path in classes:
        check_unicode(path.name, path)
    if not any(classes.values()):
        raise _no_images(folder, scan)
    empty = [path.name for path, files in classes.items() if not files]
    if empty:
        raise DatasetError(
            f"{counted(empty, 'class', 'classes')} without images: {listed(empty)}{instead(scan.left_out)}",
            where=folder,
            remedy=f"add images ({', '.join(sorted(scan.suffixes))}) or remove the folder",
        )
    return [Row(path.name, file, domain, split, str(path)) for path, files in classes.items() for file in files]


def _no_images(folder: Path, scan: FolderScan) -> DatasetError:
    return DatasetError(
        f"no images found{instead(scan.left_out)}",
        where=folder,
        remedy=f"give a folder with {LAYOUTS}; links to folders are not followed, but a CSV file may list images "
        "behind them",
    )
