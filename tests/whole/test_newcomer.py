"""A newcomer's way, literally: from a clone to predictions of images of their own; then the docs' other commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres.model.reading import read_weights
from fastres.model.weights import SHIPPED, network_from
from tests.support.demo import keep_compiled
from tests.support.docs_commands import DOCS, ROOT, commands, pages
from tests.support.pets import write_pets
from tests.support.t7_files import lua_network, save
from tests.support.trees import write_image

PAGES = pages()
EVERY = [(page, command) for page in PAGES for command in commands(page)]

# What stands here is parsed, not run. The first pattern found in a command decides; each must be found in some.
NOT_RUN = {
    r"^make ": "installs gigabytes; what these tests themselves run in was made by it (the target must exist)",
    r"^git clone": "the test does it from where it lies",
    r"^cd |^source ": "the test's working folder and environment are those already",
    r"pack\.py$": "downloads Tiny ImageNet: 248 MB",
    r"^(sbatch|srun)": "needs a cluster",
    r"^wandb sync": "needs an account",
    r"^fastres ": "an installed package's script; tests/whole/test_commands.py has what it calls",
    r"^(pip|pipx|uvx) ": "changes an environment; tests/whole/test_wheel.py builds the wheel and installs it",
    r"^docker ": "needs a daemon, and gigabytes; tests/whole/test_container.py reads the Dockerfile",
    r"--nproc-per-node 4": "needs four GPUs",
    r"fastres\.study paper": "trains for minutes at least, or wants runs on Tiny ImageNet; tests/study/ runs it",
    r"fastres search --schedule paper|search-paper/best\.py": "pretrained weights from the network, and hours",
    r"--start-from": "needs the finished run of `paper`; tests/train/test_start_from.py runs it",
    r"--source tiny-imagenet-200": "needs the real photos; tests/real packs them",
    r"--tree tiny-imagenet-200": "needs the real photos and minutes; tests/bench has it on drawn ones",
    r"small-world-tiny": "the benchmarks' 120,000 images: for a GPU",
    r"fastres\.bench (views|soak|steps --precision)": "wants an idle machine and minutes, or a GPU",
    r"^python -m fastres gpu": "needs a GPU; tests/bench/test_gpu.py runs it on the CPU, small",
    r"^python -m tests\.support\.golden": "writes golden files",
    r"--weights timm:": "weights from the network; tests/model/test_named_weights.py has a stand-in for it",
}
# Hours on ImageNet's weights: run as they stand, but for what is set behind them.
HOURS = r"fastres\.train --schedule paper(?!.*--dry-run)"
SMALL = " --set width=16 batch_size=8 " + " ".join(f"stages.{stage}.epochs=1" for stage in range(4))
SHIPPED_NET = " weights=shipped:small_world_resnet18_w16"


def reason(command: str) -> str | None:
    """Why no test runs it; None for those that are run."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


def shortened(command: str, number: int) -> str:
    """The same, in seconds: one epoch a stage, the shipped network where no file is named, a run folder of its own."""
    if not re.search(HOURS, command):
        return command
    data = "" if "--data" in command else " --data packed-photos"
    return f"{command}{data} --run-dir runs/live/short{number}{SMALL}{'' if '--weights' in command else SHIPPED_NET}"


def test_what_is_not_run_has_a_reason_that_is_needed():
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command) for _, command in EVERY), f"{pattern}: no command is like it any more"
    assert sum(reason(command) is None for _, command in EVERY) >= 20


