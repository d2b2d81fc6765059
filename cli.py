"""`python cli.py ...` is `tosca ...` without installing the package."""

from tosca_cache.cli import main

if __name__ == "__main__":
    main()
