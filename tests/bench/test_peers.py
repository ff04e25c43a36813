"""The peers of bench views and loaders do the work that ours does; what cannot run here is left out and said."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastres.bench import harness, loaders
from fastres.bench.peers import loaders as peer_loaders
from fastres.bench.peers import views as peer_views
from fastres.data.manifest import load_manifest
from fastres.machine.errors import MachineError
from fastres.views.geometry import Geometry


def test_every_peer_makes_a_batch_of_the_right_shape_and_scale():
    """Normalised images have means within a few units; kornia only where it is installed."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    makers = [lambda g: peer_views.torchvision_tensors(images, g, bytes_first=True)]
    makers += [lambda g: peer_views.torchvision_tensors(images, g, bytes_first=False)]
    try:
        import kornia  # noqa: F401

        makers.append(lambda g: peer_views.kornia_tensors(images, g))
    except ImportError:
        pass
    for upscale in (1, 2):
        for make in makers:
            out = make(Geometry(16, upscale))(torch.tensor([3, 0, 19]))
            assert out.shape == (3, 3, 14 * upscale, 14 * upscale) and out.dtype == torch.float32
            assert out.is_contiguous(memory_format=torch.channels_last)
            assert out.mean().abs() < 2 and 0.3 < out.std() < 3
    from PIL import Image

    assert peer_views.pil_transform(Geometry(16, 2))(Image.fromarray(images[0].numpy())).shape == (3, 28, 28)


def test_a_peer_for_gpus_is_left_out_on_a_cpu_with_a_sentence(capsys):
    (make,) = [make for name, _, make in peer_views.PEERS if name == "triton-augment"]
    images = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    found, left_out = harness.all_of([("triton-augment", lambda: [make(images, Geometry(16, 1), 2)])])
    assert found == [] and left_out == ["triton-augment left out: MachineError: triton-augment works on a GPU"]


def test_a_peer_that_delivers_too_few_images_gets_no_row(capsys):
    """As SPDL does where its decoding fails."""

    def maker(source, geometry, batch, device):
        return lambda: iter([(torch.zeros(3, 3, 14, 14), torch.zeros(3))])

    args = SimpleNamespace(batch=3, device=torch.device("cpu"))
    for images, works in (3, True), (4, False):
        source = SimpleNamespace(labels=np.zeros(images))
        (contender,) = loaders._peer("A", "peer", "", maker, source, Geometry(16, 1), args)
        ran, skipped = harness.take_turns([contender], 1, 0.0, args.device)
        assert bool(ran) == works and ("delivered 3 images, expected 4" in " ".join(skipped)) != works


@pytest.mark.parametrize("name", ["SPDL + v2", "torchcodec + v2"])
def test_decoding_peers_deliver_every_image_once(name, packed, tmp_path):
    """Where they, and FFmpeg's libraries for SPDL, are installed."""
    source = peer_loaders.Source.of(packed, load_manifest(packed), "train", None, tmp_path)
    (make,) = [make for peer, _, make in peer_loaders.PEERS if peer == name]
    try:
        start = make(source, Geometry(16, 1), 16, torch.device("cpu"))
    except (ImportError, MachineError) as error:
        pytest.skip(str(error))
    for _ in range(2):
        batches = list(start())
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == sorted(source.labels.tolist())
        assert all(
            x.shape[1:] == (3, 14, 14) and x.is_contiguous(memory_format=torch.channels_last) for x, _ in batches
        )
