"""The network at the end of every stage, kept so that another run can start there instead of training it again.

<run>/stages/<index>.safetensors holds torchvision's keys; its metadata is that of final weights, a digest of the
tensors and the images seen. Nothing else crosses the border of a stage (optimiser and rate start anew), so a run that
starts there ends in the same bits as one that trains every stage.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from fastres.machine.errors import DataError, UsageError
from fastres.machine.files import write_atomic
from fastres.model.metadata import digest_of, read_metadata
from fastres.model.network import ResNet
from fastres.model.reading import read_weights
from fastres.model.weights import save_weights
from fastres.schedules.loading import shared_stages
from fastres.track.log import read_log
from fastres.track.run_config import MARKS, differences, read_object

SHOWN = 3  # differences in a refusal


def save_stage_end(run: Path, index: int, network: ResNet, metadata: dict) -> None:
    """Keep the network of stage `index`, which has just ended."""
    stage_end(run, index).parent.mkdir(exist_ok=True)
    facts = {**metadata, "stage": index, "digest": digest_of(network.state_dict())}
    write_atomic(stage_end(run, index), save_weights(network, facts))


@dataclass(frozen=True)
class Start:
    """Another run's first `stages` stages, which are this run's too. `config`: that run's."""

    run: Path
    stages: int
    config: dict

    def load(self) -> tuple[dict[str, torch.Tensor], int]:
        """The network at the end of the last of them, tensors on the CPU, and the images seen until then.

        DataError where the file is damaged, its tensors have not the digest written beside them, or it is not of that
        run.
        """
        path = stage_end(self.run, self.stages - 1)
        state, metadata = read_weights(path), read_metadata(path)
        if digest_of(state) != metadata.get("digest"):
            raise DataError(f"{path}: its tensors do not match the digest beside them; train without --start-from")
        told = {name: metadata.get(name) for name in ("seed", "content_digest")}
        if different := differences({name: self.config[name] for name in told}, told):
            raise DataError(
                f"{path}: is not of the run in its folder ({'; '.join(different)} in the file); train without "
                "--start-from"
            )
        return state, metadata["images_seen"]

    def records(self) -> list[dict]:
        """What that run logged about those stages; DataError where its log has lost epochs of them."""
        log = self.run / "log.jsonl"
        kept = (record for record in read_log(log) if record["event"] in ("stage", "step", "epoch"))
        found = [record for record in kept if record.get("stage", self.stages) < self.stages]
        expected = sum(row["epochs"] for row in self.config["schedule"]["stages"][: self.stages])
        epochs = sum(record["event"] == "epoch" for record in found)
        if epochs < expected:
            raise DataError(
                f"{log}: has {epochs} of the {expected} epochs of the stages to take over; train without --start-from"
            )
        return found

    def share_files(self, run: Path) -> None:
        """Let `run` hold those stages' ends too, by hard links where the file system has them."""
        for index in range(self.stages):
            source, target = stage_end(self.run, index), stage_end(run, index)
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)


def find_start(run: Path, config: dict) -> Start:
    """How much of the run in folder `run` the run of `config` can take over.

    UsageError with the difference where it is nothing: another seed, data set, precision or first stage; or where that
    run has not ended a shared stage yet. DataError where its config.json is damaged.
    """
    theirs = read_object(run / "config.json", "train without --start-from")
    if theirs is None or not theirs.keys() >= MARKS or not isinstance(theirs["schedule"], dict):
        raise UsageError(f"--start-from {run}: holds no run's config.json; pass a run's folder")
    shared = shared_stages(theirs["schedule"], config["schedule"])
    different = differences(_without(theirs, shared), _without(config, shared))
    if different:
        shown = "; ".join(different[:SHOWN])
        raise UsageError(f"--start-from {run}: shares no stage with this run: {shown}; change it or train without")
    ended = 0
    while ended < shared and stage_end(run, ended).is_file():
        ended += 1
    if not ended:
        raise UsageError(f"--start-from {run}: has not ended its first stage yet; wait for it, or train without it")
    return Start(run, ended, theirs)


def _without(config: dict, shared: int) -> dict:
    """`config` without what may differ: its schedule where that shares stages, else the schedule's names."""
    if shared:
        return {**config, "schedule": None}
    return {**config, "schedule": {**config["schedule"], "name": "", "expected": {}}}


def stage_end(run: Path, index: int) -> Path:
    """The network at the end of a stage of the run in folder `run`."""
    return run / "stages" / f"{index}.safetensors"
