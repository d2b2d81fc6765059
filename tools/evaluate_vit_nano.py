"""Nearest class mean and LDA of `vit_nano` features on `digits` and `glyphs`, for trained and for random weights.

    python tools/evaluate_vit_nano.py [WEIGHTS.safetensors]

Clean view: the image resized to 32 pixels (PIL, bicubic), mean and std 0.5; fixed splits; float32. Nearest class mean is
by cosine similarity of raw features to the mean of the raw train features; LDA is scikit-learn's with
its defaults. Random weights are the mean over 3 initialisations.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.digits import load_digits_dataset
from tosca_cache.datasets.glyphs import load_glyphs_dataset
from tosca_cache.extract.vit_nano import create_vit_nano


def clean_images(dataset: ImageDataset, split: str) -> torch.Tensor:
    """[n, 3, 32, 32] in -1..1."""
    rows = range(len(dataset.splits[split]))
    images = [dataset.open(split, row).resize((32, 32), Image.Resampling.BICUBIC) for row in rows]
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1


@torch.inference_mode()
def features(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """[n, 192] float32."""
    return torch.cat([model(part) for part in images.split(256)]).numpy()


def nearest_class_mean(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy in percent."""
    means = np.stack([train[train_labels == label].mean(0) for label in np.unique(train_labels)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float(100 * np.mean((test @ means.T).argmax(1) == test_labels))


def lda(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy in percent."""
    model = LinearDiscriminantAnalysis().fit(train, train_labels)
    return float(100 * model.score(test, test_labels))


def quality(model: torch.nn.Module, dataset: ImageDataset, images: dict[str, torch.Tensor]) -> tuple[float, float]:
    """(nearest class mean, LDA) in percent."""
    train, test = (features(model, images[split]) for split in ("train", "test"))
    labels = [dataset.splits[split].labels for split in ("train", "test")]
    return nearest_class_mean(train, labels[0], test, labels[1]), lda(train, labels[0], test, labels[1])


def main() -> None:
    torch.set_num_threads(2)
    trained = create_vit_nano(pretrained=len(sys.argv) < 2)
    if len(sys.argv) > 1:
        trained.load_state_dict({name: value.float() for name, value in load_file(Path(sys.argv[1])).items()})
    random = []
    for seed in range(3):
        torch.manual_seed(seed)
        random.append(create_vit_nano(pretrained=False))
    for dataset in (load_digits_dataset(), load_glyphs_dataset()):
        images = {split: clean_images(dataset, split) for split in ("train", "test")}
        ncm, linear = quality(trained, dataset, images)
        print(f"{dataset.name} trained: nearest class mean {ncm:.2f} %, LDA {linear:.2f} %")
        ncm, linear = np.mean([quality(model, dataset, images) for model in random], axis=0)
        print(f"{dataset.name} random: nearest class mean {ncm:.2f} %, LDA {linear:.2f} %")


if __name__ == "__main__":
    main()
