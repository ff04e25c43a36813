"""The doctor tells what is there, what is missing and what to type, and its exit code says whether training can run."""

import json
import shutil

import pytest
import torch

from fastres.machine import __main__ as doctor
from fastres.machine import checks


@pytest.fixture(autouse=True)
def imports(request, monkeypatch):
    """Importing FFCV, DALI and the rest takes seconds, and so do the compilers: other tests are about those."""
    monkeypatch.setattr(checks, "PROBES", ())
    if "cannot_be_imported" not in request.node.name:
        monkeypatch.setattr(checks, "import_faults", lambda modules: {})


def run(packed, capsys, *extra):
    code = doctor.main(["--data", str(packed), "--json", *extra])
    return code, {f["what"]: f for f in json.loads(capsys.readouterr().out)["findings"]}


def test_a_sound_machine_and_data(packed, capsys):
    code, findings = run(packed, capsys)
    assert code == 0
    assert findings["packed data"]["state"] == "ok" and "train 40, val 20, test 6" in findings["packed data"]["found"]
    assert all(findings[name]["state"] == "ok" for name in ("Python", "torch", "torchvision", "numba"))
    assert all(f["remedy"] for f in findings.values() if f["state"] != "ok")


def test_damaged_data_is_a_fault_and_absent_data_a_gap(packed, tmp_path, capsys):
    folder = shutil.copytree(packed, tmp_path / "packed")
    (folder / "train.images.npy").write_bytes(b"short")
    code, findings = run(folder, capsys)
    assert code == 4 and findings["packed data"]["state"] == "fault"
    assert "train.images.npy" in findings["packed data"]["found"]
    code, findings = run(tmp_path / "none", capsys)
    assert code == 0 and findings["packed data"]["remedy"] == "python preprocess/pack.py"


def test_a_folder_with_a_packer_of_its_own_is_not_asked(packed, tmp_path, capsys, monkeypatch):
    (tmp_path / "preprocess").mkdir()
    (tmp_path / "preprocess" / "pack.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    assert run(packed, capsys)[1]["packed data"]["state"] == "ok"


@pytest.mark.fault(18)
def test_missing_wandb_and_old_torch(packed, capsys, monkeypatch):
    versions = {"torch": "2.9.1", "wandb": None, "numba": "0.68.1"}
    monkeypatch.setattr(checks, "_version", lambda package: versions.get(package))
    monkeypatch.setattr(checks, "is_here", lambda module: module == "numba")
    code, findings = run(packed, capsys)
    assert code == 4 and findings["torch"]["state"] == "fault" and "torch>=2.11" in findings["torch"]["remedy"]
    assert findings["W&B"]["state"] == "gap" and "pip install wandb" in findings["W&B"]["remedy"]
    assert findings["ffcv"]["state"] == "gap" and "not installed (optional)" in findings["ffcv"]["found"]
    assert findings["numba"]["found"] == "0.68.1"


@pytest.mark.slow
@pytest.mark.fault(18)
def test_a_library_that_is_installed_and_cannot_be_imported(packed, tmp_path, capsys, monkeypatch):
    """As FFCV without the system's OpenCV, and as a wheel that ends its process."""
    (tmp_path / "ffcv.py").write_text("import ctypes; ctypes.CDLL('libopencv_nowhere.so.406')")
    (tmp_path / "optuna.py").write_text("import os; os._exit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, findings = run(packed, capsys)
    assert code == 0 and findings["ffcv"]["state"] == "gap" and findings["ffcv"]["remedy"].startswith("apt-get install")
    assert "installed, but OSError: libopencv_nowhere.so.406" in findings["ffcv"]["found"]
    assert findings["optuna"]["found"] == "installed, but its import ends with 7"
    assert findings["numba"]["state"] == "ok"


def test_screen_has_a_line_for_each(packed, capsys):
    assert doctor.main(["--data", str(packed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.examine(packed)) and all(line.startswith(("ok", "gap")) for line in lines)


def test_a_package_that_is_broken_is_a_line_and_not_a_traceback(packed, capsys, monkeypatch):
    def broken():
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    _, findings = run(packed, capsys)
    assert "cannot be looked at" in findings["gpu"]["found"] and findings["gpu"]["remedy"]
