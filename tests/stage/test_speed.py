"""Speeds as numbers: the wait for data, and the share of a GPU's peak."""

import time
from types import SimpleNamespace

import pytest
import torch

from fastres.machine.facts import peak_flops
from fastres.model.network import Architecture, build
from fastres.stage.speed import Speed, wait_pct


def test_the_wait_for_a_slow_source_is_counted_and_the_steps_are_not():
    def slow():
        for number in range(4):
            time.sleep(0.05)
            yield number

    stage = speed("cpu", None)
    stage.wait_s, started = 0.0, time.perf_counter()
    for _ in stage.fed(slow()):
        time.sleep(0.1)
    passed = time.perf_counter() - started
    assert 0.2 <= stage.wait_s <= passed - 0.4, "four waits, without the four steps"
    assert wait_pct(stage.wait_s, 0.0) is None
    assert wait_pct(1.0, 4.0) == 25.0


@pytest.mark.parametrize(
    "name, precision, tflops",
    [
        ("NVIDIA H200", "bf16", 989),
        ("NVIDIA H100 80GB HBM3", "fp16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA A10G", "bf16", None),
        ("NVIDIA A10", "bf16", 125),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "bf16", None),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA H100 NVL", "bf16", None),
        ("NVIDIA GeForce GTX 1080", "fp32", None),
        ("NVIDIA H200 MIG 1g.18gb", "bf16", None),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "bf16", None),
    ],
)
def test_peaks_by_the_names_torch_gives(name, precision, tflops):
    assert peak_flops(name, precision) == (None if tflops is None else tflops * 1e12)


def speed(device: str, img_per_s: float | None) -> Speed:
    """Of a whole ResNet-18 at crop 224, on a machine of two processes: ten seconds of an epoch, one of them waiting."""
    precision = SimpleNamespace(device=SimpleNamespace(type=device), name="bf16")
    with torch.device("meta"):
        network = build(Architecture("resnet18", 64, 200, "7x7"))
    speed = Speed(network, ("*",), 224, precision, 2)
    speed._rate = SimpleNamespace(img_per_s=img_per_s)
    speed.train_s_before, speed.wait_s = 10.0, 1.0
    return speed


@pytest.mark.parametrize(
    "name, keys",
    [
        ("NVIDIA H200", {"img_per_s", "data_wait_pct", "gpu_mem_gb", "mfu_pct"}),
        ("Some GPU", {"img_per_s", "data_wait_pct", "gpu_mem_gb"}),
    ],
)
def test_readings_of_a_gpu(monkeypatch, name, keys):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12_500_000_000)
    found = speed("cuda", 20_000.0).read()
    assert set(found) == keys
    assert found["gpu_mem_gb"] == 12.5 and found["data_wait_pct"] == 10.0
    if "mfu_pct" in keys:  # 10.65 GFLOP an image (test_study_parts has it layer by layer)
        assert found["mfu_pct"] == pytest.approx(100 * 10.65e9 * 20_000 / (2 * 989e12), rel=0.01)
    assert "mfu_pct" not in speed("cuda", None).read(), "nothing is known while it warms up"


def test_readings_of_a_cpu():
    assert speed("cpu", 100.0).read() == {"img_per_s": 100.0, "data_wait_pct": 10.0}
