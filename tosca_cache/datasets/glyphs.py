"""`glyphs`: 100 characters of five scripts, rendered on the fly from the DejaVu faces that matplotlib ships.

Nothing is read but the font files, and every image depends only on (seed, split, class, index), so rows may be opened in
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
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tosca_cache.datasets.base import ImageDataset, Split
from tosca_cache.errors import DatasetError

ByteImage = NDArray[np.uint8]

# The file names (without .ttf) of the faces; the index of a face in this tuple is part of what an image depends on.
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
)

# Chosen once for being unlike each other and unlike every digit in all faces (the tests measure it), then frozen: the
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
DEFAULT_SEED = 1993

_FONT_PIXELS = 96
_CANVAS = 64  # strokes and affine changes happen at twice the final resolution
_BOX = 46


def load_glyphs_dataset(*, seed: int = DEFAULT_SEED) -> ImageDataset:
    """100 classes with 60 train and 20 test images each, 32 x 32 RGB, rendered when opened.

    The seed stands in the paths, since it decides what the images are. Raises `DatasetError` if matplotlib is installed
    without its fonts.
    """
    _check_faces()
    counts = {"train": TRAIN_PER_CLASS, "test": TEST_PER_CLASS}
    names = tuple(class_name(character) for character in GLYPH_CHARACTERS)
    splits = {}
    for split, per_class in counts.items():
        labels = np.repeat(np.arange(len(names), dtype=np.int64), per_class)
        paths = tuple(f"{name}/{split}-{seed}-{index:03d}" for name in names for index in range(per_class))
        splits[split] = Split(paths=paths, labels=labels, domains=np.zeros(len(labels), dtype=np.int64))
    return ImageDataset(
        name="glyphs",
        class_names=names,
        domain_names=("glyphs",),
        splits=splits,
        opener=partial(_open_row, seed, counts),
    )


def _check_faces() -> None:
    missing = [face_file(face) for face in range(len(FACES)) if not face_file(face).is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of the {len(FACES)} DejaVu faces that `glyphs` is rendered from are missing",
            where=missing[0],
            remedy="install matplotlib from PyPI (pip install matplotlib), which ships them",
        )


def class_name(character: str) -> str:
    """`Ж` -> `u0416-cyrillic-capital-letter-zhe`: readable and safe in paths."""
    words = unicodedata.name(character).lower().replace(" ", "-")
    return f"u{ord(character):04x}-{words}"


def _open_row(seed: int, counts: dict[str, int], split: str, row: int) -> Image.Image:
    label, index = divmod(row, counts[split])
    return Image.fromarray(render_glyph(seed, split, label, index)).convert("RGB")


class Look(NamedTuple):
    """Everything random about one image but its noise; lengths are fractions of the image's side."""

    face: int
    stroke: int  # -1 thins, 0 keeps, 1 and 2 thicken by that many pixels of the 64-pixel canvas
    angle: float  # radians
    shear: float
    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float
    blur: float  # pixels
    background: float  # grey levels
    ink: float
    noise: float


def draw_look(generator: np.random.Generator) -> Look:
    """One random look; the order of the draws is part of the dataset."""
    uniform = generator.uniform
    return Look(
        face=int(generator.integers(len(FACES))),
        stroke=int(generator.integers(-1, 3)),
        angle=math.radians(uniform(-20, 20)),
        shear=uniform(-0.3, 0.3),
        scale_x=uniform(0.7, 1.15),
        scale_y=uniform(0.7, 1.15),
        shift_x=uniform(-0.08, 0.08),
        shift_y=uniform(-0.08, 0.08),
        blur=uniform(0.0, 0.9),
        background=uniform(0, 60),
        ink=uniform(150, 255),
        noise=uniform(5, 30),
    )


def render_glyph(seed: int, split: str, label: int, index: int) -> ByteImage:
    """The image of one row, [32, 32] grey."""
    generator = np.random.default_rng(_row_seed(seed, split, label, index))
    look = draw_look(generator)
    canvas = Image.fromarray(render_mask(GLYPH_CHARACTERS[label], look.face, size=_CANVAS, box=_BOX))
    if look.stroke < 0:
        canvas = canvas.filter(ImageFilter.MinFilter(3))
    elif look.stroke > 0:
        canvas = canvas.filter(ImageFilter.MaxFilter(1 + 2 * look.stroke))
    canvas = canvas.transform(
        (_CANVAS, _CANVAS), Image.Transform.AFFINE, _inverse_affine(look), Image.Resampling.BICUBIC
    )
    small = canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(look.blur))
    level = np.asarray(small, dtype=np.float64) / 255
    grey = look.background + (look.ink - look.background) * level
    grey += generator.normal(scale=look.noise, size=grey.shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _row_seed(seed: int, split: str, label: int, index: int) -> int:
    text = f"glyphs/{seed}/{split}/{label}/{index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _inverse_affine(look: Look) -> tuple[float, float, float, float, float, float]:
    """PIL's coefficients: output pixel -> input pixel, about the canvas's centre."""
    cos, sin = math.cos(look.angle), math.sin(look.angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    shear = np.array([[1.0, look.shear], [0.0, 1.0]])
    stretch = np.diag([look.scale_x, look.scale_y])
    inverse = np.linalg.inv(turn @ shear @ stretch)
    centre = np.full(2, _CANVAS / 2)
    shift = _CANVAS * np.array([look.shift_x, look.shift_y])
    offset = centre - inverse @ (centre + shift)
    (a, b), (d, e) = inverse.tolist()
    return (a, b, float(offset[0]), d, e, float(offset[1]))


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
