"""A tree of JPEGs to packed files: preprocess/pack.py for all three engines, beside the plain way to two of them.

The plain way: torchvision's ImageFolder (Pillow) into FFCV's DatasetWriter with a process per core, then the files
into a tar as webdataset's TarWriter does. It checks, counts and hashes nothing and writes no resident file and no
index. Both are whole commands: start, imports and reading the tree included. They take turns.
"""

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fastres.bench import harness, output
from fastres.bench.harness import Contender
from fastres.bench.timed_command import timed
from fastres.data.libraries import require
from fastres.machine import facts
from fastres.machine.arguments import place
from fastres.machine.errors import UsageError

PACK = Path(__file__).resolve().parents[2] / "preprocess" / "pack.py"
MODE = "pack for resident, ffcv and dali"
CLASSES = 200
NOT_EQUAL = "no checks, digests, resident file, index, val"


def main(argv: list[str]) -> int:
    """`python -m fastres.bench packing`: both ways in turns, then print, --json, --record."""
    p = harness.options(__doc__, "packing")
    p.set_defaults(rounds=3)
    p.add_argument("--tree", type=place, help="pack this data set's train/; default: images written for the purpose")
    p.add_argument("--images", type=int, default=30_000, help="how many of those (default %(default)s)")
    p.add_argument("--scratch", type=place, help="folder on the disk to write to; default: the system's temporary one")
    args = p.parse_args(argv)
    if args.batch is not None or args.device != "auto":
        raise UsageError("--device and --batch mean nothing to packing, which is the CPU's work, image by image")
    if args.rounds < 1 or args.images < CLASSES:
        raise UsageError(f"--rounds is 1 or more, --images {CLASSES} or more")
    for engine in ("ffcv", "dali"):
        require(engine)
    result = measure(args)
    output.publish("packing", result, argv, args)
    print("; ".join(f"{name}: {peak} GB at most" for name, peak in result["peak_memory_gb"].items()))
    return 0


def measure(args) -> dict:
    """Both ways, alternately: {machine, rows, ratios, peak memory of each way}."""
    described = facts.machine(torch.device("cpu"))
    with TemporaryDirectory(dir=args.scratch) as scratch:
        tree = args.tree or write_tree(Path(scratch) / "tree", args.images)
        images = sum(1 for path in (tree / "train").rglob("*") if path.is_file() and path.suffix != ".txt")
        out = Path(scratch) / "out"
        engines = ["--engines", "resident,ffcv,dali"]
        commands = {
            "fastres": [PACK, "--source", tree, "--out", out, *engines],
            "ImageFolder + DatasetWriter + tar": ["-m", "fastres.bench.peers.packing", tree / "train", out],
        }
        contenders = {
            name: Contender(MODE, name, run=lambda n: n, ours=name == "fastres", dtype=formats, note=note)
            for (name, formats, note) in zip(commands, ("3 formats", "2 formats"), ("", NOT_EQUAL), strict=True)
        }
        memory = dict.fromkeys(commands, 0)
        for _ in range(args.rounds):
            for name, command in commands.items():
                shutil.rmtree(out, ignore_errors=True)
                seconds, peak = timed([sys.executable, *map(str, command)])
                count = json.loads((out / "manifest.json").read_text())["splits"] if name == "fastres" else {}
                made = sum(split["count"] for split in count.values()) or images
                contenders[name].rates.append(made / seconds)
                contenders[name].bytes_per_image = sum(f.stat().st_size for f in out.iterdir()) // made
                memory[name] = max(memory[name], peak)
    rows = [harness.row(contender) for contender in contenders.values()]
    return {
        "machine": described,
        "rounds": args.rounds,
        "images": images,
        "rows": rows,
        "ratios": harness.ratios(rows),
        "peak_memory_gb": {name: round(peak / 1e9, 2) for name, peak in memory.items()},
    }


def write_tree(root: Path, images: int) -> Path:
    """train/<label>/*.JPEG and val/<label>/*.JPEG of 64 px, quality 85: smooth colours and noise, 3 kB each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(images + CLASSES):
        split, label = ("train", i % CLASSES) if i < images else ("val", i - images)
        folder = root / split / f"n{label:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((64, 64), Image.Resampling.BILINEAR)).astype(np.int16)
        noisy = (smooth + rng.integers(-12, 12, (64, 64, 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i}.JPEG", quality=85)
    return root
