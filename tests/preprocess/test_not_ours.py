"""The packer never removes or replaces what it did not write."""

import json
import os
import shutil

import pytest

from fastres.data.manifest import load_manifest
from preprocess import staging as staging_module
from preprocess.owned import owned
from tests.support.packing import names_in, verify_all
from tests.support.trees import write_tree

MINE = "mine\n"


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "name", ["train.tar", "bad-images.txt", "manifest.json", "train.images.npy", "thesis.txt", "tree/photo.txt"]
)
def test_a_folder_that_is_not_the_packers_is_refused(tree, packer, name):
    packer.out.mkdir()
    (packer.out / name).parent.mkdir(exist_ok=True)
    (packer.out / name).write_text(MINE)
    code, _, said = packer("--source", tree[0])
    assert code == 2 and f"holds {name.split('/')[0]}" in said and said.count("\n") == 1
    assert (packer.out / name).read_text() == MINE and names_in(packer.out) == [name.split("/")[0]]


@pytest.mark.fault(37)
@pytest.mark.parametrize("manifest", ['{"format": 1}', '{"files": {"thesis.txt": {}}}', "[1]", "[" * 99_999])
def test_a_manifest_of_another_program_is_not_ours(tree, packer, manifest):
    packer.out.mkdir()
    (packer.out / "manifest.json").write_text(manifest)
    (packer.out / "thesis.txt").write_text(MINE)
    assert packer("--source", tree[0])[0] == 2
    assert (packer.out / "manifest.json").read_text() == manifest and (packer.out / "thesis.txt").read_text() == MINE


@pytest.mark.fault(37)
def test_files_beside_ours_stay_and_names_that_are_taken_are_refused(tree, packer):
    assert packer("--source", tree[0])[0] == 0
    for name in ("notes.txt", "train.tar", "bad-images.txt"):
        (packer.out / name).write_text(MINE)
    before = (packer.out / "manifest.json").read_bytes()
    code, _, said = packer("--source", tree[0], "--engines", "resident,dali")
    assert code == 2 and "holds train.tar, which the packer did not write" in said
    bad = next((tree[0] / "val").rglob("*.JPEG"))
    bad.write_bytes(b"")
    code, _, said = packer("--source", tree[0], "--on-bad", "skip")
    assert code == 2 and "holds bad-images.txt, which the packer did not write" in said
    assert (packer.out / "manifest.json").read_bytes() == before and verify_all(packer.out)
    (packer.out / "bad-images.txt").unlink()
    assert packer("--source", tree[0], "--on-bad", "skip")[0] == 0
    assert "bad-images.txt" in owned(packer.out)
    for name in ("notes.txt", "train.tar"):
        assert (packer.out / name).read_text() == MINE


@pytest.mark.fault(37)
def test_ours_of_other_formats_and_of_bad_images_go(tree, packer):
    good = next((tree[0] / "val").rglob("*.JPEG"))
    data = good.read_bytes()
    good.write_bytes(b"")
    assert packer("--source", tree[0], "--engines", "resident,dali", "--on-bad", "skip")[0] == 0
    assert {"train.tar", "bad-images.txt"} <= set(names_in(packer.out))
    good.write_bytes(data)
    assert packer("--source", tree[0])[0] == 0
    assert not {"train.tar", "train.idx", "bad-images.txt"} & set(names_in(packer.out))


@pytest.mark.fault(37)
@pytest.mark.parametrize("damage", ["manifest", "state", "manifest of names elsewhere"])
def test_a_damaged_folder_of_ours_is_packed_again(tree, packer, tmp_path, damage):
    assert packer("--source", tree[0])[0] == 0
    mine = tmp_path / "mine.txt"
    mine.write_text(MINE)
    if damage == "manifest":
        (packer.out / "manifest.json").write_text("{")
    elif damage == "state":
        (packer.out / ".pack-state.json").write_text("[[")
    else:
        content = json.loads((packer.out / "manifest.json").read_text())
        content["files"] |= {"../mine.txt": {"bytes": 5, "sha256": "0"}, "notes.txt": {"bytes": 5, "sha256": "0"}}
        (packer.out / "manifest.json").write_text(json.dumps(content))
        (packer.out / "notes.txt").write_text(MINE)
    assert packer("--source", tree[0])[0] == 0
    assert verify_all(packer.out) and mine.read_text() == MINE
    if damage.endswith("elsewhere"):
        assert (packer.out / "notes.txt").read_text() == MINE, "no format of ours has such a name"


@pytest.mark.fault(37)
@pytest.mark.parametrize("at", range(6))
def test_killed_among_the_renames_the_files_are_still_ours(tree, packer, monkeypatch, at):
    """At any of them: the next command packs the folder again, with another format too."""

    class Killed(BaseException):
        pass

    original, done = os.replace, []

    def killed(source, target, **named):
        done.append(target)
        if len(done) > at:
            raise Killed
        return original(source, target, **named)

    assert packer("--source", tree[0], "--engines", "resident,dali")[0] == 0
    write_tree(tree[0].parent / "other", classes=3)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(staging_module.os, "replace", killed)
        packer("--source", tree[0].parent / "other")
    shutil.rmtree(packer.out / ".packing", ignore_errors=True)
    assert packer("--source", tree[0])[0] == 0
    assert load_manifest(packer.out).num_classes == 4 and not (packer.out / "train.tar").exists()
    verify_all(packer.out)


@pytest.mark.fault(37)
@pytest.mark.parametrize("name", [".pack.lock", "manifest.json"])
def test_no_link_is_written_through(tree, packer, tmp_path, name):
    mine = tmp_path / "mine.txt"
    mine.write_text(MINE)
    packer.out.mkdir()
    (packer.out / name).symlink_to(mine)
    code, _, said = packer("--source", tree[0])
    assert code in (2, 4) and said.count("\n") == 1 and mine.read_text() == MINE
    assert (packer.out / name).is_symlink()


@pytest.mark.fault(37)
def test_the_data_set_itself_and_an_empty_name_are_no_output(tree, packer, tmp_path, monkeypatch, capsys):
    before = sorted(tree[0].rglob("*"))
    assert packer("--source", tree[0], out=tree[0])[0] == 2 and sorted(tree[0].rglob("*")) == before
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        packer("--source", tree[0], "--out", "", out="")
    assert ended.value.code == 2 and "argument --out: is empty" in capsys.readouterr().err


@pytest.mark.fault(37)
def test_an_empty_folder_that_was_there_stays_after_a_failure(tmp_path, packer):
    packer.out.mkdir()
    assert packer("--source", tmp_path / "none")[0] == 2 and names_in(packer.out) == []
    assert packer.out.is_dir()
