"""model/dynamo_later.py: torchvision loads without Dynamo, and what it took from there still answers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastres

LATER = """
import sys
from fastres.model import network
from fastres.model.dynamo_later import DYNAMO, UTILS, is_compile_supported
assert not [name for name in sys.modules if name.startswith((DYNAMO, "sympy"))], "Dynamo was loaded"
from torchvision.ops import roi_align
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported is is_compile_supported
found = is_compile_supported("cpu")
assert sys.modules[UTILS].is_compile_supported is not is_compile_supported
assert found == sys.modules[UTILS].is_compile_supported("cpu")
"""
MORE = """
import sys
from fastres.model.dynamo_later import dynamo_later
with dynamo_later():
    from torch._dynamo.utils import is_compile_supported, counters    # the second loads the real modules
    import torch._dynamo.eval_frame
import torch
assert torch._dynamo.eval_frame is sys.modules["torch._dynamo.eval_frame"]
assert counters is sys.modules["torch._dynamo.utils"].counters and torch.compile
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [LATER, MORE])
def test_dynamo_comes_when_it_is_asked_for(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_torchvision_is_loaded_by_one_file():
    """The others take what they need of it from there, or ask for it later: otherwise the first import decides."""
    for file in Path(fastres.__file__).parent.rglob("*.py"):
        assert not re.search(r"^(from|import) torchvision", file.read_text(), re.M), file


@pytest.mark.slow
def test_predict_starts_without_dynamo():
    program = "import fastres.predict.__main__, sys; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
