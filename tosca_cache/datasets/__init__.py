"""Which images, labels, splits and domains exist; transforms; no model code."""

from tosca_cache.datasets.base import ImageDataset, Split
from tosca_cache.datasets.catalogue import load_dataset, resolve_data_root
from tosca_cache.datasets.registry import REGISTRY, KnownDataset, known

__all__ = [
    "REGISTRY",
    "ImageDataset",
    "KnownDataset",
    "Split",
    "known",
    "load_dataset",
    "resolve_data_root",
]
