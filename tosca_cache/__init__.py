"""tosca_cache: class-incremental learning on a frozen backbone's cached features."""

__version__ = "0.1.0"
