"""Children that read untrusted files outlive a test, because starting one takes longer than most tests."""

from contextlib import contextmanager

import pytest

from tosca_cache.untrusted import Reader


@pytest.fixture(scope="session")
def readers():
    """Two children: no import reads more than two files at a time."""
    with Reader() as one, Reader() as other:
        yield [one, other]


@pytest.fixture(autouse=True)
def lent_children(readers, monkeypatch):
    """Imports borrow the children instead of starting their own."""
    free = list(readers)

    @contextmanager
    def borrow(path):
        reader = free.pop()
        try:
            yield reader.open(path)
        finally:
            free.append(reader)

    monkeypatch.setattr("tosca_cache.store.exchange.files.open_untrusted", borrow)
