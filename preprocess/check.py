"""pack.py --check: does a packed folder still hold what was packed?"""

import json
import sys
import time
from pathlib import Path

from fastres.data.manifest import check_sample, load_manifest, verify_file
from fastres.errors import DataError
from preprocess.progress import Progress


def check(packed: Path, full: bool, as_json: bool) -> int:
    """Every file's size and sample, or all its bytes. Lists every fault, then DataError with the first."""
    start = time.monotonic()
    manifest = load_manifest(packed)
    verify, faults = verify_file if full else check_sample, []
    with Progress("check", sum(entry["bytes"] for entry in manifest.files.values()), "B") as progress:
        for name, entry in sorted(manifest.files.items()):
            try:
                verify(packed, manifest, name)
            except DataError as error:
                faults.append(error)
            progress.update(entry["bytes"])
    if faults:
        for fault in faults[1:]:
            print(fault, file=sys.stderr)
        raise faults[0]
    seconds, how = time.monotonic() - start, "every byte" if full else "sizes and samples"
    if as_json:
        report = {"status": "whole", "checked": how, "files": len(manifest.files), "seconds": round(seconds, 3)}
        print(json.dumps({**report, "out": str(packed), "data_digest": manifest.data_digest}))
    else:
        print(f"whole: {packed} ({len(manifest.files)} files, {how}, {seconds:.1f} s)")
    return 0
