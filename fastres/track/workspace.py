"""The W&B workspace of a project: accuracy and throughput in one view, with the borders between stages.

    python -m fastres workspace --project fastres

With a login the view is saved in the project, and its address printed; each call saves a new one. Without a login the
view is written to a file, and the same command saves it once `wandb login` was done. Panels are W&B's own
(wandb-workspaces); what they draw, and over what, is in track/metrics.py.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.errors import MachineError, first_line
from fastres.machine.extras import install_line
from fastres.machine.files import write_atomic
from fastres.machine.login import has_login
from fastres.track.metrics import ACCURACY, EPOCHS, IMAGES, STAGE, THROUGHPUT, Metric, panels, pinned

VIEW = "fastres: accuracy and throughput"
PICTURES = ("pictures/error_by_epoch", "pictures/stem_filters", "pictures/views")
SECTIONS = {ACCURACY: EPOCHS, THROUGHPUT: IMAGES}  # with the axis of most of its panels


def workspace(project: str, entity: str):
    """The view as wandb-workspaces has it; needs no network. MachineError where that package is missing."""
    try:
        with warnings.catch_warnings():  # of its own that are deprecated in pydantic
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.reports.v2 as reports
            import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise MachineError(f"wandb-workspaces cannot be imported ({error}); {install_line('dashboard')}") from error

    sections = [
        ws.Section(
            name=name,
            is_open=True,
            pinned=True,
            layout_settings=ws.SectionLayoutSettings(columns=2, rows=3),
            panel_settings=ws.SectionPanelSettings(x_axis=axis),
            panels=[_line(reports, axis, metrics) for metrics in panels(name)],
        )
        for name, axis in SECTIONS.items()
    ]
    shown = [reports.MediaBrowser(title="Pictures", media_keys=list(PICTURES), num_columns=1)]
    sections.append(ws.Section(name="Pictures", is_open=True, panels=shown))
    settings = ws.RunsetSettings(pinned_columns=[f"summary:{name}" for name in pinned()])
    return ws.Workspace(entity=entity, project=project, name=VIEW, sections=sections, runset_settings=settings)


def _line(reports, section_axis: str, metrics: tuple[Metric, ...]):
    """One panel. W&B draws no vertical lines, so a stage's border is the riser of a staircase behind the curves: the
    stage's index, scaled to the panel. Speeds know no common scale: for those the staircase has a panel of its own,
    first in the row, on the same axis of images."""
    first = metrics[0]
    _, stage_height = first.panel
    axis = IMAGES if IMAGES in (first.axis, section_axis) else section_axis
    words = {EPOCHS: "epoch (over all stages)", IMAGES: "training images seen"}
    return reports.LinePlot(
        title=first.title + (", by stage" if stage_height else ""),
        x=axis,
        y=[metric.name for metric in metrics],
        title_x=words[axis],
        title_y=first.unit,
        custom_expressions=[f"${{{STAGE}}} * {stage_height}"] if stage_height else None,
        smoothing_type="none",
        max_runs_to_show=20,
    )


def as_json(view) -> dict:
    """What W&B's server is sent for `view`: its name and its specification."""
    model = view._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {
        "entity": view.entity,
        "project": view.project,
        "displayName": view.name,
        "type": "project-view",
        "spec": spec,
    }


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres workspace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--project", default="fastres", help="W&B project, as given to train")
    p.add_argument("--entity", help="W&B user or team (default: the login's own)")
    p.add_argument(
        "--out",
        type=place,
        default=Path("wandb_workspace.json"),
        metavar="FILE",
        help="where the view goes without a login (default wandb_workspace.json)",
    )
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if has_login():
        print(save(args.project, args.entity))
        return 0
    view = workspace(args.project, args.entity or "")
    write_atomic(args.out, (json.dumps(as_json(view), indent=1) + "\n").encode())
    entity = f" --entity {args.entity}" if args.entity else ""
    print(
        f"no W&B login found: the view is in {args.out}; to save it in the project: wandb login, then "
        f"python -m fastres workspace --project {args.project}{entity}"
    )
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
        reason = first_line(error)
        raise MachineError(
            f"W&B did not take the view for {entity}/{project} ({reason}); train one run into that "
            "project first, and check wandb login"
        ) from error


if __name__ == "__main__":
    sys.exit(run_command(main))
