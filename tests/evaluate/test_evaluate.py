"""Scoring against loops anyone can read; evaluation scores exactly N, whatever the batch."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate import combining
from fastres.evaluate import scores as scores_module
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.machine.errors import DataError
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from fastres.schedules.types import ViewSettings
from fastres.track.error_table import standard_error
from fastres.views.geometry import Geometry

CPU = torch.device("cpu")


def test_twelve_views_are_the_papers():
    names = [view.name for view in views.TWELVE_VIEWS]
    assert len(names) == 12 and [names[i] for i in combining.METHODS["full"]] == ["full"]
    assert [names[i] for i in combining.METHODS["centre"]] == ["centre"]
    ten = [names[i] for i in combining.METHODS["10-crop"]]
    assert len(ten) == 10 and sum(name.endswith("'") for name in ten) == 5 and "full" not in ten
    assert combining.METHODS["12-crop"] == list(range(12))


def by_hand(scores: list[list[float]], how: str) -> list[float]:
    """One image, views x classes, with plain Python."""
    classes = range(len(scores[0]))
    if how == "expsum":
        return [math.log(sum(math.exp(view[c]) for view in scores)) for c in classes]
    if how == "softmax":
        return [math.log(sum(math.exp(v[c]) / sum(map(math.exp, v)) for v in scores)) for c in classes]
    if how == "logit":
        return [sum(view[c] for view in scores) / len(scores) for c in classes]
    return [max(view[c] for view in scores) for c in classes]


@pytest.mark.parametrize("how", ["expsum", "softmax", "logit", "max"])
def test_combinations_equal_plain_loops(how):
    scores = torch.randn(5, 12, 7, generator=torch.Generator().manual_seed(0)) * 3
    ours = combining.combine(scores, how)
    for i in range(5):
        np.testing.assert_allclose(ours[i], by_hand(scores[i].tolist(), how), rtol=1e-6)


def test_expsum_survives_scores_that_overflow_exp():
    scores = torch.tensor([[[1000.0, 999.0], [0.0, 1000.5]]])
    assert combining.combine(scores, "expsum").argmax().item() == 1
    assert combining.combine(scores, "expsum").isfinite().all()


def test_votes_count_and_ties_go_to_the_higher_sum():
    scores = torch.tensor([[[5.0, 0, 0], [0, 1.0, 0], [0, 2.0, 0]], [[5.0, 0, 0], [0, 9.0, 0], [0, 0, 7.0]]])
    ranking = combining.combine(scores, "vote")
    assert ranking.argmax(1).tolist() == [1, 1]
    assert ranking[1].argsort(descending=True).tolist() == [1, 2, 0]


def test_one_view_has_one_order_whatever_combines_it():
    """Of equal scores the lower class goes first, in votes too: a rounded score is often equal to another."""
    scores = (torch.randn(200, 1, 9, generator=torch.Generator().manual_seed(0)) * 2).round()
    labels = torch.arange(200) % 9
    ranks = [combining.rank_of_truth(combining.combine(scores, how), labels) for how in combining.COMBINATIONS]
    assert all(torch.equal(ranks[0], rank) for rank in ranks) and len(ranks[0].unique()) > 5


@pytest.mark.parametrize("how", combining.COMBINATIONS)
def test_what_is_not_a_number_wins_nothing(how):
    ranking = combining.combine(torch.full((1, 12, 4), torch.nan), how)
    assert ranking.isnan().all() and combining.top_errors(ranking, torch.tensor([0]))["top1"] == 100.0


def test_the_standard_error_of_few_images_is_never_none():
    """Agresti and Coull's: none wrong of three leaves much open, of ten thousand nothing."""
    found = [standard_error(error, count) for error, count in ((0, 3), (100, 3), (0, 50), (26.8, 10_000), (50, 20))]
    assert found == pytest.approx([17.07, 17.07, 2.570, 0.4429, 10.21], rel=0.001)


@pytest.mark.parametrize("stem,upscale", [("7x7", 4), ("7x7", 8), ("3x3", 1), ("3x3", 4)])
def test_no_tensor_of_a_gpus_pass_has_two_to_the_31_elements(stem, upscale):
    """At its full width, by what comes out of the first layer; larger views are fewer a pass."""
    plan = views.TestPlan(geometry=Geometry(64, upscale), settings=ViewSettings(), views=views.TWELVE_VIEWS)
    with torch.device("meta"):
        network = build(Architecture("resnet18", 64, 10, stem))
        count = scores_module._views_per_pass(network, plan, torch.device("cuda"))
        size = network.conv1(torch.empty(count, 3, plan.geometry.crop, plan.geometry.crop)).numel()
    assert 2**28 < size < 2**31 or count == 1024


