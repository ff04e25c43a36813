"""Which data set: the one named, the one that lies here, the original from its server, or the small world."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import fastres
from fastres.errors import UsageError
from preprocess.disk import disk_faults
from preprocess.download import TINY_IMAGENET, download
from preprocess.progress import Progress
from preprocess.tree import FolderTree, Tree
from preprocess.zip_tree import ZipTree, fingerprint_of_zip

DEFAULT_NAMES = ("tiny-imagenet-200", "tiny-imagenet-200.zip")  # in the working directory, in this order


@dataclass
class Source:
    """A folder or zip. kind, name and `about` go into the manifest; `identity` says what else a packing depends on."""

    kind: str
    path: Path
    about: dict = field(default_factory=dict)
    identity: dict = field(default_factory=dict)

    def prepare(self) -> None:
        """Make sure that it lies at `path`."""

    def open(self) -> Tree:
        return FolderTree(self.path) if self.path.is_dir() else ZipTree(self.path)

    def fingerprint(self) -> str:
        """Changes when the data may have; see FolderTree.fingerprint and fingerprint_of_zip for what each notices."""
        return FolderTree(self.path).fingerprint() if self.path.is_dir() else fingerprint_of_zip(self.path)


class Download(Source):
    """The original zip, which is not here yet."""

    def __init__(self) -> None:
        about = {"url": TINY_IMAGENET.url, "bytes": TINY_IMAGENET.bytes, "md5": TINY_IMAGENET.md5}
        super().__init__("download", Path(DEFAULT_NAMES[1]), about)

    def prepare(self) -> None:
        download(TINY_IMAGENET, self.path)


class SmallWorld(Source):
    """A rendered tree at <out>/tree. Its identity is the code that renders it, found without running that code."""

    def __init__(self, part: str, out: Path):
        code = hashlib.sha256()
        for file in sorted((Path(fastres.__file__).parent / "small_world").glob("*.py")):
            code.update(file.read_bytes())
        about = {"part": part, "seed": 0}
        super().__init__("small-world", out / "tree", about, {**about, "code": code.hexdigest()})

    def prepare(self) -> None:
        from fastres import small_world  # here, because its compiler takes seconds to load

        with disk_faults(self.path.parent), Progress("render the small world", None) as progress:
            small_world.render_part(self.about["part"], self.path, seed=self.about["seed"], progress=progress.at)


def find_source(source: Path | None, small_world: str | None, out: Path) -> Source:
    """The source that the command line means. UsageError when it names one that is not there."""
    if small_world:
        return SmallWorld(small_world, out)
    if source is None:
        source = next((Path(name) for name in DEFAULT_NAMES if Path(name).exists()), None)
        if source is None:
            return Download()
    if source.is_dir():
        return Source("folder", source)
    if source.is_file():
        return Source("zip", source, {"bytes": source.stat().st_size})
    raise UsageError(f"--source {source}: found nothing there, expected a folder or a zip; check the path")
