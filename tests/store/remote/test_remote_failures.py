"""What can go wrong with a remote side is told apart, said in words, and tried again where that may help."""

import errno
import sys

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3_server import environment
from s3fs.errors import translate_boto_error

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store
from tosca_cache.store.remote import Unreachable, access, local_root, mirror_of
from tosca_cache.store.remote.access import Access
from tosca_cache.store.remote.failures import Kind, failure, kind_of


def answer(code, message="no"):
    return translate_boto_error(ClientError({"Error": {"Code": code, "Message": message}}, "PutObject"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer("NoSuchKey"), Kind.MISSING),
        (answer("NoSuchBucket"), Kind.BUCKET),
        (answer("AccessDenied"), Kind.DENIED),
        (answer("403"), Kind.DENIED),
        (answer("InvalidAccessKeyId"), Kind.CREDENTIALS),
        (answer("ExpiredToken"), Kind.CREDENTIALS),
        (answer("SlowDown"), Kind.BUSY),
        (answer("InternalError"), Kind.BUSY),
        (answer("XMinioStorageFull"), Kind.QUOTA),
        (answer("QuotaExceeded"), Kind.QUOTA),
        (answer("InvalidRequest"), Kind.OTHER),
        (OSError(errno.ENOSPC, "full"), Kind.QUOTA),
        (NoCredentialsError(), Kind.CREDENTIALS),
        (EndpointConnectionError(endpoint_url="http://x"), Kind.NETWORK),
        (ConnectTimeoutError(endpoint_url="http://x"), Kind.NETWORK),
        (ReadTimeoutError(endpoint_url="http://x"), Kind.NETWORK),
        (TimeoutError(), Kind.NETWORK),
        (ConnectionResetError(), Kind.NETWORK),
        (FileNotFoundError("The specified bucket does not exist"), Kind.BUCKET),
        (FileNotFoundError("x"), Kind.MISSING),
        (ValueError("?"), Kind.OTHER),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else type(value).__name__,
)
def test_failures_are_told_apart(error, kind):
    assert kind_of(error) is kind
    told = failure(error, "s3://b/x")
    assert told.where == "s3://b/x"
    assert told.remedy
    assert isinstance(told, Unreachable) == (kind in (Kind.CREDENTIALS, Kind.DENIED, Kind.BUSY, Kind.NETWORK))


def test_googles_failures_are_told_apart():
    """gcsfs takes seconds to import; its errors have a number of HTTP, or a text, as `code`."""

    class HttpError(Exception):
        def __init__(self, code):
            self.code = code

    kinds = {401: Kind.CREDENTIALS, 429: Kind.BUSY, "503": Kind.BUSY, 418: Kind.OTHER}
    for code, kind in kinds.items():
        assert kind_of(HttpError(code)) is kind


def test_what_may_pass_is_tried_again(memory, monkeypatch):
    far = Access(mirror_of(local_root(memory)), 4)
    left, pipe_file = [answer("SlowDown"), TimeoutError(), answer("503")], far._fs.pipe_file

    def stumbling(*arguments):
        if left:
            raise left.pop()
        pipe_file(*arguments)

    monkeypatch.setattr(far._fs, "pipe_file", stumbling)
    far.write("x", b"1")
    assert far.read("x", 0, 9) == b"1"
    left += [answer("AccessDenied"), answer("SlowDown")]
    with pytest.raises(Unreachable, match="may not read or write"):
        far.write("x", b"2")
    assert left == []
    left += [answer("SlowDown")] * 9
    with pytest.raises(Unreachable, match="overloaded"):
        far.write("x", b"2")
    assert len(left) == 5


def test_a_bucket_that_does_not_exist_is_named(s3):
    with pytest.raises(StoreError, match="This bucket does not exist") as caught:
        list_stores("s3://no-such-bucket/x")
    assert "s3://no-such-bucket/x" in str(caught.value)


def test_a_server_that_does_not_answer_is_named(machine, monkeypatch):
    for name, value in environment("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unreachable, match="cannot be reached") as caught:
        open_store("s3://bucket/x/digits")
    assert "AWS_ENDPOINT_URL" in str(caught.value)


def test_missing_credentials_are_named(machine, monkeypatch, tmp_path):
    for name, value in environment("http://127.0.0.1:2").items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(Unreachable, match="no credentials"):
        list_stores("s3://bucket/x")


@pytest.mark.parametrize(("address", "module", "extra"), [("s3://b/x", "s3fs", "s3"), ("gs://b/x", "gcsfs", "gcs")])
def test_a_library_that_is_not_installed_is_named(machine, monkeypatch, address, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    access._file_system.cache_clear()
    for protocol in ("s3", "s3a", "gs", "gcs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(Unreachable) as caught:
        list_stores(address)
    assert f"pip install 'tosca-cache[{extra}]'" in str(caught.value)
