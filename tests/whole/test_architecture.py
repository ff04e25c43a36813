"""architecture.md is true: its files exist, its table is the house's, and ten changes have the address it names."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fastres import views
from fastres.data.engines import ENGINES, PIXEL_FILES
from fastres.data.libraries import OPTIONAL
from fastres.machine.errors import FastresError, kind_of
from fastres.model.network import Architecture, build
from fastres.model.surgery import replace_and_initialise_stem
from fastres.schedules import PAPER
from fastres.schedules.types import STEM_INITS, ViewSettings
from fastres.stage.captured import CapturedStep
from fastres.stage.rehearsal import rehearse
from fastres.stage.step import EagerStep
from fastres.views.geometry import Geometry
from preprocess.writers import WRITERS
from tests.support.docs_commands import DOCS, ROOT
from tests.whole.test_house import BELOW, FILES

PAGE = (DOCS / "architecture.md").read_text()
CHANGES = [line for line in PAGE.partition("## Where a change goes")[2].splitlines() if line.startswith("| ")][1:]
ABOVE = ("__main__", "api")  # no rooms: what stands above all of them


def test_every_path_it_names_exists():
    named = set(re.findall(r"`((?:fastres|preprocess|tests|runs)/[\w./]*)`", PAGE))
    assert len(named) >= 20
    missing = sorted(path for path in named - {"runs/live/"} if not (ROOT / path).exists())
    assert not missing, missing


def test_its_rooms_are_those_of_the_house():
    floors: dict[str, int] = {}
    for room, below in BELOW.items():  # lower rooms come first
        floors[room] = 1 + max((floors[name] for name in below), default=0)
    rows = re.findall(r"^\| (\d) \| `(\w+)` \| ([\w, ]+) \|", PAGE, re.M)
    said = {room: (int(floor), set(imports.split(", ")) - {"nothing"}) for floor, room, imports in rows}
    assert said == {room: (floors[room], set(below)) for room, below in BELOW.items() if room not in ABOVE}


def test_every_file_of_a_room_exists_there():
    rows = re.findall(r"^\| \d \| `(\w+)` \| [\w, ]+ \| (.+) \|$", PAGE, re.M)
    assert len(rows) == len(BELOW) - len(ABOVE)
    for room, holds in rows:
        there = {path.name for path in (ROOT / room if room == "preprocess" else ROOT / "fastres" / room).rglob("*")}
        for name in re.findall(r"`(\w+(?:\.py|/))`", holds):
            assert name.rstrip("/") in there, (room, name)


def test_ten_changes_have_an_address_that_has_what_it_says():
    assert len(CHANGES) == 10
    found = re.findall(r"`([\w.]+)`(?: of \w+)? in `(fastres/[^`]+\.py)`", "\n".join(CHANGES))
    assert len(found) >= 7
    for name, path in found:
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", (ROOT / path).read_text()), (name, path)


def test_crop_ratio():
    """It is said once; the side must be a multiple of its denominator, which the packer asks for too."""
    saying = [module for module, path in FILES.items() if re.search(r"7 ?//? ?8\b(?! \*)", code_of(path.read_text()))]
    assert saying == ["fastres.views.geometry"]


def code_of(source: str) -> str:
    """Without docstrings and comments, roughly: prose may name the ratio."""
    return re.sub(r"#.*", "", re.sub(r'""".*?"""', "", re.sub(r'"[^"\n]*"', '""', source), flags=re.S))


def test_engines():
    assert set(ENGINES) == set(PIXEL_FILES) == set(WRITERS) and set(OPTIONAL) <= set(ENGINES)


def test_exit_codes():
    kinds = FastresError.__subclasses__()
    assert len({kind.exit_code for kind in kinds}) == len(kinds) == 5
    table = (DOCS / "commands.md").read_text().partition("| exit code |")[2].partition("\n\n")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)} == {0, *(kind.exit_code for kind in kinds)}
    assert all(kind_of(kind.exit_code) is kind for kind in kinds) and kind_of(1) is FastresError
    # a new class alone: the other processes of a run end with its code
    kind = SimpleNamespace(exit_code=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastresError, "__subclasses__", lambda: [*kinds, kind])
        assert kind_of(6) is kind


@pytest.mark.parametrize("init", STEM_INITS)
def test_stem_initialisations(init):
    """Every name of the table is one that the surgery knows."""
    network = build(Architecture("resnet18", 8, 5))
    inputs = [torch.randn(2, 3, 16, 16)]
    chance = torch.Generator().manual_seed(0)
    replace_and_initialise_stem(network, init, chance, lambda: inputs, lambda: inputs, lambda old: old[..., 2:5, 2:5])
    assert network.conv1.weight.shape == (8, 3, 3, 3) and network.conv1.weight.isfinite().all()


@pytest.mark.parametrize("kind", [EagerStep, CapturedStep])
def test_every_step_gets_its_examples_in_one_place(kind):
    """MixUp's place: a recorded step goes through it as well as one op by op."""
    done = []

    class Mixed(kind):
        def __init__(self):
            self.optimizer, self._static = SimpleNamespace(param_groups=[]), "batch"

        def _examples(self, batch, plan):
            return f"mixed {batch}", f"labels for {plan}"

        def _update(self, x, labels):
            done.append((x, labels))

    step = Mixed()
    if kind is EagerStep:
        step._images = 0
        batch = type("Batch", (), {"step_images": 1, "__str__": lambda _: "batch"})()
        step(batch, "plan", 0.1)
    else:
        step._step("plan")
    assert done == [("mixed batch", "labels for plan")]


def test_sides_of_128_pixels():
    assert (Geometry(128, 4).crop, Geometry(128, 1).crop) == (448, 112)
    assert [net.stem for net in rehearse(replace(PAPER, weights=None), 200, 128)][-1] == "3x3"
    images = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    row = torch.zeros(1, dtype=torch.int64)

    def made(impl, upscale):
        plan = views.TrainPlan(
            geometry=Geometry(128, upscale), settings=ViewSettings(impl=impl), seed=0, stage=0, epoch=1
        )
        return views.apply(images, row, row, plan)

    for upscale in (4, 1):
        assert torch.allclose(made("auto", upscale), made("reference", upscale), atol=1e-4)
