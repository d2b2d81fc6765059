"""What `commands` has loaded before a command begins."""

import sklearn.datasets  # noqa: F401
import torch  # noqa: F401

import tosca_cache.cli.app
import tosca_cache.extract.request
import tosca_cache.runs.train
import tosca_cache.sweep.run  # noqa: F401
from tosca_cache.torchvision_compat import ensure_torchvision

ensure_torchvision()
import timm  # noqa: E402, F401
