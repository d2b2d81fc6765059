"""The shipped backbone: size, contract, quality on `digits`, and what it was (not) trained on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from campaign import times
from numpy.typing import NDArray
from PIL import Image

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.digits import load_digits_dataset
from tosca_cache.datasets.glyphs import FACES, GLYPH_CHARACTERS, render_mask
from tosca_cache.extract import vit_nano

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import glyph_batches
import pretrain_vit_nano

FloatArray = NDArray[np.float32]
LOOKALIKES = "AΑАOОΟЗIBuи"


@pytest.fixture(scope="session")
def pretraining_characters() -> list[str]:
    """The letters that pretraining shows; in `make test` those that it chooses from a sample, in which lookalikes are."""
    letters = glyph_batches.common_letters()
    sample = [letter for place, letter in enumerate(letters) if place % 20 == 0 or letter in LOOKALIKES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyph_batches, "common_letters", lambda: times(sample, letters))
        return glyph_batches.pretraining_characters()


@pytest.mark.parametrize("img_size", [32, 64])
def test_size_and_features(img_size: int) -> None:
    assert vit_nano.WEIGHTS.stat().st_size <= 6_000_000
    model = vit_nano.create_vit_nano(img_size=img_size)
    assert not model.training and {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    images = torch.rand(2, 3, img_size, img_size)
    with torch.inference_mode():
        features = model(images)
        torch.testing.assert_close(features, model.forward_features(images)[:, 0])
    assert features.shape == (2, vit_nano.DIM)


SHARE = times(3, 1)  # every so manieth image


def clean_features(dataset: ImageDataset, split: str) -> FloatArray:
    rows = range(0, len(dataset.splits[split]), SHARE)
    images = [np.asarray(dataset.open(split, row).resize((32, 32), Image.Resampling.BICUBIC)) for row in rows]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    batch = (batch - torch.tensor(vit_nano.MEAN).view(3, 1, 1)) / torch.tensor(vit_nano.STD).view(3, 1, 1)
    with torch.inference_mode():
        return vit_nano.create_vit_nano()(batch).numpy()


@pytest.mark.campaign
def test_quality_on_digits() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.neighbors import NearestCentroid
    from sklearn.preprocessing import normalize

    digits = load_digits_dataset()
    train, test = (clean_features(digits, split) for split in ("train", "test"))
    train_labels, test_labels = (digits.splits[split].labels[::SHARE] for split in ("train", "test"))
    assert NearestCentroid().fit(normalize(train), train_labels).score(normalize(test), test_labels) >= 0.88
    assert LinearDiscriminantAnalysis().fit(train, train_labels).score(test, test_labels) >= 0.97


@pytest.mark.campaign
def test_pretraining_saw_no_digit_no_class_of_glyphs_and_nothing_shaped_like_them(
    pretraining_characters: list[str],
) -> None:
    """The O of one face is the 0 of another, a cursive и is a u, and A, Alpha and Cyrillic A look the same."""
    assert times(25, 500) <= len(pretraining_characters) == len(set(pretraining_characters)) <= 900
    held_out, faces = "0123456789" + GLYPH_CHARACTERS, range(len(FACES))
    assert not set(pretraining_characters) & {*held_out, *"AΑАOОΟЗIB"}
    shown = {render_mask(c, face, size=24, box=20).tobytes() for c in pretraining_characters for face in faces}
    assert not shown & {render_mask(c, face, size=24, box=20).tobytes() for c in held_out for face in faces}
    others, trained = glyph_batches.shape_vectors(held_out), glyph_batches.shape_vectors(pretraining_characters)
    assert np.einsum("ifd,jfd->ij", trained, others, optimize=True).max() / len(FACES) < 0.9  # [n, faces, 576] each
    assert (trained.reshape(-1, 576) @ others.reshape(-1, 576).T).max() < 0.96


def test_a_few_steps_of_pretraining_are_deterministic() -> None:
    bank = glyph_batches.Bank.render(list("BFSU"))
    plan = pretrain_vit_nano.Plan(steps=2, batch=8, warmup=1)
    first, second = (pretrain_vit_nano.pretrain(plan, bank).state_dict() for _ in range(2))
    begun = pretrain_vit_nano.pretrain(pretrain_vit_nano.Plan(steps=0), bank).state_dict()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
        assert not torch.equal(begun[name], value), f"{name} has learnt nothing"
