"""Files in the place of weights that hold none, or none that a network can compute with: named, not guessed at."""

import pytest
import torch

from fastres.machine.errors import DataError, UsageError
from fastres.model.conditions import Given, completed
from fastres.model.reading import read_weights
from fastres.model.weights import network_from
from fastres.schedules.types import Schedule, Stage
from fastres.stage.rehearsal import rehearse
from tests.evaluate.test_outputs import WEIGHTS, refused, run  # noqa: F401 - a fixture


@pytest.mark.fault(35)
def test_weights_are_finite_as_they_are_computed_with(tmp_path):
    state = {name: value.double() for name, value in read_weights(WEIGHTS).items()}
    state["fc.weight"][0, 0] = 1e300  # finite, and infinite as a float32
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(DataError, match="1 value of fc.weight is not finite"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.fault(35)
def test_a_network_without_outputs_is_none():
    state = dict(read_weights(WEIGHTS))
    state |= {"fc.weight": state["fc.weight"][:0], "fc.bias": state["fc.bias"][:0]}
    with pytest.raises(DataError, match=r"fc.weight of size \(0, 128\)"):
        network_from(state, "w")


@pytest.mark.fault(35)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "Git LFS's pointer"),
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
        (b"\x08\x0a\x12\x07pytorch", "ONNX network"),
        (bytes(1000), "not readable"),
    ],
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".onnx"])
def test_what_stands_in_the_place_of_weights_is_named(tmp_path, recwarn, content, says, ending):
    (tmp_path / f"w{ending}").write_bytes(content)
    with pytest.raises(DataError, match=says) as raised:
        read_weights(tmp_path / f"w{ending}")
    assert "weights_only" not in str(raised.value) and "arbitrary" not in str(raised.value) and not recwarn


@pytest.mark.fault(35)
def test_a_torchscript_archive_is_named(tmp_path, recwarn):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "w.pt")
    recwarn.clear()  # torch's own, of what is no longer recommended
    with pytest.raises(DataError, match="it is a TorchScript archive: save its state_dict"):
        read_weights(tmp_path / "w.pt")
    assert not recwarn


@pytest.mark.fault(43)
def test_images_too_large_to_enlarge():
    schedule = Schedule(name="x", weights=None, stages=(Stage(name="all", epochs=1, train=("*",), upscale=1_000_000),))
    with pytest.raises(UsageError, match="16 pixels enlarged 1000000 times, expected a multiple of 8 up to 8192"):
        rehearse(schedule, 4, 16)
    with pytest.raises(UsageError, match="64 pixels enlarged 1000 times, expected a multiple of 8 up to 8192"):
        completed({"side": 64}, Given(upscale=1000), "w")
