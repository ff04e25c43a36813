"""The W&B workspace of a project: accuracy and throughput in one view, with the borders between stages.

    python -m fastres.track.dashboard --project fastres

With a login the view is saved in the project, and its address printed; each call saves a new one. Without a login the
view is written to a file, and the same command saves it once `wandb login` was done. Panels are W&B's own
(wandb-workspaces); what they draw is logged by fastres/run.py on the axes of wandb_child.METRICS.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

from fastres.errors import MachineError, run_command
from fastres.files import write_atomic
from fastres.track.wandb import has_login

VIEW = "fastres: accuracy and throughput"
STAGE = "stage/index"
PICTURES = ("pictures/error_by_epoch", "pictures/stem_filters", "pictures/views")
PINNED = ("final/12crop_top1_err", "final/12crop_top5_err", "val/top1_err.min", "train_s", "speed/img_per_s.mean")

# section, panels: title, y axis, metrics, height of one stage on that axis. W&B draws no vertical lines, so a stage's
# border is the riser of a staircase: the stage's index, scaled to the panel. Speeds know no common scale: there the
# staircase has a panel of its own, first in the row, on the same axis of images.
SECTIONS = (
    ("Accuracy", "epoch", (
        ("Validation error, by stage", "error (%)", ("val/top1_err", "val/top5_err"), 10),
        ("Training loss, by stage", "loss", ("train/loss",), 1),
        ("Validation loss, by stage", "loss", ("val/loss",), 1),
        ("Learning rate", "rate", ("lr",), None),
    )),
    ("Throughput", "images_seen", (
        ("Stage", "stage", (STAGE,), None),
        ("Training speed", "img/s", ("speed/img_per_s",), None),
        ("Waiting for data, by stage", "share of training time (%)", ("speed/data_wait_pct",), 10),
        ("Share of the GPU's peak (MFU), by stage", "%", ("speed/mfu_pct",), 10),
        ("GPU memory", "GB", ("speed/gpu_mem_gb",), None),
    )),
)  # fmt: skip


def workspace(project: str, entity: str):
    """The view as wandb-workspaces has it; needs no network. MachineError where that package is missing."""
    try:
        with warnings.catch_warnings():  # of its own that are deprecated in pydantic
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.reports.v2 as panels
            import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise MachineError(f"wandb-workspaces cannot be imported ({error}); pip install wandb-workspaces") from error

    sections = [
        ws.Section(
            name=name, is_open=True, pinned=True, layout_settings=ws.SectionLayoutSettings(columns=2, rows=3),
            panel_settings=ws.SectionPanelSettings(x_axis=axis),
            panels=[_line(panels, axis, *row) for row in rows],
        )
        for name, axis, rows in SECTIONS
    ]  # fmt: skip
    shown = [panels.MediaBrowser(title="Pictures", media_keys=list(PICTURES), num_columns=1)]
    sections.append(ws.Section(name="Pictures", is_open=True, panels=shown))
    settings = ws.RunsetSettings(pinned_columns=[f"summary:{name}" for name in PINNED])
    return ws.Workspace(entity=entity, project=project, name=VIEW, sections=sections, runset_settings=settings)


def _line(panels, axis: str, title: str, unit: str, metrics: tuple[str, ...], stage_height: int | None):
    """One panel over `axis`; with `stage_height` the staircase of stages is drawn behind its metrics."""
    axis = "images_seen" if metrics in (("train/loss",), ("lr",)) else axis
    stairs = [f"${{{STAGE}}} * {stage_height}"] if stage_height else None
    words = {"epoch": "epoch (over all stages)", "images_seen": "training images seen"}
    return panels.LinePlot(title=title, x=axis, y=list(metrics), title_x=words[axis], title_y=unit,
                           custom_expressions=stairs, smoothing_type="none", max_runs_to_show=20)  # fmt: skip


def as_json(view) -> dict:
    """What W&B's server is sent for `view`: its name and its specification."""
    model = view._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"entity": view.entity, "project": view.project, "displayName": view.name, "type": "project-view",
            "spec": spec}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.track.dashboard", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--project", default="fastres", help="W&B project, as given to train")
    p.add_argument("--entity", help="W&B user or team (default: the login's own)")
    p.add_argument("--out", type=Path, default=Path("wandb_workspace.json"), metavar="FILE",
                   help="where the view goes without a login (default wandb_workspace.json)")  # fmt: skip
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if has_login():
        print(save(args.project, args.entity))
        return 0
    view = workspace(args.project, args.entity or "")
    write_atomic(args.out, (json.dumps(as_json(view), indent=1) + "\n").encode())
    entity = f" --entity {args.entity}" if args.entity else ""
    print(f"no W&B login found: the view is in {args.out}; to save it in the project: wandb login, then "
          f"python -m fastres.track.dashboard --project {args.project}{entity}")  # fmt: skip
    return 0


def save(project: str, entity: str | None) -> str:
    """Save the view on W&B's server; returns its address. MachineError with the server's reason where it refuses."""
    os.environ.setdefault("WANDB_SILENT", "true")  # the address is printed once, by main
    try:
        import wandb

        entity = entity or wandb.Api(timeout=20).default_entity
        if not entity:
            raise MachineError("W&B knows no user or team for this login; give --entity")
        return workspace(project, entity).save().url
    except MachineError:
        raise
    except Exception as error:  # the client's own errors have no common kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MachineError(f"W&B did not take the view for {entity}/{project} ({reason}); train one run into that "
                           "project first, and check wandb login") from error  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_command(main))
