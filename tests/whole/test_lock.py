"""The lock files: complete, hashed, without an address, and what setup.py asks for."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.setup_py import ROOT, requirements

ENTRY = re.compile(r"([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def locked(name: str) -> dict[str, str]:
    """Package and version; every line of the file belongs to an entry with hashes, or is a comment."""
    text = "".join(line for line in (ROOT / name).read_text().splitlines(True) if not line.lstrip().startswith("#"))
    entries = list(ENTRY.finditer(text))
    assert sum(len(entry[0]) for entry in entries) == len(text), "something has no hash, or names an address"
    return {canonicalize_name(entry[1]): entry[2] for entry in entries}


@pytest.mark.parametrize(("name", "extras"), [("requirements.lock", False), ("requirements-all.lock", True)])
def test_the_lock_satisfies_setup_py(name, extras):
    """`make lock` makes it again where it does not."""
    versions = locked(name)
    for text in requirements()[extras]:
        requirement = Requirement(text)
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_both_locks_agree():
    base, everything = locked("requirements.lock"), locked("requirements-all.lock")
    assert base.items() <= everything.items() and "ffcv" in everything and "ffcv" not in base
