"""`bench steps`: every peer runs or says why not, timm's network is ours, a floor is drawn only where one is known."""

import json
from importlib.util import find_spec

import pytest
import torch

from fastres.bench import harness, output, step_floor, steps
from fastres.bench.peers import steps as peer_steps
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.model.flop import training_flop
from fastres.model.network import Architecture, build
from fastres.views.geometry import Geometry

FULL = steps.KINDS["full"][0]


@pytest.mark.parametrize("kind", steps.KINDS)
def test_without_a_limit_of_memory_the_floor_is_the_arithmetic(kind):
    """As torch's own counter has it."""
    stage, stem = steps.KINDS[kind]
    architecture, crop = Architecture("resnet18", 64, 200, stem), Geometry(64, stage.upscale).crop
    flop = step_floor.seconds_per_image(architecture, stage.train, crop, 1.0, float("inf"))
    assert flop == training_flop(architecture, stage.train, crop)


def test_a_layer_that_memory_limits():
    """The head of a stage that trains the head alone: 512 numbers in, 1000 out, two bytes each, forward and weight."""
    by_memory = [
        step_floor.seconds_per_image(Architecture("resnet18", 64, classes), ("fc.*",), 224, float("inf"), 1.0)
        for classes in (1000, 2000)
    ]
    assert by_memory[1] - by_memory[0] == 2 * 2 * 1000


def test_a_floor_is_stated_only_where_it_is_known():
    ours = Architecture("resnet18", 64, 200)
    h200, h100 = (
        step_floor.images_per_second(FULL, ours, 64, "bf16", gpu) for gpu in ("NVIDIA H200", "NVIDIA H100 80GB HBM3")
    )
    assert (h200, h100) == (69_666, 65_700)
    assert step_floor.images_per_second(FULL, ours, 64, "fp16", "NVIDIA H200") == h200
    for precision, gpu in (
        ("bf16", None),
        ("bf16", "NVIDIA GH200 480GB"),
        ("fp32", "NVIDIA H200"),
        ("bf16", "NVIDIA H200 MIG 1g.18gb"),
        ("bf16", "NVIDIA H100 PCIe"),
    ):
        assert step_floor.images_per_second(FULL, ours, 64, precision, gpu) is None
    assert "none is known for a CPU" in step_floor.note(False, None)


def test_table_and_chart_show_the_floor(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines = []
    monkeypatch.setattr(Axes, "axvline", lambda axis, x, **_: lines.append(x))
    machine = {"gpu": "g", "threads": 1, "libraries": {"torch": "2"}, "date": "d"}
    contenders = [harness.Contender(mode, "us", int, ours=True, rates=[27_000.0]) for mode in ("full", "other")]
    result = {
        "machine": machine,
        "rows": [harness.row(c) for c in contenders],
        "ratios": {},
        "floors": {"full": 54_000},
        "floor_note": "a note",
    }
    output.chart(result, tmp_path / "chart.png")
    assert lines == [54_000]
    text = output.table(result)
    assert "50%   of the floor of 54,000 img/s, full" in text and "a note" in text and text.count("the floor of") == 1


@pytest.mark.parametrize(("arch", "stem"), [("resnet18", "7x7"), ("resnet18", "3x3"), ("resnet50", "7x7")])
def test_timms_network_is_ours_at_any_width(arch, stem):
    pytest.importorskip("timm")
    architecture = Architecture(arch, 8, 7, stem)
    theirs, ours = peer_steps.timm_network(architecture).eval(), build(architecture).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("option", "value"), [("--precision", "fp32,fp17"), ("--stages", "fc,head")])
def test_what_steps_does_not_know_is_refused(option, value, capsys):
    assert run_command(lambda: steps.main([option, value])) == 2
    assert f"{value.split(',')[1]}: unknown, expected some of" in capsys.readouterr().err


@pytest.mark.slow
def test_steps_prints_and_profiles(tmp_path, capsys):
    sizes = {"width": 8, "side": 8, "batch": 4, "rounds": 1, "seconds": 0}
    sizes["batch"], sizes["precision"] = "4,2", "fp32,bf16"
    small = ["--device=cpu", "--stages=fc", *(f"--{name}={size}" for name, size in sizes.items())]
    assert steps.main([*small, "--profile", "--record", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    result, text = json.loads((folder / "steps.json").read_text()), (folder / "profile.txt").read_text()
    assert any("fastres eager" in name for name in result["ratios"]) and "fastres eager" in capsys.readouterr().out
    for package, peer in (("timm", "timm"), ("lightning", "Lightning Fabric")):
        left_out = any(line.startswith(f"{peer} left out") for line in result["skipped"])
        assert left_out == (find_spec(package) is None), result["skipped"]
        assert left_out != (peer in {row["name"] for row in result["rows"]})
    assert list(result["views_share_of_our_step"]) == [
        f"fc, crop 28, batch {batch}, {precision}" for precision in ("fp32", "bf16") for batch in (4, 2)
    ]
    assert {row["name"] for row in result["rows"] if row["ours"]} == {"fastres eager", "fastres padded"}
    assert "GB/s" not in (folder / "table.md").read_text()
    assert result["floors"] == {} and "none is known for a CPU" in result["floor_note"]
    assert "fastres eager, 10 steps" in text and "convolution" in text and (folder / "chart.png").stat().st_size


def test_a_gpu_gets_each_kind_that_can_run_there():
    """What cannot be captured is not tried, so it is not counted as ours failing."""
    gpu, fused = torch.device("cuda", 0), find_spec("triton") is not None
    captured = ["captured", *(["fused", "captured-fused"] if fused else [])]
    assert steps._kinds(Precision("bf16", gpu), compiled=True) == ["eager", "compiled", *captured, "padded"]
    assert steps._kinds(Precision("fp32", gpu), compiled=False) == ["eager", *captured, "padded"]
    assert steps._kinds(Precision("fp16", gpu), compiled=False) == [
        "eager",
        *(["fused"] if fused else []),
        "padded",
    ]
    assert steps._kinds(Precision("fp32", torch.device("cpu")), compiled=True) == ["eager", "compiled", "padded"]
