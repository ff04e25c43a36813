"""Figure 2: the first layer's filters, before the surgery, scaled, and after each stage that learns them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fastres.model.reading import read_weights
from fastres.model.surgery import shrink_filters
from fastres.study.findings.runs import Trained
from fastres.track.pictures import filter_panels
from fastres.train.stage_ends import stage_end

STEM_SYSTEM = "paper"


def draw_filters(systems: dict[str, list[Trained]], path: Path, names: Sequence[str] = (STEM_SYSTEM,)) -> Path | None:
    """PNG of the filters of the first seed of the first of `names` that has a new stem; None where none has, or its
    stages are not there.

    The second panel is what scaling alone makes of the 7x7 filters (without the gain that `stem:torch7` adds).
    """
    for run in (run for name in names for run in systems.get(name, [])):
        stages = run.schedule["stages"]
        cut = next((i for i, s in enumerate(stages) if any(o.startswith("stem:") for o in s["surgery"])), 0)
        ends = [stage_end(run.folder, index) for index in range(len(stages))]
        if cut and all(end.exists() for end in ends):
            before = _stem(ends[cut - 1])
            scaled = shrink_filters(torch.from_numpy(before), "torch7").numpy()
            panels = [
                (f"before: after stage {stages[cut - 1]['name']}", before),
                ("scaled to 3×3" + ("" if run.own else ", as section 3.4"), scaled),
            ]
            panels += [
                (f"after stage {stage['name']}", _stem(end))
                for stage, end in zip(stages[cut:], ends[cut:], strict=True)
            ]
            return filter_panels(panels, path)
    return None


def _stem(file: Path) -> np.ndarray:
    return read_weights(file)["conv1.weight"].float().numpy()
