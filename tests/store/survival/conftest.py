"""What an uninterrupted run makes of each scene."""

import pytest
from scenes import SCENES, files


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Scene -> every file of the store with its bytes, provenance included."""
    found = {}
    for name, scene in SCENES.items():
        path = tmp_path_factory.mktemp("whole") / "s"
        scene.make(path)
        found[name] = files(path)
    return found
