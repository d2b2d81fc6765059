"""tosca_cache: class-incremental learning on a frozen backbone's cached features. From Python: `tosca_cache.api`."""

__version__ = "0.1.0"
