"""Training batches of distorted letters, made in batched torch so that they cost little beside the model.

The masks of all (class, face) pairs are rendered once; a batch picks some of them and changes stroke width, shape,
resolution, contrast and noise. Which part of a batch gets which treatment goes by position, which is as random as the
classes in it and keeps every operation dense.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from fontTools.ttLib import TTFont
from PIL import Image, ImageFilter

from tosca_cache.datasets.glyphs import FACES, GLYPH_CHARACTERS, face_file, render_mask

DIGITS = "0123456789"
CANVAS, BOX = 48, 36
IMAGE_SIZE = 32
# Two characters count as the same shape if their masks correlate more than this: on average over the faces, ...
SAME_AS_HELD_OUT = 0.90
SAME_AS_CHOSEN = 0.92
# ... or in one face (letters of one cursive face look alike that differ in the others: и and u), for held-out characters
# even between different faces (the O of one is the 0 of another).
SAME_AS_HELD_OUT_ONCE = 0.96
SAME_AS_CHOSEN_ONCE = 0.99


def common_letters() -> list[str]:
    """Letters (Unicode Lu, Ll, Lt, Lo: no modifiers) that all faces have; those without a decomposition first."""
    tables = [set(TTFont(face_file(face)).getBestCmap()) for face in range(len(FACES))]
    letters = [chr(code) for code in sorted(set.intersection(*tables))]
    letters = [letter for letter in letters if unicodedata.category(letter) in ("Lu", "Ll", "Lt", "Lo")]
    return sorted(letters, key=lambda letter: (_is_composed(letter), ord(letter)))


def _is_composed(letter: str) -> bool:
    return unicodedata.normalize("NFKD", letter) != letter


def shape_vectors(characters: str | list[str]) -> np.ndarray:
    """[n, faces, 576] float32: slightly blurred 24-pixel masks, centred and of unit norm, so that products correlate."""
    vectors = []
    for character in characters:
        for face in range(len(FACES)):
            image = Image.fromarray(render_mask(character, face, size=24, box=20)).filter(ImageFilter.GaussianBlur(1))
            vectors.append(np.asarray(image, dtype=np.float32).ravel())
    array = np.stack(vectors)
    array -= array.mean(1, keepdims=True)
    array /= np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-6)
    return array.reshape(len(characters), len(FACES), -1)


def pretraining_characters() -> list[str]:
    """The letters to pretrain on: none is a digit or a class of `glyphs`, or has the shape of one, or of another."""
    held_out = DIGITS + GLYPH_CHARACTERS
    pool = [letter for letter in common_letters() if letter not in held_out]
    vectors = shape_vectors(pool)
    apart = np.flatnonzero(~_looks_held_out(vectors, shape_vectors(held_out)) & vectors.any((1, 2)))
    chosen: list[int] = []
    for index in apart:
        alike = np.einsum("fd,jfd->jf", vectors[index], vectors[chosen], optimize=True)
        if not chosen or (alike.mean(1).max() < SAME_AS_CHOSEN and alike.max() < SAME_AS_CHOSEN_ONCE):
            chosen.append(int(index))
    return [pool[index] for index in chosen]


def _looks_held_out(vectors: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """[n] bool: on average over the faces, or in any face as any held-out character in any face."""
    mean = np.einsum("ifd,jfd->ij", vectors, held_out, optimize=True).max(1) / len(FACES)
    every_face = held_out.reshape(-1, held_out.shape[-1])
    once = np.array([(letter @ every_face.T).max() for letter in vectors])
    return (mean >= SAME_AS_HELD_OUT) | (once >= SAME_AS_HELD_OUT_ONCE)


@dataclass(frozen=True)
class Bank:
    """masks: [softness, classes, faces, 48, 48] uint8; each letter sharp and under increasing blur."""

    masks: torch.Tensor

    @property
    def classes(self) -> int:
        return self.masks.shape[1]

    @classmethod
    def render(cls, characters: list[str]) -> Bank:
        faces = range(len(FACES))
        masks = [[render_mask(character, face, size=CANVAS, box=BOX) for face in faces] for character in characters]
        sharp = torch.from_numpy(np.array(masks)).float()
        levels = [sharp] + [_blur(sharp, radius) for radius in (1, 2)]
        return cls(torch.stack([level.round().to(torch.uint8) for level in levels]))

    def batch(self, size: int, strength: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One batch; `strength` in 0..1 scales the geometric distortion and the loss of resolution.

        Returns:
            images [size, 1, 32, 32] in -1..1, labels [size].
        """
        levels, classes, faces = self.masks.shape[:3]
        softness = torch.randint(levels, (size,), generator=generator)
        labels = torch.randint(classes, (size,), generator=generator)
        picked = torch.randint(faces, (size,), generator=generator)
        images = self.masks[softness, labels, picked].unsqueeze(1).float() / 255
        images = F.grid_sample(images, warp_grid(size, strength, generator), mode="bilinear", align_corners=False)
        images = redraw_stroke(images, softness, generator)
        images = lose_resolution(images, strength, generator)
        return change_contrast(images, generator), labels


