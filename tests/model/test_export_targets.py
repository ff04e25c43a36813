"""What export may replace: what it wrote itself, and nothing that only speaks of fastres."""

import pytest

from fastres.machine.errors import UsageError
from fastres.model import export
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from fastres.schedules import PAPER
from fastres.schedules.writing import write_schedule


@pytest.mark.parametrize("kind", ["schedule", "notes", "page", "others' weights"])
@pytest.mark.parametrize("option", ["--safetensors", "--onnx"])
def test_a_file_that_speaks_of_fastres_is_not_replaced(tmp_path, kind, option):
    net, target = tmp_path / "net.safetensors", tmp_path / "target"
    state = build(Architecture("resnet18", 8, 4))
    net.write_bytes(save_weights(state, {"side": 16, "upscale": 4}))
    if kind == "schedule":
        write_schedule(target, PAPER, "for fastres")
    else:
        texts = {
            "notes": b"My notes on fastres\n",
            "page": b"<!doctype html>fastres",
            "others' weights": b"\x02" + b"\0" * 7,
        }
        target.write_bytes(texts[kind] + (b"{}fastres" if kind == "others' weights" else b""))
    before = target.read_bytes()
    with pytest.raises(UsageError, match="holds what this command does not write"):
        export.main([str(net), option, str(target)])
    assert target.read_bytes() == before


def test_its_own_file_is_replaced(tmp_path):
    net, out = tmp_path / "net.safetensors", tmp_path / "out.safetensors"
    net.write_bytes(save_weights(build(Architecture("resnet18", 8, 4)), {"side": 16, "upscale": 4}))
    for _ in range(2):
        assert export.main([str(net), "--safetensors", str(out)]) == 0
