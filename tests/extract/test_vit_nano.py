"""The shipped backbone: size, contract, quality on `digits`, and what it was (not) trained on."""

import evaluate_vit_nano
import glyph_batches
import numpy as np
import pretrain_vit_nano
import pytest
import torch
from campaign import times

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.glyphs import FACES, GLYPH_CHARACTERS, render_mask
from tosca_cache.extract import vit_nano

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


def test_quality_on_digits():
    digits = load_dataset("digits")
    images = {split: evaluate_vit_nano.clean_images(digits, split) for split in digits.splits}
    nearest_mean, lda = evaluate_vit_nano.quality(vit_nano.create_vit_nano(), digits, images)
    assert nearest_mean >= 88 and lda >= 97


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
