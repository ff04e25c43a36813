"""python -m fastres.bench SUBJECT [options]; `SUBJECT --help` lists a subject's options."""

import importlib
import sys

from fastres.machine.command import run_command
from fastres.machine.errors import UsageError

SUBJECTS = {  # name: (module with a main(argv), what it measures)
    "views": ("fastres.bench.views", "pixels in memory to network input: the kernel alone"),
    "augmented": ("fastres.bench.augmented", "resized crops, erasing, MixUp and CutMix beside the plain view"),
    "loaders": ("fastres.bench.loaders", "packed file to batches ready for the network, one warm epoch"),
    "packing": ("fastres.bench.packing", "a tree of JPEGs to packed files for every engine"),
    "steps": ("fastres.bench.steps", "one optimiser step of every kind of stage"),
    "predict": ("fastres.bench.predict", "a folder of photos to a CSV of answers"),
    "soak": ("fastres.bench.soak", "50 epochs: memory, threads and file handles must stay flat"),
    "gpu": ("fastres.bench.gpu.command", "all of it on a new GPU: what works, is wrong or slow (also `fastres gpu`)"),
    "run": ("fastres.bench.run", "a whole schedule from a cold start, one process a seed"),
}


def main(argv: list[str] | None = None) -> int:
    """Hand over to the subject named first."""
    argv = sys.argv[1:] if argv is None else argv
    listing = "\n".join(f"  {name:10}{what}" for name, (_, what) in SUBJECTS.items())
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{__doc__}\n\n{listing}")
        return 0
    if argv[0] not in SUBJECTS:
        raise UsageError(f"bench subject is {argv[0]!r}, expected one of {', '.join(SUBJECTS)}")
    return importlib.import_module(SUBJECTS[argv[0]][0]).main(argv[1:])


if __name__ == "__main__":
    sys.exit(run_command(main))
