"""`glyphs`: 100 characters of five scripts, rendered on the fly from the DejaVu faces that matplotlib ships.

Nothing is read but the font files, and every image depends only on (split, class, index), so rows may be opened in
any order, by any thread or process, and give the same bytes.

An image is one character in one of 12 faces: its stroke thinned or thickened, turned, sheared, stretched and shifted,
reduced to 32 pixels, blurred, its contrast changed and noise added; bright on dark, as in the `digits` dataset.
"""

from __future__ import annotations

import hashlib
import math
import threading
import unicodedata
from functools import lru_cache, partial
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tosca_cache.datasets.base import ImageDataset, Split
from tosca_cache.errors import DatasetError

ByteImage = NDArray[np.uint8]

# The file names (without .ttf) of the faces; the index of a face in this tuple is part of what an image depends on.
_STYLES = ("", "-Bold", "-{}", "-Bold{}")
_FAMILIES = (("DejaVuSans", "Oblique"), ("DejaVuSansMono", "Oblique"), ("DejaVuSerif", "Italic"))
FACES = tuple(family + style.format(slanted) for family, slanted in _FAMILIES for style in _STYLES)

# Chosen once for being unlike each other and unlike every digit in all faces (correlation below 0.8), then frozen: the
# position in this string is the class index.
GLYPH_CHARACTERS = (
    "DGQRVWdefhkqyÆæþŁŒŧƁƆƇƒƔƛƝƢƣƤƦƫ"  # Latin
    "ΑΓΕΖΗΚΜΝΞΡΣΤΥΦΧΨω"  # Greek
    "ЂЄЈЉЊЋЏДЖЛЧШЩЪЫЬЮЯаимп"  # Cyrillic
    "ԱԲԳԵԶԷԸԹԺԻԼԽԾԿՀ"  # Armenian
    "აბდთკლრსუფქჩწჭჯ"  # Georgian
)

IMAGE_SIZE = 32
TRAIN_PER_CLASS = 60
TEST_PER_CLASS = 20
SEED = 1993

_FONT_PIXELS = 96
_CANVAS, _BOX = 64, 46  # strokes and affine changes happen at twice the final resolution


def load_glyphs_dataset() -> ImageDataset:
    """100 classes with 60 train and 20 test images each, 32 x 32 RGB, rendered when opened.

    The seed stands in the paths, since it decides what the images are. Raises `DatasetError` if matplotlib is installed
    without its fonts.
    """
    missing = [face_file(face) for face in range(len(FACES)) if not face_file(face).is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of the {len(FACES)} DejaVu faces that `glyphs` is rendered from are missing",
            where=missing[0],
            remedy="install matplotlib from PyPI (pip install matplotlib), which ships them",
        )
    counts = {"train": TRAIN_PER_CLASS, "test": TEST_PER_CLASS}
    names = tuple(class_name(character) for character in GLYPH_CHARACTERS)
    splits = {}
    for split, per_class in counts.items():
        labels = np.repeat(np.arange(len(names), dtype=np.int64), per_class)
        paths = tuple(f"{name}/{split}-{SEED}-{index:03d}" for name in names for index in range(per_class))
        splits[split] = Split(paths=paths, labels=labels, domains=np.zeros(len(labels), dtype=np.int64))
    return ImageDataset(
        name="glyphs",
        class_names=names,
        domain_names=("glyphs",),
        splits=splits,
        opener=partial(_open_row, counts),
    )


def class_name(character: str) -> str:
    """`Ж` -> `u0416-cyrillic-capital-letter-zhe`: readable and safe in paths."""
    words = unicodedata.name(character).lower().replace(" ", "-")
    return f"u{ord(character):04x}-{words}"


def _open_row(counts: dict[str, int], split: str, row: int) -> Image.Image:
    label, index = divmod(row, counts[split])
    return Image.fromarray(render_glyph(split, label, index)).convert("RGB")


def render_glyph(split: str, label: int, index: int) -> ByteImage:
    """The image of one row, [32, 32] grey; the order of the draws is part of the dataset."""
    text = f"glyphs/{SEED}/{split}/{label}/{index}"
    generator = np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
    uniform, face = generator.uniform, int(generator.integers(len(FACES)))
    stroke = int(generator.integers(-1, 3))  # -1 thins, 1 and 2 thicken by that many pixels of the canvas
    angle, shear = math.radians(uniform(-20, 20)), uniform(-0.3, 0.3)
    scale = [uniform(0.7, 1.15) for _ in "xy"]
    shift = _CANVAS * np.array([uniform(-0.08, 0.08) for _ in "xy"])
    blur, background, ink, noise = uniform(0.0, 0.9), uniform(0, 60), uniform(150, 255), uniform(5, 30)
    canvas = Image.fromarray(render_mask(GLYPH_CHARACTERS[label], face, size=_CANVAS, box=_BOX))
    if stroke:
        canvas = canvas.filter(ImageFilter.MinFilter(3) if stroke < 0 else ImageFilter.MaxFilter(1 + 2 * stroke))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag(scale))
    centre = np.full(2, _CANVAS / 2)
    offset = centre - inverse @ (centre + shift)
    coefficients = np.column_stack([inverse, offset]).ravel().tolist()  # output pixel -> input pixel
    canvas = canvas.transform((_CANVAS, _CANVAS), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    small = canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(blur))
    grey = background + (ink - background) * (np.asarray(small, dtype=np.float64) / 255)
    grey += generator.normal(scale=noise, size=grey.shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4096)
def render_mask(character: str, face: int, *, size: int, box: int) -> ByteImage:
    """A character in one face, its tight bounding box scaled (aspect kept) to `box` pixels and centred.

    Returns:
        [size, size], 0 outside and 255 inside the stroke; read-only, since it is cached. All 0 for an empty glyph.
    """
    canvas = Image.new("L", (size, size))
    ink = _tight_ink(character, face)
    if ink is not None:
        ratio = box / max(ink.size)
        width, height = (max(1, round(length * ratio)) for length in ink.size)
        ink = ink.resize((width, height), Image.Resampling.BOX)
        canvas.paste(ink, ((size - width) // 2, (size - height) // 2))
    mask = np.array(canvas, dtype=np.uint8)
    mask.flags.writeable = False
    return mask


def _tight_ink(character: str, face: int) -> Image.Image | None:
    font = _font(face)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(character))
    if right <= left or bottom <= top:
        return None
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), character, font=font, fill=255)
    bounds = image.getbbox()
    return None if bounds is None else image.crop(bounds)


_fonts = threading.local()


def _font(face: int) -> ImageFont.FreeTypeFont:
    """The face at the drawing size; one object a thread, since FreeType's must not be shared between threads."""
    fonts: dict[int, ImageFont.FreeTypeFont] = _fonts.__dict__.setdefault("of_face", {})
    if face not in fonts:
        file = str(face_file(face))
        fonts[face] = ImageFont.truetype(file, _FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)
    return fonts[face]


def face_file(face: int) -> Path:
    """The font file of a face, inside matplotlib's data."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{FACES[face]}.ttf"
