"""Loaders that decode JPEG files in threads, with torchvision v2 behind them, as FFCV's peer has: SPDL and torchcodec.

Makers as in loaders.py, whose `Source` they get. Both have been seen to run on a CPU (SPDL 0.8, torchcodec 0.17); what
is for a GPU, torchcodec's decoding there and the copies to it, has not.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from fastres.bench.peers import views as peer_views
from fastres.machine.errors import MachineError
from fastres.views.geometry import Geometry

CORES = len(os.sched_getaffinity(0))


def viewed(pixels: torch.Tensor, labels: torch.Tensor, geometry: Geometry, device: torch.device) -> tuple:
    """A batch u8 [B, S, S, 3] and its labels to what a loader delivers."""
    pixels = pixels.to(device, non_blocking=True)
    work = peer_views.torchvision_tensors(pixels, geometry, bytes_first=False)
    return work(torch.arange(len(pixels), device=device)), labels.to(device)


def spdl(source, geometry: Geometry, batch: int, device: torch.device) -> Callable[[], Iterator]:
    """SPDL's pipeline: its threads load batches of files through FFmpeg, whose colours differ from libjpeg's."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    files, labels = [str(path) for path in source.jpegs()], torch.from_numpy(source.labels)

    try:
        spdl.io.load_image(files[0])
    except RuntimeError as error:
        raise MachineError("SPDL finds no FFmpeg libraries: apt-get install ffmpeg") from error

    def load(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = spdl.io.load_image_batch([files[row] for row in rows], width=None, height=None, pix_fmt="rgb24")
        return spdl.io.to_torch(pixels), labels[rows]

    def epoch() -> Iterator:
        order = torch.randperm(len(files)).split(batch)
        builder = PipelineBuilder().add_source(order).pipe(load, concurrency=CORES).add_sink(2)
        pipeline = builder.build(num_threads=CORES, max_failures=0)  # else it goes on without what failed
        with pipeline.auto_stop():
            for pixels, own in pipeline:
                yield viewed(pixels, own, geometry, device)

    return epoch


def torchcodec(source, geometry: Geometry, batch: int, device: torch.device) -> Callable[[], Iterator]:
    """torchcodec's JPEG decoder: in a thread per core, or a batch at once by nvJPEG on a GPU."""
    from torchcodec.decoders import decode_jpeg

    files, labels = [str(path) for path in source.jpegs()], torch.from_numpy(source.labels)

    def load(rows: torch.Tensor) -> torch.Tensor:
        wanted = [files[row] for row in rows]
        if device.type == "cuda":
            return torch.stack(decode_jpeg(wanted, device=device)).permute(0, 2, 3, 1).contiguous()
        return torch.stack([decode_jpeg(file).permute(1, 2, 0) for file in wanted])

    def epoch() -> Iterator:
        waiting: deque = deque()
        with ThreadPoolExecutor(CORES) as threads:
            for rows in torch.randperm(len(files)).split(batch):
                waiting.append((threads.submit(load, rows), rows))
                if len(waiting) > CORES:
                    pixels, rows = waiting.popleft()
                    yield viewed(pixels.result(), labels[rows], geometry, device)
            for pixels, rows in waiting:
                yield viewed(pixels.result(), labels[rows], geometry, device)

    return epoch
