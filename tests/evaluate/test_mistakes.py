"""What a network gets wrong: counted, listed and ordered as plain loops do it; files that are whole and its own."""

import csv
import itertools
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate import asked, combining
from fastres.evaluate.answers import likeliest, words_of
from fastres.evaluate.confusions import block_order, counted, largest, likeness
from fastres.evaluate.mistake_files import claim_mistakes, write_mistakes
from fastres.evaluate.mistakes import WORST, find_mistakes
from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from fastres.track.mistakes import CONFUSIONS, FILE, FOLDER
from fastres.track.mistakes import WORST as WORST_PICTURE

CLASSES = [("n1", "crane"), ("n2", "crane"), ("n3", "cat, tabby"), ("n4", "dog")]
WORDS = ["crane (n1)", "crane (n2)", "cat, tabby", "dog"]
CPU = torch.device("cpu")


def random_scores(count: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(count, 12, classes, generator=chance) * 2, torch.randint(0, classes, (count,), generator=chance)


def found_of(count: int = 60, seed: int = 0):
    scores, labels = random_scores(count, 4, seed)
    return find_mistakes(scores, labels, CLASSES, [f"val/{i}.jpg" for i in range(count)], "expsum"), scores, labels


def test_classes_confusions_and_the_worst_against_plain_loops():
    found, scores, labels = found_of()
    probability = [torch.softmax(image.double().exp().sum(0).log(), 0).tolist() for image in scores]
    answer = [p.index(max(p)) for p in probability]
    truth = labels.tolist()
    assert words_of(CLASSES) == WORDS
    for label, row in enumerate(found.by_class()):
        mine = [a for a, t in zip(answer, truth, strict=True) if t == label]
        wrong = sum(a != label for a in mine)
        assert (row["name"], row["images"], row["wrong"]) == (WORDS[label], len(mine), wrong)
        assert row["top1_err"] == pytest.approx(100 * wrong / len(mine))
        share, images = (wrong + 2) / (len(mine) + 4), len(mine) + 4
        assert row["standard_error"] == pytest.approx(100 * (share * (1 - share) / images) ** 0.5)
    pairs = Counter((WORDS[t], WORDS[a]) for a, t in zip(answer, truth, strict=True) if a != t)
    listed = {(c["truth"], c["answer"]): (c["images"], c["share_pct"]) for c in found.confusions()}
    of = Counter(WORDS[t] for t in truth)
    assert listed == {pair: (n, pytest.approx(100 * n / of[pair[0]])) for pair, n in pairs.items()}
    images = [c["images"] for c in found.confusions()]
    assert images == sorted(images, reverse=True) and sum(images) == sum(row["wrong"] for row in found.by_class())
    surest = sorted((i for i in range(60) if answer[i] != truth[i]), key=lambda i: -probability[i][answer[i]])[:WORST]
    assert found.worst == surest and len(surest) == 12
    for image, worst in zip(surest, found.worst_images(), strict=True):
        assert worst["image"] == f"val/{image}.jpg" and worst["truth"] == WORDS[truth[image]]
        assert worst["probability"] == pytest.approx(probability[image][answer[image]])
        views = {name: scores[image, of].double().exp().sum(0).argmax() for name, of in combining.METHODS.items()}
        assert worst["by_method"] == {name: WORDS[c] for name, c in views.items()}


def test_what_is_answered_is_what_the_error_counts():
    """Also where scores are equal: a class that only ties with the true one ranks before it if it is the lower one."""
    ranking = torch.randint(0, 3, (400, 6), generator=torch.Generator().manual_seed(1)).double()
    labels = torch.arange(400) % 6
    rank = combining.rank_of_truth(ranking, labels)
    probabilities, order = likeliest(ranking, 6)
    assert torch.equal((order == labels[:, None]).int().argmax(1), rank)
    assert torch.equal(probabilities, ranking.softmax(1).gather(1, order)) and bool((rank > 0).any())


def by_hand(counts: np.ndarray) -> set[frozenset]:
    """The groups that average linkage makes, by the means over all pairs of members, which nothing updates."""
    alike, groups, made = likeness(counts), [[c] for c in range(len(counts))], set()
    while len(groups) > 1:
        means = {
            (a, b): alike[np.ix_(groups[a], groups[b])].mean() for a, b in itertools.combinations(range(len(groups)), 2)
        }
        a, b = max(means, key=means.get)
        if means[a, b] <= 0:
            break
        made.add(frozenset(groups[a] + groups[b]))
        groups[a] = groups[a] + groups[b]
        del groups[b]
    return made


@pytest.mark.parametrize("seed", range(5))
def test_every_group_of_average_linkage_stands_together(seed):
    chance = np.random.default_rng(seed)
    counts = chance.integers(1, 1000, (14, 14)) * (chance.random((14, 14)) < 0.4)
    order, groups = block_order(counts), by_hand(counts)
    assert sorted(order) == list(range(14)) and len(groups) > 5
    place = {c: at for at, c in enumerate(order)}
    for group in groups:
        places = [place[c] for c in group]
        assert max(places) - min(places) == len(group) - 1, (group, order)


def test_planted_blocks_are_found_and_lonely_classes_come_last():
    chance = np.random.default_rng(3)
    block = chance.permutation(np.repeat(np.arange(6), 5))  # five blocks of five; block 5 is confused with nothing
    labels = np.repeat(np.arange(30), 40)
    wrong = (chance.random(len(labels)) < 0.5) & (block[labels] < 5)
    inside = np.array([chance.choice(np.flatnonzero(block == block[label])) for label in labels])
    counts = counted(labels, np.where(wrong, inside, labels), 30)
    order = block_order(counts)
    assert len(list(itertools.groupby(block[order]))) == 6 and set(block[order[-5:]]) == {5}
    assert order[-5:] == sorted(order[-5:])
    assert block_order(np.diag([3, 4, 5])) == [0, 1, 2] and largest(np.diag([3, 4, 5])) == []


def rows_of(path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_groups_are_turned_so_that_likely_neighbours_meet():
    """Pairs 0, 1 and 2, 3; between them 0 and 3 are confused, so these stand in the middle."""
    counts = np.diag([20] * 4)
    for one, other, images in ((0, 1, 9), (2, 3, 9), (0, 3, 4)):
        counts[one, other] = images
    assert block_order(counts) in ([1, 0, 3, 2], [2, 3, 0, 1])


class Pixels:
    """A split as far as pictures need it."""

    device = CPU

    def pixels(self, ids: torch.Tensor) -> torch.Tensor:
        self.asked = ids.tolist()
        return torch.full((len(ids), 8, 8, 3), 99, dtype=torch.uint8)


def test_the_folder_has_every_image_and_both_pictures(tmp_path):
    found, scores, labels = found_of()
    folder, data = tmp_path / "mistakes", Pixels()
    claim_mistakes(folder, "expsum")
    drawn = write_mistakes(folder, found, data)
    assert [path.name for path in drawn] == [CONFUSIONS, WORST_PICTURE] and data.asked == found.worst
    for path in drawn:
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(picture.size) > 400
    rows = rows_of(folder / "errors.csv")
    assert [row["image"] for row in rows] == [f"val/{i}.jpg" for i in range(60)]
    share = combining.combine(scores, "expsum").softmax(1)
    for i, row in enumerate(rows):
        assert row["truth"] == WORDS[labels[i]]
        given = {row[f"answer {k}"]: float(row[f"probability {k}"]) for k in range(1, 5)}
        assert given == pytest.approx(dict(zip(WORDS, share[i].tolist(), strict=True)), rel=1e-4)
        assert list(given.values()) == sorted(given.values(), reverse=True)
    wrong = sum(row["answer 1"] != row["truth"] for row in rows)
    assert wrong == sum(int(row["wrong"]) for row in rows_of(folder / "classes.csv"))
    assert wrong == sum(int(row["images"]) for row in rows_of(folder / "confusions.csv"))
    assert json.loads((folder / FILE).read_text()) == found.plain()
    right = find_mistakes(torch.eye(4)[:, None].expand(4, 12, 4), torch.arange(4), CLASSES, list("abcd"), "expsum")
    assert len(write_mistakes(folder, right, data)) == 1 and not (folder / WORST_PICTURE).exists()
    assert right.plain()["confusions"] == right.plain()["worst"] == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "errors.csv").write_text("mine\n")
    with pytest.raises(UsageError, match="holds errors.csv"):
        claim_mistakes(tmp_path, "expsum")
    with pytest.raises(UsageError, match="no probabilities"):
        claim_mistakes(tmp_path / "new", "vote")
    assert [path.name for path in tmp_path.iterdir()] == ["errors.csv"]


@pytest.fixture(scope="module")
def weights(packed, tmp_path_factory):
    torch.manual_seed(0)
    path, digest = tmp_path_factory.mktemp("weights") / "net.safetensors", load_manifest(packed).class_digest
    net = build(Architecture("resnet18", 8, 4)).eval()
    path.write_bytes(save_weights(net, {"upscale": 4, "class_digest": digest, "convention": "half-pixel"}))
    return path


def command(*arguments) -> int:
    return run_command(lambda: evaluate.main([str(a) for a in arguments]))


@pytest.mark.parametrize("target", ["stages/0.safetensors", "elsewhere"])
def test_a_runs_own_folder_is_its_final_weights(packed, weights, tmp_path, capsys, target):
    """Another network's mistakes would stand in the run's tables as its own."""
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"data": str(packed)}))
    shutil.copy(weights, run / "stages/0.safetensors")
    target = weights if target == "elsewhere" else run / target
    assert command(target, "--data", packed, "--out", run / FOLDER) == 2
    assert "is a run's own folder, of its final weights" in capsys.readouterr().err and not (run / FOLDER).exists()
    args = evaluate.parser().parse_args([str(target), "--out", str(run / FOLDER)])
    assert asked._is_of_another(args)
    for own in (run, run / "final.safetensors"):
        assert not asked._is_of_another(evaluate.parser().parse_args([str(own), "--out", str(run / FOLDER)]))


def test_the_command_lists_writes_and_writes_again(packed, weights, tmp_path, capsys):
    out = tmp_path / "mistakes"
    assert command(weights, "--data", packed, "--out", out) == 0
    said = capsys.readouterr().out
    assert "class (largest errors)" in said and "taken for" in said and str(out) in said
    assert command(weights, "--data", packed, "--json", "--out", out) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["mistakes"] == json.loads((out / FILE).read_text())
    wrong = sum(row["wrong"] for row in result["mistakes"]["classes"])
    assert 100 * wrong / 20 == pytest.approx(result["errors"]["expsum"]["12-crop"]["top1"]) and wrong
    data = Resident(packed, load_manifest(packed), "val", CPU)
    assert [row["images"] for row in result["mistakes"]["classes"]] == data.labels.bincount(minlength=4).tolist()


def test_out_is_refused_before_anything_is_scored(packed, weights, tmp_path, capsys):
    assert command(weights, "--data", packed, "--out", packed) == 2
    assert "holds" in capsys.readouterr().err
    assert command(weights, "--data", packed, "--split", "test", "--out", tmp_path / "new") == 2
    assert "unlabelled" in capsys.readouterr().err and not (tmp_path / "new").exists()
