"""What training asks of a GPU, counted on fake `cuda` tensors: waits, uploads, launches, memory. No GPU is needed.

A wait for the GPU empties its queue. Between two looks at the loss there is none: what reads something back, and how
often, stands in the tables here, by file:function and not by line. tests/support/fake_cuda says how it is counted, and
what cannot be seen that way.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The steps of fastres/schedules/paper.py's stages at batch 256 in bf16, eager: at most so many launches, and at most so
# many bytes at once (1e9), with everything but the images, of which Tiny ImageNet's 100,000 take 1.23e9 more.
STEPS = {
    # stage    launches  GB
    "fc":     (     91, 1.2),
    "all":    (    281, 3.3),
    "conv1":  (    141, 1.1),
    "all-56": (    278, 2.1),
}  # fmt: skip
# the other kinds only in the stages of all layers, where they do all that they do in the others
KINDS = [(stage, "eager bf16") for stage in STEPS] + [
    (stage, kind) for stage in ("all", "all-56") for kind in ("eager fp32", "plain bf16", "padded bf16")
]

# What waits for the GPU in a whole run, by what the run is at: (what, file:function) -> times each.
WAITS = {
    "step": {},
    "average": {},
    "look": {("read a value", "stage/step.py:mean_loss"): 1},
    "epoch": {},
    "after validation": {("read a value", "stage/step.py:mean_loss"): 1},
}
# of validation and checkpoints, in all of five epochs of which one is not its stage's last
VALIDATIONS = {
    ("blocking download", "train/loop.py:judge"): 5,
    ("blocking upload", "views/triton_views.py:<genexpr>"): 2 * 5,  # tables, before a geometry's first one
}
CHECKPOINTS = {
    ("synchronise", "train/saving.py:on_host"): 5,
    ("read a value", "stage/step.py:state_dict"): 1,
    ("read a value", "stage/step.py:good_steps"): 1,
}
# of surgery, between stages: new layers, and the first one before and after for a picture
BETWEEN_STAGES = {
    ("blocking upload", "model/surgery.py:reset_head"): 2,
    ("blocking upload", "model/network.py:replace_stem"): 1,
    ("blocking download", "model/surgery.py:shrink_filters"): 1,
    ("blocking upload", "model/surgery.py:replace_and_initialise_stem"): 1,
    ("blocking download", "train/run.py:_operate"): 2 * 4,
}
# tensors of each checkpoint: the network's 122; inside the stage of all also momenta and, beside the average, weights
TENSORS = [122, 122 + 62 + 122, 122, 122, 122]


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """What tests/support/fake_cuda/scenes.py counted, in a process of its own."""
    root = Path(__file__).parents[2]
    words = [sys.executable, "-m", "tests.support.fake_cuda.scenes", str(tmp_path_factory.mktemp("scenes"))]
    done = subprocess.run(
        words, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def waits(found: dict, phase: str) -> dict:
    return {(what, place): times for at, what, place, times in found["syncs"] if at == phase}


@pytest.mark.parametrize(("stage", "kind"), KINDS)
def test_a_step_waits_for_nothing_and_uploads_nothing(seen, stage, kind):
    """Nor does the update of the average behind it."""
    found = seen["steps"][stage][kind]
    assert found["syncs"] == [] and found["copies"] == []


def test_mixed_views_cost_a_few_launches_and_no_wait(seen):
    """Boxes, erasing and mixtures: decided, mixed and made labels of on the GPU."""
    found, plain = seen["augmented"], seen["steps"]["all-56"]["eager bf16"]
    assert found["syncs"] == [] and found["copies"] == []
    assert found["kinds"]["decide_kernel"] == found["kinds"]["mix_kernel"] == found["kinds"]["views_kernel"] == 1
    assert plain["launches"] < found["launches"] <= plain["launches"] + 25


def test_a_pull_costs_a_few_launches_and_no_wait(seen):
    found, plain = seen["pulled"], seen["steps"]["all-56"]["eager bf16"]
    assert found["syncs"] == [] and found["copies"] == []
    assert found["launches"] == plain["launches"] + 3  # the difference, its sum, another group's update


def test_a_step_in_fp16_waits_for_nothing(seen):
    """Its scaler decides on the device."""
    assert seen["fp16"]["syncs"] == [] and seen["fp16"]["copies"] == []


@pytest.mark.parametrize("stage", STEPS)
def test_a_step_launches_no_more_than_it_did(seen, stage):
    most, found = STEPS[stage][0], seen["steps"][stage]["eager bf16"]["launches"]
    assert most / 2 < found <= most


@pytest.mark.parametrize("stage", ["all", "all-56"])
def test_a_step_counts_the_batches_of_all_norms_in_one_launch(seen, stage):
    """The plain step counts them at each of its 20 norms."""
    eager, plain = (seen["steps"][stage][kind]["kinds"] for kind in ("eager bf16", "plain bf16"))
    assert plain["add_"] - eager["add_"] == 20 and eager["_foreach_add_"] == 1


@pytest.mark.parametrize("stage", ["all", "all-56"])
def test_a_step_casts_all_weights_together_and_all_gradients(seen, stage):
    """The plain step casts each of 22 tensors there and back; left are the images' casts and the loss's."""
    eager, plain = (seen["steps"][stage][kind]["kinds"] for kind in ("eager bf16", "plain bf16"))
    assert eager["_foreach_copy_"] == 2 and plain["_to_copy"] - eager["_to_copy"] == 2 * 22


@pytest.mark.parametrize(("stage", "most"), [("fc", 1), ("all", 2), ("conv1", 1), ("all-56", 2)])
def test_an_average_is_updated_in_a_launch_or_two(seen, stage, most):
    assert 1 <= seen["steps"][stage]["eager bf16"]["average"] <= most


@pytest.mark.parametrize("stage", STEPS)
def test_a_step_holds_no_more_than_it_did(seen, stage):
    most, found = STEPS[stage][1], seen["steps"][stage]["eager bf16"]["peak"] / 1e9
    assert most / 2 < found <= most


@pytest.mark.parametrize("stage", ["fc", "all", "augmented"])
def test_a_recorded_step_uploads_nothing_inside_the_window_and_is_replayed_without_a_wait(seen, stage):
    """The window would refuse a wait, and replay an upload from memory that is long another's."""
    found = seen["captured"][stage]
    for part in ("recording", "replay"):
        assert found[part]["syncs"] == [] and all(at != "window" for at, *_ in found[part]["copies"])
    # rows, labels, ids; the rate of each group, which a pull makes two; the key of chance, as an epoch has begun
    rates = 2 if stage == "augmented" else 1
    assert found["replay_launches"] == {"copy_": 3, "fill_": rates, "memcpy": 1, "graph": 1}


