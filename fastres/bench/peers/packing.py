"""The plain way to an FFCV file and a WebDataset tar, as their documentation shows it. A process of its own:

python -m fastres.bench.peers.packing TREE/train OUT
"""

import io
import os
import sys
import tarfile
from pathlib import Path


def main() -> int:
    tree, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True)
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(tree))
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    workers = len(os.sched_getaffinity(0))
    DatasetWriter(str(out / "train.beton"), fields, num_workers=workers).from_indexed_dataset(dataset)
    with tarfile.open(out / "train.tar", "w") as archive:
        for i, (path, label) in enumerate(dataset.samples):
            for ending, data in (("jpg", Path(path).read_bytes()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{i:08d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
