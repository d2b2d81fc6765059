"""From an image file in any of Pillow's modes to RGB: orientation, transparency, bit depth, limits (docs/images.md)."""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, PngImagePlugin, UnidentifiedImageError, features

from tosca_cache.errors import DatasetError, ImageError, UsageError

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
# What Pillow's decoders raise for damaged files: most say OSError, some let the error of a parser or a codec through.
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, ArithmeticError, TypeError, RuntimeError),
    Image.DecompressionBombError,
)
MAX_SIDE = 1 << 20  # pixels; Pillow keeps a pointer for every row, so that the number of pixels alone bounds no memory
_PROGRAMS = ("EPS", "WMF")  # formats that Pillow has another program draw
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        found: dict[str, Any] = {key: str(transform.get(key, value)) for key, value in PUBLISHED.to_dict().items()}
        return cls(**found)

    def to_record(self) -> dict[str, str]:
        """What the transform in a fingerprint says of it: nothing of one that is as published."""
        return {} if self.to_dict() == PUBLISHED.to_dict() else self.to_dict()

    def to_dict(self) -> dict[str, str]:
        """The fields that pixels depend on."""
        return {"orientation": self.orientation, "background": self.background, "depth": self.depth}


# `Image.convert("RGB")`: how the published numbers, and all stores before there was a choice, were made; what a
# fingerprint means that says nothing of decoding.
PUBLISHED = Decoding(STORED, NO_BACKGROUND, CLIPPED)


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


def open_rgb(path: Path | bytes, decoding: Decoding = PUBLISHED) -> Image.Image:
    """Decode a file, or the bytes of one, with Pillow to RGB; as the reference does unless told otherwise.

    Returns:
        The image, fully decoded; the file is closed again.

    Raises:
        ImageError: the file is absent, empty, truncated, not an image, or has more pixels than `decoding` allows.
        DatasetError: memory is not enough for an image that is allowed.
    """
    _allow(decoding.max_pixels)
    where = path if isinstance(path, Path) else None
    try:
        if where is not None and not stat.S_ISREG(where.stat().st_mode):
            raise ValueError("it is no regular file")
        with Image.open(BytesIO(path) if isinstance(path, bytes) else path) as image:
            _check(image, decoding.max_pixels)
            return to_rgb(image, decoding)
    except _DECODING_ERRORS as error:
        raise ImageError(
            f"an image cannot be decoded: {_reason(path, error, decoding)}",
            where=where,
            remedy="replace or remove the file, or leave such files out with --on-error skip",
        ) from error
    except MemoryError as error:
        raise DatasetError(
            "memory is not enough to decode an image",
            where=where,
            remedy="use fewer --workers, or refuse such images with a lower --max-pixels and --on-error skip",
        ) from error


def _allow(pixels: int) -> None:
    """Keeps Pillow, whose limits are one for the process, from refusing or warning of what is allowed here."""
    # Notes in a picture (of the program that drew it, say) may be as long as Pillow lets all of them be together.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def _check(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"it has {width:,} x {height:,} pixels, more than {max_pixels:,}; --max-pixels allows more")
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"it has {width:,} x {height:,} pixels, more than {MAX_SIDE:,} on a side")
    if image.format in _PROGRAMS:
        raise ValueError(f"it is a program that draws ({image.format}), not an image")


def _reason(path: Path | bytes, error: BaseException, decoding: Decoding) -> str:
    if isinstance(path, Path) and not path.exists():
        return "there is no such file"
    if path == b"" or (isinstance(path, Path) and path.is_file() and path.stat().st_size == 0):
        return "the file is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image that Pillow knows"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {decoding.max_pixels:,} pixels; --max-pixels allows more"
    return str(error) or type(error).__name__


def to_rgb(image: Image.Image, decoding: Decoding) -> Image.Image:
    """An opened image, in any mode, as RGB.

    Raises `ValueError` for pixels whose black and white are not known, and what Pillow's decoders raise.
    """
    _halve_transparency(image)
    image.load()
    shown = image if decoding.depth == CLIPPED else _eight_bits(image)
    rgb = _flattened(shown, decoding.background)
    return _turned(rgb, image) if decoding.orientation == UPRIGHT else rgb


def _halve_transparency(image: Image.Image) -> None:
    """Pillow keeps the high byte of a PNG's 16-bit RGB, but both bytes of the colour that stands for transparent."""
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and any("16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey pixels of more than 8 bits as 8 bits, by their bit depth; other modes as they are."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode not in _DEEP:
        if tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED:
            raise ValueError("its pixels have signed bytes, and nothing says which of them are black and white")
        return image
    values = np.asarray(image)
    grey = _from_floats(values) if image.mode == "F" else (values >> (_depth(image, values) - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    shown = Image.fromarray(grey)
    transparent = image.info.get("transparency")
    if transparent is not None:
        shown.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return shown


def _depth(image: Image.Image, values: NDArray[Any]) -> int:
    """Bits of a pixel. Pillow opens PNG of 16 bits (older versions), and PGM of more than 8, scaled to 16, in mode I."""
    if image.mode != "I":
        return int(getattr(image, "tag_v2", {}).get(_BITS, (16,))[0])
    if image.format in ("PNG", "PPM"):
        return 16
    raise ValueError(
        f"its pixels are integers from {values.min():,} to {values.max():,}, and nothing says which of them is white; "
        "save it with 8 or 16 bits a pixel, from 0 to 255 or to 65,535"
    )


def _from_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise ValueError(
            "its pixels are floats, some of which are infinite or no numbers; wanted are floats from 0 to 1"
        )
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"its pixels are floats from {values.min():g} to {values.max():g}, and nothing says which of them is white; "
            "save it with floats from 0 to 1, or with 8 or 16 bits a pixel"
        )
    grey: NDArray[np.uint8] = np.rint(values * np.float32(255)).astype(np.uint8)
    return grey


def _flattened(image: Image.Image, background: str) -> Image.Image:
    """RGB, with transparent pixels laid on a colour, or with the colours that are stored under them."""
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if background == NO_BACKGROUND or not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB")


def _turned(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """As the picture was taken; Pillow has turned TIFF files when it loaded them, and taken the orientation away."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data, for which parsers raise anything: there is no orientation to be had
        return rgb
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return rgb if turn is None else rgb.transpose(turn)
