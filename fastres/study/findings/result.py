"""What a study found, as data: what report.py gathers and shows, and record.py keeps."""

from dataclasses import dataclass, field
from pathlib import Path

from fastres.study.findings.claims import Verdict
from fastres.study.findings.runs import Trained
from fastres.study.findings.tables import Table


@dataclass(frozen=True)
class Result:
    """All that a study found. `kind`: of its data, a key of notes.LABELS; tables and pictures (PNG files) by key."""

    label: str
    kind: str
    systems: dict[str, list[Trained]]
    tables: dict[str, Table]
    verdicts: list[Verdict]
    pictures: dict[str, Path]
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict:
        """Fit for JSON: no paths but the pictures' names."""
        return {
            "label": self.label,
            "kind": self.kind,
            "tables": {key: table.plain() for key, table in self.tables.items()},
            "verdicts": [verdict.plain() for verdict in self.verdicts],
            "disagrees": [v.claim.text for v in self.verdicts if v.word == "disagrees"],
            "pictures": {key: path.name for key, path in self.pictures.items()},
            "notes": self.notes,
            "runs": [_plain_run(run) for runs in self.systems.values() for run in runs],
        }


def _plain_run(run: Trained) -> dict:
    """A run's own figures, without paths."""
    kept = (
        "errors",
        "gate",
        "count",
        "stages",
        "train_s",
        "val_s",
        "eval_s",
        "wall_s",
        "device",
        "precision",
        "torch",
        "commits",
    )
    curve = ("epoch_total", "stage_name", "lr", "train_loss", "val_loss", "val_top1_err", "val_top5_err", "train_s")
    return {
        "system": run.name,
        "seed": run.seed,
        "status": run.status,
        "taken_over_stages": run.shared,
        "flop_per_image": list(run.flop),
        "images": run.images,
        **{key: run.summary[key] for key in kept if key in run.summary},
        "epochs": [{key: record[key] for key in curve if key in record} for record in run.epochs],
    }
