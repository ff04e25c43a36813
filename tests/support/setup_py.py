"""What setup.py says, read without running it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ = ("install_requires", "extras_require", "entry_points", "package_data")


def settings() -> dict:
    """The arguments of its setup() that are written out."""
    calls = (node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call))
    call = next(node for node in calls if ast.unparse(node.func) == "setup")
    return {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg in READ}


def requirements() -> tuple[list[str], list[str]]:
    """What it needs, and with every extra; `dali-cuda12` is instead of `dali`, for another torch than ours."""
    base, extras = settings()["install_requires"], settings()["extras_require"]
    return base, base + [text for name, texts in extras.items() if name != "dali-cuda12" for text in texts]


def scripts() -> set[str]:
    """Names of the programs that pip puts on the path."""
    return {line.split("=")[0].strip() for line in settings()["entry_points"]["console_scripts"]}
