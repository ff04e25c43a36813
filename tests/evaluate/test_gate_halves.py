"""The gate's published saving: each half of the images by the threshold that the other half chose."""

import pytest
import torch

from fastres.evaluate import gate
from tests.evaluate.test_gate import made


def test_the_slack_is_a_tenth_of_a_point():
    """As docs/numbers.md says."""
    assert gate.SLACK == 0.1


@pytest.mark.parametrize("seed", range(3))
def test_each_half_is_judged_by_the_others_margin(seed):
    """Image by image, in halves so unlike each other that their own thresholds would say something else."""
    scores, labels = made(2001, 10, seed)
    easy = torch.arange(len(labels[::2])) % 3 == 0
    labels[::2] = torch.where(easy, scores[::2, 0].argmax(1), labels[::2])
    found, wrong, made_views = gate.find_gate(scores, labels), 0, 0
    for at in (0, 1):
        mine, other = slice(at, None, 2), slice(1 - at, None, 2)
        limit = gate.find_gate(scores[other], labels[other]).margin
        margins = torch.stack([gate.margins(scores[mine][:, gate.ORDER[:seen]]) for seen in gate.AFTER[:-1]], 1)
        for row, views, label in zip(margins, scores[mine].double(), labels[mine], strict=True):
            last = next((k for k, margin in enumerate(row) if margin >= limit), len(gate.AFTER) - 1)
            seen = gate.ORDER[: gate.AFTER[last]]
            made_views += len(seen)
            wrong += int(views[seen].exp().sum(0).argmax() != label)
    assert found.held_out == pytest.approx(100 * wrong / len(labels))
    assert found.held_out_views == pytest.approx(made_views / len(labels))
    assert found.held_out_views != pytest.approx(found.views), "or this would say nothing"
