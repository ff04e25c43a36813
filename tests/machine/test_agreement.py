"""Processes that were not started alike end before anything trains: one sentence with the name and both values."""

import os
from unittest import mock

import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.machine import versions
from fastres.machine.processes.distributed import SHOWN, differences
from fastres.machine.versions import of_code
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from tests.support import processes, sharing
from tests.support.packing import need
from tests.support.worlds import pack

ENDS = "expected one run: give all the same command, code and versions"


def mine(each: list):
    return each[int(os.environ["RANK"])]


def train_each(packed: list[str], folder: list[str], extra: list[list[str]], older: list[str]) -> dict:
    """`train` in each process with its own arguments; `older`: what each takes its torch for."""
    real = versions.installed
    with mock.patch.object(
        versions, "installed", lambda name: mine(older) or real(name) if name == "torch" else real(name)
    ):
        return sharing.train_run(mine(packed), mine(folder), mine(extra))


def evaluate_each(arguments: list[list[str]]) -> dict:
    return sharing.evaluate_run(mine(arguments))


def check_refused(results: list[dict], *words: str) -> None:
    assert [result["code"] for result in results] == [2, 2], results
    (said,) = [result["said"] for result in results if "error:" in result["said"]]
    assert ENDS in said and all(word in said for word in words), said
    assert all("Traceback" not in result["said"] for result in results)


def weights(path, packed, seed: int = 0) -> str:
    torch.manual_seed(seed)
    facts = {"upscale": 4, "class_digest": load_manifest(packed).class_digest}
    path.write_bytes(save_weights(build(Architecture("resnet18", 8, 4)), facts))
    return str(path)


@pytest.mark.fault(39)
@pytest.mark.slow
@pytest.mark.parametrize(
    "extra,words",
    [
        (
            ["--set", "optimizer.lr=0.5", "stages.1.epochs=7", "--seed", "7", "--precision", "bf16"],
            [
                "schedule.optimizer.lr (",
                "0.5 in process 1",
                "schedule.stages.1.epochs (",
                "seed (0 in process 0",
                "bf16",
            ],
        ),
        (["--deterministic", "--no-evaluation"], ["deterministic (not set in process 0", "no_evaluation (false in"]),
        (
            ["--sync-bn", "--engine", "dali"],
            ["sync_bn (false in process 0", 'engine ("resident" in process 0', '"dali"'],
        ),
        (["--dry-run"], ["dry_run (false in process 0"]),
    ],
    ids=["what it computes", "how", "on what", "a dry run"],
)
def test_another_command(packed, tmp_path, extra, words):
    if "dali" in extra:
        need("dali")
    arguments = (
        [str(packed)] * 2,
        [str(tmp_path / "run")] * 2,
        [["--precision", "fp32"], ["--precision", "fp32", *extra]],
    )
    check_refused(processes.together(2, train_each, *arguments, ["", ""]), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(39)
@pytest.mark.slow
def test_other_versions_folders_and_data(packed, tmp_path):
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    data = [str(packed), str(pack(tmp_path / "other", train=36))]
    results = processes.together(2, train_each, data, folders, [[], []], ["", "2.12.0"])
    check_refused(results, "versions.torch (", '"2.12.0" in process 1', "run_dir (", "content_digest (")


@pytest.mark.fault(39)
@pytest.mark.slow
def test_weights_of_one_name_and_another_content(packed, tmp_path):
    """As on two machines with a disk each: the same command, another file."""
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        weights(tmp_path / str(seed) / "net.safetensors", packed, seed)
    results = processes.together(
        2, train_in, [str(tmp_path / "0"), str(tmp_path / "1")], str(packed), str(tmp_path / "run")
    )
    check_refused(results, "differ in weights (")


def train_in(folders: list[str], packed: str, run: str) -> dict:
    os.chdir(mine(folders))
    return sharing.train_run(packed, run, ["--weights", "net.safetensors"])


@pytest.mark.fault(39)
@pytest.mark.slow
@pytest.mark.parametrize(
    "extra,name", [(["--combine", "vote", "--precision", "bf16"], "precision ("), (None, "weights (")]
)
def test_evaluation(packed, tmp_path, extra, name):
    """`extra`: of the second process; None: other weights."""
    paths = [weights(tmp_path / f"{seed}.safetensors", packed, seed) for seed in (0, int(extra is None))]
    common = ["--data", str(packed), "--device", "cpu"]
    own = [["--precision", "fp32"], ["--precision", "fp32", *(extra or [])]]
    arguments = [[path, *common, *more] for path, more in zip(paths, own)]
    check_refused(processes.together(2, evaluate_each, arguments), name)


@pytest.mark.fault(39)
def test_differences_name_what_only_one_has_and_the_first_that_differs():
    facts = [{"a": 1, "b": [2]}, {"a": 1, "b": [2]}, {"a": 1, "c": None}]
    assert differences(facts, ["x", "x", "y"]) == [
        "b ([2] in process 0 on x, not set in process 2 on y)",
        "c (not set in process 0 on x, null in process 2 on y)",
    ]
    assert differences(facts[:2], ["x", "x"]) == [] and SHOWN >= 3


@pytest.mark.fault(39)
def test_the_code_has_one_digest():
    assert of_code() == of_code() and of_code()["torch"] and len(of_code()["fastres"]) == 12
