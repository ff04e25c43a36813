"""What a run leaves for others: weights with what one must know to use them, summary, pictures."""

from typing import TYPE_CHECKING

from fastres import report
from fastres.engine.stage_ends import save_stage_end
from fastres.errors import MachineError
from fastres.files import write_atomic
from fastres.model.card import NORMALISATION
from fastres.model.weights import digest_of, save_weights
from fastres.track.console import say

if TYPE_CHECKING:
    from fastres.run import Run
    from fastres.stage_run import StageRun


def publish(run: "Run", errors: dict, upscale: int) -> dict:
    """What a finished run leaves in its folder, and in W&B; returns the summary.

    `errors`: evaluate's table; {} for a run that was not evaluated, which then has no pictures either.
    """
    metadata = {**_metadata(run, upscale), "digest": digest_of(run.network.state_dict())}
    write_atomic(run.folder.path / "final.safetensors", save_weights(run.network, metadata))
    pictures = report.draw(run) if errors else []
    summary = report.summarise(run, errors, pictures)
    run.log("final", errors=errors)
    run.folder.write_summary(summary)
    report.mirror(summary, run.schedule, run.wandb)
    if run.wandb_artifact:
        metadata = {"schedule": run.schedule.name, "seed": run.seed, **report.headline(summary)}
        run.wandb.artifact(run.folder.path / "final.safetensors", f"{run.schedule.name}-s{run.seed}", metadata)
    return summary


def keep_stage_end(run: "Run", stage: "StageRun") -> None:
    """The network at the end of a stage, for other runs to start from; a full disk is said and costs only that."""
    metadata = {**_metadata(run, stage.row.upscale), "images_seen": run.images_seen}
    try:
        save_stage_end(run.folder.path, stage.index, run.network, metadata)
    except MachineError as fault:
        say(f"the stage's end is not kept for other runs to start from: {fault}")


def _metadata(run: "Run", upscale: int) -> dict:
    """What those who use a weights file need to know, kept beside its tensors."""
    return {
        "settings": run.schedule.to_dict(), "normalisation": NORMALISATION,
        "schedule": run.schedule.name, "seed": run.seed, "upscale": upscale,
        "convention": run.schedule.views.convention, "class_digest": run.manifest.class_digest,
        "classes": [[info.wnid, info.name] for info in run.manifest.classes],
        "content_digest": run.manifest.content_digest, "side": run.manifest.side,
    }  # fmt: skip
