"""Opening one image file."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tosca_cache.errors import ImageError

# torchvision.datasets.folder.IMG_EXTENSIONS: what the reference's ImageFolder sees.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))

# What Pillow's decoders raise for damaged files: most say OSError, some let the error of a parser through.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, Image.DecompressionBombError)


def open_rgb(path: Path) -> Image.Image:
    """Decode a file as the reference does: Pillow, converted to RGB, orientation tags ignored.

    Returns:
        The image, fully decoded; the file is closed again.

    Raises:
        ImageError: the file is absent, empty, truncated, not an image, or too large to be a photo.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except _DECODING_ERRORS as error:
        raise ImageError(
            f"an image cannot be decoded: {_reason(path, error)}",
            where=path,
            remedy="replace or remove the file, or leave such files out with --on-error skip",
        ) from error


def _reason(path: Path, error: BaseException) -> str:
    if not path.exists():
        return "there is no such file"
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image that Pillow knows"
    return str(error) or type(error).__name__
