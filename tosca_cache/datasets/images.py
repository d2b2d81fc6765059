"""Opening one image file."""

from __future__ import annotations

import stat
import struct
from io import BytesIO
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from tosca_cache.datasets.decoding import PUBLISHED, Decoding
from tosca_cache.datasets.modes import to_rgb
from tosca_cache.errors import DatasetError, ImageError

# What Pillow's decoders raise for damaged files: most say OSError, some let the error of a parser or a codec through.
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, ArithmeticError, TypeError, RuntimeError),
    Image.DecompressionBombError,
)
MAX_SIDE = 1 << 20  # pixels; Pillow keeps a pointer for every row, so that the number of pixels alone bounds no memory
_PROGRAMS = ("EPS", "WMF")  # formats that Pillow has another program draw


def open_rgb(path: Path | bytes, decoding: Decoding = PUBLISHED) -> Image.Image:
    """Decode a file, or the bytes of one, with Pillow to RGB; as the reference does unless told otherwise.

    Returns:
        The image, fully decoded; the file is closed again.

    Raises:
        ImageError: the file is absent, empty, truncated, not an image, or has more pixels than `decoding` allows.
        DatasetError: memory is not enough for an image that is allowed.
    """
    _allow(decoding.max_pixels)
    try:
        if isinstance(path, Path) and not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no regular file")
        with Image.open(BytesIO(path) if isinstance(path, bytes) else path) as image:
            _check(image, decoding.max_pixels)
            return to_rgb(image, decoding)
    except _DECODING_ERRORS as error:
        raise ImageError(
            f"an image cannot be decoded: {_reason(path, error, decoding)}",
            where=_where(path),
            remedy="replace or remove the file, or leave such files out with --on-error skip",
        ) from error
    except MemoryError as error:
        raise DatasetError(
            "memory is not enough to decode an image",
            where=_where(path),
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


def _where(path: Path | bytes) -> Path | None:
    return path if isinstance(path, Path) else None


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
