"""Folders of images: finding out which of three layouts a folder has, and listing its rows.

    ROOT/train/CLASS/*.jpg          ROOT/test/CLASS/*.jpg           splits
    ROOT/CLASS/*.jpg                                                classes, to be split by --test-fraction
    ROOT/DOMAIN/train/CLASS/*.jpg   ROOT/DOMAIN/test/CLASS/*.jpg    domains

A class is a folder; its label is the index of its name in lexicographic order, as torchvision's ImageFolder has it. Images
may lie at any depth within a class; hidden files and folders are ignored, suffixes are compared without regard to case.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal

from tosca_cache.datasets.images import IMAGE_SUFFIXES
from tosca_cache.errors import DatasetError

SPLITS = ("train", "test")
LAYOUTS = "train/CLASS/ and test/CLASS/, or CLASS/ with --test-fraction, or DOMAIN/train/CLASS/ and DOMAIN/test/CLASS/"

FolderLayout = Literal["splits", "classes", "domains"]
ClassFiles = dict[str, list[str]]
"""Class name -> paths of its images relative to the dataset's folder, with forward slashes, sorted."""


def detect_layout(root: Path) -> FolderLayout:
    """Which of the three layouts a folder has.

    Raises:
        DatasetError: there is no such folder, it has none of the layouts, or it mixes two of them.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DatasetError(f"the dataset's folder {what}", where=root, remedy=f"give a folder with {LAYOUTS}")
    folders = subfolders(root)
    splits = [folder for folder in folders if folder.name in SPLITS]
    others = [folder for folder in folders if folder.name not in SPLITS]
    domains = [folder for folder in others if any((folder / split).is_dir() for split in SPLITS)]
    classes = [folder for folder in others if folder not in domains and _holds_images(folder)]
    found: dict[FolderLayout, list[Path]] = {"splits": splits, "domains": domains, "classes": classes}
    present = [layout for layout, members in found.items() if members]
    if len(present) > 1:
        examples = " and ".join(f"{found[layout][0].name}/" for layout in present)
        raise DatasetError(
            f"the folder mixes layouts: {examples} do not belong together", where=root, remedy=f"have either {LAYOUTS}"
        )
    if not present:
        raise DatasetError("no images found", where=root, remedy=f"give a folder with {LAYOUTS}")
    return present[0]


def subfolders(folder: Path) -> list[Path]:
    """The visible folders directly in a folder, sorted by name."""
    return sorted((path for path in folder.iterdir() if _visible(path.name) and path.is_dir()), key=lambda p: p.name)


def list_classes(folder: Path, root: Path) -> ClassFiles:
    """The images of each class folder in `folder`.

    Raises:
        DatasetError: there is no such folder, it has no classes, or a class is empty or has an unreadable name.
    """
    if not folder.is_dir():
        raise DatasetError("a folder of classes is missing", where=folder, remedy=f"give a folder with {LAYOUTS}")
    classes = {path.name: _image_files(path, root) for path in subfolders(folder)}
    if not any(classes.values()):
        raise DatasetError("no images found", where=folder, remedy="put the images into one folder a class")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise DatasetError(
            f"{_count(empty)} without images: {_shown(empty)}",
            where=folder,
            remedy=f"add images ({', '.join(sorted(IMAGE_SUFFIXES))}) or remove the folder",
        )
    return classes


def check_same_classes(splits: Mapping[str, Iterable[str]], where: Path) -> None:
    """Raises `DatasetError` naming the classes that only `train` or only `test` has."""
    train, test = set(splits["train"]), set(splits["test"])
    for only, other, names in (("test", "train", test - train), ("train", "test", train - test)):
        if names:
            raise DatasetError(
                f"{_count(names)} only in {only}: {_shown(names)}",
                where=where / only,
                remedy=f"add images of them to {where / other}, or remove them from {where / only}",
            )


def _count(names: Collection[str]) -> str:
    return f"{len(names)} class" if len(names) == 1 else f"{len(names)} classes"


def _shown(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)[:5]) + (", ..." if len(names) > 5 else "")


def _image_files(folder: Path, root: Path) -> list[str]:
    """Images at any depth below a folder, sorted by folder and name, as paths relative to `root`."""
    files = []
    for directory, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if _visible(name)]
        files += [Path(directory, name) for name in names if is_image_name(name)]
    return [_relative(path, root) for path in sorted(files, key=lambda path: path.parts)]


def is_image_name(name: str) -> bool:
    """Whether a file of that name is taken for an image."""
    return _visible(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _holds_images(folder: Path) -> bool:
    return any(is_image_name(path.name) for path in folder.iterdir())


def _visible(name: str) -> bool:
    return not name.startswith(".")


def _relative(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    if any(
        "\udc80" <= character <= "\udcff" for character in relative
    ):  # how Python stands for a byte it cannot decode
        raise DatasetError(
            "a file's name is not valid UTF-8",
            where=relative.encode(errors="surrogateescape").decode(errors="replace"),
            remedy="rename the file",
        )
    return relative
