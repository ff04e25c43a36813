"""The paper's systems a second time, as its authors' tools would have run them by default.

The paper leaves open how many images a step had, and what fixed BatchNorms did. paper.py decides by today's custom.
Here Torch7's own defaults decide, wherever the paper names nothing else:

- 32 images a step, the default of fb.resnet.torch ([3] of the paper). 256, as paper.py has, hardly fitted: the outputs
  of a ResNet-18's convolutions, norms and pooling are 20 MiB an image at 224 pixels, 5 GiB at 256 images, and a GPU of
  a GRID K520 has 4 GB. So an epoch has eight times the steps.
- BatchNorms of fixed layers use the batch's statistics, and their stored ones follow: fb.resnet.torch calls
  `training()` on the whole network before every epoch.
- The scaled filters get no gain, and no statistics are re-estimated behind them: section 3.4 scales and no more.

The head's stages therefore learn on features whose statistics are the enlarged photos' own, and everything takes more
and noisier steps. Which of the two readings is nearer to the paper's figures, the study says.
"""

from dataclasses import replace

from fastres.schedules.paper import CONV1_NAIVE, FEATURE_EXTRACTOR, INITIALIZED_FC, NAIVE_FC, PAPER
from fastres.schedules.types import Schedule, Stage

IMAGES = 32


def _by_torch7(schedule: Schedule) -> Schedule:
    """The counterpart of a system of the paper, the figures it is to be held to among the rest."""
    return replace(
        schedule,
        name=f"{schedule.name}-torch7",
        batch_size=IMAGES,
        stages=tuple(_stage(stage) for stage in schedule.stages),
    )


def _stage(stage: Stage) -> Stage:
    surgery = tuple("stem:torch7-raw" if part == "stem:torch7" else part for part in stage.surgery)
    return replace(stage, surgery=surgery, bn="frozen" if stage.train == ("*",) else "batch")


TORCH7 = tuple(map(_by_torch7, (NAIVE_FC, FEATURE_EXTRACTOR, INITIALIZED_FC, PAPER, CONV1_NAIVE)))
