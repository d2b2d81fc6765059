"""An S3-compatible server in this process, on a port of its own, and the environment that leads there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def s3_server() -> Iterator[str]:
    """Yields the server's address; what it holds is gone at the end."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").disabled = True
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def environment(address: str) -> dict[str, str]:
    """What a process needs to find the server; retries of a server that is gone are few."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1",
    }


def keys_in(bucket: str) -> list[str]:
    """What a bucket of a server in this process holds, without a request."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    return list(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys)


def make_bucket(name: str) -> None:
    """Makes a bucket in the server that the environment names."""
    import os

    import s3fs

    s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], skip_instance_cache=True).mkdir(name)
