"""The same source for narrower vectors: what a processor without AVX-512 would run."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
sys.path.insert(0, sys.argv[2])
from tosca_cache.train.native import library
library.FOR_THIS_PROCESSOR = (sys.argv[1],)
from test_stacked import FLOWS, OPTIMIZERS, test_the_compiled_kernels_do_what_pytorch_does as compare
for flow in FLOWS:
    for optimizer in OPTIMIZERS:
        compare(flow, optimizer, 37, 3, 5)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 processors")
@pytest.mark.parametrize("processor", [pytest.param("-march=haswell", marks=pytest.mark.long), "-march=x86-64"])
def test_narrower_vectors_give_the_same_numbers(tmp_path, processor):
    command = [sys.executable, "-c", RUN, processor, str(Path(__file__).parent)]
    subprocess.run(command, env=os.environ | {"TOSCA_KERNEL_CACHE": str(tmp_path)}, check=True)
