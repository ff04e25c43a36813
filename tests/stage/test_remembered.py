"""What is kept of trials, and what is not believed of it."""

import pytest

from fastres.stage.choosing import remembered
from fastres.stage.choosing.decide import Trial

EAGER = Trial(0.010, 0.5)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"k": 1}', '{"k": {"eager": [0, 1]}}', '{"k": {"eager": [NaN, 1]}}', "[" * 10**5,
             '{"k": {"plain": [1, 1]}}', '{"k": {"eager": [true, 1]}}', '{"k": {"eager": {"step_s": 1}}}']
)  # fmt: skip
def test_what_is_no_trial_was_never_measured(tmp_path, text):
    (tmp_path / "steps.json").write_text(text)
    assert remembered.recall(tmp_path / "steps.json", "k") == {}
    remembered.keep(tmp_path / "steps.json", "k", {"eager": EAGER, "captured": Trial(None, 1.0, "fault")})
    assert remembered.recall(tmp_path / "steps.json", "k") == {"eager": EAGER}


def test_a_folder_that_cannot_be_written_is_not_missed(tmp_path):
    (tmp_path / "file").touch()
    remembered.keep(tmp_path / "file" / ".compiled" / "steps.json", "k", {"eager": EAGER})
    assert remembered.recall(tmp_path / "file" / ".compiled" / "steps.json", "k") == {}
