"""A model of three colours, small photos to ask it about, and servers of it."""

import shutil
import threading
import time
from contextlib import contextmanager

import pytest
from photos import paint

pytest.importorskip("fastapi", reason="serving needs the extra `serve`")


@pytest.fixture(scope="session")
def trained(made_once):
    """The folder of `colours.tosca`, of the photos it was taught (`photos/`), and of their features."""

    def make(folder):
        from tosca_cache.model.session import Request, teach

        paint(folder / "photos", ("blue", "green", "red"), 6)
        teach(Request(folder / "colours.tosca", photos=folder / "photos", backbone="vit_nano", root=folder / "cache"))

    return made_once("served-model", make)


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the model, which may be changed; its features lie where they did."""
    return shutil.copytree(trained / "colours.tosca", tmp_path / "colours.tosca")


def app_of(path, *, token=None, read_only=False, before=lambda served: None, **limits):
    """The application of a model."""
    from tosca_cache.model.serve.app import create_app
    from tosca_cache.model.serve.guard import Limits
    from tosca_cache.model.serve.served import Served

    chosen = Limits(**limits)
    served = Served(path, max_pixels=chosen.pixels)
    before(served)
    return create_app(served, chosen, token=token, read_only=read_only)


def client_of(path, **options):
    """A client of the application within this process: the arguments of `app_of`."""
    from starlette.testclient import TestClient

    return TestClient(app_of(path, **options), base_url="http://127.0.0.1", raise_server_exceptions=False)


def encoding(change):
    """For `before`: change(photos) is called before the backbone sees some photos."""

    def before(served):
        plain = served.encoder.encode
        served.encoder.encode = lambda photos: change(photos) or plain(photos)

    return before


@contextmanager
def listening(app):
    """Serves an application on a free port of this machine; gives its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def http_of(path, **options):
    """A client of a real server of the application: the arguments of `app_of`."""
    import httpx2

    with listening(app_of(path, **options)) as address, httpx2.Client(base_url=address, timeout=60) as client:
        yield client


def upload(*contents):
    """A form of photos, called by their numbers."""
    return [("photos", (f"{number}.png", content)) for number, content in enumerate(contents)]
