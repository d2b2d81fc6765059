"""Names of files, classes and domains: which are not the user's, and which cannot be told apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

SHOWN = 5  # names in a message
# What archives, file managers and network disks leave behind; those that begin with a dot are hidden anyway.
LEFT_BEHIND = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "@recycle", "#snapshot"),
        *("lost+found", "$recycle.bin", "recycler", "system volume information", "__pycache__"),
    )
)


def is_visible(name: str) -> bool:
    """Whether a file or folder of that name is the user's: neither hidden nor left behind by a system or an archive."""
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def listed(names: Collection[str]) -> str:
    """The first five names in order, quoted, as text that is safe to print."""
    shown = ", ".join(f"'{one_line(name)}'" for name in sorted(names)[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")


def counted(names: Collection[str], one: str, many: str) -> str:
    """`1 class`, `2 classes`."""
    return f"{len(names)} {one if len(names) == 1 else many}"


def check_unicode(name: str, where: str | Path) -> None:
    """Raises `DatasetError` for a name with bytes that are no UTF-8, for which Python has surrogates."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise DatasetError("a file's name is not valid UTF-8", where=str(where), remedy="rename the file or folder")


def check_twins(what: str, names: Iterable[str], where: str | Path) -> None:
    """Raises `DatasetError` for two names that are one to the eye: composed and decomposed Unicode of the same text."""
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        if name.isascii():
            continue
        twin = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if twin != name:
            raise DatasetError(
                f"two {what} have the same name, once in composed and once in decomposed Unicode: "
                f"{twin!a} and {name!a}",
                where=str(where),
                remedy="rename one of them, or put their images together; some systems write é as one letter, others "
                "as e with an accent",
            )
