"""Packs Tiny ImageNet, or a tree of its layout, into verified files that training reads.

    python preprocess/pack.py                        ./tiny-imagenet-200, else ./tiny-imagenet-200.zip, else download
    python preprocess/pack.py --source DIR|ZIP       from there
    python preprocess/pack.py --source DIR --side S  any train/<label>/, val/<label>/ tree, images brought to S x S
    python preprocess/pack.py --small-world          from a rendered stand-in, without a network
    python preprocess/pack.py --check [full]         does the packed folder still hold what was packed?

Every image is read, checked and decoded once, on all cores, for all formats; whatever is not RGB becomes RGB and
is counted.
Files get their names when all of them are whole, the manifest last. The same command again says "up to date"
unless the source, the options or the packed files have changed.
Exit codes: 0 done, 2 usage, 3 the data are at fault, 4 the machine is (network, disk, permissions).
"""

import argparse
import contextlib
import json
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import features

if __name__ == "__main__":  # run as a file, not installed: our packages lie one level up
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from fastres.data.ahead import Ahead
from fastres.data.libraries import require
from fastres.data.manifest import (
    FILE_NAME,
    Manifest,
    digest_of_classes,
    digest_of_files,
    load_manifest,
    sample_of,
    sha256_of,
)
from fastres.data.trust import note_packed
from fastres.errors import DataError, run_command
from fastres.versions import check_torch
from preprocess import image_folder, report, tiny_imagenet
from preprocess.check import check
from preprocess.counts import Counts, Duplicates
from preprocess.decode import Recipe, side_of
from preprocess.decode_pool import CHUNKS_AHEAD, Chunk, cores, decode_all
from preprocess.disk import disk_faults, sync_file
from preprocess.options import parse_arguments
from preprocess.progress import Progress
from preprocess.source import DEFAULT_NAMES, Source, find_source
from preprocess.staging import Staging, remembered
from preprocess.tiny_imagenet import Layout, Record
from preprocess.tree import SPLITS
from preprocess.writers import ALWAYS, NEED_FILES, WRITERS, Writer

A_DAY = 86_400.0  # seconds: a large image on a slow disk is no fault
PACKER = 3  # raise it when the same source would be packed into other bytes


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv, __doc__)
    check_torch()  # said now, not by the training that comes next
    if options.check:
        return check(options.out, full=options.check == "full", as_json=options.json)
    for engine in options.engines:
        require(engine)
    with Staging(options.out) as staging, disk_faults(options.out):
        source = find_source(options.source, options.small_world, options.out)
        if is_packed(source, options):
            status, manifest, speed = "up to date", load_manifest(options.out), {}
        else:
            source.prepare()
            request = request_for(source, options)
            status, (manifest, speed) = "packed", pack(source, staging, options)
            note_packed(options.out, manifest)
            staging.remember(request, [*manifest.files, FILE_NAME])
    if options.json:
        print(json.dumps(report.as_json(manifest, options.out, status, speed)))
    else:
        print(report.as_text(manifest, options.out, status, speed))
    return 0


def request_for(source: Source, options: argparse.Namespace) -> dict:
    """All that the packed bytes follow from, as far as it can be known in well under a second."""
    return {
        "options": {"packer": PACKER, "engines": options.engines, "on_bad": options.on_bad, "side": options.side},
        "source": {"name": source.path.name, **source.identity},
        "fingerprint": source.fingerprint() if source.path.exists() else None,
    }


def is_packed(source: Source, options: argparse.Namespace) -> bool:
    """Whether <out> already holds what packing would write."""
    before = remembered(options.out)
    if before is None:
        return False
    now = request_for(source, options)
    if source.kind == "download":  # the data set was removed after packing: no reason to fetch it again
        return before["options"] == now["options"] and before["source"] in [{"name": n} for n in DEFAULT_NAMES]
    return before == now


