"""`python -m fastres.train`: see command.py."""

import sys

from fastres.machine.command import run_command
from fastres.train.command import main

if __name__ == "__main__":
    sys.exit(run_command(main))
