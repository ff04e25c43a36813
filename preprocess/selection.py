"""A part of a data set: a slice of its sorted classes, the first images of each."""

from dataclasses import dataclass

from fastres.data.manifest import digest_of_classes
from fastres.machine.errors import UsageError
from preprocess.sources.records import Layout, Record

SPLITS = ("train", "val")  # those that --per-class counts


@dataclass(frozen=True)
class Selection:
    """What is taken of a data set; the default is all of it.

    classes    a slice of the sorted class list, as Python writes it: "0::2" is every second class
    per_class  the first so many training and validation images of each class, in the order of their file numbers
    """

    classes: str | None = None
    per_class: tuple[int, int | None] | None = None

    def __bool__(self) -> bool:
        return self.classes is not None or self.per_class is not None

    def of(self, layout: Layout) -> Layout:
        """The selected part, its classes labelled anew from 0. UsageError where it has no two classes, or nothing of
        train or val where they have images.

        Test images without a class are left out where classes are.
        """
        classes, splits = layout.classes, dict(layout.splits)
        if self.classes is not None:
            kept = range(len(classes))[slice_of(self.classes)]
            if len(kept) < 2:
                raise UsageError(
                    f"--classes {self.classes}: takes {len(kept)} of {len(classes)} classes, expected 2 or more"
                )
            label = {old: new for new, old in enumerate(sorted(kept))}
            classes = tuple(classes[old] for old in label)
            splits = {
                split: [Record(r.path, label[r.label]) for r in records if r.label in label]
                for split, records in splits.items()
                if split in SPLITS or any(r.label in label for r in records)
            }
            for split in SPLITS:
                if layout.splits[split] and not splits[split]:
                    raise UsageError(
                        f"--classes {self.classes}: takes no {split} image of {len(layout.splits[split]):,}, expected "
                        "some; choose classes that have them"
                    )
        if self.per_class is not None:
            for split, most in zip(SPLITS, self.per_class, strict=True):
                splits[split] = splits[split] if most is None else _first(splits[split], most)
        return Layout(classes, splits)

    def about(self, layout: Layout) -> dict:
        """For the manifest's source: what was taken, and of what. {} where all was."""
        if not self:
            return {}
        whole = {"classes": len(layout.classes), "class_digest": digest_of_classes(c.wnid for c in layout.classes)}
        left_out = [split for split in layout.splits if split not in self.of(layout).splits]
        return {"selection": {"classes": self.classes, "per_class": self.per_class, "of": whole, "without": left_out}}


def _first(records: list[Record], most: int) -> list[Record]:
    """The first `most` of each label; both splits have each label's records in the order of their file numbers."""
    seen: dict[int, int] = {}
    kept = []
    for record in records:
        seen[record.label] = seen.get(record.label, 0) + 1
        if seen[record.label] <= most:
            kept.append(record)
    return kept


def slice_of(text: str) -> slice:
    """ "A:B:C" as a slice; each part may be empty. ValueError for anything else."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 3:
        raise ValueError(f"found {text!r}, expected a slice such as 0:100 or 0::2")
    return slice(*(int(part) if part.strip() else None for part in parts))