def pack(source: Source, staging: Staging, options: argparse.Namespace) -> tuple[Manifest, dict]:
    """Read, check, decode and write everything. Returns the manifest and how fast all of this went."""
    start = time.monotonic()
    tree = source.open()
    layout = (tiny_imagenet if tree.has("wnids.txt") else image_folder).read_layout(tree)
    side = options.side or side_of(tree, layout.splits["train"])
    recipe = Recipe(side, resize=options.side is not None, files=bool(NEED_FILES & {*options.engines}))
    writers = [make(staging.folder) for make in (*ALWAYS, *(WRITERS[name] for name in options.engines))]
    needed = sum(w.bytes_needed(len(records), side) for w in writers for records in layout.splits.values())
    staging.require_space(needed)
    decoded = Ahead(
        lambda: decode_all(tree, layout.splits, recipe, options.workers),
        name="decoding", depth=CHUNKS_AHEAD, patience=A_DAY,
    )  # fmt: skip
    with disk_faults(options.out, needed), decoded, contextlib.ExitStack() as at_end:
        for writer in writers:
            at_end.callback(writer.discard)
        splits, names, bad = write_splits(iter(decoded), layout.splits, side, writers)
        judge(bad, layout, options.on_bad)
        files = finish_files(staging.folder, names)
        manifest = Manifest(
            side=side,
            classes=layout.classes,
            splits=splits,
            files=files,
            data_digest=digest_of_files(files),
            class_digest=digest_of_classes(c.wnid for c in layout.classes),
            source={"kind": source.kind, "name": source.path.name, **source.about},
            versions=versions(),
        )
        formats = (*ALWAYS, *WRITERS.values())
        possible = {name for writer in formats for split in SPLITS for name in writer.file_names(split)}
        staging.publish(manifest, stale=possible, bad=bad)
    seconds = time.monotonic() - start
    return manifest, {"seconds": seconds, "img_per_s": sum(map(len, layout.splits.values())) / seconds}


def write_splits(
    chunks: Iterator[Chunk], records_of: dict[str, list[Record]], side: int, writers: list[Writer]
) -> tuple[dict, list, list]:
    """Hand every chunk to every writer. Returns the manifest's splits, the files' names, the bad images."""
    splits, names, bad, duplicates = {}, [], [], Duplicates()
    for split, records in records_of.items():
        counts = Counts()
        for writer in writers:
            writer.open(split, len(records), side, labelled=split != "test")
        with Progress(f"decode and write {split}", len(records)) as progress:
            while progress.done < len(records):
                chunk = next(chunks)
                for writer in writers:
                    writer.write(chunk)
                counts.add(chunk)
                duplicates.add(chunk)
                bad += chunk.bad
                progress.update(len(chunk.records) + len(chunk.bad))
        for writer in writers:
            names += writer.close()
        splits[split] = counts.entry(labelled=split != "test") | duplicates.entry(split)
    return splits, names, bad


def judge(bad: list[tuple[str, str]], layout: Layout, on_bad: str) -> None:
    """DataError, after a list of all of them, when bad images stop the packing or leave too little of it."""
    if not bad:
        return
    total = sum(len(records) for records in layout.splits.values())
    print("".join(f"{path}: {reason}\n" for path, reason in bad), end="", file=sys.stderr, flush=True)
    found = f"found {len(bad):,} of {total:,} images bad, the first being {bad[0][0]}: {bad[0][1]}"
    if on_bad == "stop":
        raise DataError(f"{found}; mend the files listed above, or leave them out with --on-bad skip")
    gone = {path for path, _ in bad}
    left = {split: [r for r in records if r.path not in gone] for split, records in layout.splits.items()}
    classes = {r.label for r in left["train"]}
    if not all(left.values()) or len(classes) < len(layout.classes):
        raise DataError(
            f"{found}; without them a split or a class of train would be empty, expected some images of each; "
            "mend the files listed above"
        )


def finish_files(folder: Path, names: list[str]) -> dict[str, dict]:
    """Every file on the disk and read back: the manifest's entries. Several files at a time."""

    def finish(path: Path) -> str:
        sync_file(path)
        return sha256_of(path)

    sizes = {name: (folder / name).stat().st_size for name in sorted(names)}
    files = {}
    with Progress("sync and hash", sum(sizes.values()), "B") as progress, ThreadPoolExecutor(cores()) as pool:
        digests = {name: pool.submit(finish, folder / name) for name in sizes}
        for name, size in sizes.items():
            files[name] = {"bytes": size, "sha256": digests[name].result(), "sample": sample_of(folder / name)}
            progress.update(size)
    return files


def versions() -> dict[str, str]:
    """What the pixels may depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "libjpeg-turbo": str(features.version("libjpeg_turbo")),
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
