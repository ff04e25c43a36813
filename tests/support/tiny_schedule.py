"""A schedule file as a user would write one; `--schedule tests/support/tiny_schedule.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conftest import TINY

SCHEDULE = TINY
