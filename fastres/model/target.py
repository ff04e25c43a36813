"""What a user means by weights: a run's folder, a checkpoint or stage end in it, any file, or a name; and what is known
of them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from fastres.machine.errors import DataError, MachineError
from fastres.machine.folders import files_of_run
from fastres.model.metadata import check_digest, checked, read_metadata
from fastres.model.named import arch_of, named_state
from fastres.model.reading import OURS, read_stored, split_key, state_in
from fastres.schedules.types import ViewSettings

# torchvision's and timm's plain ResNets of ImageNet: shorter side 256, crop 224.
NAMED = {"side": 256, "upscale": 1, "convention": ViewSettings().convention}
# Of a run as a whole; how far images are enlarged is a stage's.
OF_THE_RUN = ("side", "convention", "classes", "class_digest", "content_digest", "normalisation")
WEIGHTS = "final.safetensors"  # in a run's folder, at its end
_CHECKPOINT = re.compile(r"stage(\d+)-epoch.*\.pt")


@dataclass(frozen=True)
class Model:
    """state: by torchvision's names, on the CPU. metadata: checked, {} where nothing is known. source: a file, or a
    name. run: the folder of the run that made it, None for what lies elsewhere."""

    state: dict[str, torch.Tensor]
    metadata: dict
    source: Path | str
    run: Path | None = None


def read_model(target: Path) -> Model:
    """MachineError where there is nothing of that name; DataError for a run that is not finished, a damaged file, or
    tensors that are not those of the digest beside them."""
    if (named := arch_of(str(target))) and not Path(target).exists():
        return Model(named_state(*named), dict(NAMED), str(target))
    path, key = split_key(target)
    file = final_weights(path)
    stored, run = read_stored(file), path if path.is_dir() else run_of(file)
    state, metadata = state_in(stored, file, key), read_metadata(file)
    check_digest(state, metadata, file)
    if isinstance(stored, dict) and OURS in stored and isinstance(stored.get("metadata"), dict):
        metadata = checked(stored["metadata"], file)
    elif not metadata and run is not None:
        metadata = checked(_told_by_run(run, file, at_border="stage" not in stored), file)
    return Model(state, metadata, file, run)


def read_with(model: Model) -> list[Path]:
    """Files that no output may replace: the weights, and what else the run that made them keeps."""
    weights = [model.source] if isinstance(model.source, Path) else []
    return weights if model.run is None else [*weights, *files_of_run(model.run)]


def final_weights(target: Path) -> Path:
    """The weights file a user means by a file or a run's folder. MachineError where there is neither, DataError if the
    run is not finished."""
    if not target.exists():
        raise MachineError(f"{target}: no such file or folder; pass a run's folder or its weights (.safetensors, .pth)")
    if not target.is_dir():
        return target
    weights = target / WEIGHTS
    if not weights.is_file():
        raise DataError(
            f"{target}: has no final.safetensors, so it is no run's folder or its run is not finished; train it to its "
            "end first, or pass one file of its checkpoints/ or stages/"
        )
    return weights


def run_of(file: Path) -> Path | None:
    """The folder of the run that a weights file lies in: final weights, a stage's end, a checkpoint."""
    folder = file.absolute().parent
    folder = folder.parent if folder.name in ("checkpoints", "stages") else folder
    return folder if (folder / "config.json").is_file() else None


def _told_by_run(run: Path, file: Path, at_border: bool) -> dict:
    """What the run's other files say of a checkpoint that says nothing itself, as those of older versions: {} where
    `file` is no checkpoint.

    `at_border`: the checkpoint stands at the end of a stage; its name counts the next one then.
    """
    found = _CHECKPOINT.fullmatch(file.name)
    if found is None:
        return {}
    ended = next((path for path in (run / WEIGHTS, *sorted(run.glob("stages/*"))) if path.is_file()), None)
    facts = {} if ended is None else read_metadata(ended)
    facts = {name: facts[name] for name in OF_THE_RUN if name in facts}
    try:
        schedule = json.loads((run / "config.json").read_bytes())["schedule"]
        row = schedule["stages"][int(found[1]) - at_border]
        whole = {"whole": True} if row.get("whole") else {}
        return {"convention": schedule["views"]["convention"], **facts, "upscale": row["upscale"], **whole}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{run / 'config.json'}: does not say what {file.name} is ({error!r}); restore it") from error
