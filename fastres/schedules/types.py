"""What a schedule is made of: frozen, keyword-only rows that check themselves. The experiments are beside this file.

A wrong value raises UsageError as soon as the row is made, so nothing starts on a bad configuration.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from fastres.schedules.check import check, settle_types
from fastres.schedules.view_settings import ViewSettings

STEM_INITS = ("torch7", "antialias", "torch7-raw", "pi-resize", "pullback", "blank")
KNOWN_HEAD = "fc:imagenet"
SURGERIES = ("fc", KNOWN_HEAD, *(f"stem:{init}" for init in STEM_INITS))
KINDS = ("captured", "fused", "captured-fused")
STEPS = ("auto", "eager", "plain", "compiled", *KINDS, "padded", *(f"{kind}-padded" for kind in KINDS))
BN_RULES = ("frozen", "recalibrated", "batch")
ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "plain18")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """SGD as fb.resnet.torch uses it: Nesterov momentum without dampening, decay on every trained parameter, but for
    those that a stage's `pull` takes.

    impl: whose kernel does it, torch or apex (see stage/optimizer.py)
    """

    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    impl: str = "torch"

    def __post_init__(self) -> None:
        settle_types(self, "optimizer.")
        check(self.lr > 0, "optimizer.lr", self.lr, "more than 0")
        check(self.impl in ("torch", "apex"), "optimizer.impl", self.impl, "torch or apex")
        check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "0 or more and below 1")
        check(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        check(self.momentum > 0 or not self.nesterov, "optimizer.nesterov", self.nesterov, "false when momentum is 0")


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The paper's rule (section 5.4): lower the rate when the running average of the error stops improving.

    factor    the rate is multiplied by this
    window    epochs in the running average of the validation top-1 error
    patience  epochs without notable improvement before the rate is lowered
    least     what counts as an improvement, in points of error (%)
    """

    factor: float = 0.1
    window: int = 3
    patience: int = 3
    least: float = 0.5

    def __post_init__(self) -> None:
        settle_types(self, "lr_policy.")
        check(0 < self.factor < 1, "lr_policy.factor", self.factor, "between 0 and 1")
        check(self.window >= 1, "lr_policy.window", self.window, "1 or more")
        check(self.patience >= 1, "lr_policy.patience", self.patience, "1 or more")
        check(self.least >= 0, "lr_policy.least", self.least, "0 or more")


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine towards zero over the stage; set anew before every step."""

    warmup_epochs: float = 1.0

    def __post_init__(self) -> None:
        settle_types(self, "lr_policy.")
        check(self.warmup_epochs >= 0, "lr_policy.warmup_epochs", self.warmup_epochs, "0 or more")


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Up to the highest rate and down again over the whole stage, by half cosines, set anew before every step.

    Smith's one-cycle rule as torch.optim.lr_scheduler.OneCycleLR has it, without its cycle of the momentum.

    warmup  share of the stage's steps on the way up
    start   first rate, as a share of the highest one (the stage's `lr`)
    end     last rate, likewise
    """

    warmup: float = 0.3
    start: float = 0.04
    end: float = 0.0001

    def __post_init__(self) -> None:
        settle_types(self, "lr_policy.")
        check(0 <= self.warmup < 1, "lr_policy.warmup", self.warmup, "0 or more and below 1")
        check(0 < self.start <= 1, "lr_policy.start", self.start, "more than 0, at most 1")
        check(0 < self.end <= 1, "lr_policy.end", self.end, "more than 0, at most 1")


