"""The network at the end of every stage, kept so that another run can start there instead of training it again.

<run>/stages/<index>.safetensors holds torchvision's keys; its metadata is that of final weights, a digest of the
tensors and the images seen. Nothing else crosses the border of a stage (optimiser and rate start anew), so a run that
starts there ends in the same bits as one that trains every stage.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.models.resnet import ResNet

from fastres.errors import DataError, UsageError
from fastres.files import write_atomic
from fastres.model.weights import digest_of, read_metadata, read_weights, save_weights
from fastres.schedule_loading import shared_stages
from fastres.track.log import read_log
from fastres.track.run_dir import differences

SHOWN = 3  # differences in a refusal


def save_stage_end(run: Path, index: int, network: ResNet, metadata: dict) -> None:
    """Keep the network of stage `index`, which has just ended."""
    _file(run, index).parent.mkdir(exist_ok=True)
    facts = {**metadata, "stage": index, "digest": digest_of(network.state_dict())}
    write_atomic(_file(run, index), save_weights(network, facts))


@dataclass(frozen=True)
class Start:
    """Another run's first `stages` stages, which are this run's too."""

    run: Path
    stages: int

    def load(self) -> tuple[dict[str, torch.Tensor], int]:
        """The network at the end of the last of them, tensors on the CPU, and the images seen until then.

        DataError where the file is damaged: its tensors must have the digest written beside them.
        """
        path = _file(self.run, self.stages - 1)
        state, metadata = read_weights(path), read_metadata(path)
        if digest_of(state) != metadata.get("digest"):
            raise DataError(f"{path}: its tensors do not match the digest beside them; train without --start-from")
        return state, metadata["images_seen"]

    def records(self) -> list[dict]:
        """What that run logged about those stages."""
        kept = (r for r in read_log(self.run / "log.jsonl") if r["event"] in ("stage", "step", "epoch"))
        return [record for record in kept if record["stage"] < self.stages]

    def share_files(self, run: Path) -> None:
        """Let `run` hold those stages' ends too, by hard links where the file system has them."""
        for index in range(self.stages):
            source, target = _file(self.run, index), _file(run, index)
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)


def find_start(run: Path, config: dict) -> Start:
    """How much of the run in folder `run` the run of `config` can take over.

    UsageError with the difference where it is nothing: another seed, data set, precision or first stage; or where that
    run has not ended a shared stage yet.
    """
    try:
        theirs = json.loads((run / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"--start-from {run}: holds no run's config.json ({error}); pass a run's folder") from error
    ours = json.loads(json.dumps(config))
    shared = shared_stages(theirs["schedule"], ours["schedule"])
    different = differences(_without(theirs, shared), _without(ours, shared))
    if different:
        shown = "; ".join(different[:SHOWN])
        raise UsageError(f"--start-from {run}: shares no stage with this run: {shown}; change it or train without")
    ended = 0
    while ended < shared and _file(run, ended).is_file():
        ended += 1
    if not ended:
        raise UsageError(f"--start-from {run}: has not ended its first stage yet; wait for it, or train without it")
    return Start(run, ended)


def _without(config: dict, shared: int) -> dict:
    """`config` without what may differ: its schedule where that shares stages, else the schedule's names."""
    if shared:
        return {**config, "schedule": None}
    return {**config, "schedule": {**config["schedule"], "name": "", "expected": {}}}


def _file(run: Path, index: int) -> Path:
    return run / "stages" / f"{index}.safetensors"
