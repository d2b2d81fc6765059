"""torchvision beside a torch that it was not built for; with a stand-in for torchvision, so that it is tested anywhere."""

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
IS_DECLARED = "import torch; declared = torch._C._dispatch_has_kernel('torchvision::nms') or bool("
IS_DECLARED += "[s for s in torch._C._jit_get_all_schemas() if s.name == 'torchvision::nms'])"


def python(code, *folders):
    path = os.pathsep.join(map(str, (*folders, PACKAGE)))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )


CALL = "from tosca_cache.torchvision_compat import ensure_torchvision\nhealthy = ensure_torchvision()\n"
REGISTER = "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(a, b, c): return a\n"


def test_missing_operators_are_declared_and_no_other_error_is_hidden(tmp_path):
    """With a torchvision of two files, of which the second is what breaks."""
    result = python(CALL + "import timm, torchvision\nfrom torchvision.transforms import v2\nprint(healthy)")
    assert result.returncode == 0, result.stderr
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("from torchvision import inner\nwhole = True\n")
    inner = tmp_path / "torchvision" / "inner.py"
    inner.write_text(REGISTER)
    assert "torchvision::nms does not exist" in python("import torchvision", tmp_path).stderr
    result = python(CALL + "import torchvision; print(healthy, torchvision.whole)", tmp_path)
    assert result.stdout.split() == ["False", "True"], result.stderr
    inner.write_text("healthy = True\n")
    result = python(CALL + IS_DECLARED + "\nprint(healthy, declared)", tmp_path)
    assert result.stdout.split() == ["True", "False"], result.stderr
    inner.write_text("raise RuntimeError('broken otherwise')\n")
    assert "RuntimeError: broken otherwise" in python(CALL, tmp_path).stderr