@pytest.mark.parametrize("phase", WAITS)
def test_a_run_waits_where_the_table_says(seen, phase):
    times = seen["run"]["entered"][phase]
    assert waits(seen["run"], phase) == {place: each * times for place, each in WAITS[phase].items()}
    assert times >= 5


@pytest.mark.parametrize(
    ("phase", "table"), [("validation", VALIDATIONS), ("checkpoint", CHECKPOINTS), ("stage", BETWEEN_STAGES)]
)
def test_between_epochs_a_run_waits_where_the_table_says(seen, phase, table):
    assert waits(seen["run"], phase) == table


def test_a_run_waits_nowhere_else(seen):
    phases = {*WAITS, "validation", "checkpoint", "stage", "outside"}
    assert {at for at, *_ in seen["run"]["syncs"]} <= phases


def test_an_epochs_order_and_key_are_uploaded_without_a_wait(seen):
    uploads = {(at, place): times for at, what, place, times in seen["run"]["copies"] if what == "upload"}
    assert uploads["epoch", "data/resident.py:batches"] == 5
    assert uploads["validation", "data/resident.py:batches"] == 5


def test_the_next_epochs_order_is_made_while_the_gpu_validates(seen):
    """Of the one epoch that another one of its stage follows; and before its validation is read."""
    assert seen["run"]["orders"] == [["epoch", 0], ["epoch", 1], ["validation", 1], ["epoch", 3], ["epoch", 4]]


def test_a_checkpoint_is_one_download_into_pinned_memory(seen):
    assert seen["run"]["saved"] == [{"pinned": tensors} for tensors in TENSORS]
    downloads = [times for at, what, _, times in seen["run"]["copies"] if (at, what) == ("checkpoint", "download")]
    assert downloads == [sum(TENSORS)]


def test_who_reads_the_loss_in_every_step_is_found(seen):
    """The control: a loss function that calls .item()."""
    assert seen["looking"]["syncs"] == [["outside", "read a value", "stage/step.py:_update", 1]]


def test_each_kind_of_wait_is_found(seen):
    """The control of the counting itself."""
    assert seen["controls"] == {
        "item": ["read a value"],
        "bool": ["read a value"],
        "equal": ["read a value"],
        "cpu": ["blocking download"],
        "to the GPU": ["blocking upload"],
        "pageable, not blocking": ["blocking upload"],
        "pinned, blocking": ["blocking upload"],
        "pinned, not blocking": [],
        "integer index": [],
        "boolean index": ["boolean index"],
        "nonzero": ["size of nonzero"],
        "synchronize": ["synchronise"],
        "add": [],
    }
