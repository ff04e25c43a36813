"""Said in one sentence where pack.py is run by a Python that lacks what it imports. Needs nothing but Python itself."""

import importlib.util
import sys

OLDEST = (3, 11)
NEEDED = ("numpy", "PIL", "tqdm")  # whatever else is missing is said where it is first used


def require_environment() -> None:
    """Ends the process with exit code 4 (the machine is at fault) unless this Python can run the packer."""
    lacks = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if sys.version_info < OLDEST:
        lacks.insert(0, "Python {}.{}".format(*OLDEST))
    if lacks:
        print(
            f"error: {sys.executable} (Python {sys.version.split()[0]}) lacks {', '.join(lacks)}, expected the "
            "project's environment; run .venv/bin/python preprocess/pack.py, or make it with `make setup`",
            file=sys.stderr,
        )
        sys.exit(4)
