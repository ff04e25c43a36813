"""What this machine has and lacks for fastres, on one screen, with the one-line remedy for each gap.

python -m fastres doctor [--data packed] [--json]
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.checks import examine
from fastres.machine.command import run_command


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m fastres doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--data", type=place, default=Path("packed"), metavar="DIR", help="packed folder to look at")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    args = p.parse_args(argv)
    findings = examine(args.data)
    if args.json:
        print(strict_json.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            remedy = f"  -> {finding.remedy}" if finding.remedy else ""
            print(f"{finding.state:6}{finding.what:18}{finding.found}{remedy}")
    return 4 if any(finding.state == "fault" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
