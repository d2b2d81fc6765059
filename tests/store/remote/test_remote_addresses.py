"""Which texts are addresses, what they mean, and where their mirrors are."""

import json
from pathlib import Path

import pytest

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.store.remote import is_address, local_path, local_root, mirror_of, shown
from tosca_cache.store.remote.url import STORE_NAME, Url, parse


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("s3://bucket", Url("s3", "bucket")),
        ("s3://bucket/a/b/", Url("s3", "bucket/a/b")),
        ("s3a://bucket/a", Url("s3", "bucket/a")),
        ("S3://Bucket/A", Url("s3", "Bucket/A")),
        ("gs://bucket/a", Url("gs", "bucket/a")),
        ("gcs://bucket/a", Url("gs", "bucket/a")),
        ("memory://", Url("memory", "")),
        ("memory://a", Url("memory", "a")),
        (Path("s3://bucket/a"), Url("s3", "bucket/a")),
        ("file:///tmp/a", Path("/tmp/a")),
        ("file://localhost/tmp/a", Path("/tmp/a")),
    ],
)
def test_addresses_are_read(text, meaning):
    assert is_address(text)
    assert parse(text) == meaning


@pytest.mark.parametrize("text", ["cache", "/a/b", "./s3", "s3/b", "C:/x", "a:b", ""])
def test_paths_stay_paths(text):
    assert not is_address(text)
    assert local_root(text) == Path(text)
    assert mirror_of(Path(text)) is None
    assert shown(Path(text)) == str(Path(text))


@pytest.mark.parametrize(
    "text",
    ["ftp://a/b", "http://a/b", "s3://", "s3://b/../x", "s3://b//x", "s3://key:secret@b/x", "s3://b/x?y", "s3://b/\n"],
)
def test_useless_addresses_are_refused(text):
    with pytest.raises(UsageError) as caught:
        local_root(text)
    assert caught.value.exit_code == 2
    assert "s3://BUCKET/FOLDER" in str(caught.value)


def test_a_mirror_says_what_it_mirrors(machine, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    root = local_root("s3://bucket/a")
    assert root.parent == tmp_path / "first"
    assert root.name.startswith("s3-bucket-")
    assert local_root("s3a://bucket/a/") == root
    mirror = mirror_of(root)
    assert (str(mirror.url), mirror.endpoint, mirror.folder) == ("s3://bucket/a", None, root)
    assert shown(root) == "s3://bucket/a"
    assert local_path("s3://bucket/a/digits--x") == root / "digits--x"
    assert shown(root / "digits--x") == "s3://bucket/a/digits--x"
    assert local_root("s3://bucket/b") != root
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    assert local_root("s3://bucket/a") != root
    assert mirror_of(local_root("s3://bucket/a")).endpoint == "http://localhost:1"


@pytest.mark.parametrize("said", ["", "[]", '{"url": "s3://b"}', '{"url": "/tmp", "endpoint": null}', '{"url": 3}'])
def test_a_note_that_says_nothing_is_refused(machine, said):
    root = local_root("memory://x")
    (root / ".remote.json").write_text(said)
    with pytest.raises((StoreError, UsageError), match=r"mirror|address"):
        mirror_of(root)


def test_mirrors_lie_in_the_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv("TOSCA_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert local_root("memory://x").parent == tmp_path / "tosca_cache" / "mirrors"
    monkeypatch.setenv("TOSCA_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(StoreError, match="TOSCA_CACHE_HOME"):
        local_root("memory://x")


@pytest.mark.parametrize("name", ["s3://bucket", "s3://bucket/.hidden", "s3://bucket/a b"])
def test_addresses_that_name_no_store_are_refused(machine, name):
    with pytest.raises(StoreError, match="names no store"):
        local_path(name)


def test_names_of_stores_lead_nowhere_else():
    names = ["digits--vit_nano--v8--980e96a738", "a", "-x", "A.b-c_d"]
    assert all(STORE_NAME.fullmatch(name) for name in names)
    for name in ["", ".", "..", "../a", "a/b", "/a", "a\\b", ".a", "a\n", "a b", "\x00", "ä", "a" * 256]:
        assert not STORE_NAME.fullmatch(name), name


def test_the_note_is_plain_json(machine):
    root = local_root("memory://x/y")
    assert json.loads((root / ".remote.json").read_text()) == {"url": "memory://x/y", "endpoint": None}
