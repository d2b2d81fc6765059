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
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NoReturn

from tosca_cache.datasets.rows import SPLITS, Row, check_unicode, instead, is_visible, listed
from tosca_cache.errors import DatasetError
from tosca_cache.files import file_errors
from tosca_cache.text import one_line

LAYOUTS = "train/CLASS/ and test/CLASS/, or CLASS/ with --test-fraction, or DOMAIN/train/CLASS/ and DOMAIN/test/CLASS/"


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

    def is_image(self, name: str) -> bool:
        """Whether a file of that name is taken for an image."""
        return is_visible(name) and os.path.splitext(name)[1].lower() in self.suffixes  # noqa: PTH122 called for all

    def leave_out(self, why: str, path: Path) -> None:
        """Notes what is no row."""
        self.left_out[why].append(one_line(path.relative_to(self.root).as_posix()))

    def walk(self, folder: Path) -> tuple[list[str], list[str]]:
        """(real folders directly in a folder, images at any depth below it, relative to it), in order of their names.

        Raises `DatasetError` for a folder that has been listed already: a split that leads to another one, or a mount.
        """
        direct, images = list[str](), list[str]()
        for place, folders, files in os.walk(folder, onerror=_give_up):
            here = Path(place)
            found = here.stat()
            if (found.st_dev, found.st_ino) in self._visited:
                raise DatasetError(
                    f"{one_line(here.name)} is the same folder as another part of the dataset",
                    where=place,
                    remedy="give every split and every class a folder of its own",
                )
            self._visited.add((found.st_dev, found.st_ino))
            names = sorted(filter(is_visible, folders))
            links = [name for name in names if (here / name).is_symlink()]
            for name in links:
                self.leave_out("links to folders", here / name)
            folders[:] = [name for name in names if name not in links]
            direct, below = (direct, f"{here.relative_to(folder).as_posix()}/") if here != folder else (folders[:], "")
            for name in sorted(filter(is_visible, files)):
                if self.is_image(name):
                    images.append(f"{below}{name}")  # also a link to nowhere, or a pipe: named when it is opened
                else:
                    suffix = Path(name).suffix.lower()
                    self.leave_out(f"{suffix} files" if suffix else "files without a suffix", here / name)
        return direct, images


def _give_up(error: OSError) -> NoReturn:
    raise error


def list_folder(scan: FolderScan, name: str, splits: Sequence[str] = SPLITS) -> list[Row]:
    """The rows of a folder in one of the three layouts, of these splits if it has any; without domains that is `name`.

    Raises `DatasetError`: it has none of the layouts; a split is missing or has no classes; a class has no
    images; a name is no UTF-8; or the folder cannot be read.
    """
    root = scan.root
    with file_errors(root, DatasetError, option="--dataset"):
        layout, folders = _layout(scan)
        if layout == "classes":
            return _rows(scan, root, name, None)
        domains = {name: root} if layout == "splits" else {folder.name: folder for folder in folders}
        return [
            row for domain, folder in domains.items() for split in splits for row in _rows(scan, folder, domain, split)
        ]


def _layout(scan: FolderScan) -> tuple[str, list[Path]]:
    """Which of the three layouts a folder has, and the folders that say so; others are noted as left out."""
    root = scan.root
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DatasetError(f"the dataset's folder {what}", where=root, remedy=f"give a folder with {LAYOUTS}")
    folders = sorted(path for path in root.iterdir() if is_visible(path.name) and path.is_dir())
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        if folder.name in SPLITS:
            found["splits"].append(folder)
        elif any((folder / split).is_dir() for split in SPLITS):
            found["domains"].append(folder)
        elif any(scan.is_image(path.name) for path in folder.iterdir()):
            found["classes"].append(folder)
    if not found:
        scan.walk(root)  # to say what there is instead
        raise _no_images(root, scan)
    layout = next(name for name in ("splits", "domains", "classes") if name in found)
    for folder in folders if layout != "classes" else ():
        if folder not in found[layout]:
            scan.leave_out("folders beside train and test", folder)
    return layout, found[layout]


def _rows(scan: FolderScan, folder: Path, domain: str, split: str | None) -> list[Row]:
    """The images of each class folder of a split, or of a folder without splits."""
    folder = folder if split is None else folder / split
    if not folder.is_dir():
        raise DatasetError("a folder of classes is missing", where=folder, remedy=f"give a folder with {LAYOUTS}")
    classes, images = scan.walk(folder)
    of_class: dict[str, list[str]] = {name: [] for name in classes}
    place = "" if folder == scan.root else f"{folder.relative_to(scan.root).as_posix()}/"
    for path in images:
        name, inside, _ = path.partition("/")
        if inside:
            of_class[name].append(place + path)
        else:
            scan.leave_out("images beside the class folders", folder / path)
    for name in of_class:
        check_unicode(name, folder / name)
    for file in chain.from_iterable(of_class.values()):
        check_unicode(file, file)
    if not any(of_class.values()):
        raise _no_images(folder, scan)
    empty = [name for name, files in of_class.items() if not files]
    if empty:
        raise DatasetError(
            f"classes without images: {listed(empty)}{instead(scan.left_out)}",
            where=folder,
            remedy=f"add images ({', '.join(sorted(scan.suffixes))}) or remove the folder",
        )
    return [Row(name, file, domain, split, str(folder / name)) for name, files in of_class.items() for file in files]


def _no_images(folder: Path, scan: FolderScan) -> DatasetError:
    return DatasetError(
        f"no images found{instead(scan.left_out)}",
        where=folder,
        remedy=f"give a folder with {LAYOUTS}; links to folders are not followed, but a CSV file may list images "
        "behind them",
    )
