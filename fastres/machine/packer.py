"""The packer's modules: a package above this one, whatever else is called `preprocess` in the working folder."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from fastres.machine.errors import UsageError

OURS = Path(__file__).resolve().parents[2] / "preprocess" / "__init__.py"
# as README writes it; an installed wheel has no such file in the working folder
COMMAND = "python preprocess/pack.py" if (OURS.parents[1] / "setup.py").is_file() else "python -m fastres pack"


def packer(name: str) -> ModuleType:
    """preprocess.NAME of the packer that came with this package. UsageError where the process has loaded another
    module of that name."""
    loaded = sys.modules.get("preprocess")
    if loaded is None:
        spec = importlib.util.spec_from_file_location("preprocess", OURS, submodule_search_locations=[str(OURS.parent)])
        sys.modules["preprocess"] = loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    found = getattr(loaded, "__file__", None)
    if found is None or Path(found).resolve() != OURS:
        raise UsageError(
            f"preprocess: found {found or 'a module without a file'} under that name, expected {OURS}; give yours "
            "another name, or pack with `fastres pack`"
        )
    return importlib.import_module(f"preprocess.{name}")
