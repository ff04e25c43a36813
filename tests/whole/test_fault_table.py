"""All 48 faults have tests, the record has all these tests, and reliability.md shows the record."""

import json

import pytest

from tests.support import fault_record, fault_table

RECORD = json.loads(fault_record.FILE.read_text())


def test_every_fault_is_tested():
    numbers = set().union(*fault_table.marked().values())
    assert numbers == set(fault_table.FAULTS) == set(range(1, 49))


def test_the_record_is_of_these_tests():
    """If not: python -m pytest -m fault --record-faults TESTS, then python -m tests.support.fault_table --write."""
    recorded = {name: set(entry["faults"]) for name, entry in RECORD["tests"].items()}
    assert recorded == fault_table.marked()


def test_the_page_shows_the_record():
    shown = fault_table.PAGE.read_text().partition(fault_table.BEGIN)[2].partition(fault_table.END)[0]
    assert shown == fault_table.table(RECORD)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"passed": 3}, "survived, 3 cases"),
        ({"passed": 3, "failed": 1}, "**FAILED**"),
        ({"skipped": 1, "reason": "needs a GPU"}, "not runnable here (needs a GPU)"),
        ({"passed": 1, "skipped": 1, "reason": "no FFCV"}, "survived, 1 case; not here: no FFCV"),
    ],
)
def test_words_of_the_table(entry, expected):
    nothing = {"faults": [7], "by_hand": False, "passed": 0, "failed": 0, "skipped": 0, "reason": ""}
    assert fault_table.result(7, {"test": {**nothing, **entry}}) == expected
    assert fault_table.result(8, {"test": {**nothing, **entry}}) == "**no test**"
