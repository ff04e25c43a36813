"""The gate: its threshold against an obvious search, its views against all of them, its command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import __main__ as command
from fastres.evaluate import combining, gate
from fastres.evaluate.scores import score
from fastres.machine.device import Precision
from fastres.machine.errors import UsageError
from fastres.model.card import card_of
from fastres.model.network import describe
from fastres.model.target import read_model
from fastres.model.weights import network_from
from tests.support.tiny_runs import train_tiny


def made(images: int, classes: int, seed: int):
    """Scores that know something: the truth stands out by more in all views than in one."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=draw)
    common = torch.randn(images, 1, classes, generator=draw)
    own = torch.randn(images, 12, classes, generator=draw)
    own[torch.arange(images), :, labels] += 1.5
    return common + own, labels


def by_search(margin, centre, every):
    """The definition, slowly: every threshold there can be, from the largest down, as long as it is good enough."""
    allowed = every.mean() + gate.SLACK / 100 + 1e-12
    best = math.inf
    for threshold in sorted({*margin.tolist(), math.inf, 0.0}, reverse=True):
        if np.where(margin < threshold, every, centre).mean() > allowed:
            break
        best = threshold
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_is_the_definitions(seed, ties):
    rng = np.random.default_rng(seed)
    margin = rng.integers(0, 6, 400).astype(float) if ties else rng.random(400)
    centre = rng.random(400) < 0.4 * np.exp(-margin)
    every = np.where(rng.random(400) < 0.5, centre, False)
    found, expected = gate._threshold(margin, centre, every), by_search(margin, centre, every)
    assert np.array_equal(margin < found, margin < expected)


def test_a_gate_by_hand():
    """Four images: the two with small margins need all views, one of them is wrong without."""
    scores = torch.zeros(4, 12, 3)
    for image, margin in enumerate((4.0, 0.1, 3.0, 0.2)):
        scores[image, :, 0] = margin
    scores[1, 1:, 1] = 9.0
    labels = torch.tensor([0, 1, 0, 0])
    found = gate.find_gate(scores, labels)
    assert (found.centre, found.all_views, found.error) == (25.0, 0.0, 0.0)
    assert found.margin == 0.15 and found.views == 1 + 11 / 4


def test_extremes():
    scores, labels = made(50, 4, 0)
    nothing = gate.find_gate(scores[:, :1].expand(-1, 12, -1), labels)  # all views say the same: one is enough
    assert nothing.margin == 0.0 and nothing.views == 1.0 and nothing.error == nothing.all_views == nothing.centre
    one_class = gate.find_gate(torch.zeros(3, 12, 1), torch.zeros(3, dtype=torch.long))
    assert one_class.error == 0.0 and one_class.views == 1.0
    for best, made_views in ((0, 1.0), (1, 12.0)):  # one image: right at once, or by the other views
        scores = torch.zeros(1, 12, 2)
        scores[0, 0, best], scores[0, 1:, 0] = 1.0, 9.0
        assert gate.find_gate(scores, torch.tensor([0])).views == made_views


@pytest.mark.parametrize("seed", range(5))
def test_the_printed_margin_gives_what_is_printed(seed):
    scores, labels = made(2000, 10, seed)
    found = gate.find_gate(scores, labels)
    typed = float(found.as_text().partition("below ")[2].partition(":")[0])
    margin = gate.margins(scores[:, 0])
    assert gate.views_per_image(margin < typed) == found.views
    assert (margin - typed).abs().min() > 0


def test_fewer_views_at_nearly_the_same_error():
    scores, labels = made(4000, 20, 3)
    found = gate.find_gate(scores, labels)
    table = combining.error_table(scores, labels)["expsum"]
    assert found.all_views == pytest.approx(table["12-crop"]["top1"])
    assert found.centre == pytest.approx(table["centre"]["top1"])
    assert found.error <= found.all_views + gate.SLACK + 1e-9 and 1 < found.views < 12
    assert abs(found.held_out - found.error) < 1.0 and str(round(found.views, 2)) in found.as_text()


@pytest.fixture(scope="module")
def run(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate") / "run"
    train_tiny(packed, folder)
    return folder


def printed(capsys, *arguments):
    capsys.readouterr()
    assert command.main([str(a) for a in arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_finds_it_and_uses_it(run, capsys):
    """At no margin the answers are the centre's, at an endless one those of all views; in between the margin counts."""
    plain = printed(capsys, run, "--device", "cpu", "--json")
    found = printed(capsys, run, "--device", "cpu", "--json", "--gate")
    assert found["errors"] == plain["errors"]
    assert json.loads((run / "summary.json").read_text())["gate"] == found["gate"]
    assert found["gate"]["all_views"] == pytest.approx(plain["errors"]["expsum"]["12-crop"]["top1"])
    for margin, method in (("0", "centre"), ("1e9", "12-crop")):
        gated = printed(capsys, run, "--device", "cpu", "--json", "--gate", margin)
        assert gated["errors"]["expsum"]["gated"] == plain["errors"]["expsum"][method]
        assert gated["gate"] == {"margin": float(margin), "views": 1.0 if margin == "0" else 12.0}
    chosen = 1e9 if found["gate"]["margin"] is None else found["gate"]["margin"]
    again = printed(capsys, run, "--device", "cpu", "--json", "--gate", repr(chosen))
    assert again["errors"]["expsum"]["gated"]["top1"] == pytest.approx(found["gate"]["error"])
    assert again["gate"]["views"] == pytest.approx(found["gate"]["views"])


def test_what_does_not_go_together(run, capsys, tmp_path):
    for arguments, words in ((("--gate", "2", "--out", tmp_path / "out"), "drop one"),):
        with pytest.raises(UsageError, match=words):
            command.main([str(a) for a in (run, "--device", "cpu", *arguments)])
    for wrong in ("-1", "x", "nan", "inf"):
        with pytest.raises(SystemExit):
            command.main([str(run), f"--gate={wrong}"])
    assert "expected a margin of scores from 0 up" in capsys.readouterr().err


def centres_answers(run) -> list[str]:
    """What the centre view alone says of the test images, without the gate's code."""
    packed, model, cpu = (
        Path(json.loads((run / "summary.json").read_text())["data"]),
        read_model(run),
        torch.device("cpu"),
    )
    manifest, network = load_manifest(packed), network_from(model.state, model.source)
    card = card_of(model.metadata, describe(model.state), model.source)
    plan = views.twelve_views(card.geometry, card.settings)
    scores = score(network, Resident(packed, manifest, "test", cpu), plan, Precision("fp32", cpu))
    return [manifest.classes[c].wnid for c in scores[:, 0].argmax(1).tolist()]


def test_unlabelled_images_are_gated_for_a_submission_and_find_nothing(run, tmp_path, capsys):
    with pytest.raises(UsageError, match="is unlabelled"):
        command.main([str(run), "--device", "cpu", "--split", "test", "--gate"])
    answers = {}
    for name, arguments in (("all", ()), ("gated", ("--gate", "1e9")), ("centre", ("--gate", "0"))):
        file = tmp_path / name
        words = (run, "--device", "cpu", "--split", "test", "--submission", file, *arguments)
        assert command.main([str(word) for word in words]) == 0
        answers[name] = file.read_text()
    assert answers["gated"] == answers["all"]
    assert [line.split()[1] for line in answers["centre"].splitlines()] == centres_answers(run)
    assert "1.00 views an image" in capsys.readouterr().out


def test_the_text_says_when_nothing_is_spared():
    found = gate.Gate(None, 12.0, 3.0, 3.0, 9.0, 3.0, 12.0)
    assert "no image can do without" in found.as_text()
