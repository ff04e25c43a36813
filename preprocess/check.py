"""pack.py --check: does a packed folder still hold what was packed?"""

import json
import time
from pathlib import Path

from fastres.data.labels import read_labels
from fastres.data.manifest import check_sample, load_manifest, verify_file
from fastres.machine.console import Progress, say
from fastres.machine.errors import DataError
from preprocess.report import news


def check(packed: Path, full: bool, as_json: bool) -> int:
    """Every file's size and sample, or all its bytes. Lists every fault, then DataError with the first."""
    start = time.monotonic()
    manifest = load_manifest(packed)
    verify, faults = verify_file if full else check_sample, []
    with Progress(sum(entry["bytes"] for entry in manifest.files.values()), "check", "B", lines=True) as progress:
        for name, entry in sorted(manifest.files.items()):
            try:
                verify(packed, manifest, name)
            except DataError as error:
                faults.append(error)
            progress.update(entry["bytes"])
    for split in manifest.splits if full and not faults else ():
        read_labels(packed, manifest, split)  # against what the manifest says of them
    if faults:
        for fault in faults[1:]:
            say(str(fault))
        raise faults[0]
    older = news(manifest.versions.get("packer"))
    seconds, how = time.monotonic() - start, "every byte" if full else "sizes and samples"
    if as_json:
        report = {"status": "whole", "checked": how, "files": len(manifest.files), "seconds": round(seconds, 3)}
        images = {name: manifest.count(name) for name in manifest.splits}
        report |= {"older": older} if older else {}
        report |= {"classes": manifest.num_classes, "side": manifest.side, "images": images}
        print(json.dumps({**report, "out": str(packed), "data_digest": manifest.data_digest}))
    else:
        if older:
            print(f"of an older packer: since then {older}; the packer, run again for this folder, packs it anew")
        print(f"whole: {packed} ({len(manifest.files)} files, {how}, {seconds:.1f} s)")
    return 0
