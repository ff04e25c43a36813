"""Odd command lines, by seeded chance: parsed and checked in this process, they mean something or are refused."""

import pytest

from fastres.evaluate import __main__ as evaluate
from fastres.model import export
from fastres.model.conditions import Given, completed
from fastres.predict import __main__ as predict
from fastres.schedules.loading import SCHEDULES
from fastres.train import command
from fastres.train.options import Options
from preprocess import options
from tests.support.fuzz import survives, tries

SECONDS = [pytest.param(0.4, id="fast"), pytest.param(3, id="slow", marks=pytest.mark.slow)]
WORDS = (
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "8",
        "64",
        "1e3",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "9" * 30,
        "9" * 5000,
        "0x10",
        "1_0",
        "½",
        "٣",
    ),
    *(
        "x",
        "None",
        "True",
        "packed",
        ".",
        "/",
        "/dev/null",
        "/proc/self/mem",
        "../x",
        "a\0b",
        "\udcff",
        "é",
        "--",
        "-",
    ),
    *(
        "0::2",
        "::",
        "1:2:0",
        ":::",
        "1,2",
        ",",
        "white",
        "#12",
        "rgba(0,0,0,0)",
        "resident,dali",
        "cpu",
        "cuda:99",
        "cpu:x",
    ),
    *("paper", "small.py", "fc", "*", "[]", "()", "{}", "(1,", "'", '"a"', "lambda: 0", "1" + "0" * 400 + ".5"),
)
SETTINGS = (
    *(
        "batch_size",
        "width",
        "arch",
        "weights",
        "name",
        "optimizer.lr",
        "optimizer.momentum",
        "lr_policy.patience",
        "lr",
    ),
    *(
        "stages.0.epochs",
        "stages.0.train",
        "stages.9.lr",
        "stages.-1.epochs",
        "stages",
        "stages.0",
        "views.convention",
        "epochs",
    ),
    *(
        "expected",
        "views",
        "optimizer",
        "optimizer.lr.x",
        "",
        ".",
        "stages.0.surgery",
        "stages.0.upscale",
        "stages.x.lr",
        "bn",
    ),
)


def words_of(parser, chance):
    """Some of the parser's own options, each with a value that it may or may not take."""
    words = []
    for action in chance.choices(parser._actions, k=chance.randrange(6)):
        if action.dest in ("help", "set"):
            continue
        words += [chance.choice(action.option_strings)] if action.option_strings else []
        if action.nargs != 0:
            known = [str(choice) for choice in action.choices or ()]
            words.append(chance.choice(known) if known and chance.random() < 0.6 else chance.choice(WORDS))
    if any("--set" in action.option_strings for action in parser._actions):
        words += ["--schedule", chance.choice(list(SCHEDULES))] if chance.random() < 0.9 else []
        for _ in range(chance.randrange(3)):
            words += [
                "--set",
                f"{chance.choice(SETTINGS)}{chance.choice(('=', '=', '=', '==', ''))}{chance.choice(WORDS)}",
            ]
    return words


def check_given(parser):
    return lambda words: completed({}, Given.of(parser.parse_args(words)), "w.pth")


def check_packing(words):
    return options.completed(options.parser().parse_args(words))


@pytest.mark.fault(48)
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("name", ["train", "pack", "evaluate", "predict", "export"])
def test_command_lines(name, seconds, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if name == "train":
        parser = command.parser()

        def check(words):
            return Options.of(parser.parse_args(words)).config
    elif name == "pack":
        parser, check = options.parser(), check_packing
    else:
        parser = {"evaluate": evaluate, "predict": predict, "export": export}[name].parser()
        check = check_given(parser)
    meant = 0
    for chance, what in tries(seconds, name):
        words = words_of(parser, chance)
        meant += survives(f"{what}: {words}", lambda words=words: check(words))
    assert meant or name in ("evaluate", "predict", "export")
    assert not list(tmp_path.iterdir())
