"""Take a network away: safetensors with torchvision's keys, or ONNX, each stating its classes and preprocessing.

    python -m fastres export runs/live/paper-s0 --onnx net.onnx --safetensors net.safetensors
    python -m fastres export resnet-18.t7 --safetensors resnet-18.safetensors

The ONNX file takes batches of any size, and is written only after onnxruntime gave the same scores to 1e-4 (of the
largest, where that is more than 1).
"""

import argparse
import os
import sys

from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.machine.files import write_atomic
from fastres.machine.folders import refuse_onto
from fastres.model.card import card_of
from fastres.model.conditions import Given, add_options, completed, tell_assumed
from fastres.model.metadata import digest_of
from fastres.model.network import describe
from fastres.model.target import read_model, read_with
from fastres.model.weights import network_from, save_weights


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "target",
        type=place,
        metavar="RUN_DIR|WEIGHTS",
        help="a finished run, a .safetensors, .pth, .pt or .t7 file (FILE::KEY: what of it), or a "
        "name: timm:resnet18.a1_in1k, ResNet18_Weights.IMAGENET1K_V1",
    )
    p.add_argument("--onnx", type=place, metavar="FILE", help="write an ONNX network")
    p.add_argument("--safetensors", type=place, metavar="FILE", help="write weights with torchvision's keys")
    p.add_argument("--json", action="store_true", help="print what was written as one JSON object")
    add_options(p)
    return p


def is_export(content: bytes) -> bool:
    """Whether a file is what this command writes: safetensors or ONNX, with our metadata in it."""
    header = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and header <= len(content) - 8:
        return b'"fastres"' in content[8 : 8 + header]
    return content[:1] == b"\x08" and b"fastres" in content  # an ONNX begins with its version's field


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.onnx and not args.safetensors:
        raise UsageError("nothing to write: expected --onnx FILE or --safetensors FILE, or both")
    if args.onnx and args.safetensors and os.path.realpath(args.onnx) == os.path.realpath(args.safetensors):
        raise UsageError(f"--onnx and --safetensors: both are {args.onnx}, expected two files")
    model = read_model(args.target)
    read = [*read_with(model), *([args.classes] if args.classes else [])]
    for option, out in (("--safetensors", args.safetensors), ("--onnx", args.onnx)):
        refuse_onto(option, out, read, is_export)
    network = network_from(model.state, model.source)
    architecture = describe(model.state)
    metadata = completed(model.metadata, Given.of(args), model.source)
    card = card_of({**metadata, "digest": digest_of(network.state_dict())}, architecture, model.source)
    tell_assumed(card, model.source)
    written = {}
    if args.safetensors:
        write_atomic(args.safetensors, save_weights(network, card.to_metadata()))
        written["safetensors"] = str(args.safetensors)
    if args.onnx:
        from fastres.model.onnx_file import to_onnx

        write_atomic(args.onnx, to_onnx(network, card))
        written["onnx"] = str(args.onnx)
    facts = {
        "network": str(architecture),
        "preprocessing": card.preprocessing(),
        "assumed": list(card.assumed),
        "written": written,
    }
    print(strict_json.dumps(facts) if args.json else _as_text(facts))
    return 0


def _as_text(facts: dict) -> str:
    return f"{', '.join(facts['written'].values())}: {facts['network']}\ninput: {facts['preprocessing']}"


if __name__ == "__main__":
    sys.exit(run_command(main))
