"""Compiled code lies beside the packed data: another process with another home finds it; where that is not safe or not
possible, and where the user named another place, nothing changes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastres.machine import compilers, kept_code
from fastres.machine.kept_code import CACHES, NAME, folder_in, kept_beside
from preprocess.owned import refuse_foreign
from tests.machine.test_compilers import forget_the_compiler

ROOT = Path(__file__).parents[2]


@pytest.fixture
def packed_here(tmp_path, monkeypatch) -> Path:
    """An empty folder for packed data; no variable of the user's."""
    for name in (*CACHES, "TRITON_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "packed"
    folder.mkdir(mode=0o755)
    return folder


def test_both_caches_are_in_the_packed_folder_while_it_is_open(packed_here):
    with kept_beside(packed_here):
        places = [Path(os.environ[name]) for name in CACHES]
        assert [place.name for place in places] == ["torchinductor", "triton"]
        assert all(place.parent == folder_in(packed_here) for place in places)
    assert not any(name in os.environ for name in CACHES)
    assert (packed_here / NAME).stat().st_mode & 0o777 == 0o700
    refuse_foreign(packed_here)  # the packer may write there as before


def test_nothing_is_made_where_nothing_compiles(packed_here):
    with kept_beside(packed_here, wanted=False):
        assert not any(name in os.environ for name in CACHES)
    assert not (packed_here / NAME).exists()


@pytest.mark.parametrize("name", [*CACHES, "TRITON_HOME"])
def test_the_users_own_variable_wins_and_torchs_default_is_none(name, packed_here, tmp_path, monkeypatch):
    monkeypatch.setenv(name, str(tmp_path / "mine"))
    with kept_beside(packed_here):
        assert os.environ[name] == str(tmp_path / "mine")
        assert ("TRITON_CACHE_DIR" in os.environ) == (name != "TRITON_HOME")
    monkeypatch.setattr(kept_code.tempfile, "gettempdir", lambda: str(tmp_path))
    default = str(tmp_path / "torchinductor_somebody")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default)  # as torch does when it is loaded
    with kept_beside(packed_here):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(packed_here))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == default


def _file_in_the_way(packed, _):
    (packed / NAME).write_bytes(b"")


def _link(packed, _):
    (packed.parent / "theirs").mkdir()
    (packed / NAME).symlink_to(packed.parent / "theirs")


def _writable_by_others(packed, _):
    (packed / NAME).mkdir()
    (packed / NAME).chmod(0o770)


def _in_a_shared_folder(packed, _):
    packed.chmod(0o775)


def _anothers(packed, monkeypatch):
    folder_in(packed)
    monkeypatch.setattr(kept_code.os, "geteuid", lambda: os.getuid() + 1)


def _read_only(packed, monkeypatch):
    monkeypatch.setattr(kept_code.os, "access", lambda *_: False)


def _unmakable(packed, monkeypatch):
    def mkdir(*_, **__):
        raise OSError(30, "Read-only file system", str(packed))

    monkeypatch.setattr(Path, "mkdir", mkdir)


def _full(packed, monkeypatch):
    monkeypatch.setattr(kept_code.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))


@pytest.mark.parametrize(
    "spoil",
    [_file_in_the_way, _link, _writable_by_others, _in_a_shared_folder, _anothers, _read_only, _unmakable, _full],
)
def test_where_the_folder_is_not_safe_or_not_writable_the_default_places_stay(spoil, packed_here, monkeypatch):
    assert folder_in(packed_here) is not None
    kept_code.shutil.rmtree(packed_here / NAME)
    spoil(packed_here, monkeypatch)
    with kept_beside(packed_here):
        assert not any(name in os.environ for name in CACHES)


def test_what_is_not_as_a_process_left_it_is_removed_by_the_next_that_is_alone(packed_here):
    """A cut library would end whoever loads it; a file that nobody noted may be one."""
    with kept_beside(packed_here):
        folder = Path(os.environ["TRITON_CACHE_DIR"])
        folder.mkdir()
        for name in "sound.so", "cut.so":
            (folder / name).write_bytes(b"machine code")
    with kept_beside(packed_here):
        assert sorted(path.name for path in folder.iterdir()) == ["cut.so", "sound.so"]
        (folder / "cut.so").write_bytes(b"machine")
        with kept_beside(packed_here):
            assert (folder / "cut.so").exists(), "the other process may be writing it just now"
        (folder.parent / "digests.json").write_bytes(b"nothing of ours")
    (folder / "cut.so").write_bytes(b"mach")
    (folder / "of-a-killed-process.so").write_bytes(b"machine code")
    with kept_beside(packed_here):
        assert [path.name for path in folder.iterdir()] == ["sound.so"]
    (folder.parent / "digests.json").write_bytes(b"[]")
    with kept_beside(packed_here):
        assert not list(folder.iterdir())


def test_another_kind_of_machine_has_another_folder(packed_here, monkeypatch):
    here = folder_in(packed_here)
    monkeypatch.setattr(
        kept_code, "cpuinfo", lambda: "vendor_id\t: Other\nflags\t\t: fpu avx512f\n\nvendor_id\t: Other"
    )
    assert folder_in(packed_here) not in (None, here)


def test_tritons_launcher_is_found_without_a_compiler(packed_here, tmp_path, monkeypatch):
    build = pytest.importorskip("triton.runtime.build", reason="Triton is not installed")

    def compile_it(cc: str) -> None:
        monkeypatch.setenv("CC", cc)
        forget_the_compiler(build)
        build.compile_module_from_src(compilers.C_MODULE, "probe")

    with kept_beside(packed_here):
        with pytest.raises(FileNotFoundError):
            compile_it("/nowhere/cc")
        for cc in "gcc", "/nowhere/cc":
            compile_it(cc)
    forget_the_compiler(build)
    assert list(packed_here.glob(f"{NAME}/*/triton/*/probe*.so"))


COMPILES = """
import sys
from pathlib import Path
import torch
from fastres.machine.kept_code import kept_beside
from fastres.model.fold import compiled
with kept_beside(Path(sys.argv[1])):
    compiled(torch.nn.Linear(3, 2))(torch.ones(4, 3)).sum().backward()
from torch._dynamo.utils import counters
print(counters["aot_autograd"]["autograd_cache_hit"])
"""


@pytest.mark.slow
def test_a_second_process_with_another_home_compiles_nothing(packed_here, tmp_path):
    hits = [run_with_home(tmp_path / str(n), ["-W", "ignore", "-c", COMPILES, str(packed_here)]) for n in (1, 2)]
    assert hits == ["0", "1"]
    assert not list(tmp_path.glob("[12]/tmp/torchinductor*/**/*.so")), "nothing lies in the default place"


def run_with_home(home: Path, arguments: list[str], **variables: str) -> str:
    """What Python prints in a process with this home and this folder for temporary files."""
    (home / "tmp").mkdir(parents=True)
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([sys.executable, *arguments], env=environment, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, arguments, stderr=done.stderr)
    return done.stdout.strip()
