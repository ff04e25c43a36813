"""What is in these images: the five likeliest classes of each, from a run, a weights file or an ONNX file.

    python -m fastres.predict photo.jpg --model runs/live/paper-s0
    python -m fastres.predict a.png b.png --model net.onnx --views centre --json

Images are decoded as the packer decodes them (the centre square, brought to the side the network was trained on) and
seen through the twelve test views, so the scores are those that fastres.evaluate would give them.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastres import scoring, views
from fastres.data.resident import Batch
from fastres.engine.distributed import open_world
from fastres.engine.precision import CHOICES, Precision, choose_precision
from fastres.errors import DataError, UsageError, run_command
from fastres.evaluate import score
from fastres.model.card import Card, card_of
from fastres.model.network import describe
from fastres.model.weights import network_from, read_model
from preprocess.decode import BadImage, Recipe, decode

TOP = 5
PROBABLE = ("expsum", "softmax", "logit")  # the combinations whose softmax is a probability


class Images:
    """Decoded images as a split: u8 [N, S, S, 3] on the device, unlabelled."""

    def __init__(self, pixels: np.ndarray, device: torch.device) -> None:
        self.images, self.device = torch.from_numpy(pixels).to(device), device
        self.labels = torch.full((len(pixels),), -1, device=device)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, ids: np.ndarray, batch_size: int) -> Iterator[Batch]:
        on_device = torch.from_numpy(np.ascontiguousarray(ids, np.int64)).to(self.device)
        for rows in on_device.split(batch_size):
            yield Batch(self.images, rows, self.labels[rows], rows)

    def pixels(self, ids: torch.Tensor) -> torch.Tensor:
        return self.images[ids]


def read_images(paths: list[Path], side: int) -> np.ndarray:
    """u8 [N, side, side, 3], as the packer decodes them. UsageError where there is no such file, DataError where it is
    no image."""
    recipe, images = Recipe(side, resize=True), []
    for path in paths:
        try:
            images.append(decode(path.read_bytes(), recipe)[0])
        except OSError as error:
            raise UsageError(f"image {path}: {error.strerror}, expected an image file; check the path") from error
        except BadImage as bad:
            raise DataError(f"image {path}: {bad}; convert it to JPEG or PNG, or leave it out") from bad
    return np.stack(images)


def open_model(target: Path, precision: str, device: torch.device) -> tuple[nn.Module, Card, Precision]:
    """The network on the device, what is known of it, and what it computes in. ONNX files run on the CPU in fp32."""
    if target.suffix == ".onnx":
        from fastres.model.onnx_file import read_onnx

        if precision not in ("auto", "fp32"):
            raise UsageError(f"--precision {precision}: an ONNX model computes in fp32; leave --precision away")
        return *read_onnx(target), choose_precision("fp32", torch.device("cpu"))
    state, metadata, source = read_model(target)
    network = network_from(state, source).to(device, memory_format=torch.channels_last)
    return network, card_of(metadata, describe(state), source), choose_precision(precision, device)


def scores_of(network: nn.Module, card: Card, precision: Precision, pixels: np.ndarray) -> torch.Tensor:
    """Scores of the twelve views of u8 [N, S, S, 3], f32 [N, 12, C] on the CPU."""
    plan = views.TestPlan(
        geometry=card.geometry, settings=card.settings, views=views.TWELVE_VIEWS, dtype=precision.dtype
    )
    return score(network, Images(pixels, precision.device), plan, precision, label="prediction")


def best(scores: torch.Tensor, card: Card, method: str, how: str) -> list[list[dict]]:
    """The likeliest classes of each image, best first."""
    ranking = scoring.combine(scores[:, scoring.METHODS[method]], how)
    probabilities, order = ranking.softmax(1).sort(dim=1, descending=True, stable=True)
    return [
        [{"class": card.classes[c][0], "name": card.classes[c][1], "probability": p} for p, c in zip(row, classes)]
        for row, classes in zip(probabilities[:, :TOP].tolist(), order[:, :TOP].tolist(), strict=True)
    ]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="JPEG, PNG, BMP or GIF files of any size")
    p.add_argument("--model", type=Path, required=True, metavar="RUN_DIR|FILE|NAME",
                   help="a finished run, a .safetensors, .onnx, .pth or .t7 file, timm:resnet18.a1_in1k or "
                   "ResNet18_Weights.IMAGENET1K_V1")  # fmt: skip
    p.add_argument("--views", choices=tuple(scoring.METHODS), default="12-crop", help="which views are combined")
    p.add_argument("--combine", choices=PROBABLE, default="expsum", help="how their scores become one")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with open_world(args.device) as world:
        network, card, precision = open_model(args.model, args.precision, world.device)
    scores = scores_of(network, card, precision, read_images(args.images, card.geometry.side))
    found = best(scores, card, args.views, args.combine)
    if args.json:
        images = [{"image": str(path), "top": top} for path, top in zip(args.images, found, strict=True)]
        print(json.dumps({"model": str(args.model), "views": args.views, "combine": args.combine, "images": images}))
        return 0
    for path, top in zip(args.images, found, strict=True):
        print(path)
        for row in top:
            known = "" if row["class"] == row["name"] else f" ({row['class']})"
            print(f"  {100 * row['probability']:5.1f} %  {row['name']}{known}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
