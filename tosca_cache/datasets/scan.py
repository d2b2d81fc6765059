"""Going through folders of images: every real folder once, and a word about everything that is left out."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tosca_cache.datasets.names import check_unicode, is_visible
from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

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
