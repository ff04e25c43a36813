"""Beyond the paper: what its section 6 asks for, and what it leaves open.

Every schedule here trains for 32 epochs, as `paper` does, except the plain nets', `scratch-64` and `modern`.

The small world rounds each stage up, so that `gradual`, with more and shorter stages, has 21 epochs there to the 20 of
`paper`, at the study's scale 16 to 14. Some of them are cheaper; the tables have the arithmetic of each.

None has a figure in the paper, and none has been run on the whole real data. Each changes one thing about `paper`, and
shares with it every stage before that (`train --start-from`); `known-head` starts where it does not, at 1,000 outputs'
own rows; `impatient` and `one-cycle` change the recipe and nothing of the stages, `modern` both. The plain nets' are
`naive-fc` and `initialized-fc`.
"""

from dataclasses import replace

from fastres.schedules.paper import INITIALIZED_FC, NAIVE_FC, PAPER
from fastres.schedules.types import KNOWN_HEAD, OneCycle, Plateau, Schedule, Stage, WarmupCosine
from fastres.schedules.view_settings import ViewSettings


def _with_stages(name: str, **changed: Stage) -> Schedule:
    """`paper` under another name, the stages called `changed` replaced; "all-56" is written all_56."""
    rows = {key.replace("_", "-"): stage for key, stage in changed.items()}
    return replace(PAPER, name=name, stages=tuple(rows.get(row.name, row) for row in PAPER.stages), expected={})


_FC, _ALL, _CONV1, _ALL_56 = PAPER.stages

# The new stem's filters. `paper` scales them as Torch7 does and gives each one measured gain.
TORCH7_RAW = _with_stages("torch7-raw", conv1=replace(_CONV1, surgery=("stem:torch7-raw",)))  # without it: section 3.4
ANTIALIAS = _with_stages("antialias", conv1=replace(_CONV1, surgery=("stem:antialias",)))  # every one of 49 taps counts
PULLBACK = _with_stages("pullback", conv1=replace(_CONV1, surgery=("stem:pullback",)))  # see model/pullback.py
PI_RESIZE = _with_stages("pi-resize", conv1=replace(_CONV1, surgery=("stem:pi-resize",)))  # as FlexiViT's patches

# What the BatchNorms do while the new stem learns. `paper` re-estimates their statistics, then leaves them alone.
CONV1_FROZEN = _with_stages("conv1-frozen", conv1=replace(_CONV1, bn="frozen"))  # the old stem's statistics
CONV1_BATCH = _with_stages("conv1-batch", conv1=replace(_CONV1, bn="batch"))  # the batch's: Torch7's training()

# "A strongly varying set of individual learning rates for each layer" (section 6): half the rate for every step away
# from what was replaced: the head before size adaptation, the head and the stem after it.
PER_LAYER_LR = _with_stages(
    "per-layer-lr",
    all=replace(
        _ALL, lr_factors={"fc.*": 1.0, "layer4.*": 0.5, "layer3.*": 0.25, "layer2.*": 0.125, "*": 0.0625},
    ),
    all_56=replace(
        _ALL_56, lr_factors={"layer1.*": 0.5, "layer2.*": 0.25, "layer3.*": 0.25, "layer4.*": 0.5, "*": 1.0},
    ),
)  # fmt: skip

# From the head down, each block's rate is 0.8 times that of the block behind it: ConvNeXt's fine-tuning (Liu and
# others, CVPR 2022, appendix A), ELECTRA's before it.
_BLOCKS = [f"layer{layer}.{block}.*" for layer in (4, 3, 2, 1) for block in (1, 0)]
LAYER_DECAY = _with_stages(
    "layer-decay",
    all=replace(
        _ALL,
        lr_factors={"fc.*": 1.0, **{name: round(0.8**depth, 4) for depth, name in enumerate([*_BLOCKS, "*"], start=1)}},
    ),
)

# The first blocks alone instead of everything, where what has changed is the input (Lee and others, "Surgical
# Fine-Tuning", ICLR 2023, on corrupted images): these images are enlarged, so blurred. `all-56` stays.
SURGICAL = _with_stages("surgical", all=replace(_ALL, train=("conv1.*", "bn1.*", "layer1.*")))

# In both stages that train everything each weight decays towards its value at the start of the stage instead of towards
# zero (L2-SP: Li, Grandvalet and Davoine, ICML 2018). The rate is chosen, not searched.
PULL = _with_stages("l2-sp", all=replace(_ALL, pull=0.01), all_56=replace(_ALL_56, pull=0.01))

