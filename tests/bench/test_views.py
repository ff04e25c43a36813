"""bench views and loaders: real short runs, what they write, and a dump and a digest that others can check."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres.bench import __main__ as bench
from fastres.bench import harness, loaders, output, views
from fastres.bench.harness import Contender
from fastres.data.manifest import (
    ClassInfo,
    Manifest,
    digest_of_classes,
    digest_of_files,
    save_manifest,
    sha256_of,
)
from fastres.machine import waiting
from fastres.machine.errors import DataError, MachineError, UsageError
from fastres.views.draw import epoch_order


@pytest.mark.slow
def test_a_short_run_prints_a_table_and_writes_its_record(tmp_path, capfd):
    """Only ours, to be quick: the process of its own, the table, the JSON, the dated folder with its chart."""
    code = bench.main(
        [
            "views",
            "--batch",
            "8",
            "--rounds",
            "2",
            "--seconds",
            "0.01",
            "--images",
            "40",
            "--only",
            "fastres numba",
            "--device",
            "cpu",
            "--json",
            str(tmp_path / "v.json"),
            "--record",
            str(tmp_path / "runs"),
        ]
    )
    printed = capfd.readouterr().out
    assert code == 0 and "write bandwidth" in printed and "**fastres numba bfloat16**" in printed
    result = json.loads((tmp_path / "v.json").read_text())
    assert {"machine", "rows", "ratios", "write_bandwidth_gb_per_s", "command"} <= set(result)
    waits = {name: value for name, value in harness.tuned().items() if name in waiting.CHOSEN_BY_OTHERS}
    assert result["machine"]["threads_wait"] == waits != {}
    assert {(row["mode"], row["dtype"]) for row in result["rows"]} == {
        (mode, dtype) for mode in views.MODES for dtype in ("float32", "bfloat16")
    }
    for row in result["rows"]:
        assert 0 < row["lowest"] <= row["img_per_s"] <= row["highest"] and row["share_of_write_bandwidth"] > 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith(result["machine"]["date"] + "_bench-views_")
    assert {path.name for path in folder.iterdir()} == {"views.json", "table.md", "chart.png"}
    assert "--images 40" in (folder / "table.md").read_text()


@pytest.mark.slow
def test_the_dump_holds_images_draws_and_outputs_that_agree(tmp_path):
    views.dump(tmp_path / "d.npz", torch.device("cpu"))
    with np.load(tmp_path / "d.npz") as dumped:
        content = dict(dumped)
    assert content["images"].shape == (8, 64, 64, 3) and set(content["A_top"]) <= set(range(33))
    for mode, side in ("A", 224), ("B", 56):
        for kind, count in ("train", 8), ("twelve", 12):
            truth = content[f"{mode}_{kind}_reference_float64"]
            assert truth.shape == (count, side, side, 3)
            for name in ("torch_float32", "numba_float32"):
                ours = content[f"{mode}_{kind}_{name}"]
                assert np.abs(ours - truth).max() <= 2e-6 * max(1, np.abs(truth).max())
            assert np.abs(content[f"{mode}_{kind}_numba_bfloat16"] - truth).max() < 0.04


def test_ratios_are_to_the_best_peer_of_the_mode():
    def contender(mode, name, rate, ours=False):
        return harness.row(Contender(mode, name, run=int, ours=ours, rates=[rate, rate, 9 * rate]))

    rows = [contender("A", "us", 100.0, True), contender("A", "p", 10.0), contender("A", "q", 20.0)]
    rows += [contender("B", "us", 7.0, True)]
    assert harness.ratios(rows) == {"A: us float32 / q": 5.0}
    assert harness.ratios(rows, to_all=True) == {"A: us float32 / q": 5.0, "A: us float32 / p": 10.0}


@pytest.mark.slow
def test_contenders_take_turns():
    turns, device = [], torch.device("cpu")
    contenders = [Contender("A", name, lambda n, name=name: turns.append(name) or n) for name in "xy"]
    assert harness.take_turns(contenders, rounds=3, seconds=0, device=device) == (contenders, [])
    assert turns == ["x", "y"] * 4
    assert all(len(contender.rates) == 3 for contender in contenders)


def test_one_that_fails_when_it_first_runs_costs_only_itself(capsys):
    def crash(_):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    contenders = [Contender("A", "peer", lambda n: n), Contender("A", "fastres captured", crash, ours=True)]
    ran, skipped = harness.take_turns(contenders, rounds=2, seconds=0, device=torch.device("cpu"))
    assert ran == contenders[:1] and len(ran[0].rates) == 2
    assert skipped == [
        "A: fastres captured left out: RuntimeError: CUDA error: operation not permitted when stream is capturing"
    ]
    assert "Traceback" in capsys.readouterr().err
    harness.check_ours_ran(["timm left out: ImportError"])
    with pytest.raises(MachineError, match="fastres captured left out"):
        harness.check_ours_ran(skipped)


@pytest.mark.slow
def test_what_cannot_run_is_said_and_left_out(capsys):
    def missing():
        raise ModuleNotFoundError("No module named 'korniabc'")

    assert harness.all_of([("kornia", missing)]) == (
        [],
        ["kornia left out: ModuleNotFoundError: No module named 'korniabc'"],
    )
    assert "kornia left out" in capsys.readouterr().err
    with pytest.raises(MachineError, match="ended with 2"):
        harness.in_tuned_process("views", ["--batch", "many"])


def test_wrong_usage_is_one_sentence():
    with pytest.raises(UsageError, match="expected one of views, augmented, loaders"):
        bench.main(["kernels"])
    with pytest.raises(UsageError, match="1 or more"):
        bench.main(["views", "--batch", "0"])
    assert bench.main(["--help"]) == 0


def test_a_tables_numbers_are_the_rows():
    result = {
        "machine": {"gpu": None, "processor": "P", "cores": 2, "threads": 2, "libraries": {"torch": "2"}, "date": "d"},
        "rows": [harness.row(Contender("A", "us", run=int, ours=True, rates=[2000.0], bytes_per_image=10**6), 4e9)],
        "ratios": {},
        "skipped": ["kornia left out: why"],
    }
    assert "| **us float32** | 2,000 | 2,000–2,000 | 2.00 | 50% |  |" in output.table(result)
    assert "kornia left out: why" in output.table(result)


@pytest.fixture
def packed(tmp_path) -> Path:
    """21 random images of 16 px in two classes, as the packer leaves them."""
    folder, rng = tmp_path / "packed", np.random.default_rng(0)
    folder.mkdir()
    np.save(folder / "train.images.npy", rng.integers(0, 256, (21, 16, 16, 3), dtype=np.uint8))
    np.save(folder / "train.labels.npy", rng.integers(0, 2, 21))
    names = ("train.images.npy", "train.labels.npy")
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}
    manifest = Manifest(
        side=16,
        classes=(ClassInfo("n1", "one"), ClassInfo("n2", "two")),
        files=files,
        data_digest=digest_of_files(files),
        class_digest=digest_of_classes(["n1", "n2"]),
        source={},
        splits={"train": {"count": 21, "labelled": True}},
        versions={},
    )
    save_manifest(folder, manifest)
    return folder


@pytest.mark.parametrize("batch", ["1", "4", "64"])
def test_the_digest_is_of_ids_labels_and_pixels_in_the_epochs_order(packed, batch, capsys):
    assert bench.main(["loaders", "--data", str(packed), "--digest", "--batch", batch, "--device", "cpu"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("resident: ") and first.endswith("img/s, N = 21")
    ids = epoch_order(21, seed=0, stage=0, epoch=1)
    images, labels = np.load(packed / "train.images.npy"), np.load(packed / "train.labels.npy")
    parts = [ids, labels[ids], images[ids]]
    assert last == loaders.digest_of(parts)
    for damaged in range(3):
        changed = [part.copy() for part in parts]
        changed[damaged].flat[-1] ^= 1
        assert last != loaders.digest_of(changed)


@pytest.mark.slow
def test_a_loaders_epoch_is_timed_and_recorded(packed, tmp_path, capfd):
    code = bench.main(
        [
            "loaders",
            "--data",
            str(packed),
            "--batch",
            "8",
            "--rounds",
            "1",
            "--only",
            "torchvision v2",
            "--device",
            "cpu",
            "--json",
            str(tmp_path / "l.json"),
        ]
    )
    assert code == 0 and "**fastres resident float32**" in capfd.readouterr().out
    result = json.loads((tmp_path / "l.json").read_text())
    assert result["images"] == 21 and result["side"] == 16
    assert {row["name"] for row in result["rows"] if not row["ours"]} == {"torchvision v2"}
    assert "A: upscaled by 4: fastres resident float32 / torchvision v2" in result["ratios"]


def test_loaders_refuse_what_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="expected one of resident"):
        bench.main(["loaders", "--engine", "residents"])
    with pytest.raises(DataError):
        bench.main(["loaders", "--data", str(tmp_path)])


@pytest.mark.parametrize(("slowest", "scale"), [(400.0, "linear"), (10.0, "log")])
def test_bars_begin_at_zero_where_all_can_be_seen(tmp_path, monkeypatch, slowest, scale):
    """A logarithmic scale has no zero: it showed 2.6 times as eight times as long."""
    from matplotlib import pyplot as plt

    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    contenders = [Contender("A", "us", int, ours=True, rates=[1000.0]), Contender("A", "peer", int, rates=[slowest])]
    output.chart({"rows": [harness.row(contender) for contender in contenders]}, tmp_path / "chart.png")
    (axis,) = kept[0].axes
    assert axis.get_xscale() == scale and (scale == "log" or axis.get_xlim()[0] == 0)
