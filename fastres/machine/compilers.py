"""Compilers that other libraries call while a command runs, and what is said where one is missing.

Triton compiles C that includes Python.h before its first launch on a GPU. torch.compile compiles C++ that includes it
too for a CPU, and goes through Triton for a GPU. Both call what the machine has, and raise in many ways where it has
nothing that works.
"""

import contextlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from fastres.machine.errors import MachineError

C_REMEDY = "apt-get install gcc python3-dev, or conda install gcc, or set CC to a C compiler that works"
CXX_REMEDY = "apt-get install g++ python3-dev, or conda install gxx, or set CXX to a C++ compiler that works"
# what Triton and torch say; an error of torch's compiling processes comes as a text with a traceback in it
_SAID = (
    "Failed to find C compiler",
    "Failed to find C++ compiler",
    "No working C++ compiler found",
    "C++ compile error",
    "Cannot find a working triton installation",
)
_SECONDS = 60  # for a probe


class CompilerMissing(MachineError):
    """What had to be compiled for this machine could not be."""


@contextlib.contextmanager
def compiler_needed(what: str, remedy: str) -> Iterator[None]:
    """CompilerMissing, a sentence that begins with `what` and ends with `remedy`, for whatever is raised inside for
    want of a working compiler; every other exception passes."""
    try:
        yield
    except CompilerMissing:
        raise
    except Exception as error:  # Triton and torch wrap it in classes of their own, which differ between versions
        fault = compiler_fault(error)
        if fault is None:
            raise
        raise CompilerMissing(f"{what}: {fault}; {remedy}") from error


def compiler_fault(error: BaseException) -> str | None:
    """One line on the compiler that this exception, or one that caused it, is about; None where it is about none."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        if (one := waiting.pop(0)) is None or one in seen:
            continue
        seen.append(one)
        if found := _of_one(one):
            return found
        waiting += [getattr(one, "inner_exception", None), one.__cause__, one.__context__]
    return None


def _of_one(error: BaseException) -> str | None:
    if isinstance(error, subprocess.CalledProcessError) and _compiles(error.cmd):
        return f"{_program(error.cmd)} ended with exit code {error.returncode}, see its message above"
    if isinstance(error, OSError) and error.filename and str(error.filename) in _named():
        return f"{error.filename} cannot be run ({error.strerror})"
    text = str(error)
    for said in _SAID:
        if said in text:
            return _first_fault(text) or said
    return None


def _compiles(command: object) -> bool:
    return (
        isinstance(command, list | tuple) and {"-shared", "-c", "--version"} & {str(word) for word in command} != set()
    )


def _program(command: object) -> str:
    return str(command[0]) if isinstance(command, list | tuple) else str(command)


def _named() -> set[str]:
    """Programs that Triton or torch.compile may have called."""
    return {os.environ.get("CC", "gcc"), os.environ.get("CXX", "g++")}


def _first_fault(text: str) -> str | None:
    """The first line of a compiler's output that tells an error."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if " error: " in line or line.startswith("error: ")), None)


def triton_probe() -> str | None:
    """Why Triton cannot compile the C of its launches; None where it can. Needs no GPU; without Triton, CC or gcc is
    tried as Triton would."""
    if importlib.util.find_spec("triton") is None:
        return _compiled_by(os.environ.get("CC", "gcc"), "probe.c", C_MODULE)
    with TemporaryDirectory() as folder:
        return _tried([sys.executable, "-W", "ignore", "-c", _TRITON_PROBE, C_MODULE], TRITON_CACHE_DIR=folder)


# Triton's own helper, so that the compiler and the folder of headers are those it will choose.
_TRITON_PROBE = """
import sys
from triton.runtime.build import compile_module_from_src
compile_module_from_src(sys.argv[1], "probe")
"""
C_MODULE = """#include <Python.h>
static struct PyModuleDef probe = {PyModuleDef_HEAD_INIT, "probe"};
PyMODINIT_FUNC PyInit_probe(void) { return PyModule_Create(&probe); }
"""
_CXX_SOURCE = (
    "#include <Python.h>\n#include <omp.h>\n#include <vector>\nint probe() { return omp_get_max_threads(); }\n"
)


def torch_probe() -> str | None:
    """Why torch.compile cannot compile C++ for the CPU; None where it can. The compiler is the one it chooses, CXX or
    g++; the headers are those its code includes."""
    return _compiled_by(os.environ.get("CXX", "g++"), "probe.cpp", _CXX_SOURCE, "-fopenmp")


def _compiled_by(compiler: str, name: str, text: str, *options: str) -> str | None:
    headers = f"-I{sysconfig.get_path('include')}"
    with TemporaryDirectory() as folder:
        source = Path(folder) / name
        source.write_text(text)
        command = [*compiler.split(), str(source), "-shared", "-fPIC", *options, headers, "-o", f"{folder}/probe.so"]
        return _tried(command)


def _tried(command: list[str], **variables: str) -> str | None:
    given = {**os.environ, **variables}
    try:
        done = subprocess.run(command, env=given, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not end within {_SECONDS} s"
    except OSError as error:
        return f"{command[0]} cannot be run ({error.strerror})"
    if done.returncode == 0:
        return None
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return _first_fault(done.stderr) or (said[-1] if said else f"{command[0]} ended with exit code {done.returncode}")


PROBES = (  # what, probe, what for, remedy
    ("C compiler", triton_probe, "Triton's launches on a GPU", C_REMEDY),
    ("C++ compiler", torch_probe, "torch.compile on a CPU", CXX_REMEDY),
)