# The last epochs on the head and the norm before it, at the test's size instead of the crop's (FixRes: Touvron and
# others, NeurIPS 2019, who so bring a ResNet-50 of 224-pixel crops to 79.8 %).
TEST_SIZE = replace(
    PAPER,
    name="test-size",
    stages=(
        *PAPER.stages[:-1],
        replace(_ALL_56, epochs=10),
        Stage(name="fc-whole", epochs=3, train=("fc.*", "layer4.1.bn2.*"), upscale=1, lr=0.001, whole=True),
    ),
    expected={},
)

# "Staged freezing of layers while finetuning" (section 6): released from the head down, in the epochs of `all`.
GRADUAL = replace(
    PAPER,
    name="gradual",
    stages=(
        _FC,
        Stage(name="from layer4", epochs=3, train=("layer4.*", "fc.*"),             upscale=4),
        Stage(name="from layer3", epochs=3, train=("layer3.*", "layer4.*", "fc.*"), upscale=4),
        Stage(name="all",         epochs=4, train=("*",),                           upscale=4),
        _CONV1,
        _ALL_56,
    ),
    expected={},
)  # fmt: skip

# The head that the pretrained net has for these very classes: Tiny ImageNet's are 200 of ImageNet's 1,000.
KNOWN_CLASSES = _with_stages("known-head", fc=replace(_FC, surgery=(KNOWN_HEAD,)))

# Do shortcuts "amplify the negative effects of poor initialization in naive retraining" (section 6)? The same two ways
# on a net without them. Nobody publishes such a net's weights: the study at a quarter of the size pretrains one.
PLAIN_NAIVE, PLAIN_STAGED = (
    replace(schedule, name=f"plain-{schedule.name}", arch="plain18", expected={})
    for schedule in (NAIVE_FC, INITIALIZED_FC)
)

# The paper's rule (section 5.4) with less patience: it seldom lowers a rate in time, as stages of 4 to 13 epochs end
# before three epochs without improvement of a three-epoch average have passed.
IMPATIENT = replace(PAPER, name="impatient", lr_policy=Plateau(window=1, patience=1), expected={})

# A rate that ends low in every stage, and may begin high therefore: up in a fifth of it, down in the rest.
ONE_CYCLE = replace(
    PAPER,
    name="one-cycle",
    optimizer=replace(PAPER.optimizer, lr=0.06),
    lr_policy=OneCycle(warmup=0.2, start=0.1, end=0.001),
    expected={},
)

# No more compute than `paper`: one cycle; a first layer made for these photos (see model/pullback.py), so that two
# epochs each will do for it and for the head; everything on the images' own size from there on, in a single cycle;
# colours as they are. Of real photos at a quarter of the size (runs/2026-11-30_study-part_amd-epyc-2-cores-4, one seed)
# it errs on 56.1 %, `one-cycle` on 57.9, `paper` on 61.0; on corrupted ones on 78.0, 75.8 and 77.4. Rate and colours
# were chosen by single runs of two epochs of the last stage.
MODERN = replace(
    ONE_CYCLE,
    name="modern",
    views=replace(PAPER.views, brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0),
    stages=(
        replace(_FC, epochs=2),
        replace(_CONV1, epochs=2, surgery=("stem:pullback",)),
        replace(_ALL_56, epochs=25),
    ),
)

# From nothing, at the photos' own 64 pixels: the recipe of OpenMixup's benchmark of Tiny ImageNet (AutoMix: Liu and
# others, ECCV 2022) in a quarter of its 400 epochs. There a ResNet-18 with this first layer errs on 38.3 % without
# CutMix, on 34.5 % with it; later mixtures are reported down to 29.6 % (S2-FracMix). Their CutMix's alpha is
# searched and not written down: 0.2 is what they name for CIFAR. It is shown boxes of 64 pixels, and tested on whole
# images. On two cores an epoch takes hours; all behind the first layer of `quarter-pretrain` costs a sixteenth.
SCRATCH = replace(
    PAPER,
    name="scratch-64",
    weights=None,
    batch_size=100,
    optimizer=replace(PAPER.optimizer, lr=0.2, nesterov=False),
    lr_policy=WarmupCosine(warmup_epochs=0.0),
    views=ViewSettings(
        convention="half-pixel", crop="resized", cutmix=0.2, brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0
    ),
    stages=(
        Stage(name="scratch", epochs=100, train=("*",), upscale=1, surgery=("stem:blank",), whole=True),
    ),
    expected={},
)  # fmt: skip
