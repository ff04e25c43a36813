"""ONNX: torch's exporter writes it, onnxruntime reads it back before anybody else has to.

The file's metadata_props state how its input is made (`preprocessing`), what its outputs are (`classes`), and as JSON
under `fastres` all that our safetensors files have beside their tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fastres.machine import strict_json
from fastres.machine.errors import DataError, MachineError, first_line
from fastres.machine.extras import install_line
from fastres.model.card import Card, card_of
from fastres.model.conditions import NOTHING, Given, completed
from fastres.model.metadata import parse_metadata
from fastres.model.network import Architecture, ResNet

TOLERANCE = 1e-4  # of the largest score, where that is above 1
INPUT, OUTPUT, DIGEST = "image", "scores", "fastres-digest"


def to_onnx(network: ResNet, card: Card) -> bytes:
    """The network in eval mode, for batches of any size; inputs f32 [batch, 3, crop, crop], outputs f32 [batch, C].

    MachineError where a library is missing, or where onnxruntime's scores are not the network's to TOLERANCE.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it, and says so late)
    except ImportError as error:
        raise _missing(error) from error
    network = network.float().cpu().eval()
    crop = card.geometry.crop
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, crop, crop),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    model = program.model_proto
    _forget_origin(model)
    props = {
        "fastres": strict_json.dumps(card.to_metadata(), sort_keys=True),
        "preprocessing": card.preprocessing(),
        "classes": strict_json.dumps([name for _, name in card.classes]),
    }
    onnx.helper.set_model_props(model, {**props, DIGEST: _digest(model, props)})
    content = model.SerializeToString()
    _check(network, content, crop)
    return content


def _digest(model, props: Mapping[str, str]) -> str:
    """sha256 over an ONNX model without its props, then over those that are ours."""
    bare = type(model)()
    bare.CopyFrom(model)
    bare.ClearField("metadata_props")
    found = hashlib.sha256(bare.SerializeToString(deterministic=True))
    found.update(json.dumps(sorted((key, text) for key, text in props.items() if key != DIGEST)).encode())
    return found.hexdigest()


def _check_digest(content: bytes, props: Mapping[str, str], path: Path) -> None:
    """DataError where the file is not what was exported; files from before it had a digest pass."""
    if DIGEST not in props:
        return
    try:
        import onnx
    except ImportError as error:
        raise _missing(error) from error
    if _digest(onnx.ModelProto.FromString(content), props) != props[DIGEST]:
        raise DataError(f"model {path}: is not what the digest in it was made of; export it again")


def _forget_origin(model) -> None:
    """The exporter notes line numbers and paths of the machine that exported."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


@torch.no_grad()
def _check(network: nn.Module, content: bytes, crop: int) -> None:
    """Batches of one and three, or MachineError."""
    read = OnnxNetwork(_session(content))
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3):
        x = torch.randn(count, 3, crop, crop, generator=generator)
        ours = network(x)
        off = (read(x) - ours).abs().max().item()
        allowed = TOLERANCE * max(1.0, ours.abs().max().item())
        if not off <= allowed:
            raise MachineError(
                f"the ONNX scores of a batch of {count} are off by {off:.2g}, expected at most {allowed:.2g}; "
                "nothing was written; try other versions of torch, onnxscript and onnxruntime"
            )


class OnnxNetwork(nn.Module):
    """An ONNX file as a module: f32 [B, 3, H, H] -> f32 [B, C] on the CPU."""

    def __init__(self, session) -> None:
        super().__init__()
        self.session = session

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run([OUTPUT], {INPUT: x.float().contiguous().numpy()})[0])


def read_onnx(path: Path, given: Given = NOTHING) -> tuple[OnnxNetwork, Card]:
    """A file that to_onnx made. MachineError if it is not there, DataError if it is another, damaged, or says otherwise
    than what is given."""
    if not path.is_file():
        what = "no regular file" if path.exists() else "no such file"
        raise MachineError(f"model {path}: {what}; fetch it, or make it with python -m fastres export")
    content = path.read_bytes()
    session = _session(content, path)
    props = session.get_modelmeta().custom_metadata_map
    text = props.get("fastres")
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if text is None or [i.name for i in inputs] != [INPUT] or [o.name for o in outputs] != [OUTPUT]:
        raise DataError(
            f"model {path}: does not say how its input is made, expected one written by python -m fastres export"
        )
    _check_digest(content, props, path)
    metadata = completed(parse_metadata(text, path), given, path)
    if "side" not in metadata or "upscale" not in metadata:
        raise DataError(f"model {path}: its metadata has no side or upscale; export it again")
    # of the architecture only the classes matter here: the rest is in the metadata
    card = card_of(metadata, Architecture("resnet18", 64, outputs[0].shape[-1]), path)
    if inputs[0].shape[1:] != [3, card.geometry.crop, card.geometry.crop]:
        raise DataError(
            f"model {path}: takes images of size {inputs[0].shape[1:]}, but its metadata leads to "
            f"{card.geometry.crop}; export it again"
        )
    return OnnxNetwork(session), card


def _session(content: bytes, path: Path | None = None):
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, each derived from Exception alone
        reason = first_line(error)
        raise DataError(f"model {path or 'just exported'}: not readable as ONNX ({reason}); export it again") from error


def _missing(error: ImportError) -> MachineError:
    return MachineError(f"ONNX files need onnx, onnxscript and onnxruntime ({error}); {install_line('onnx')}")
