"""The shipped backbone: size, contract, quality on `digits`, and what it was (not) trained on."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from campaign import times
from PIL import Image

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.glyphs import FACES, GLYPH_CHARACTERS, render_mask
from tosca_cache.extract import vit_nano

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import glyph_batches
import pretrain_vit_nano

LOOKALIKES = "AΑАOОΟЗIBuи"


@pytest.mark.parametrize("img_size", [32, 64])
def test_size_and_features(img_size):
    assert vit_nano.WEIGHTS.stat().st_size <= 6_000_000
    model, images = vit_nano.create_vit_nano(img_size=img_size), torch.rand(2, 3, img_size, img_size)
    assert not model.training and {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    with torch.inference_mode():
        features = model(images)
        torch.testing.assert_close(features, model.forward_features(images)[:, 0])
    assert features.shape == (2, vit_nano.DIM)


@pytest.mark.campaign
def test_quality_on_digits():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.neighbors import NearestCentroid
    from sklearn.preprocessing import normalize

    digits, share, found = load_dataset("digits"), times(3, 1), []  # every so manieth image
    for split, rows in digits.splits.items():
        images = [
            digits.open(split, row).resize((32, 32), Image.Resampling.BICUBIC) for row in range(0, len(rows), share)
        ]
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
        batch = (batch - torch.tensor(vit_nano.MEAN).view(3, 1, 1)) / torch.tensor(vit_nano.STD).view(3, 1, 1)
        with torch.inference_mode():
            found.append((vit_nano.create_vit_nano()(batch).numpy(), rows.labels[::share]))
    (train, train_labels), (test, test_labels) = found
    assert NearestCentroid().fit(normalize(train), train_labels).score(normalize(test), test_labels) >= 0.88
    assert LinearDiscriminantAnalysis().fit(train, train_labels).score(test, test_labels) >= 0.97


@pytest.mark.campaign
def test_pretraining_saw_no_digit_no_class_of_glyphs_and_nothing_shaped_like_them(monkeypatch):
    """The O of one face is the 0 of another, a cursive и is a u, and A, Alpha and Cyrillic A look the same.

    In `make test` pretraining chooses from a sample of its letters, in which lookalikes are.
    """
    letters = glyph_batches.common_letters()
    sample = [letter for place, letter in enumerate(letters) if place % 20 == 0 or letter in LOOKALIKES]
    monkeypatch.setattr(glyph_batches, "common_letters", lambda: times(sample, letters))
    characters = glyph_batches.pretraining_characters()
    assert times(25, 500) <= len(characters) == len(set(characters)) <= 900
    held_out, faces = "0123456789" + GLYPH_CHARACTERS, range(len(FACES))
    assert not set(characters) & {*held_out, *"AΑАOОΟЗIB"}
    shown = {render_mask(c, face, size=24, box=20).tobytes() for c in characters for face in faces}
    assert not shown & {render_mask(c, face, size=24, box=20).tobytes() for c in held_out for face in faces}
    others, trained = glyph_batches.shape_vectors(held_out), glyph_batches.shape_vectors(characters)
    assert np.einsum("ifd,jfd->ij", trained, others, optimize=True).max() / len(FACES) < 0.9  # [n, faces, 576] each
    assert (trained.reshape(-1, 576) @ others.reshape(-1, 576).T).max() < 0.96


def test_a_few_steps_of_pretraining_are_deterministic():
    bank = glyph_batches.Bank.render(list("BFSU"))
    plan = pretrain_vit_nano.Plan(steps=2, batch=8, warmup=1)
    first, second = (pretrain_vit_nano.pretrain(plan, bank).state_dict() for _ in range(2))
    begun = pretrain_vit_nano.pretrain(pretrain_vit_nano.Plan(steps=0), bank).state_dict()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
        assert not torch.equal(begun[name], value), f"{name} has learnt nothing"
