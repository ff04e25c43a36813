"""bench packing: a real short run of both ways."""

import json

import pytest

from fastres.bench import __main__ as bench
from fastres.machine.errors import UsageError
from tests.support.packing import need


@pytest.mark.slow
def test_both_ways_run_and_are_reported(tmp_path, capfd):
    need("ffcv")
    need("dali")
    options = ["--images", "400", "--rounds", "1", "--json", str(tmp_path / "p.json"), "--scratch", str(tmp_path)]
    assert bench.main(["packing", *options]) == 0
    printed = capfd.readouterr().out
    assert "**fastres 3 formats**" in printed and "GB at most" in printed
    result = json.loads((tmp_path / "p.json").read_text())
    assert result["images"] == 400 and len(result["ratios"]) == 1
    for row in result["rows"]:
        assert row["img_per_s"] > 0
    assert all(0.1 < peak < 3 for peak in result["peak_memory_gb"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_refuses_what_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="--images 200 or more"):
        bench.main(["packing", "--images", "3"])
