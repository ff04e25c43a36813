"""An epoch that is over: its record in the log, and its line on the screen."""

from fastres.stage.setting import Setting
from fastres.stage.stage_run import StageRun
from fastres.track.time_left import in_words


def epoch_record(
    setting: Setting, stage: StageRun, epoch: int, errors: dict, val_loss: float, val_s: float, images_seen: int
) -> dict:
    """What the log keeps of the stage's epoch `epoch` (from 0), whose rate has not been told of it yet.

    errors    of the centre crop in %, by top1 and top5; `val_loss` in nats, `val_s` the seconds of the validation
    img_per_s is the epoch's own: its images by the seconds of its steps
    """
    speed, epochs_before = stage.speed, sum(row.epochs for row in setting.schedule.stages[: stage.index])
    return {
        "stage": stage.index,
        "stage_name": stage.row.name,
        "epoch": epoch + 1,
        "epoch_total": epochs_before + epoch + 1,
        "lr": stage.learning_rate.at((epoch + 1) * stage.steps_per_epoch - 1),
        "train_loss": stage.step.mean_loss(),
        "val_top1_err": errors["top1"],
        "val_top5_err": errors["top5"],
        "val_loss": val_loss,
        "train_s": speed.train_s,
        "wait_s": speed.wait_s,
        "val_s": val_s,
        "images_seen": images_seen,
        **speed.read(),
        "img_per_s": len(setting.train) / speed.train_s,
    }


def epoch_line(record: dict, epochs: int) -> str:
    """Of a stage of `epochs` epochs, what a person wants to know of one, and when the whole run will be over."""
    left = f", {in_words(record['left_s'])} left" if record["left_s"] else ""
    return (
        f"  epoch {record['epoch']:2d}/{epochs}  lr {record['lr']:<8.4g} train loss {record['train_loss']:.3f}  "
        f"val top-1 err {record['val_top1_err']:5.2f} %  top-5 {record['val_top5_err']:5.2f} %  "
        f"{record['img_per_s']:,.0f} img/s{left}"
    )