def _blur(masks: torch.Tensor, radius: int) -> torch.Tensor:
    """Two box blurs, which are close to a Gaussian one."""
    for _ in range(2):
        masks = F.avg_pool2d(masks, 2 * radius + 1, stride=1, padding=radius)
    return masks


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Uniform random numbers from `low` to `high`."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def redraw_stroke(images: torch.Tensor, softness: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random threshold of the blurred masks: thins, thickens and rounds strokes, as pens do; sharp ones stay."""
    threshold = uniform(0.15, 0.6, (len(images), 1, 1, 1), generator)
    redrawn = ((images - threshold) * 5 + 0.5).clamp(0, 1)
    return torch.where((softness > 0).view(-1, 1, 1, 1), redrawn, images)


@cache
def _field_basis() -> torch.Tensor:
    """[16, 1024]: what each of 4 x 4 control points adds to a smooth 32 x 32 field."""
    points = torch.eye(16).view(16, 1, 4, 4)
    field = F.interpolate(points, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)
    return field.view(16, -1)


def warp_grid(size: int, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Sampling grid [size, 32, 32, 2]: affine change plus a smooth displacement field."""

    def spread(limit: float) -> torch.Tensor:
        return uniform(-limit * strength, limit * strength, (size,), generator)

    angle, shear = spread(math.radians(20)), spread(0.4)
    # The grid maps output to input, so a factor below 1 enlarges; BOX / CANVAS would let the letter fill the image.
    scale_x, scale_y = 0.8 * torch.exp(spread(0.35)), 0.8 * torch.exp(spread(0.2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([cos * scale_x, (shear * cos - sin) * scale_y, spread(0.1)], -1)
    row_y = torch.stack([sin * scale_x, (shear * sin + cos) * scale_y, spread(0.1)], -1)
    grid = F.affine_grid(torch.stack([row_x, row_y], 1), [size, 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    coarse = torch.randn((size * 2, 16), generator=generator) * (0.09 * strength)
    field = (coarse @ _field_basis()).view(size, 2, IMAGE_SIZE, IMAGE_SIZE)
    return grid + field.permute(0, 2, 3, 1)


def lose_resolution(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Area-averages parts of the batch down to 8 to 20 pixels and brings them back as the test transform does."""
    sizes = (8, 8, 8, 10, 12, 16, 20, 32)
    parts = []
    for part, small in zip(images.chunk(len(sizes)), sizes, strict=False):
        if small == IMAGE_SIZE or float(torch.rand((), generator=generator)) > 0.3 + 0.7 * strength:
            parts.append(part)
            continue
        reduced = F.interpolate(part, size=(small, small), mode="area")
        back = F.interpolate(reduced, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True)
        parts.append(back.clamp(0, 1))
    return torch.cat(parts)


def change_contrast(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random background and ink levels, a quarter inverted, noise added; 0..1 -> -1..1 (mean and std are 0.5)."""
    shape = (len(images), 1, 1, 1)
    background = uniform(0.0, 0.25, shape, generator) * (torch.rand(shape, generator=generator) < 0.5)
    ink = uniform(0.6, 1.0, shape, generator)
    images = background + (ink - background) * images
    inverted = torch.rand(shape, generator=generator) < 0.25
    images = torch.where(inverted, 1 - images, images)
    noise = uniform(0.0, 0.12, shape, generator) * (torch.rand(shape, generator=generator) < 0.5)
    images = images + noise * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1) * 2 - 1
