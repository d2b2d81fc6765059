"""How an image file becomes an RGB picture, apart from the file itself: orientation, transparency, bit depth, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from PIL import Image, ImageColor, features

from tosca_cache.errors import UsageError

# torchvision.datasets.folder.IMG_EXTENSIONS: what the reference's ImageFolder sees.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
# What else is read where Pillow can; the feature of Pillow that it takes, if it can be built without.
_MORE_SUFFIXES: Mapping[str, str | None] = {
    **dict.fromkeys((".jfif", ".jpe", ".mpo", ".gif", ".apng", ".dib", ".tga", ".pbm", ".pnm", ".heic", ".heif")),
    **dict.fromkeys((".avif", ".avifs"), "avif"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf", ".jpc", ".j2c"), "jpg_2000"),
}
UPRIGHT, STORED = "upright", "stored"
SCALED, CLIPPED = "scaled", "clipped"
NO_BACKGROUND = "none"
# Pillow refuses pictures above this many pixels by default: twice 1 GiB / 12 bytes.
MAX_PIXELS = 178_956_970
ORIENTATIONS, DEPTHS = (UPRIGHT, STORED), (SCALED, CLIPPED)


@dataclass(frozen=True)
class Decoding:
    """How image files are decoded; see docs/images.md for every mode of Pillow's.

    orientation: `upright` turns a picture by the orientation in its EXIF data, `stored` leaves it as it is stored.
    background: colour `#rrggbb` on which transparent pixels are laid; `none` shows the colour that is stored under them.
    depth: `scaled` brings pixels of more than 8 bits to 8; `clipped` takes everything above 255 for white, and reads files
        with the suffixes of torchvision's ImageFolder only, as the published numbers were made.
    max_pixels: most pixels of a picture.
    """

    orientation: str = UPRIGHT
    background: str = "#ffffff"
    depth: str = SCALED
    max_pixels: int = MAX_PIXELS

    @property
    def suffixes(self) -> frozenset[str]:
        """Suffixes of the files that are read, in lower case."""
        return IMAGE_SUFFIXES if self.depth == CLIPPED else IMAGE_SUFFIXES | more_suffixes()

    @classmethod
    def recorded_in(cls, transform: Mapping[str, Any]) -> Self:
        """That of a store, by the transform in its fingerprint; one that does not say was made as published."""
        found = {key: str(transform.get(key, value)) for key, value in as_published().items()}
        return cls(found["orientation"], found["background"], found["depth"])

    def to_record(self) -> dict[str, str]:
        """What the transform in a fingerprint says of it: nothing of one that is as published."""
        return {} if self.to_dict() == as_published() else self.to_dict()

    def to_dict(self) -> dict[str, str]:
        """The fields that pixels depend on."""
        return {"orientation": self.orientation, "background": self.background, "depth": self.depth}


# `Image.convert("RGB")`: how the published numbers, and all stores before there was a choice, were made.
PUBLISHED = Decoding(STORED, NO_BACKGROUND, CLIPPED)


def as_published() -> dict[str, str]:
    """The fields that a fingerprint may say, and what one that lacks them means."""
    return PUBLISHED.to_dict()


@cache
def more_suffixes() -> frozenset[str]:
    """Suffixes beyond those of ImageFolder that this Pillow can read."""
    Image.init()
    known = Image.registered_extensions()
    readable = (
        suffix
        for suffix, feature in _MORE_SUFFIXES.items()
        if known.get(suffix) in Image.OPEN and (feature is None or features.check(feature))
    )
    return frozenset(readable)


def parse_background(text: str) -> str:
    """`none`, or a colour by name or number as `#rrggbb`; raises `UsageError` for anything else."""
    if text == NO_BACKGROUND:
        return text
    try:
        colour: tuple[int, ...] = ImageColor.getrgb(text)
    except ValueError:
        colour = ()
    if len(colour) != 3:
        raise UsageError(
            f"there is no background colour {text!r}",
            where="--background",
            remedy="give a name or a number such as white or #808080, or none for the colours under transparent pixels",
        )
    return "#{:02x}{:02x}{:02x}".format(*colour)
