"""Tests skip where an optional package is missing; on CI nothing may be missing, or a skip would hide it."""

import importlib.util
import os

import pytest

OPTIONAL = (
    "ffcv", "nvidia.dali", "optuna", "timm", "triton", "onnx", "onnxruntime", "wandb", "wandb_workspaces", "cv2",
)  # fmt: skip


@pytest.mark.skipif(not os.environ.get("CI"), reason="a user may do without them; CI may not")
@pytest.mark.parametrize("name", OPTIONAL)
def test_ci_has_every_optional_package(name):
    assert importlib.util.find_spec(name) is not None, f"{name} is not installed: its tests would be skipped"
