"""What a reader of a study must know besides its figures: which data, which rates, which nets."""

from itertools import pairwise
from pathlib import Path

from fastres.schedules import SCHEDULES
from fastres.schedules.types import Plateau
from fastres.study.findings.runs import QUARTER, REAL, Trained

LABELS = {
    "small-world": "The procedural small world",
    "large-world": "The procedural world in Tiny ImageNet's size",
    "paper": "Tiny ImageNet. It is a subset of ImageNet, so a pretrained network has seen its images: true of these "
    "figures, of the paper's, and of everybody's who starts there.",
    "part": "{data}; networks of width {widths}. The paper's figures, of the whole of it, stand beside these.",
    "other": "{data}; networks of width {widths}.",
}
PROCEDURAL = (
    " ({classes} classes of {side} pixels, networks of width {widths}): its errors neither confirm nor refute the "
    "paper's. The paper's figures, on Tiny ImageNet, stand beside them for orientation. Where the order of systems "
    "differs from the paper's, that is said below; the world was not tuned until it agrees."
)

UNSEEN = (
    " The pretrained networks learned the other half of the classes at 64 pixels: they have seen no class and no image "
    "of these, which the paper cannot say of its own."
)

ONE_SEED = (
    "With one seed, every standard error is that of the validation images alone; what another seed would change is in "
    "none of them."
)


def notes_on_rates(runs: list[Trained]) -> list[str]:
    """In which runs the paper's rule lowered the rate: those have annealed, the others not."""
    ruled = [run for run in runs if run.schedule["lr_policy"]["kind"] == Plateau.__name__]
    lowered = [
        run
        for run in ruled
        if any(
            earlier["stage"] == later["stage"] and later["lr"] < earlier["lr"]
            for earlier, later in pairwise(run.epochs)
        )
    ]
    if not ruled or len(lowered) == len(ruled):
        return []
    named: dict[str, list[str]] = {}
    for run in lowered:
        named.setdefault(run.name, []).append(str(run.seed))
    where = ", ".join(f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" for name, seeds in named.items())
    rule = "the rule that lowers the rate when the error stalls did so in"
    if not lowered:
        return [f"{rule} none of the {len(ruled)} runs that have it: all kept every stage's first rate"]
    return [
        f"{rule} {len(lowered)} of the {len(ruled)} runs that have it: {where}; the others kept every stage's "
        "first rate"
    ]


def notes_on_epochs(runs: list[Trained]) -> list[str]:
    """Which systems of the quarter size were trained for other epochs than their schedules have."""
    other = {}
    for run in runs:
        name = run.schedule["name"].removesuffix(QUARTER)
        if name != run.schedule["name"] and name in SCHEDULES:
            wanted, had = SCHEDULES[name].epochs, sum(stage["epochs"] for stage in run.schedule["stages"])
            if had != wanted:
                other[name] = f"{name} {had} of {wanted}"
    return [f"not all systems have the paper's epochs: {', '.join(other.values())}"] if other else []


def notes_on_nets(systems: dict[str, list[Trained]]) -> list[str]:
    """Which pretrained net each seed starts from, where that is not the same for all of a system."""
    dealt: dict[tuple, list[str]] = {}
    for name, runs in systems.items():
        nets = tuple((run.seed, Path(run.schedule["weights"]).name) for run in runs if run.schedule["weights"])
        dealt.setdefault(nets, []).append(name)
    several = [nets for nets in dealt if len({net for _, net in nets}) > 1]
    notes = []
    for nets in several:
        seeds = {net: [str(seed) for seed, other in nets if other == net] for _, net in nets}
        said = "; ".join(f"seed{'s' * (len(its) > 1)} {', '.join(its)}: {net}" for net, its in seeds.items())
        notes.append(
            f"the pretrained net of {', '.join(dealt[nets])} is not the same for all seeds ({said}), so their "
            "deviation has the pretraining's chance in it"
        )
    return notes


def kind_of(runs: list[Trained]) -> str:
    """Which of LABELS the runs' data are."""
    if any(run.small for run in runs):
        return "large-world" if all((run.side, run.classes) == REAL for run in runs) else "small-world"
    if all(run.part for run in runs):
        return "part"
    return "paper" if all(run.real for run in runs) else "other"


def label_of(kind: str, runs: list[Trained]) -> str:
    """What every reader must know first."""
    widths = " and ".join(str(width) for width in sorted({run.schedule["width"] for run in runs}))
    if kind == "other":
        data = runs[0].data or f"{runs[0].classes} classes of {runs[0].side} pixels"
        return LABELS[kind].format(data=data, widths=widths)
    if kind == "part":
        return LABELS[kind].format(data=runs[0].data, widths=widths) + (UNSEEN if _quarter(runs) else "")
    facts = PROCEDURAL.format(classes=runs[0].classes, side=runs[0].side, widths=widths)
    return LABELS[kind] + (facts if kind.endswith("world") else "")


def _quarter(runs: list[Trained]) -> bool:
    """Whether all began with nets that their study pretrained, not with any that --weights gave."""
    return all(
        run.schedule["name"].endswith(QUARTER)
        and (
            run.schedule["weights"] is None
            or (run.folder.parent.parent / "nets").resolve() in Path(run.schedule["weights"]).parents
        )
        for run in runs
    )
