"""The gate: its threshold against an obvious search, its views against all of them, its command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import fastres
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
from fastres.predict.answering import Answering, open_model
from tests.support.tiny_runs import train_tiny


def made(images: int, classes: int, seed: int):
    """Scores that know something: the truth stands out by more in all views than in one."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=draw)
    common = torch.randn(images, 1, classes, generator=draw)
    own = torch.randn(images, 12, classes, generator=draw)
    own[torch.arange(images), :, labels] += 1.5
    return common + own, labels


def stops(margin, threshold) -> list[int]:
    """In which round each image stops, slowly: the first whose margin is the threshold, or the last."""
    return [next((at for at, one in enumerate(row) if one >= threshold), len(row)) for row in margin.tolist()]


def by_search(margin, wrong):
    """The definition, slowly: every threshold there can be, from the largest down, as long as it is good enough."""
    allowed = wrong[:, -1].mean() + gate.SLACK / 100 + 1e-12
    best = math.inf
    for threshold in sorted({*margin.ravel().tolist(), math.inf, 0.0}, reverse=True):
        if np.mean([row[at] for row, at in zip(wrong, stops(margin, threshold), strict=True)]) > allowed:
            break
        best = threshold
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_is_the_definitions(seed, ties):
    rng = np.random.default_rng(seed)
    margin = rng.integers(0, 6, (300, 3)).astype(float) if ties else rng.random((300, 3))
    wrong = np.minimum.accumulate(rng.random((300, 4)) < 0.4 * np.exp(-margin[:, :1]), axis=1)
    wrong ^= rng.random((300, 4)) < 0.02
    found, expected = gate._threshold(margin, wrong), by_search(margin, wrong)
    assert gate._rounds(margin, found).tolist() == stops(margin, found) == stops(margin, expected)


def test_margins_are_what_the_views_to_come_would_have_to_take_back():
    """Equal views: their sum leads as one does, and the threshold falls from eleven to a fifth of the lead of one."""
    scores = torch.zeros(1, 12, 3, dtype=torch.float64)
    scores[:, :, 1] = 2.0
    for seen, times in ((1, 1.0), (2, 2.2), (4, 5.5), (10, 55.0)):
        assert gate.margins(scores[:, :seen]).item() == pytest.approx(2.0 * times)
    assert sorted(gate.ORDER) == list(range(12)) and gate.AFTER == (1, 2, 4, 6, 8, 10, 12)


def test_a_gate_by_hand():
    """Four images: of the two with small margins one is wrong in the centre, and right with the second view."""
    scores = torch.zeros(4, 12, 3)
    for image, margin in enumerate((4.0, 0.1, 3.0, 0.2)):
        scores[image, :, 0] = margin
    scores[1, 1:, 1] = 9.0
    labels = torch.tensor([0, 1, 0, 0])
    found = gate.find_gate(scores, labels)
    assert (found.centre, found.all_views, found.error) == (25.0, 0.0, 0.0)
    assert found.margin == 0.15 and found.views == 1 + 1 / 4


def test_extremes():
    scores, labels = made(50, 4, 0)
    nothing = gate.find_gate(scores[:, :1].expand(-1, 12, -1), labels)  # all views say the same: one is enough
    assert nothing.margin == 0.0 and nothing.views == 1.0
    assert nothing.error == pytest.approx(nothing.all_views) and nothing.error == pytest.approx(nothing.centre)
    one_class = gate.find_gate(torch.zeros(3, 12, 1), torch.zeros(3, dtype=torch.long))
    assert one_class.error == 0.0 and one_class.views == 1.0
    for best, made_views in ((0, 1.0), (1, 2.0)):  # one image: right at once, or by the next view
        scores = torch.zeros(1, 12, 2)
        scores[0, 0, best], scores[0, 1:, 0] = 1.0, 9.0
        assert gate.find_gate(scores, torch.tensor([0])).views == made_views


@pytest.mark.parametrize("seed", range(5))
def test_the_printed_margin_gives_what_is_printed(seed):
    scores, labels = made(2000, 10, seed)
    found = gate.find_gate(scores, labels)
    typed = float(found.as_text().partition("at least ")[2].partition(",")[0])
    margin = torch.stack([gate.margins(scores[:, gate.ORDER[:seen]]) for seen in gate.AFTER[:-1]], 1)
    assert np.mean([gate.AFTER[at] for at in stops(margin.numpy(), typed)]) == found.views
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


def test_predictions_stop_where_the_rule_is_met(run):
    """Against a loop over the images: one round of views more at a time."""
    packed, cpu = Path(json.loads((run / "summary.json").read_text())["data"]), torch.device("cpu")
    pixels = np.load(packed / "val.images.npy")
    scores = Answering(*open_model(run, "fp32", cpu), run, "12-crop", "expsum").scores(pixels).double()[:, gate.ORDER]
    best = scores[:, 0].topk(2).values
    middle = float((best[:, 0] - best[:, 1]).median())

    def by_hand(one: torch.Tensor) -> tuple[int, int, float]:
        for seen in gate.AFTER:
            summed = one[:seen].exp().sum(0)
            first, second = summed.topk(2).values.log().tolist()
            if seen == 12 or (first - second) * 11 * seen / (12 - seen) >= middle:
                return seen, int(summed.argmax()), float(summed.max() / summed.sum())
        raise AssertionError

    expected = [by_hand(one) for one in scores]
    assert len({seen for seen, _, _ in expected}) > 2, "images stop after one view, after all, and in between"
    answers = fastres.load(run, precision="fp32").predict(list(pixels), gate=middle)
    assert [answer.probabilities[0] for answer in answers] == pytest.approx([sure for *_, sure in expected], rel=1e-4)
    ids = [one.wnid for one in load_manifest(packed).classes]
    assert [answer.ids[0] for answer in answers] == [ids[best] for _, best, _ in expected]


def test_gates_of_two_rounds_and_damaged_ones_are_none():
    """Summaries of earlier versions have the same figures of another rule, without `after`."""
    scores, labels = made(50, 4, 0)
    found = gate.find_gate(scores, labels)
    assert gate.Gate.of({"gate": json.loads(json.dumps(found.plain()))}) == found
    two_rounds = {key: value for key, value in found.plain().items() if key != "after"}
    damaged = ({**found.plain(), "views": None}, {**found.plain(), "more": 1.0}, {"after": list(gate.AFTER)}, "gate", 3)
    for plain in (two_rounds, None, {}, *damaged):
        assert gate.Gate.of({"gate": plain}) is None
    assert gate.Gate.of({}) is None


def test_no_images():
    scores = torch.zeros(0, 1, 0)
    assert gate.margins(scores).shape == (0,)


def test_the_text_says_when_nothing_is_spared():
    found = gate.Gate(None, 12.0, 3.0, 3.0, 9.0, 3.0, 12.0)
    assert "no image can do without" in found.as_text()
