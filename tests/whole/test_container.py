"""The Dockerfile, as far as it can be tested without Docker: its words, its sources, its packages, its RUN lines."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastres.machine.extras import SYSTEM_PACKAGES
from tests.support.container import copies, copy_sources, exec_form, ignored, instructions, ours, patterns, variables
from tests.support.setup_py import ROOT, scripts, settings

FOUND = ours()


def of(name: str) -> list[str]:
    return [rest for each, rest in FOUND if each == name]


def test_the_base_is_a_choice_and_every_variable_is_known():
    assert [name for name, _ in FOUND[:2]] == ["ARG", "FROM"] and of("FROM") == ["${BASE}"]
    assert variables(FOUND[0][1]) == {"BASE": "python:3.11-slim"}
    known = {"PATH"}  # every image has it; what stands before FROM is unknown behind it
    for name, rest in FOUND[2:]:
        used = set(re.findall(r"\$\{?(\w+)", rest))
        assert used <= known, rest
        known |= set(variables(rest)) if name in ("ARG", "ENV") else set()


def test_what_is_copied_is_there_and_nothing_else_goes_to_the_daemon():
    wanted = patterns()
    sources = [source for some, _ in copies(FOUND) for source in some]
    for source in sources:
        assert (ROOT / source).exists() and not ignored(source, wanted), source
        assert f"!{source}" in wanted
    assert {pattern[1:] for pattern in wanted if pattern.startswith("!")} == set(sources)
    for path in (".git/config", ".venv/bin/python", "runs/results.csv", "tests/conftest.py", "packed/manifest.json",
                 "fastres/__pycache__/x.pyc", "fastres/data/__pycache__/x.pyc", ".ci/run"):  # fmt: skip
        assert ignored(path, wanted), path


@pytest.mark.parametrize(
    ("path", "wanted", "out"),
    [
        ("a/b/c", ["a"], True),
        ("a/b", ["*", "!a"], False),
        ("a/x/b.pyc", ["*", "!a", "**/x"], True),
        ("x", ["**/x"], True),
        ("a/b", ["a/*", "!a/b"], False),
        ("a/b/c", ["*/c"], False),
        ("ab", ["a"], False),
    ],
)
def test_patterns_are_dockers(path, wanted, out):
    assert ignored(path, wanted) is out


def test_an_instruction_that_docker_does_not_know_is_found():
    with pytest.raises(ValueError, match="INSTALL"):
        instructions("FROM x\nINSTALL y")
    assert instructions("# a\nRUN a \\\n  # b\n  c") == [("RUN", "a  c")]


def test_it_starts_our_program_as_nobody_special():
    (program,) = of("ENTRYPOINT")
    assert exec_form(program)[0] in scripts() and exec_form(of("CMD")[0])
    (user,) = of("USER")
    assert any(re.search(rf"useradd .*\b{user}\b", rest) for rest in of("RUN"))
    order = [name for name, _ in FOUND]
    assert order.index("USER") > max(place for place, name in enumerate(order) if name in ("RUN", "COPY"))
    (where,) = of("WORKDIR")
    volumes = exec_form(of("VOLUME")[0])
    made = next(rest for rest in of("RUN") if "useradd" in rest)
    assert {f"{where}/packed", f"{where}/runs"} < set(volumes) and all(volume in made for volume in volumes)


def test_the_extras_are_those_of_setup_py_but_for_the_tests():
    (extras,) = (variables(rest)["EXTRAS"] for rest in of("ARG") if rest.startswith("EXTRAS"))
    assert set(extras.split(",")) == set(settings()["extras_require"]) - {"dev", "dali-cuda12"}


STUB = '#!/bin/bash\necho "$(basename "$0") $*" >> "$LOG"\n'
STUBS = {
    "apt-get": STUB,
    "useradd": STUB,
    "pip": STUB,
    "pkg-config": STUB + "exit 1\n",  # nothing is installed yet
    "id": "#!/bin/bash\necho 0\n",
}
PYTHONS = {True: STUB, False: STUB + '[[ "$*" != *ensurepip* ]]\n'}  # one that makes environments, one that cannot yet


@pytest.mark.parametrize("python", PYTHONS)
def test_the_run_lines_run_with_what_reaches_outside_replaced(tmp_path, python):
    """In their order, below a folder that stands for /; pip, apt and the like note what they are asked for."""
    image, stubs, log = tmp_path / "image", tmp_path / "stubs", tmp_path / "log"
    stubs.mkdir()
    for name, script in {**STUBS, "python3": PYTHONS[python]}.items():
        (stubs / name).write_text(script)
        (stubs / name).chmod(0o755)
    copy_sources(image)
    environment = {"PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}", "LOG": str(log)}
    for name, rest in FOUND[2:]:
        if name in ("ARG", "ENV"):
            given = variables(rest)
            environment |= {key: value for key, value in given.items() if key not in ("PATH", "HOME")}
        elif name == "RUN":
            line = re.sub(r"(?<![\w.\]}/])/(?=(src|opt|work|var)\b)", f"{image}/", rest)
            done = subprocess.run(["sh", "-ec", line], env=environment, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{rest}\n{done.stderr}"
    said = log.read_text().replace(str(image), "")
    packages = [*SYSTEM_PACKAGES, *([] if python else ["python3-venv", "python3-dev"])]
    assert f"apt-get install -qy --no-install-recommends {' '.join(packages)}\n" in said
    assert "python3 -m venv /opt/fastres\n" in said and "pip install torch torchvision\n" in said
    extras = variables(next(rest for rest in of("ARG") if rest.startswith("EXTRAS")))["EXTRAS"]
    assert f"pip install /src\npip install --no-build-isolation /src[{extras}]\n" in said
    assert (image / "work/packed").is_dir() and (image / "work/runs").stat().st_mode & 0o7777 == 0o1777


def test_packages_of_the_system_are_named_in_one_list_alone():
    assert not any("apt-get" in rest for rest in of("RUN"))
    text = Path(ROOT / "Dockerfile").read_text()
    assert not any(re.search(rf"(?<![\w+-]){re.escape(package)}(?![\w+-])", text) for package in SYSTEM_PACKAGES)


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs Docker's client, and its daemon")
@pytest.mark.slow
def test_docker_has_nothing_to_object():
    """Its check alone, where a daemon answers: a build fetches gigabytes."""
    asked = [subprocess.run(["docker", *words], capture_output=True) for words in (["info"], ["buildx", "ls"])]
    if any(answer.returncode for answer in asked):
        pytest.skip("no Docker daemon answers, or it has no BuildKit")
    subprocess.run(["docker", "build", "--check", "."], cwd=ROOT, check=True)