LATER = ("pull", "whole")  # fields of a Stage that its first runs had not
LR_POLICIES = {policy.__name__: policy for policy in (Plateau, WarmupCosine, OneCycle)}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of a schedule.

    name        what logs and pictures call it
    epochs      passes over the training images
    train       patterns of the parameters that learn (`fc.*`, `*`); one that matches nothing is an error
    upscale     4: 64-pixel images are scaled to 256 and cropped to 224; 1: cropped to 56; below 1, for photos that are
                packed larger: 0.5 makes 128 pixels 64
    surgery     done before the stage, in order: `fc` (new head), `fc:imagenet` (the rows that ImageNet's own head has
                for the data's classes), `stem:torch7` and its kin (new first layer)
    bn          what frozen BatchNorms do: frozen, recalibrated or batch (see model/freeze.py)
    lr          learning rate of the stage, as its policy takes it; None: optimizer.lr
    lr_factors  per-layer rates: the first pattern that a parameter's name matches multiplies its rate; no match: 1;
                a pattern that decides over nothing is an error. In --set: stages.1.lr_factors=conv1.*:0.1,layer1.*:0.5
    pull        each learning weight outside the head decays at this rate, in place of the weight decay, towards its
                value at the start of the stage instead of towards zero (L2-SP, see stage/pull.py); 0 turns it off; a
                stage that trains the head alone refuses it
    whole       views are whole images, 256 or 64 pixels, instead of crops of 7/8, to validate and test on as well
    """

    name: str
    epochs: int
    train: tuple[str, ...]
    upscale: float
    surgery: tuple[str, ...] = ()
    bn: str = "frozen"
    lr: float | None = None
    lr_factors: dict[str, float] = field(default_factory=dict)
    pull: float = 0.0
    whole: bool = False

    def __post_init__(self) -> None:
        settle_types(self)
        check(self.epochs >= 1, f"epochs of stage {self.name}", self.epochs, "1 or more")
        check(self.upscale > 0, f"upscale of stage {self.name}", self.upscale, "more than 0")
        if float(self.upscale).is_integer():  # 4 and 4.0 are the same setting: in a config's text too
            object.__setattr__(self, "upscale", int(self.upscale))
        check(len(self.train) > 0, f"train of stage {self.name}", self.train, "at least one pattern")
        check(self.bn in BN_RULES, f"bn of stage {self.name}", self.bn, "one of " + ", ".join(BN_RULES))
        check(self.lr is None or self.lr > 0, f"lr of stage {self.name}", self.lr, "more than 0")
        check(self.pull >= 0, f"pull of stage {self.name}", self.pull, "0 or more")
        for pattern, factor in self.lr_factors.items():
            check(factor > 0, f"lr_factors of {pattern} in stage {self.name}", factor, "more than 0")
        for operation in self.surgery:
            check(operation in SURGERIES, f"surgery of stage {self.name}", operation, "one of " + ", ".join(SURGERIES))


# In a net with fewer, torch 2.14.1 and 2.15.0 were seen to write past their memory (float32 training, AVX2 CPU).
LEAST_WIDTH = 8
LONGEST_NAME = 120  # bytes


def _is_name(text: Any) -> bool:
    """Whether folders and files can be named after `text`, in the folder that they are meant for."""
    known = isinstance(text, str) and 0 < len(text.encode(errors="replace")) <= LONGEST_NAME and text.isprintable()
    return known and not set(text) & set("/\\") and text == text.strip() and text[0] not in "-."


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A whole experiment.

    arch        torchvision's name of the network; or plain18: resnet18 without its shortcuts, pretrained nowhere
    width       channels of the first stage: 64 is torchvision's; less is the same net, slimmer; LEAST_WIDTH or more
    weights     `IMAGENET1K_V1` (torchvision's), `timm:resnet18.a1_in1k` (timm's), `shipped:NAME` (in this package), a
                file (.safetensors, .pth, fb.resnet.torch's .t7), or None: from scratch
    batch_size  images per optimiser step, over all processes
    step        how a step is run: eager, plain (nothing folded, the reference), compiled, captured (CUDA graph), fused
                (cuDNN's fused convolutions and Triton's norms, on a GPU), captured-fused; padded (images of four
                channels), captured-padded and so on; or auto: eager on a CPU, a GPU's is tried out at each stage, see
                stage/choosing/choose.py
    label_smoothing  share of each label that is spread over all classes in the training loss; 0: none
    ema         decay a step of a running average of the weights, which is then what is validated and kept; 0: none
    expected    what the paper reports, errors in %, by name; empty where it reports nothing. Names are "METHOD top1",
                "METHOD top5" and "METHOD test top1" with a method of combining.METHODS for the end of the last stage;
                "first-epoch centre top1" for its first epoch; "at least centre top1" for a bound that it stays above
    """

    name: str
    stages: tuple[Stage, ...]
    arch: str = "resnet18"
    width: int = 64
    weights: str | None = "IMAGENET1K_V1"
    batch_size: int = 256
    step: str = "auto"
    optimizer: Optimizer = field(default_factory=Optimizer)
    lr_policy: Plateau | WarmupCosine | OneCycle = field(default_factory=Plateau)
    views: ViewSettings = field(default_factory=ViewSettings)
    label_smoothing: float = 0.0
    ema: float = 0.0
    expected: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settle_types(self)
        check(_is_name(self.name), "name", self.name, f"a name for folders: 1 to {LONGEST_NAME} printable characters, "
              "no slash among them and neither '-' nor '.' first")  # fmt: skip
        check(self.arch in ARCHITECTURES, "arch", self.arch, "one of " + ", ".join(ARCHITECTURES))
        check(self.width >= LEAST_WIDTH, "width", self.width, f"{LEAST_WIDTH} or more")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        check(self.step in STEPS, "step", self.step, "one of " + ", ".join(STEPS))
        check(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "0 or more and below 1")
        check(0 <= self.ema < 1, "ema", self.ema, "0 or more and below 1")
        check(len(self.stages) >= 1, "stages", self.stages, "at least one")
        check(not self.views.mixes or self.batch_size % 2 == 0, "batch_size", self.batch_size,
              "an even number where views are mixed: partners are neighbours in a batch")  # fmt: skip
        shrinks = any(stage.upscale < 1 for stage in self.stages)
        check(not shrinks or self.views.convention == "half-pixel", "views.convention", self.views.convention,
              "half-pixel where a stage's upscale is below 1: torch7 would skip pixels")  # fmt: skip

    @property
    def epochs(self) -> int:
        """Epochs over all stages: 32 for the paper."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def half_a_batch(self) -> int:
        """A batch size of half the memory, for who has none left; it parts no pair of mixed views."""
        cut = self.views.together
        return max(cut, self.batch_size // 2 // cut * cut)

    @property
    def knows_classes(self) -> bool:
        """Whether it takes the head of its pretrained net for the data's classes, so that it errs less than chance
        before any training."""
        return any(KNOWN_HEAD in stage.surgery for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, fit for JSON. Of what came later only what has an effect: older runs, from
        before it was there, can be resumed."""
        plain = dataclasses.asdict(self)
        for stage in plain["stages"]:
            for name in LATER:
                if not stage[name]:
                    del stage[name]
        plain["lr_policy"]["kind"] = type(self.lr_policy).__name__
        plain["views"] = self.views.to_dict()
        return plain
