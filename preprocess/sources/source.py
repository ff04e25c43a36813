"""Which data set: the one named, the one that lies here, the original from its server, or the small world."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fastres.machine.console import Progress
from fastres.machine.errors import MachineError, UsageError
from preprocess.disk import disk_faults
from preprocess.sources import table
from preprocess.sources.archive import fingerprint_of_archive, kind_of
from preprocess.sources.csv_rows import Row, read_rows
from preprocess.sources.download import TINY_IMAGENET, download
from preprocess.sources.folder_tree import FolderTree
from preprocess.sources.tar_tree import TarTree
from preprocess.sources.tree import Tree
from preprocess.sources.zip_tree import ZipTree

DEFAULT_NAMES = ("tiny-imagenet-200", "tiny-imagenet-200.zip")  # in the working directory, in this order


@dataclass
class Source:
    """A folder or an archive. kind, name and `about` go into the manifest; a packing depends on `identity`, too.
    whole_is_train: whether, without a train/ in it, it is one itself; out: where the packer writes (see FolderTree)."""

    kind: str
    path: Path
    about: dict = field(default_factory=dict)
    identity: dict = field(default_factory=dict)
    whole_is_train: bool = False
    out: Path | None = None

    def prepare(self) -> None:
        """Make sure that it lies at `path`."""

    def open(self, scratch: Path) -> Tree:
        """scratch: a folder where a packed tar may be unpacked to a plain one."""
        if self.path.is_dir():
            return FolderTree(self.path, self.whole_is_train, self.out)
        kind = kind_of(self.path)
        if kind == "zip":
            return ZipTree(self.path, self.whole_is_train)
        return TarTree(self.path, kind, scratch, self.whole_is_train)

    def fingerprint(self) -> str:
        """Changes when the data may have; FolderTree.fingerprint and fingerprint_of_archive say what each notices."""
        if self.path.is_dir():
            return FolderTree(self.path, self.whole_is_train, self.out).fingerprint()
        return fingerprint_of_archive(self.path)


class Table(Source):
    """A CSV that names the images, read once: what is packed is what the fingerprint is of."""

    def __init__(self, path: Path):
        super().__init__("csv", path, {"bytes": path.stat().st_size})

    @cached_property
    def rows(self) -> list[Row]:
        return read_rows(self.path)

    def open(self, scratch: Path) -> Tree:
        return table.TableTree(self.path, self.rows)

    def fingerprint(self) -> str:
        return table.fingerprint(self.path, self.rows)


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
        for file in sorted((Path(__file__).parents[1] / "small_world").glob("*.py")):
            code.update(file.read_bytes())
        about = {"part": part, "seed": 0}
        super().__init__("small-world", out / "tree", about, {**about, "code": code.hexdigest()})

    def prepare(self) -> None:
        from preprocess import small_world  # here, because its compiler takes seconds to load

        with disk_faults(self.path.parent), Progress(None, "render the small world", lines=True) as progress:
            small_world.render_part(self.about["part"], self.path, seed=self.about["seed"], progress=progress.at)


def find_source(source: Path | None, small_world: str | None, out: Path, whole_is_train: bool = False) -> Source:
    """The source that the command line means. UsageError when it names one that is not there."""
    if small_world:
        return SmallWorld(small_world, out)
    if source is None:
        source = next((Path(name) for name in DEFAULT_NAMES if Path(name).exists()), None)
        if source is None:
            return Download()
    if source.is_dir():
        return Source("folder", source, whole_is_train=whole_is_train, out=out)
    if source.is_file() and source.name.lower().endswith(table.ENDINGS):
        return Table(source)
    if source.is_file():
        return Source(_kind(source), source, {"bytes": source.stat().st_size}, whole_is_train=whole_is_train)
    what = "no folder and no file" if source.exists() else "nothing"
    raise UsageError(f"--source {source}: found {what} there, expected a folder, a zip, a tar or a CSV; check the path")


def _kind(archive: Path) -> str:
    """What the manifest says of an archive."""
    try:
        return "zip" if kind_of(archive) == "zip" else "tar"
    except PermissionError as error:
        raise MachineError(f"{archive}: cannot be read ({error.strerror}); check its permissions") from None
