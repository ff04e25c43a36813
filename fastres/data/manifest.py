"""manifest.json: what lies in a packed folder, and the proof that it still does.

The packer writes it last, so a folder with a manifest is a whole one. Every reader starts here:

    manifest = load_manifest(Path("packed"))
    check_sizes(packed, manifest)                          # microseconds
    verify_file(packed, manifest, "train.images.npy")      # reads all of it

Every fault is a DataError that names the file, what was found, what was expected and the remedy.
"""

import hashlib
import json
import stat
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from fastres.data.fields import check_fields
from fastres.machine import strict_json
from fastres.machine.errors import DataError
from fastres.machine.files import read_regular, write_atomic
from fastres.machine.packer import COMMAND

FORMAT = 1
FILE_NAME = "manifest.json"
SAMPLES, SAMPLE_BYTES = 64, 1 << 16
REMEDY = f"run `{COMMAND}` again for this folder"


@dataclass(frozen=True)
class ClassInfo:
    """One class: its WordNet id and a name to show."""

    wnid: str
    name: str


@dataclass(frozen=True)
class Manifest:
    """What the packer found and wrote.

    side: S, pixels. classes: in sorted-wnid order, so a label is an index into it.
    splits: name -> {"count", "labelled", "grayscale", "converted": {kind: n}, "skipped", "pixels", and where labelled
    "per_class": [n of each class]}; absent: no key.
    files: name -> {"bytes", "sha256", "sample"}, see sample_of. data_digest, class_digest: see the functions below.
    """

    side: int
    classes: tuple[ClassInfo, ...]
    splits: dict
    files: dict
    data_digest: str
    class_digest: str
    source: dict
    versions: dict

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def wnids(self) -> list[str]:
        """The classes' ids in label order."""
        return [info.wnid for info in self.classes]

    @property
    def content_digest(self) -> str:
        """What a run depends on: classes, labels, pixels and their order, but not which formats they are packed in."""
        if any("pixels" not in entry for entry in self.splits.values()):
            raise DataError(f"{FILE_NAME}: written by an older packer, without the pixels' digest; {REMEDY}")
        content = {
            split: (entry["count"], entry["pixels"], self.files.get(f"{split}.labels.npy", {}).get("sha256"))
            for split, entry in self.splits.items()
        }
        return hashlib.sha256(json.dumps([self.side, self.class_digest, content], sort_keys=True).encode()).hexdigest()

    def count(self, split: str) -> int:
        """Images in `split`; 0 when the data set has no such split."""
        return self.splits[split]["count"] if split in self.splits else 0


def digest_of_files(files: dict) -> str:
    """sha256 over the sorted "name sha256" lines: equal exactly when every packed byte is."""
    lines = sorted(f"{name} {entry['sha256']}\n" for name, entry in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of_classes(wnids: Iterable[str]) -> str:
    """sha256 over the "wnid" lines in label order: two label conventions for this data set are in use."""
    return hashlib.sha256("".join(f"{wnid}\n" for wnid in wnids).encode()).hexdigest()


def digest_of_names(classes: Iterable[ClassInfo]) -> str:
    """sha256 over the "wnid<tab>name" lines. No run depends on names, so they are no part of its data's digest."""
    return hashlib.sha256("".join(f"{c.wnid}\t{c.name}\n" for c in classes).encode(errors="replace")).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 of a file, hex, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_of(path: Path) -> str:
    """sha256 over SAMPLES pieces spread evenly from a file's first byte to its last: all of a small file, 4 MB of
    a large one. Sees another file's content, a cut and a refill, not a single flipped bit."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as file:
        for k in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * k // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def save_manifest(packed: Path, manifest: Manifest) -> None:
    """Write manifest.json whole or not at all."""
    content = {"format": FORMAT, **asdict(manifest), "name_digest": digest_of_names(manifest.classes)}
    write_atomic(packed / FILE_NAME, (json.dumps(content, indent=1) + "\n").encode())


def load_manifest(packed: Path) -> Manifest:
    """Read and check manifest.json. DataError when it is missing, unreadable, of another format or inconsistent."""
    path = Path(packed) / FILE_NAME
    try:
        content = strict_json.loads(read_regular(path))
    except FileNotFoundError:
        raise DataError(f"{path}: not found, expected what the packer writes last; {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected JSON; {REMEDY}") from None
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT or type(found) is not int:
        raise DataError(f"{path}: found format {found!r}, expected {FORMAT}; {REMEDY}")
    try:
        manifest = _manifest_from(content)
    except ValueError as error:
        raise DataError(f"{path}: incomplete or altered ({error}); {REMEDY}") from None
    return manifest


def _manifest_from(content: dict) -> Manifest:
    """The JSON object as a Manifest; ValueError where it is not one."""
    check_fields(content)
    manifest = Manifest(
        side=content["side"],
        classes=tuple(ClassInfo(wnid=c["wnid"], name=c["name"]) for c in content["classes"]),
        splits=content["splits"],
        files=content["files"],
        data_digest=content["data_digest"],
        class_digest=content["class_digest"],
        source=content["source"],
        versions=content["versions"],
    )
    if manifest.data_digest != digest_of_files(manifest.files):
        raise ValueError("data_digest does not follow from files")
    if manifest.class_digest != digest_of_classes(c.wnid for c in manifest.classes):
        raise ValueError("class_digest does not follow from classes")
    if content.get("name_digest", digest_of_names(manifest.classes)) != digest_of_names(manifest.classes):
        raise ValueError("name_digest does not follow from classes")
    return manifest


def verify_size(packed: Path, manifest: Manifest, name: str) -> Path:
    """The path of a packed file that is one, of the right size; DataError otherwise."""
    path = Path(packed) / name
    if name not in manifest.files:
        known = ", ".join(sorted(manifest.files))
        raise DataError(f"{path}: not in the manifest, which lists {known}; {REMEDY}")
    expected = manifest.files[name]["bytes"]
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}, expected {expected:,} bytes; {REMEDY}") from None
    if not stat.S_ISREG(status.st_mode):  # a pipe would not end
        raise DataError(f"{path}: is no regular file, expected {expected:,} bytes; {REMEDY}")
    found = status.st_size
    if found != expected:
        raise DataError(f"{path}: found {found:,} bytes, expected {expected:,}; {REMEDY}")
    return path


def check_sizes(packed: Path, manifest: Manifest) -> None:
    """Every file of the manifest is there with its size. Cheap; does not see flipped bits."""
    for name in manifest.files:
        verify_size(packed, manifest, name)


def check_sample(packed: Path, manifest: Manifest, name: str) -> None:
    """One file's size and the digest of its sample: milliseconds. What a manifest has no sample of is hashed whole."""
    path, expected = verify_size(packed, manifest, name), manifest.files[name].get("sample")
    if expected is None:
        return verify_file(packed, manifest, name)
    found = _read(path, sample_of)
    if found != expected:
        raise DataError(f"{path}: found sample digest {found}, expected {expected}: its content has changed; {REMEDY}")
    return None


def verify_file(packed: Path, manifest: Manifest, name: str) -> None:
    """One file's size, then the sha256 of all its bytes."""
    path = verify_size(packed, manifest, name)
    expected = manifest.files[name]["sha256"]
    found = _read(path, sha256_of)
    if found != expected:
        raise DataError(f"{path}: found sha256 {found}, expected {expected}: its content has changed; {REMEDY}")


def _read(path: Path, digest: Callable[[Path], str]) -> str:
    """The digest of a file; DataError when it cannot be read."""
    try:
        return digest(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from None
