"""A GPU that torch cannot use is said; what is known of a GPU decides the number format. All of it acted out."""

import types
import warnings

import pytest
import torch

from fastres.machine import checks, device, gpu, versions
from fastres.machine.errors import MachineError
from fastres.machine.extras import install_line
from fastres.train.command import main
from tests.support.tiny_runs import train_tiny


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a GPU that torch does not find, described by the fields of what is returned."""
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    told = types.SimpleNamespace(usable=False, warning=None, cuda="13.0")

    def is_available():
        if told.warning:  # once a process, as torch does
            warnings.warn(told.warning, stacklevel=2)
            told.warning = None
        return told.usable

    monkeypatch.setattr(gpu, "NODES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.version, "cuda", told.cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told.folder = tmp_path
    return told


OLD_DRIVER = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update it."


@pytest.mark.parametrize("wanted", ["auto", "cuda", "cuda:0"])
def test_a_driver_too_old_is_said_and_the_cpu_not_taken(machine, wanted):
    machine.warning = OLD_DRIVER
    words = (
        "nvidia0.* for CUDA 13.0 cannot use it .*too old.*newer driver, or torch for an older CUDA, or use --device cpu"
    )
    with pytest.raises(MachineError, match=words):
        device.choose_device(wanted)
    assert device.choose_device("cpu") == torch.device("cpu")


def test_other_reasons_why_a_gpu_is_not_used(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(MachineError, match="sees none of CUDA_VISIBLE_DEVICES=7; unset it"):
        device.choose_device("auto")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(MachineError, match="built without CUDA; install torch's build for CUDA, or use --device cpu"):
        device.choose_device("auto")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_hidden_on_purpose_is_none(machine, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device.choose_device("auto") == torch.device("cpu")


def test_a_machine_without_a_gpu_takes_the_cpu(machine):
    (machine.folder / "nvidia0").unlink()  # the control node alone is no GPU
    assert device.choose_device("auto") == torch.device("cpu")


def test_the_command_ends_with_exit_4_and_the_doctor_finds_it(machine, packed, tmp_path, capsys):
    from fastres.machine.command import run_command

    machine.warning = OLD_DRIVER
    assert (
        run_command(lambda: main(["--schedule", "demo", "--data", str(packed), "--run-dir", str(tmp_path / "r")])) == 4
    )
    assert "too old" in capsys.readouterr().err and not (tmp_path / "r").exists()
    found = checks._gpu()
    assert found.state == "fault" and "too old" in found.found and "--device cpu" in found.remedy


def test_the_device_is_said_first(packed, tmp_path, capsys):
    train_tiny(packed, tmp_path / "run", "--no-evaluation", "--precision", "fp32")
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("device: ") and first.endswith(" threads), fp32")


@pytest.mark.parametrize(
    ("capability", "native", "expected"),
    [
        ((9, 0), True, "bf16"),
        ((8, 0), True, "bf16"),
        ((7, 5), False, "fp16"),
        ((7, 0), False, "fp16"),
        ((6, 1), False, "fp32"),
    ],
)
def test_auto_precision_of_gpus(monkeypatch, capability, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.choose_precision("auto", torch.device("cuda", 0)).name == expected


def test_a_gpu_older_than_torchs_kernels_is_refused_by_name(monkeypatch):
    built = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_90"]
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 0))
    with pytest.raises(
        MachineError, match=r"Tesla P100 \(sm_60\) is older than .* sm_75; install torch for an older CUDA"
    ):
        gpu.check_architecture(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    gpu.check_architecture(torch.device("cuda", 0))
    built.clear()
    gpu.check_architecture(torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("version", "needs", "expected"),
    [
        ("2.11.0+cu126", [], "dali-cuda12"),
        ("2.11.0", ["nvidia-cudnn-cu12==9.10.2", "sympy"], "dali-cuda12"),
        ("2.15.0", ["nvidia-cudnn-cu13==9.20", "sympy"], "dali"),
        ("2.13.0+cpu", None, "dali"),
        (None, None, "dali"),
    ],
)
def test_dalis_wheel_is_that_of_torchs_cuda(monkeypatch, version, needs, expected):
    monkeypatch.setattr(versions, "installed", lambda _: version)
    monkeypatch.setattr(versions.importlib.metadata, "requires", lambda _: needs)
    assert f"[{expected}]'" in install_line("dali")


def test_records_name_no_cpu_where_torch_cannot_use_the_gpu(machine, tmp_path, monkeypatch):
    """The soak's and the study's: by the choice of device that training makes."""
    from fastres.bench import soak
    from fastres.study.findings.record import record

    monkeypatch.setattr(soak, "watch", lambda *_: [])
    with pytest.raises(MachineError, match="a GPU is here"):
        soak.main([])
    with pytest.raises(MachineError, match="a GPU is here"):
        record(tmp_path / "runs", None, "python -m fastres.study paper")
    soak.main(["--device", "cpu"])
    assert not (tmp_path / "runs").exists()
