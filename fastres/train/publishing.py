"""What a run leaves for others: weights with what one must know to use them, pictures, summary; and W&B's share."""

import time
from pathlib import Path

import torch

from fastres.data.described import describe, is_rendered
from fastres.evaluate.gate import find_gate
from fastres.machine.console import say
from fastres.machine.errors import MachineError
from fastres.machine.files import write_atomic
from fastres.machine.strict_json import plain
from fastres.model.card import NORMALISATION, WHITE_TEXT
from fastres.model.metadata import digest_of
from fastres.model.network import ResNet
from fastres.model.target import WEIGHTS
from fastres.model.weights import save_weights
from fastres.schedules.types import Stage
from fastres.stage.setting import Setting
from fastres.track.clock import Clock
from fastres.track.error_table import PAPERS, every_combination
from fastres.track.log import read_log
from fastres.track.mirror import NoWandb, WandbMirror
from fastres.track.mistakes import WORST, class_table, read_mistakes
from fastres.track.run_dir import RunDir
from fastres.train.drawing import draw, draw_mistakes
from fastres.train.stage_ends import save_stage_end
from fastres.train.summary import headline, summarise, wall_before


def publish(
    setting: Setting,
    folder: RunDir,
    network: ResNet,
    errors: dict,
    scores: torch.Tensor | None,
    clock: Clock,
    started: float,
) -> dict:
    """Write what a finished run leaves in its folder, all but the summary itself, which is returned.

    errors   evaluate's table; {} for a run that was not evaluated, which then has no pictures either
    scores   f32 [N, 12, C], what the table was made from; None where it is {}
    clock    has the seconds of the evaluation and of checkpoints; `started` by time.perf_counter
    """
    metadata = {**metadata_of(setting, setting.schedule.stages[-1]), "digest": digest_of(network.state_dict())}
    write_atomic(folder.path / WEIGHTS, save_weights(network, metadata))
    log = read_log(folder.path / "log.jsonl")
    drawn = [*draw(setting, folder, log), *draw_mistakes(setting, folder, scores)] if errors else []
    seconds = {
        "eval_s": clock.seconds["evaluation"],
        "checkpoint_s": clock.seconds["checkpoint"],
        "wall_s": wall_before(log) + time.perf_counter() - started,
    }
    summary = summarise(setting, log, errors, drawn, seconds)
    if scores is not None:
        summary["gate"] = find_gate(scores.to(setting.val.device), setting.val.labels, PAPERS).plain()
    return summary


def keep_stage_end(setting: Setting, folder: Path, network: ResNet, stage: int, images_seen: int) -> None:
    """The network at the end of a stage, for other runs to start from; a full disk is said and costs only that."""
    metadata = {**metadata_of(setting, setting.schedule.stages[stage]), "images_seen": images_seen}
    try:
        save_stage_end(folder, stage, network, metadata)
    except MachineError as fault:
        say(f"the stage's end is not kept for other runs to start from: {fault}")


def mirror(summary: dict, setting: Setting, wandb: WandbMirror | NoWandb, folder: Path, weights: bool) -> None:
    """What W&B is to show at the end: pictures, the tables of crop methods and of classes, the figures of its table of
    runs; where `weights` says so, the final ones too, as an artifact. `folder`: the run's.

    The worst mistakes of photos stay where they are: they name files.
    """
    for picture in map(Path, summary["pictures"]):
        if picture.name != WORST or is_rendered(setting.manifest):
            wandb.image(f"pictures/{picture.stem}", picture)
    if summary["errors"]:
        wandb.table("final/crop_methods", *every_combination(summary["errors"], setting.schedule.expected))
        if mistakes := read_mistakes(folder):
            wandb.table("final/classes", *class_table(mistakes))
    wandb.summary(headline(summary))
    if weights:
        metadata = {"schedule": setting.schedule.name, "seed": setting.seed, **headline(summary)}
        wandb.artifact(folder / WEIGHTS, f"{setting.schedule.name}-s{setting.seed}", metadata)


def metadata_of(setting: Setting, stage: Stage) -> dict:
    """What those who use weights of `stage` need to know, kept beside their tensors in every file that holds any."""
    schedule, manifest = setting.schedule, setting.manifest
    facts = {
        "settings": schedule.to_dict(),
        "normalisation": NORMALISATION,
        "schedule": schedule.name,
        "seed": setting.seed,
        "upscale": stage.upscale,
        **({"whole": True} if stage.whole else {}),
        "convention": schedule.views.convention,
        "class_digest": manifest.class_digest,
        "classes": [[info.wnid, info.name] for info in manifest.classes],
        "content_digest": manifest.content_digest,
        "side": manifest.side,
        "background": manifest.source.get("background", WHITE_TEXT),
        "data": describe(manifest),
    }
    return plain(facts)
