"""A small dataset of images in train/CLASS and test/CLASS, and archives of it."""

import io
import tarfile
import zipfile

from photos import photo


def tree(folder="birds", train=3, test=2, classes=("ant", "bee"), side=16):
    """Path -> bytes of a PNG of noise, so that nothing compresses."""
    counts = {"train": train, "test": test}
    paths = [f"{folder}/{s}/{c}/{n}.png" for s, count in counts.items() for c in classes for n in range(count)]
    return {path: photo("grey", number, size=side, noise=60) for number, path in enumerate(paths)}


def zipped(files, kind=zipfile.ZIP_STORED):
    """A zip of path or `ZipInfo` -> bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def member(name, kind=tarfile.REGTYPE, link=""):
    """The header of a file, or of something else, in a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def tarred(members, mode="w:gz", **options):
    """A tar of (name, bytes) or of (`member`, bytes or None)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as packed:
        for name, data in members:
            info = member(name) if isinstance(name, str) else name
            if data is not None:
                info.size = len(data)
            packed.addfile(info, None if data is None else io.BytesIO(data))
    return buffer.getvalue()
