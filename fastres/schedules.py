"""THE experiments. Read this file and you know every run.

    python -m fastres.train --schedule NAME

A schedule is a literal table of stages, a variant is `replace(PAPER, ...)`, derived numbers are computed elsewhere.
Write your own in a file that defines SCHEDULE and pass its path as NAME.
"""

from dataclasses import replace

from fastres.schedule_types import Optimizer, Plateau, Schedule, Stage, ViewSettings, WarmupCosine

# The final model of the paper (sections 3, 5 and 5.4): 32 epochs, 9 of them of a single layer.
#
# Paper, 12-crop: validation top-1 24.99 %, top-5 8.14 %, test 31.1 %; centre crop 27.1 % and 32.0 %;
# just under 13 h on a GRID K520. Not yet run here on the real data: no row of it in runs/results.csv.
# Where the paper is silent this table decides: batch 256; `torch7` resampling, since Torch7 is what the paper resampled
# with; Torch7 probably left frozen BatchNorms in batch mode, `frozen` and `recalibrated` are what we recommend instead.
# Tiny ImageNet is a subset of ImageNet: every number of a pretrained net carries that caveat.
PAPER = Schedule(
    name="paper",
    arch="resnet18",
    weights="IMAGENET1K_V1",
    batch_size=256,
    optimizer=Optimizer(lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
    lr_policy=Plateau(factor=0.1, window=3, patience=3, least=0.5),
    views=ViewSettings(convention="torch7", brightness=0.4, contrast=0.4, saturation=0.4, lighting=0.1, flip=0.5),
    stages=(
        Stage(name="fc",     epochs=5,  train=("fc.*",),    upscale=4, surgery=("fc",)),
        Stage(name="all",    epochs=10, train=("*",),       upscale=4),
        Stage(name="conv1",  epochs=4,  train=("conv1.*",), upscale=1, surgery=("stem:torch7",), bn="recalibrated"),
        Stage(name="all-56", epochs=13, train=("*",),       upscale=1),
    ),
    expected={
        "12-crop top1": 24.99, "12-crop top5": 8.14, "12-crop test top1": 31.1,
        "centre top1": 27.1, "centre test top1": 32.0,
    },
)  # fmt: skip

# The same four stages on the procedural small world: 20 classes at 32 pixels, crops of 112 and then 28, a net of a
# quarter of the width. It shows that the pipeline works and how fast; its errors say nothing about the paper's.
DEMO = replace(
    PAPER,
    name="demo",
    width=16,
    weights="shipped:small_world_resnet18_w16",
    batch_size=32,
    optimizer=replace(PAPER.optimizer, lr=0.02),
    stages=(
        Stage(name="fc",     epochs=3, train=("fc.*",),    upscale=4, surgery=("fc",)),
        Stage(name="all",    epochs=6, train=("*",),       upscale=4),
        Stage(name="conv1",  epochs=3, train=("conv1.*",), upscale=1, surgery=("stem:torch7",), bn="recalibrated"),
        Stage(name="all-28", epochs=8, train=("*",),       upscale=1),
    ),
    expected={},
)  # fmt: skip

# How the demo's pretrained net was made, from nothing, on the small world's sharp source images (128 pixels, crop 112):
#   python preprocess/pack.py --small-world source --out packed-source
#   python -m fastres.train --schedule small-world-pretrain --data packed-source
SMALL_WORLD_PRETRAIN = replace(
    DEMO,
    name="small-world-pretrain",
    weights=None,
    batch_size=64,
    optimizer=replace(PAPER.optimizer, lr=0.1),
    lr_policy=WarmupCosine(warmup_epochs=1.0),
    stages=(Stage(name="scratch", epochs=15, train=("*",), upscale=1),),
)

SCHEDULES = {schedule.name: schedule for schedule in (PAPER, DEMO, SMALL_WORLD_PRETRAIN)}