def photos(folder: Path) -> None:
    """What the page asks for: a folder a class, images of any size; cats are stripes across, dogs blobs of red."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in ("cat", "dog"):
            for i in range(1, count + 1):
                height, width = rng.integers(30, 60, 2)
                pixels = rng.normal(110, 30, (height, width, 3))
                pixels[:: 4 if label == "cat" else 1, :, 1 if label == "cat" else 0] += 70
                write_image(folder / f"{split}/{label}/{i}.jpg", pixels.clip(0, 255).astype(np.uint8))
    for i in range(2):
        write_image(folder / f"test/{i}.jpg", rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone, or a copy where there is no git, in which `python` is this one; the photos are the newcomer's. packed/
    has them too: the pages' commands expect Tiny ImageNet there."""
    folder = tmp_path_factory.mktemp("newcomer") / "fastres"
    if (ROOT / ".git").exists() and shutil.which("git"):
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    else:
        ignored = shutil.ignore_patterns(".venv", "live", "__pycache__", ".git")
        shutil.copytree(ROOT, folder, ignore=ignored)
    keep_compiled(folder)
    photos(folder / "photos")
    write_pets(folder / "pets")
    write_pets(folder / "pets-new", each=4, seed=1, broken=False)
    listed = [path.relative_to(folder) for path in sorted((folder / "photos").glob("[tv][ra]*/*/*.jpg"))]
    rows = [f"{path},{path.parts[2]},{path.parts[1]}" for path in listed]
    (folder / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    typed("python preprocess/pack.py --source photos --side 64", folder)  # stands for Tiny ImageNet in packed/
    return folder


def typed(command: str, folder: Path) -> str:
    """What it prints; it must end with 0."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # half a second a command
    environment = {**kept, "PATH": path, "PYTHONPATH": str(folder), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_a_newcomer_gets_from_a_clone_to_predictions_and_every_other_command_runs(clone):
    """your-data.md from top to bottom, then the other pages. What `paper` would have left, the photos' run stands in
    for; what the pages call photo.jpg is one of the photos."""
    for number, command in enumerate(filter(lambda c: reason(c) is None, commands(DOCS / "your-data.md"))):
        printed = typed(shortened(command, number), clone)
        if "--json" in command:
            found = [json.loads(line) for line in printed.splitlines()]
            assert found and all({row["class"] for row in image["top"]} == {"cat", "dog"} for image in found)
        elif "--csv pets.csv" in command:
            assert len((clone / "pets.csv").read_text().splitlines()) == 1 + 8
        elif "--csv" in command:
            assert len((clone / "answers.csv").read_text().splitlines()) == 1 + 2 + 8
        elif "--out photos-mistakes" in command:
            assert len((clone / "photos-mistakes/errors.csv").read_text().splitlines()) == 1 + 8
        elif "fastres.predict" in command:
            assert "cat" in printed and "%" in printed
    live = clone / "runs" / "live"
    assert (clone / "packed-pets/bad-images.txt").read_text().startswith("pets/cat/IMG_9999.JPG")
    assert (live / "pets/mistakes/worst_mistakes.png").stat().st_size > 2_000
    assert (live / "photos/final.safetensors").is_file() and (clone / "photos.onnx").is_file()

    mine = re.search(r"```python\n(# mine\.py\n.*?)```", (DOCS / "your-schedule.md").read_text(), re.S)[1]
    (clone / "mine.py").write_text(mine)
    shutil.copy(clone / "photos/val/cat/1.jpg", clone / "photo.jpg")
    for run in ("paper-s0", "paper-s1", "demo-s0", "study/runs/paper-s0"):
        shutil.copytree(live / "photos", live / run)
    state = read_weights(SHIPPED / "small_world_resnet18_w16.safetensors")
    torch.save(state, clone / "resnet18.pth")
    save(clone / "resnet-18.t7", lua_network(network_from(state, "the shipped network")))
    done = set(commands(DOCS / "your-data.md"))
    others = [command for page in PAGES for command in commands(page) if page.name != "your-data.md"]
    # commands that need packed images stand before those that pack them: there `packed` is Tiny ImageNet
    for command in sorted(others, key=lambda command: "--source" not in command):
        if reason(command) is None and command not in done:
            typed(shortened(command, 100 + len(done)), clone)
            done.add(command)
    assert (live / "two/summary.json").is_file()
    assert list(live.glob("mine-wandb/wandb/offline-run-*")), "dashboards.md says that it is there"
