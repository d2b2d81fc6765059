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
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from tosca_cache.datasets.names import check_unicode, counted, is_visible, listed
from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

SPLITS = ("train", "test")
LAYOUTS = "train/CLASS/ and test/CLASS/, or CLASS/ with --test-fraction, or DOMAIN/train/CLASS/ and DOMAIN/test/CLASS/"

FolderLayout = Literal["splits", "classes", "domains"]
ClassFiles = dict[str, list[str]]
"""Class name -> paths of its images relative to the dataset's folder, with forward slashes, sorted."""
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
        found = []
        for entry in _entries(folder):
            path = folder / entry.name
            if self._is_folder(entry):
                found.append(path)
            elif self.is_image(entry.name) and path.is_file():
                self._leave_out(BESIDE, path)
        return sorted(found, key=lambda path: path.name)

    def images(self, folder: Path) -> list[str]:
        """Images at any depth below a folder, sorted by folder and name, as paths relative to the root."""
        files, waiting = [], [folder]
        while waiting:
            directory = waiting.pop()
            if not self._enter(directory):
                self._leave_out(TWICE, directory)
                continue
            for entry in _entries(directory):
                path = directory / entry.name
                if self._is_folder(entry):
                    waiting.append(path)
                elif self._is_image_file(entry):
                    files.append(path)
        return [self.relative(path) for path in sorted(files, key=lambda path: path.parts)]

    def is_image(self, name: str) -> bool:
        """Whether a file of that name is taken for an image."""
        return is_visible(name) and Path(name).suffix.lower() in self.suffixes

    def leave_out_folders(self, folders: list[Path]) -> None:
        """Notes folders of the root that belong to no split."""
        for folder in folders:
            self._leave_out(OTHERS, folder)

    def relative(self, path: Path) -> str:
        """A path relative to the root, with forward slashes; raises `DatasetError` if it is no UTF-8."""
        text = path.relative_to(self.root).as_posix()
        check_unicode(text, text)
        return text

    def _enter(self, folder: Path) -> bool:
        """Whether a real folder is listed for the first time."""
        found = folder.stat()
        new = (found.st_dev, found.st_ino) not in self._visited
        self._visited.add((found.st_dev, found.st_ino))
        return new

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a real folder; a link to one is left out."""
        if not entry.is_symlink():
            return entry.is_dir()
        if Path(entry.path).is_dir():
            self._leave_out(LINKS, Path(entry.path))
        return False

    def _is_image_file(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry that is no real folder is listed as an image; other files are left out."""
        path = Path(entry.path)
        if path.is_dir():
            return False  # a link, which has been left out
        if path.exists() and not path.is_file():
            self._leave_out(ODD, path)
        elif not self.is_image(entry.name):
            suffix = path.suffix.lower()
            self._leave_out(f"{suffix} files" if suffix else "files without a suffix", path)
        else:
            return True  # also a link that leads nowhere, so that the image that is missing is named when it is opened
        return False

    def _leave_out(self, why: str, path: Path) -> None:
        self.left_out[why].append(one_line(path.relative_to(self.root).as_posix()))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The visible entries of a folder, in order of their names."""
    with os.scandir(folder) as entries:
        yield from sorted((entry for entry in entries if is_visible(entry.name)), key=lambda entry: entry.name)


def detect_layout(scan: FolderScan) -> FolderLayout:
    """Which of the three layouts the folder of a scan has; folders that belong to no split are noted as left out.

    Raises:
        DatasetError: there is no such folder, it has none of the layouts, or it mixes two of them.
    """
    root = scan.root
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DatasetError(f"the dataset's folder {what}", where=root, remedy=f"give a folder with {LAYOUTS}")
    folders = subfolders(root)
    splits = [folder for folder in folders if folder.name in SPLITS]
    others = [folder for folder in folders if folder.name not in SPLITS]
    domains = [folder for folder in others if any((folder / split).is_dir() for split in SPLITS)]
    classes = [folder for folder in others if folder not in domains and _holds_images(folder, scan)]
    found: dict[FolderLayout, list[Path]] = {"splits": splits, "domains": domains, "classes": classes}
    present = [layout for layout, members in found.items() if members]
    if len(present) > 1:
        examples = " and ".join(f"{found[layout][0].name}/" for layout in present)
        raise DatasetError(
            f"the folder mixes layouts: {examples} do not belong together", where=root, remedy=f"have either {LAYOUTS}"
        )
    if not present:
        for folder in folders:
            scan.images(folder)  # to say what there is instead
        raise _no_images(root, scan, [], f"give a folder with {LAYOUTS}")
    if present[0] != "classes":
        scan.leave_out_folders([folder for folder in folders if folder not in found[present[0]]])
    return present[0]


def subfolders(folder: Path) -> list[Path]:
    """The visible folders directly in a folder, sorted by name."""
    return sorted((path for path in folder.iterdir() if is_visible(path.name) and path.is_dir()), key=lambda p: p.name)


def list_classes(folder: Path, scan: FolderScan) -> ClassFiles:
    """The images of each class folder in `folder`.

    Raises:
        DatasetError: there is no such folder, it has no classes, or a class is empty or has an unreadable name.
    """
    if not folder.is_dir():
        raise DatasetError("a folder of classes is missing", where=folder, remedy=f"give a folder with {LAYOUTS}")
    classes = {path.name: scan.images(path) for path in scan.class_folders(folder)}
    for name in classes:
        check_unicode(name, folder / name)
    if not any(classes.values()):
        raise _no_images(folder, scan, classes, "put the images into one folder a class")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise DatasetError(
            f"{counted(empty, 'class', 'classes')} without images: {listed(empty)}{_instead(folder, scan, empty)}",
            where=folder,
            remedy=f"add images ({', '.join(sorted(scan.suffixes))}) or remove the folder",
        )
    return classes


def check_same_classes(splits: Mapping[str, Iterable[str]], where: Path, scan: FolderScan) -> None:
    """Raises `DatasetError` naming the classes that only `train` or only `test` has."""
    train, test = set(splits["train"]), set(splits["test"])
    for only, other, names in (("test", "train", test - train), ("train", "test", train - test)):
        if names:
            raise DatasetError(
                f"{counted(names, 'class', 'classes')} only in {only}: {listed(names)}{_instead(where / other, scan, [])}",
                where=where / only,
                remedy=_remedy(scan) or f"add images of them to {where / other}, or remove them from {where / only}",
            )


def _no_images(folder: Path, scan: FolderScan, classes: Collection[str], remedy: str) -> DatasetError:
    inside = f" in {counted(classes, 'class', 'classes')}: {listed(classes)}" if classes else ""
    problem = f"no images found{inside}{_instead(folder, scan, classes)}"
    return DatasetError(problem, where=folder, remedy=_remedy(scan) or remedy)


def _remedy(scan: FolderScan) -> str | None:
    """What to do about links to folders, if there are any."""
    links = scan.left_out.get(LINKS, [])
    said = "put real folders there, or list the images in a CSV file"
    return f"links to folders are not followed ({links[0]}): {said}" if links else None


def _instead(folder: Path, scan: FolderScan, classes: Collection[str]) -> str:
    """What was left out in some classes of a folder, or in all of it."""
    inside = [folder / name for name in classes] or [folder]
    prefixes = tuple("" if path == scan.root else one_line(f"{scan.relative(path)}/") for path in inside)
    found = {why: sum(path.startswith(prefixes) for path in paths) for why, paths in scan.left_out.items()}
    parts = ", ".join(f"{why}: {count}" for why, count in found.items() if count)
    return f" (left out there: {parts})" if parts else ""


def _holds_images(folder: Path, scan: FolderScan) -> bool:
    return any(scan.is_image(path.name) for path in folder.iterdir())
