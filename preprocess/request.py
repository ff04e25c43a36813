"""What is asked of the packer: as a note that tells whether it is done already, and as the images of every split."""

import argparse

from fastres.data.decode import Recipe
from fastres.machine.console import say
from fastres.machine.errors import DataError
from preprocess.held_out import hold_out, look, refuse_second
from preprocess.probe import side_of
from preprocess.selection import Selection
from preprocess.sources.layout import read_layout
from preprocess.sources.records import Layout
from preprocess.sources.source import DEFAULT_NAMES, Source
from preprocess.sources.tree import Tree
from preprocess.staging import remembered
from preprocess.writers import NEED_FILES

PACKER = 5  # raise it when the same source would be packed into other bytes, and say in report.SINCE what is new


def request_for(source: Source, options: argparse.Namespace) -> dict:
    """All that the packed bytes follow from, as far as it can be known in well under a second."""
    return {
        "options": {
            "packer": PACKER,
            "engines": options.engines,
            "on_bad": options.on_bad,
            "side": options.side,
            "background": list(options.background),
            # only where asked for: a folder packed before they were options is still up to date
            **({"classes": options.classes} if options.classes else {}),
            **({"per_class": list(options.per_class)} if options.per_class else {}),
            **({"val_fraction": [options.val_fraction, options.val_seed]} if options.val_fraction else {}),
        },
        "source": {"name": source.path.name, **source.identity},
        "fingerprint": source.fingerprint() if source.path.exists() else None,
    }


def is_packed(source: Source, options: argparse.Namespace) -> bool:
    """Whether <out> already holds what packing would write."""
    before = remembered(options.out)
    if before is None:
        return False
    now = request_for(source, options)
    if source.kind == "download":  # the data set was removed after packing: no reason to fetch it again
        return before["options"] == now["options"] and before["source"] in [{"name": n} for n in DEFAULT_NAMES]
    return before == now


def what_to_pack(tree: Tree, options: argparse.Namespace) -> tuple[Layout, Recipe, dict]:
    """The images of every split, what each becomes, and what the manifest's source says of how they were taken."""
    whole = read_layout(tree, options.on_bad == "skip", without_val=options.val_fraction is not None)
    if options.val_fraction is not None:
        refuse_second(tree.name, whole)
    about = Selection(options.classes, options.per_class).about(whole)
    layout = Selection(options.classes).of(whole)
    recipe = Recipe(
        side=options.side or side_of(tree, layout.splits["train"]),
        resize=options.side is not None,
        files=bool(NEED_FILES & {*options.engines}),
        background=options.background,
    )
    if options.val_fraction is not None:
        pixels, bad = look(tree, layout.splits["train"], recipe, options.workers)
        if options.on_bad == "stop":
            judge(bad, layout, options.on_bad)
        layout = hold_out(layout, pixels, options.val_fraction, options.val_seed)
        held = {"fraction": options.val_fraction, "seed": options.val_seed}
        about["held_out"] = held | {"train": len(layout.splits["train"]) - len(bad), "val": len(layout.splits["val"])}
    return Selection(per_class=options.per_class).of(layout), recipe, about


def judge(bad: list[tuple[str, str]], layout: Layout, on_bad: str) -> None:
    """DataError, after a list of all of them, when bad images stop the packing or leave too little of it."""
    if not bad:
        return
    total = sum(len(records) for records in layout.splits.values())
    say("\n".join(f"{path}: {reason}" for path, reason in bad))
    found = f"found {len(bad):,} of {total:,} images bad, the first being {bad[0][0]}: {bad[0][1]}"
    if on_bad == "stop":
        raise DataError(f"{found}; mend the files listed above, or leave them out with --on-bad skip")
    gone = {path for path, _ in bad}
    left = {split: [r for r in records if r.path not in gone] for split, records in layout.splits.items()}
    classes = {r.label for r in left["train"]}
    emptied = [split for split, records in left.items() if not records]
    emptied += [f"train/{c.wnid}" for i, c in enumerate(layout.classes) if i not in classes]
    if emptied:
        raise DataError(
            f"{found}; without them a split or a class of train would be empty ({', '.join(emptied[:5])}), expected "
            "some images of each; "
            "mend the files listed above"
        )
