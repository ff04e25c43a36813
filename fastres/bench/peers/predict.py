"""The plain way from a folder to a CSV of answers, as timm's own inference script has it: its loader with a process a
core, its evaluation transform (bicubic to 256, centre crop 224), a batch at a time through the network. A command:

python -m fastres.bench.peers.predict FOLDER net.safetensors answers.csv DEVICE
"""

import csv
import os
import sys
from pathlib import Path

import torch

TOP, BATCH = 5, 256


def main() -> int:
    folder, weights, out, device = sys.argv[1:]
    from safetensors.torch import load_file
    from timm import create_model
    from timm.data import ImageDataset, create_loader

    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = False, True  # as ours: float32, kernels searched
    state = load_file(weights)
    network = create_model("resnet18", num_classes=len(state["fc.bias"]))
    network.load_state_dict(state)
    network = network.eval().to(device, memory_format=torch.channels_last)
    dataset = ImageDataset(folder)
    workers = len(os.sched_getaffinity(0))
    loader = create_loader(
        dataset,
        input_size=(3, 224, 224),
        batch_size=BATCH,
        interpolation="bicubic",
        crop_pct=224 / 256,
        num_workers=workers,
        use_prefetcher=device != "cpu",
        device=torch.device(device),
    )
    rows = []
    with torch.inference_mode():
        for images, _ in loader:
            images = images.to(device).contiguous(memory_format=torch.channels_last)
            probabilities, classes = network(images).softmax(1).topk(min(TOP, network.num_classes))
            rows += [list(zip(*pair)) for pair in zip(classes.tolist(), probabilities.tolist())]
    names = dataset.filenames(absolute=True)
    with open(Path(out), "w", newline="") as file:
        csv.writer(file).writerows([name, *(cell for pair in row for cell in pair)] for name, row in zip(names, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
