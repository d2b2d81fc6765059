"""Archives for tests: small datasets of images, and what nobody should unpack."""

import hashlib
import io
import tarfile
import zipfile

import numpy as np
from PIL import Image

from tosca_cache.datasets.registry import KnownDataset


def image(number, side=16):
    """The bytes of a PNG of noise, so that nothing compresses."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def tree(folder="birds", train=3, test=2, classes=("ant", "bee"), side=16):
    """Path -> bytes of a dataset in train/CLASS and test/CLASS."""
    counts = {"train": train, "test": test}
    paths = [f"{folder}/{s}/{c}/{n}.png" for s, count in counts.items() for c in classes for n in range(count)]
    return {path: image(number, side) for number, path in enumerate(paths)}


def zipped(files):
    """A zip of path -> bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def tarred(members, mode="w:gz", **options):
    """A tar of (name, bytes) or of ready `TarInfo`s with bytes or None."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as packed:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if data is not None:
                info.size = len(data)
            packed.addfile(info, None if data is None else io.BytesIO(data))
    return buffer.getvalue()


def source_for(archive, name="birds.zip", **changes):
    """The named dataset of an archive that holds `tree()`."""
    fields = {
        "name": "birds",
        "archive": name,
        "md5": hashlib.md5(archive).hexdigest(),
        "stated_by": "the test",
        **dict(zip(("classes", "train", "test"), (2, 6, 4), strict=True)),
        "place": "birds",
        "url": "http://127.0.0.1:9/birds.zip",
    }
    return KnownDataset(**fields | changes)
