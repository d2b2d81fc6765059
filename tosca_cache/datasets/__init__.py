"""Which images, labels, splits and domains exist; transforms; no model code."""

from tosca_cache.datasets.base import ImageDataset, Split
from tosca_cache.datasets.catalogue import (
    DATA_ROOT_VARIABLE,
    DEFAULT_DATA_ROOT,
    DatasetStatus,
    list_datasets,
    load_dataset,
    resolve_data_root,
)
from tosca_cache.datasets.registry import REGISTRY, KnownDataset, known

__all__ = [
    "DATA_ROOT_VARIABLE",
    "DEFAULT_DATA_ROOT",
    "REGISTRY",
    "DatasetStatus",
    "ImageDataset",
    "KnownDataset",
    "Split",
    "known",
    "list_datasets",
    "load_dataset",
    "resolve_data_root",
]
