"""Views are the reference's transforms, and each can be made again from what is recorded about it."""

import numpy as np
import pytest
from campaign import times
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tosca_cache.datasets.transforms import (
    TransformSpec,
    View,
    clean_view,
    draw_view,
    image_views,
    render,
    view_seed,
)
from tosca_cache.torchvision_compat import ensure_torchvision

ensure_torchvision()

SPEC = TransformSpec.reference(224)
SIZES = st.tuples(st.integers(1, 600), st.integers(1, 600))


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_views_are_torchvisions_transforms_in_the_references_geometry_at_any_size():
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    for size, resize in ((224, 256), (518, 592), (384, 438), (32, 36)):
        assert TransformSpec.reference(size).resize == resize == int(256 / 224 * size)
        assert TransformSpec.reference(size, whole_image=True).resize == size
    peer = v2.Compose([v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    for size in ((300, 200), (200, 300), (224, 224), (8, 8), (1000, 31)):
        image = picture(*size)
        ours = render(SPEC, image, clean_view(image.height, image.width))
        assert np.array_equal(ours, np.asarray(peer(image))) and ours.dtype == np.uint8
    image, bilinear = picture(300, 200), v2.InterpolationMode.BILINEAR
    cropped = functional.resized_crop(image, 20, 31, 100, 120, [224, 224], interpolation=bilinear)
    for flip, shown in enumerate((cropped, functional.horizontal_flip(cropped))):
        view = View(seed=1, top=20, left=31, height=100, width=120, flip=flip)
        assert np.array_equal(render(SPEC, image, view), np.asarray(shown))


def test_each_view_has_a_seed_of_its_own_and_can_be_drawn_alone():
    clean, *views = image_views(SPEC, picture(300, 200), seed=7, split="train", path="train/cat/1.jpg", count=4)
    assert clean == (0, 0, 0, 200, 300, 0)
    for number, view in enumerate(views, 1):
        assert view == draw_view(SPEC, view_seed(7, "train", "train/cat/1.jpg", number), 200, 300)
    splits, paths = ("train", "test"), ("a/1.jpg", "a/2.jpg", "b/1.jpg")
    seeds = {view_seed(n, s, path, view) for n in (0, 1) for s in splits for path in paths for view in range(1, 9)}
    assert len(seeds) == 2 * 2 * 3 * 8 and all(0 < seed < 2**63 for seed in seeds)


@pytest.mark.campaign
@settings(max_examples=times(50, 500))
@given(size=SIZES, seed=st.integers(1, 2**63 - 1))
def test_every_crop_obeys_the_law_of_random_resized_crop(size, seed):
    height, width = size
    view = draw_view(SPEC, seed, height, width)
    assert view == draw_view(SPEC, seed, height, width)
    assert view.seed == seed and view.flip in (0, 1)
    assert 0 <= view.top <= view.top + view.height <= height
    assert 0 <= view.left <= view.left + view.width <= width
    assert view.height >= 1 and view.width >= 1
    rounding = 1 / view.height + 1 / view.width  # of either side to a whole pixel
    if min(size) > 20:
        ratio, area = view.width / view.height, view.width * view.height / (width * height)
        assert 3 / 4 * (1 - rounding) <= ratio <= 4 / 3 * (1 + rounding)
        assert area <= 1 and (area >= 0.05 * (1 - rounding) or max(size) > 4 * min(size))


@pytest.mark.campaign
def test_crops_and_flips_are_distributed_as_torchvisions():
    import torch
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    n, (height, width) = times(1000, 4000), (200, 300)
    image = torch.empty(3, height, width)
    peer = np.array([RandomResizedCrop.get_params(image, [0.05, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    ours = np.array([draw_view(SPEC, seed, height, width) for seed in range(1, n + 1)])
    scale = peer.std(0) / np.sqrt(n) * np.sqrt(2)
    assert (np.abs(ours[:, 1:5].mean(0) - peer.mean(0)) < 5 * scale).all()
    assert np.allclose(ours[:, 1:5].std(0), peer.std(0), rtol=0.1)
    assert abs(ours[:, 5].mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_fallback_for_extreme_shapes_is_the_central_crop():
    narrow = TransformSpec.reference(224, crop_scale=(1.0, 1.0))
    assert draw_view(narrow, 1, 10, 1000)[1:5] == (0, 493, 10, 13)
    assert draw_view(narrow, 1, 1000, 10)[1:5] == (493, 0, 13, 10)
