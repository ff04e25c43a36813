"""What a new GPU's results say: works, wrong or slow, with the figures that say so."""

import json
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

SLOW_SHARE = 0.25  # of the floor: below it something other than the network takes the time
COLUMNS = ("what", "verdict", "img/s", "of the floor", "to the best peer", "because")


class Verdict(NamedTuple):
    """A row of the table.

    verdict      works, slow, wrong, failed or not run
    img_per_s    the fastest of ours
    floor_share  of the rate that no step can pass; to_peer: times the best peer's rate; None where not known
    """

    what: str
    verdict: str
    img_per_s: float | None = None
    floor_share: float | None = None
    to_peer: float | None = None
    because: str = ""

    def cells(self) -> list[str]:
        rate = "" if self.img_per_s is None else f"{self.img_per_s:,.0f}"
        share = "" if self.floor_share is None else f"{self.floor_share:.0%}"
        peer = "" if self.to_peer is None else f"{self.to_peer:.2f}"
        return [self.what, self.verdict, rate, share, peer, self.because]


def of_bench(folder: Path) -> list[Verdict]:
    """A row for each mode of a bench: the fastest of ours beside the floor and the best peer."""
    result = json.loads((folder / "result.json").read_text())
    return [_of_mode(result, mode) for mode in dict.fromkeys(row["mode"] for row in result["rows"])]


def _of_mode(result: dict, mode: str) -> Verdict:
    rows = [row for row in result["rows"] if row["mode"] == mode]
    ours, peers = ([row for row in rows if row["ours"] is own] for own in (True, False))
    left_out = [line for line in result.get("skipped", []) if line.startswith(f"{mode}: fastres")]
    if not ours:
        return Verdict(mode, "failed", because="; ".join(left_out) or "none of ours ran")
    best = max(ours, key=lambda row: row["img_per_s"])
    rate, floor = best["img_per_s"], result.get("floors", {}).get(mode)
    to_peer = rate / max(row["img_per_s"] for row in peers) if peers else None
    share = rate / floor if floor else None
    others = [f"{row['name']} {row['img_per_s']:,.0f}" for row in ours if row is not best]
    because = "; ".join([f"{best['name']} {best['dtype']}", *others, *left_out])
    slow = (to_peer is not None and to_peer < 1) or (share is not None and share < SLOW_SHARE)
    return Verdict(mode, "slow" if slow else "works", rate, share, to_peer, because)


def of_tests(folder: Path) -> list[Verdict]:
    """One row: every test that asks for a GPU agreed with its reference, or their names."""
    cases = list(ElementTree.parse(folder / "result.xml").iter("testcase"))
    wrong = [
        case.get("name", "?") for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = [case for case in cases if case.find("skipped") is not None]
    ran = len(cases) - len(skipped)
    if wrong:
        return [Verdict("tests against the references", "wrong", because=", ".join(wrong))]
    if not ran:
        return [
            Verdict("tests against the references", "not run", because=f"all {len(skipped)} skipped: they need a GPU")
        ]
    return [Verdict("tests against the references", "works", because=f"{ran} passed, {len(skipped)} skipped")]


def of_run(folder: Path, most: float = 95.0) -> list[Verdict]:
    """A row for the schedule: it is wrong where its error is not below `most` %. Chance is 99.5 with the 200 classes of
    the world made for it, which 32 epochs from scratch leave far behind."""
    summary = json.loads((folder / "result.json").read_text())["rows"][0]
    error, stages = summary["errors"]["expsum"]["12-crop"]["top1"], summary["stages"]
    rate = sum(stage["epochs"] for stage in stages) / sum(stage["epochs"] / stage["img_per_s"] for stage in stages)
    by_stage = ", ".join(f"{stage['name']} {stage['img_per_s']:,.0f}" for stage in stages)
    because = f"{summary['cold_s']:.0f} s from a cold start; {by_stage} img/s; 12-crop error {error:.1f} %"
    return [Verdict("paper, from scratch", "works" if error < most else "wrong", rate, because=because)]


def of_nothing(_: Path) -> list[Verdict]:
    """A task that only prepares another."""
    return []


def failed(name: str, reason: str) -> list[Verdict]:
    return [Verdict(name, "failed", because=reason)]
