"""The table of classes: which shape, texture, palette and layout each one is made of.

A class is a composition; its index is its label. `class_table(n)` is the first n rows of one fixed sequence,
so the 20 classes of the target world are the first 20 of the source world's 40, and of a 200-class world.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

SHAPES = (
    "disc",
    "square",
    "triangle",
    "hexagon",
    "star",
    "flower",
    "gear",
    "ring",
    "cross",
    "crescent",
    "capsule",
    "heart",
    "arch",
)
TEXTURES = (
    "plain",
    "striped",
    "checked",
    "dotted",
    "ringed",
    "zigzag",
    "spoked",
    "spotted",
    "gridded",
    "wavy",
    "bricked",
    "spiral",
)
PALETTES = ("warm", "cool", "leafy", "earthy", "candy", "stark")
LAYOUTS = ("single", "pair", "row", "orbit", "swarm")

# Classes come in pairs that share palette and layout, so that neither tells them apart alone.
FAMILY = 2
# Two classes that differ in nothing but these textures, at a period near the Nyquist limit of the small images,
# are nearly one class to a net that sees the small image badly: they bound the error from below, so there are
# only three. Row of the table -> (the earlier row it copies, that row's texture, its own texture).
TWINS = {3: (1, "striped", "zigzag"), 7: (5, "checked", "dotted"), 23: (21, "ringed", "spiral")}
MAX_CLASSES = 400


@dataclass(frozen=True)
class WorldClass:
    """One row: four ids into the tuples above, and whether its texture belongs to a pair of twins."""

    shape: int
    texture: int
    palette: int
    layout: int
    fine: bool = False

    @property
    def name(self) -> str:
        """Readable, e.g. "striped warm ring", "swarm of finely dotted cool star"."""
        layout, fine = LAYOUTS[self.layout], "finely " if self.fine else ""
        lead = "" if layout == "single" else f"{layout} of "
        return f"{lead}{fine}{TEXTURES[self.texture]} {PALETTES[self.palette]} {SHAPES[self.shape]}"


@cache
def class_table(n: int) -> tuple[WorldClass, ...]:
    """The first n classes; n from 1 to MAX_CLASSES. Growing n never changes an earlier row."""
    if not 1 <= n <= MAX_CLASSES:
        raise ValueError(f"the small world has 1 to {MAX_CLASSES} classes, not {n}")
    rows = np.array(list(product(*(range(len(a)) for a in (SHAPES, TEXTURES, PALETTES, LAYOUTS)))))
    # Greedy: each new class shares as little as possible with those before it. Sharing three of four attributes
    # is dear (a fine-detail pair by accident), sharing one is cheap, and a fixed shuffle breaks ties.
    cost = np.modf(np.arange(1, len(rows) + 1) * 0.6180339887498949)[0] * 0.5
    sources = {source: texture for source, texture, _ in TWINS.values()}
    table: list[WorldClass] = []
    for i in range(n):
        if i in TWINS:
            source, _, texture = TWINS[i]
            c = table[source]
            row = np.array([c.shape, TEXTURES.index(texture), c.palette, c.layout])
        else:
            family = i // FAMILY  # 6 and 5 share no divisor, so 30 families see every palette with every layout
            allowed = (rows[:, 2] == family % len(PALETTES)) & (rows[:, 3] == family % len(LAYOUTS))
            if i in sources:
                allowed &= rows[:, 1] == TEXTURES.index(sources[i])
            row = rows[np.argmin(np.where(allowed, cost, np.inf))]
        table.append(WorldClass(*(int(v) for v in row), fine=i in TWINS or i in sources))
        cost = cost + np.array([0.0, 1.0, 6.0, 200.0, np.inf])[(rows == row).sum(1)]
    return tuple(table)


def wnids(n: int) -> list[str]:
    """n ids like "n90000011", rising with the class index, so that sorted-wnid order is the table's order."""
    return [f"n{90000011 + 1013 * i:08d}" for i in range(n)]
