"""The page's code opens an exported file in plain torchvision, with the same scores."""

import re

import pytest
import torch

from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from tests.support.docs_commands import DOCS

BLOCK = re.search(r"```python\n(from safetensors.*?)```", (DOCS / "your-data.md").read_text(), re.S)[1]


@pytest.mark.parametrize("stem", ["3x3", "7x7"])
def test_the_pages_code_gives_our_scores(stem, tmp_path, monkeypatch):
    torch.manual_seed(0)
    ours = build(Architecture("resnet18", 64, 5, stem)).eval()
    (tmp_path / "net.safetensors").write_bytes(save_weights(ours, {}))
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(BLOCK, found)  # noqa: S102 (our own page)
    views = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(found["network"](views), ours(views), rtol=1e-5, atol=1e-5)
