"""A folder of photos to a CSV of answers: `fastres.predict` beside a loop of timm, the same ResNet-18 in float32.

Both are whole commands, start and imports included, in the environment that `harness.tuned` makes, and take turns;
both decode in processes ahead of the network and see the centre crop of 224 of 256 pixels. They shrink differently
(area means; bicubic), so where the weights are a trained network's, the record says how often they agree.
"""

import csv
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import save_file

from fastres.bench import harness, output
from fastres.bench.harness import Contender
from fastres.bench.timed_command import timed
from fastres.machine import facts, waiting
from fastres.machine.arguments import place
from fastres.machine.errors import UsageError
from fastres.model.network import Architecture, build

MODE = "folder to CSV, centre crop"
SIZE = (375, 500)  # height and width of the images that are written for the purpose


def main(argv: list[str]) -> int:
    """`python -m fastres.bench predict`: both ways in turns, then print, --json, --record."""
    p = harness.options(__doc__, "predict")
    p.set_defaults(rounds=3)
    p.add_argument("--photos", type=place, help="a folder of images; default: JPEGs written for the purpose")
    p.add_argument("--images", type=int, default=2_000, help="how many of those (default %(default)s)")
    p.add_argument("--weights", type=place, help="a ResNet-18's safetensors, torchvision's keys; default: random ones")
    args = p.parse_args(argv)
    if args.batch is not None:
        raise UsageError("--batch means nothing to prediction, whose batches are what suits each way")
    if args.rounds < 1 or args.images < 1:
        raise UsageError("--rounds and --images are 1 or more")
    harness.settle(args)
    output.publish("predict", measure(args), argv, args)
    return 0


def measure(args) -> dict:
    """Both ways, alternately: {machine, rows, ratios, and how many first answers are the same}."""
    environment = harness.tuned()
    described = {**facts.machine(args.device), "threads_wait": waiting.policy(environment)}
    with TemporaryDirectory() as scratch:
        photos = args.photos.resolve() if args.photos else write_photos(Path(scratch) / "photos", args.images)
        weights = args.weights or write_weights(Path(scratch) / "net.safetensors")
        ours, theirs = Path(scratch) / "ours.csv", Path(scratch) / "theirs.csv"
        predict = ["-m", "fastres.predict", photos, "--model", weights, "--precision", "fp32", "--device", args.device]
        commands = {
            "fastres": [*predict, "--views", "centre", "--csv", ours],
            "timm": ["-m", "fastres.bench.peers.predict", photos, weights, theirs, args.device],
        }
        contenders = {name: Contender(MODE, name, run=lambda n: n, ours=name == "fastres") for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
                seconds, _ = timed([sys.executable, *map(str, command)], environment)
                file = theirs if name == "timm" else commands[name][-1]
                answered = len(file.read_text().splitlines()) - (name != "timm")  # ours has a header
                contenders[name].rates.append(answered / seconds)
        same = None if args.weights is None else agreement(first_answers(ours), theirs)
    rows = [harness.row(contender) for contender in contenders.values()]
    return {
        "machine": described,
        "rounds": args.rounds,
        "rows": rows,
        "ratios": harness.ratios(rows),
        "same_first_answer_pct": same,
    }


def first_answers(file: Path) -> dict[str, str]:
    """path -> class, of our CSV."""
    with open(file, newline="") as text:
        return {row["image"]: row["answer 1"] for row in csv.DictReader(text)}


def agreement(ours: dict[str, str], theirs: Path) -> float:
    """The share in %, of the images that both answered, whose first answer is the same; ours is a name, timm's its
    number."""
    from torchvision.models import ResNet18_Weights  # after model/network.py, which says how it loads

    imagenet = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    with open(theirs, newline="") as text:
        numbers = {row[0]: int(row[1]) for row in csv.reader(text)}
    same, both = 0, ours.keys() & numbers.keys()  # timm takes JPEG and PNG alone
    for path in both:
        answer, number = ours[path], numbers[path]
        name = imagenet[number] if number < len(imagenet) else f"class {number}"
        same += answer in (name, f"{name} ({number})", f"class {number}")
    return round(100 * same / max(1, len(both)), 2)


def write_photos(folder: Path, images: int) -> Path:
    """JPEGs of SIZE, quality 90: smooth colours and noise. A hundred differ, the others are copies."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(images):
        file, height, width = folder / f"{i:06d}.jpg", *SIZE
        if i >= 100:
            shutil.copyfile(folder / f"{i % 100:06d}.jpg", file)
            continue
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.integers(-12, 12, (height, width, 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(file, quality=90)
    return folder


def write_weights(file: Path) -> Path:
    """A ResNet-18 of a thousand classes that has learnt nothing."""
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in build(Architecture("resnet18", 64, 1000)).state_dict().items()}, file)
    return file
