"""What pyproject.toml cannot say: the top-level folder configs/ is tosca_cache/configs in a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tosca_cache", "tosca_cache.*"]), "tosca_cache.configs"],
    package_dir={"tosca_cache.configs": "configs"},
)
