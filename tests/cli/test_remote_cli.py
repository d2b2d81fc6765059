"""Stores in a bucket of an S3-compatible server as a user meets them: pushed, pulled, killed on the way, trained on."""

import logging
import signal

import pytest
import s3fs
from commands import Command, tosca
from trees import everything

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server():
    """The address of a server in this process, on a port of its own."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").disabled = True
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """The name of an empty bucket."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": server, "AWS_EC2_METADATA_DISABLED": "true"}).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # of a server before this one
    monkeypatch.chdir(tmp_path)
    name = f"digits-{tmp_path.name[-6:].replace('_', '-').lower()}"
    s3fs.S3FileSystem(endpoint_url=server, skip_instance_cache=True).mkdir(name)
    return name


@pytest.fixture
def store(digits_cache):
    (path,) = (path for path in digits_cache.iterdir() if path.is_dir())
    return path


def test_push_and_pull_and_train_from_an_address(bucket, digits_cache, store, tmp_path):
    address = f"s3://{bucket}/lab/stores"
    pushed = tosca("cache", "push", "digits", address, "--root", digits_cache, code=0)
    assert pushed.output == f"pushed: {address}/{store.name}\n"
    assert store.name in tosca("cache", "ls", "--root", address).output
    trained = tosca("train", "--dataset", "digits", "--epochs", "1", "--root", address, code=0)
    assert f"store: cache/{store.name}" in trained.output
    pulled = tosca("cache", "pull", f"{address}/{store.name}", "--root", "elsewhere")
    assert pulled.output == f"store: elsewhere/{store.name}\n"
    for root in ("cache", "elsewhere"):
        assert everything(tmp_path / root / store.name) == everything(store)


def test_killed_on_the_way_the_same_command_goes_on(bucket, store, tmp_path):
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    address = f"s3://{bucket}/stores"
    command = Command("cache", "push", store, address)
    command.wait_until(lambda: list(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys))
    assert command.kill() in (-signal.SIGKILL, 0)
    tosca("cache", "push", store, address, code=0)
    cache, command = tmp_path / "cache", Command("cache", "pull", f"{address}/{store.name}")
    command.wait_until(lambda: list(cache.glob(".*.fetching/*")) or (cache / store.name).exists())
    assert command.kill() in (-signal.SIGKILL, 0)
    tosca("cache", "pull", f"{address}/{store.name}", code=0)
    assert everything(tmp_path / "cache" / store.name) == everything(store)
    assert [path.name for path in cache.iterdir()] == [store.name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cache", "push", "{store}", "s3://no-such-bucket/x"), "bucket does not exist"),
        (("cache", "pull", "s3://{bucket}/nothing"), "There is no finished store here"),
        (("train", "--dataset", "digits", "--root", "s3://{bucket}/nothing"), "There is no store of digits yet"),
        (("extract", "--dataset", "digits", "--root", "s3://{bucket}/x"), "tosca cache push"),
        (("cache", "push", "nothing", "s3://{bucket}/x"), "does not exist"),
    ],
)
def test_what_cannot_be_is_said(bucket, store, arguments, words):
    result = tosca(*(argument.format(bucket=bucket, store=store) for argument in arguments))
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.output.split())
