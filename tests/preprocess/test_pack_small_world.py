"""preprocess/pack.py --small-world: every part is rendered, packed once and named."""

import json

import pytest

from preprocess import small_world
from preprocess.options import SMALL_WORLDS, completed, parser
from tests.support.packing import verify_all
from tests.support.trees import write_tree


def test_small_world_is_rendered_once(packer, tmp_path, monkeypatch):
    rendered = []

    def render(part, tree, seed, progress):
        rendered.append((part, seed))
        write_tree(tree, side=32)
        progress(48, 48)

    monkeypatch.setattr(small_world, "render_part", render)
    for status in ("packed", "up to date"):
        code, out, err = packer("--small-world", "--json")
        assert (code, json.loads(out)["status"]) == (0, status), err
    assert rendered == [("target", 0)]
    manifest = verify_all(tmp_path / "packed")
    assert {k: manifest.source[k] for k in ("kind", "name", "part", "seed")} == {
        "kind": "small-world",
        "name": "tree",
        "part": "target",
        "seed": 0,
    }
    assert (manifest.side, manifest.count("train")) == (32, 24)


def test_the_packer_offers_every_part_of_the_small_world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tuple(small_world.PARTS) == SMALL_WORLDS
    outs = [completed(parser().parse_args(["--small-world", *part])).out.name for part in ([], ["target"], ["study"])]
    assert outs == ["packed-small-world", "packed-small-world", "packed-small-world-study"]
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--small-world", "both"])
    assert stop.value.code == 2


@pytest.mark.slow
def test_the_real_small_world(packer, tmp_path):
    for status in ("packed", "up to date"):
        code, out, err = packer("--small-world", "--json")
        assert (code, json.loads(out)["status"]) == (0, status), err
    manifest = verify_all(tmp_path / "packed")
    assert (manifest.side, manifest.num_classes) == (32, 20)
    assert [manifest.count(s) for s in ("train", "val")] == [4000, 1000]
    assert manifest.splits["train"]["grayscale"] > 0
