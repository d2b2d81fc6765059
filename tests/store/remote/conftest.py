"""Remote roots to try things on, and machines: each is a folder of mirrors."""

import itertools
import os

import pytest
from s3_server import environment, make_bucket, s3_server

from tosca_cache.store.remote import access, local_root, mirror_of
from tosca_cache.store.remote.access import Access

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nobody waits between tries."""
    monkeypatch.setattr(access, "FIRST_PAUSE", 0.0)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this process stand on a machine of that name, which has its own mirrors, and no settings for S3: (name)."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)

    def be(name):
        monkeypatch.setenv("TOSCA_CACHE_HOME", str(tmp_path / name))

    be("first")
    return be


@pytest.fixture
def memory(machine):
    """The address of an empty root in memory."""
    return f"memory://root-{os.getpid()}-{next(_numbers)}/stores"


@pytest.fixture
def s3(machine, server, monkeypatch):
    """The address of an empty root in a bucket of its own."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{os.getpid()}-{next(_numbers)}"
    make_bucket(bucket)
    return f"s3://{bucket}/some/stores"


@pytest.fixture
def objects():
    """The objects of a remote root, with their bytes: (address) -> {key: bytes}."""

    def read(address):
        far = Access(mirror_of(local_root(address)), 1)
        return {key: far.read(key, 0, size) if size else b"" for key, size in far.objects("").items()}

    return read
