"""A tiny vision transformer of timm with random weights in a file, and small folders of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tosca_cache.datasets import load_dataset
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.torchvision_compat import ensure_torchvision

TINY = "test_vit"  # 64 wide, 160 pixels, patches of 16


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """Random weights of the tiny model at its own size, without head."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model(TINY, num_classes=0).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_weights):
    """The tiny backbone at 32 pixels, in float32."""
    return load_backbone(TINY, weights=tiny_weights, img_size=32, precision="fp32")


@pytest.fixture
def make_folder(tmp_path):
    """Writes a folder of pictures: (train and test images a class, classes) -> path."""

    def make(train=5, test=3, classes=3, name="shapes"):
        random = np.random.default_rng(0)
        for split, count in (("train", train), ("test", test)):
            for label in range(classes):
                folder = tmp_path / name / split / f"class {label}"
                folder.mkdir(parents=True)
                for number in range(count):
                    size = (int(random.integers(30, 60)), int(random.integers(30, 60)), 3)
                    Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{number:03d}.png")
        return tmp_path / name

    return make


@pytest.fixture
def shapes(make_folder):
    """3 classes of 5 train and 3 test images."""
    return load_dataset(str(make_folder()))
