"""Folders of images: finding out which of three layouts a folder has, and listing its rows.

    ROOT/train/CLASS/*.jpg          ROOT/test/CLASS/*.jpg           splits
    ROOT/CLASS/*.jpg                                                classes, to be split by --test-fraction
    ROOT/DOMAIN/train/CLASS/*.jpg   ROOT/DOMAIN/test/CLASS/*.jpg    domains

A class is a folder; its label is the index of its name in lexicographic order, as torchvision's ImageFolder has it. Images
may lie at any depth within a class; hidden files and folders, and what systems leave behind, are ignored, suffixes are
compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal

from tosca_cache.datasets.names import check_unicode, counted, is_visible, listed
from tosca_cache.datasets.scan import LINKS, FolderScan
from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

SPLITS = ("train", "test")
LAYOUTS = "train/CLASS/ and test/CLASS/, or CLASS/ with --test-fraction, or DOMAIN/train/CLASS/ and DOMAIN/test/CLASS/"

FolderLayout = Literal["splits", "classes", "domains"]
ClassFiles = dict[str, list[str]]
"""Class name -> paths of its images relative to the dataset's folder, with forward slashes, sorted."""


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