def test_top_errors_by_hand():
    ranking = torch.tensor([[9.0, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [1, 1, 1, 1, 1, 1]])
    labels = torch.tensor([0, 4, 5, 5])
    assert combining.top_errors(ranking, labels) == {"top1": 75.0, "top5": 50.0}


def test_constant_or_nan_output_earns_nothing_by_luck():
    labels = torch.arange(10)
    assert combining.top_errors(torch.zeros(10, 10), labels) == {"top1": 90.0, "top5": 50.0}
    assert combining.top_errors(torch.full((10, 10), torch.nan), labels)["top1"] == 100.0


@pytest.mark.parametrize("images_per_pass", [1, 7, 20, 20_000])
def test_scores_exactly_n_at_any_batch_size(packed, net, monkeypatch, images_per_pass):
    data = Resident(packed, load_manifest(packed), "val", CPU)
    plan = views.TestPlan(geometry=Geometry(16, 4), settings=ViewSettings(), views=views.TWELVE_VIEWS)
    monkeypatch.setitem(scores_module.VIEWS_PER_PASS, "cpu", 12 * images_per_pass)
    scores = scores_module.score(net, data, plan, Precision("fp32", CPU))
    assert scores.shape == (20, 12, 4)
    # image 13, one view at a time, by the definition and a plain forward
    from fastres.views import reference

    x = torch.from_numpy(reference.test_views(data.images[13:14].numpy(), plan)).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        alone = torch.cat([net(view[None]) for view in x])
    torch.testing.assert_close(scores[13], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_scores_are_the_folded_ones(packed, net, monkeypatch):
    from torch._dynamo.utils import counters

    data = Resident(packed, load_manifest(packed), "val", CPU)
    plan = views.TestPlan(geometry=Geometry(16, 1), settings=ViewSettings(), views=views.TWELVE_VIEWS)
    monkeypatch.setitem(scores_module.VIEWS_PER_PASS, "cpu", 12 * 8)  # 8 + 8 + 4 images: a partial batch
    folded, before = scores_module.score(net, data, plan, Precision("fp32", CPU)), counters["frames"]["ok"]
    found = [scores_module.score(net, data, plan, Precision("fp32", CPU), compile=True) for _ in range(2)]
    assert counters["frames"]["ok"] == before + 2, "once a size of batch, and not anew at the second validation"
    for scores in found:
        torch.testing.assert_close(scores, folded, atol=1e-4, rtol=1e-4)


class Oracle(nn.Module):
    """Answers image i's label by looking at its pixels: only a scorer that keeps order and count gives 0 %."""

    def __init__(self, data: Resident, plan: views.TestPlan) -> None:
        super().__init__()
        ids = torch.arange(len(data))
        self.known = views.apply(data.images, ids, ids, plan).flatten(1)
        self.labels = data.labels.repeat_interleave(len(plan.views))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(x.flatten(1), self.known).argmin(1)
        return nn.functional.one_hot(self.labels[nearest], 4).float()


def test_order_is_kept(packed):
    data = Resident(packed, load_manifest(packed), "val", CPU)
    plan = views.TestPlan(geometry=Geometry(16, 1), settings=ViewSettings(), views=views.TWELVE_VIEWS)
    errors, scores = scores_module.evaluate(
        Oracle(data, plan), data, plan.geometry, plan.settings, Precision("fp32", CPU)
    )
    assert all(method["top1"] == 0.0 for table in errors.values() for method in table.values())
    labels = data.labels.clone()
    labels[3] = (labels[3] + 1) % 4  # one wrong answer of 20 is 5 %
    assert combining.error_table(scores, labels)["expsum"]["12-crop"]["top1"] == 5.0


def command(*arguments) -> int:
    return run_command(lambda: evaluate.main([str(a) for a in arguments]))


def test_command_prints_the_table_and_json(packed, weights, capsys):
    assert command(weights, "--data", packed, "--combine", "softmax") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("full", "centre", "10-crop", "12-crop", "softmax"))
    assert command(weights, "--data", packed, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["count"] == 20 and set(result["errors"]) == set(combining.COMBINATIONS)


def test_weights_of_another_class_map_are_refused(packed, net, tmp_path, capsys):
    path = tmp_path / "other.safetensors"
    path.write_bytes(save_weights(net, {"class_digest": "0" * 64}))
    assert command(path, "--data", packed) == DataError.exit_code
    assert "class" in capsys.readouterr().err


def test_unfinished_run_is_refused(packed, tmp_path, capsys):
    assert command(tmp_path, "--data", packed) == DataError.exit_code
    assert "not finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    "metadata",
    [
        {"upscale": "four"},
        {"upscale": 0},
        {"upscale": True},
        {"convention": ["torch7"]},
        {"class_digest": 7},
        [1],
        "x",
    ],
)
def test_metadata_that_makes_no_sense_is_one_sentence(packed, net, tmp_path, capsys, metadata):
    """A file from anywhere may carry ours by accident or by intent."""
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(save_weights(net, metadata))
    assert command(path, "--data", packed) == DataError.exit_code
    assert f"weights {path}: its metadata" in capsys.readouterr().err


def test_a_damaged_summary_is_one_sentence(packed, weights, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "final.safetensors").write_bytes(weights.read_bytes())
    (tmp_path / "run" / "summary.json").write_bytes(b'{"status": "do')
    assert command(tmp_path / "run", "--data", packed) == DataError.exit_code
    assert "is not JSON" in capsys.readouterr().err
