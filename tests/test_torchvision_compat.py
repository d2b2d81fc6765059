"""torchvision beside a torch that it was not built for; with a stand-in for torchvision, so that it is tested anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]
IS_DECLARED = "import torch; declared = torch._C._dispatch_has_kernel('torchvision::nms') or bool("
IS_DECLARED += "[s for s in torch._C._jit_get_all_schemas() if s.name == 'torchvision::nms'])"


def python(code, *folders):
    path = os.pathsep.join(map(str, (*folders, PACKAGE)))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )


@pytest.fixture
def make_torchvision(tmp_path):
    """A torchvision of two files, of which the second is what breaks."""

    def make(code):
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text("from torchvision import inner\nwhole = True\n")
        (tmp_path / "torchvision" / "inner.py").write_text(code)
        return tmp_path

    return make


CALL = "from tosca_cache.torchvision_compat import ensure_torchvision\nhealthy = ensure_torchvision()\n"
REGISTER = "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(a, b, c): return a\n"


def test_the_installed_one_can_be_imported():
    result = python(CALL + "import timm, torchvision\nfrom torchvision.transforms import v2\nprint(healthy)")
    assert result.returncode == 0, result.stderr


def test_missing_operators_are_declared(make_torchvision):
    folder = make_torchvision(REGISTER)
    assert "torchvision::nms does not exist" in python("import torchvision", folder).stderr
    result = python(CALL + "import torchvision; print(healthy, torchvision.whole)", folder)
    assert result.stdout.split() == ["False", "True"], result.stderr


def test_nothing_is_done_where_it_is_healthy(make_torchvision):
    code = CALL + IS_DECLARED + "\nprint(healthy, declared)"
    result = python(code, make_torchvision("healthy = True\n"))
    assert result.stdout.split() == ["True", "False"], result.stderr


def test_other_errors_are_not_hidden(make_torchvision):
    result = python(CALL, make_torchvision("raise RuntimeError('broken otherwise')\n"))
    assert "RuntimeError: broken otherwise" in result.stderr
