"""Packs Tiny ImageNet, or any train/<label>/, val/<label>/ tree, into verified files that training reads.

    python preprocess/pack.py                        ./tiny-imagenet-200, else ./tiny-imagenet-200.zip, else download
    python preprocess/pack.py --source DIR|ARCHIVE   from there; a zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst
    python preprocess/pack.py --source FILE.csv      the images that it names, with columns file, label and split
    python preprocess/pack.py --source DIR --side S  images of any size, brought to S x S
    python preprocess/pack.py --val-fraction 0.2     a fifth of each class's images as val, where there is none
    python preprocess/pack.py --classes 0::2 --per-class 100,10   a part of it
    python preprocess/pack.py --small-world          from a rendered stand-in, without a network
    python preprocess/pack.py --check [full]         does the packed folder still hold what was packed?

Every image is read, checked and decoded once, on all cores, for all formats, into what people see of it: upright by its
EXIF, transparency on --background, RGB at 8 bits. What had to be converted or lies unread in the tree is counted.
Files get their names when all of them are whole, the manifest last. The same command again says "up to date"
unless the source, the options or the packed files have changed.
Exit codes: 0 done, 2 usage, 3 the data are at fault, 4 the machine is (network, disk, permissions).
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":  # run as a file, not installed: our packages lie one level up
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from preprocess.outside import require_environment

    require_environment()
    from fastres.machine.processes.signals import leave_at_once

    leave_at_once()

from fastres.data.ahead import Ahead
from fastres.data.libraries import require
from fastres.data.manifest import (
    FILE_NAME,
    Manifest,
    digest_of_classes,
    digest_of_files,
    load_manifest,
)
from fastres.data.trust import note_packed
from fastres.machine.command import run_command
from fastres.machine.console import Progress, say, show_kept
from fastres.machine.versions import check_torch
from preprocess import report
from preprocess.check import check
from preprocess.counts import Counts, Duplicates
from preprocess.decode_pool import CHUNKS_AHEAD, Chunk, decode_all
from preprocess.disk import disk_faults
from preprocess.finish import finish_files, versions
from preprocess.options import completed, parser
from preprocess.owned import refuse_taken
from preprocess.request import PACKER, is_packed, judge, request_for, what_to_pack
from preprocess.sources.records import UNLABELLED, Layout
from preprocess.sources.source import Source, find_source
from preprocess.sources.tree import SPLITS
from preprocess.staging import Staging, remembered
from preprocess.writers import ALWAYS, WRITERS, Writer

A_DAY = 86_400.0  # seconds: a large image on a slow disk is no fault


def main(argv: list[str] | None = None) -> int:
    options = completed(parser(__doc__).parse_args(argv))
    check_torch()  # said now, not by the training that comes next
    if options.check:
        return check(options.out, full=options.check == "full", as_json=options.json)
    told = packed(options)
    if options.json:
        show_kept(json.dumps(report.as_json(*told)), options.out / FILE_NAME)
    else:
        show_kept(report.as_text(*told), options.out / FILE_NAME)
    return 0


def packed(options: argparse.Namespace) -> tuple[Manifest, Path, str, dict]:
    """Pack what is not packed already. Returns what a report needs."""
    for engine in options.engines:
        require(engine)
    with Staging(options.out) as staging, disk_faults(options.out):
        source = find_source(options.source, options.small_world, options.out, options.val_fraction is not None)
        if is_packed(source, options):
            return load_manifest(options.out), options.out, "up to date", {}
        source.prepare()
        request = request_for(source, options)
        if before := remembered(options.out):
            say(f"packing {options.out} again: {report.changes(before, request)}")
        manifest, speed = pack(source, staging, options)
        note_packed(options.out, manifest)
        staging.remember(request, [*manifest.files, FILE_NAME])
    return manifest, options.out, "packed", speed


def pack(source: Source, staging: Staging, options: argparse.Namespace) -> tuple[Manifest, dict]:
    """Read, check, decode and write everything. Returns the manifest and how fast all of this went."""
    start = time.monotonic()
    tree = source.open(staging.folder)
    layout, recipe, about = what_to_pack(tree, options)
    side = recipe.side
    formats = [*ALWAYS, *(WRITERS[name] for name in options.engines)]
    refuse_taken(options.out, names_of(formats))
    writers = [make(staging.folder) for make in formats]
    needed = sum(w.bytes_needed(len(records), side) for w in writers for records in layout.splits.values())
    staging.require_space(needed)
    decoded = Ahead(
        lambda: decode_all(tree, layout.splits, recipe, options.workers),
        name="decoding",
        depth=CHUNKS_AHEAD,
        patience=A_DAY,
    )
    with disk_faults(options.out, needed), decoded, contextlib.ExitStack() as at_end:
        for writer in writers:
            at_end.callback(writer.discard)
        splits, names, bad = write_splits(iter(decoded), layout, side, writers)
        judge(bad, layout, options.on_bad)
        files = finish_files(staging.folder, names)
        manifest = Manifest(
            side=side,
            classes=layout.classes,
            splits=splits,
            files=files,
            data_digest=digest_of_files(files),
            class_digest=digest_of_classes(c.wnid for c in layout.classes),
            source={
                **{"kind": source.kind, "name": Path(os.path.abspath(source.path)).name, **source.about},
                **{"background": "#{:02x}{:02x}{:02x}".format(*options.background)},
                **about,
                **{"ignored": tree.ignored.kinds, "beside": tree.beside},
            },
            versions=versions(PACKER),
        )
        staging.publish(manifest, names_of([*ALWAYS, *WRITERS.values()]), bad)
    seconds = time.monotonic() - start
    return manifest, {"seconds": seconds, "img_per_s": sum(map(len, layout.splits.values())) / seconds}


def names_of(formats: list[type[Writer]]) -> set[str]:
    """Every name that a file of these formats may have."""
    return {name for make in formats for split in SPLITS for name in make.file_names(split)}


def write_splits(chunks: Iterator[Chunk], layout: Layout, side: int, writers: list[Writer]) -> tuple[dict, list, list]:
    """Hand every chunk to every writer. Returns the manifest's splits, the files' names, the bad images."""
    splits, names, bad, duplicates = {}, [], [], Duplicates()
    for split, records in layout.splits.items():
        counts, labelled = Counts(len(layout.classes)), records[0].label != UNLABELLED
        for writer in writers:
            writer.open(split, len(records), side, labelled=labelled)
        with Progress(len(records), f"decode and write {split}", lines=True) as progress:
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
        splits[split] = counts.entry(labelled) | duplicates.entry(split)
    return splits, names, bad


if __name__ == "__main__":
    sys.exit(run_command(main))
