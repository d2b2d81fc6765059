"""From any of Pillow's modes to RGB; docs/images.md has the table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tosca_cache.datasets.decoding import CLIPPED, NO_BACKGROUND, UPRIGHT, Decoding

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
    grey = _from_floats(values) if image.mode == "F" else _from_integers(values, _depth(image, values))
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


def _from_integers(values: NDArray[Any], depth: int) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = (values >> (depth - 8)).astype(np.uint8)
    return grey


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
