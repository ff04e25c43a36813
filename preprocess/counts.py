"""What a packing counts about the images that pass through."""

import hashlib
from collections import Counter

from fastres.data.convert import GRAYSCALE_MODES
from preprocess.decode_pool import Chunk


class Counts:
    """One split: images, in all and by class, grayscale ones, what was converted, what was left out."""

    def __init__(self, classes: int) -> None:
        self.classes, self.per_class = classes, Counter()
        self.good = self.grayscale = self.skipped = 0
        self.converted: Counter[str] = Counter()
        self.pixels = hashlib.sha256()

    def add(self, chunk: Chunk) -> None:
        self.good += len(chunk.records)
        self.skipped += len(chunk.bad)
        self.per_class.update(record.label for record in chunk.records)
        for known in chunk.known:
            self.converted.update(known.kinds)
            self.pixels.update(known.fingerprint)
            self.grayscale += any(k in GRAYSCALE_MODES for k in known.kinds)

    def entry(self, labelled: bool) -> dict:
        """The manifest's."""
        return {
            "count": self.good,
            "labelled": labelled,
            **({"per_class": [self.per_class[label] for label in range(self.classes)]} if labelled else {}),
            "grayscale": self.grayscale,
            "converted": dict(sorted(self.converted.items())),
            "skipped": self.skipped,
            "pixels": self.pixels.hexdigest(),  # in id order, whatever the formats written
        }


class Duplicates:
    """Images whose pixels are exactly those of an earlier one: within train, and of val in train."""

    def __init__(self) -> None:
        self.in_train: set[bytes] = set()
        self.found: Counter[str] = Counter()

    def add(self, chunk: Chunk) -> None:
        if chunk.split == "test":
            return
        for known in chunk.known:
            self.found[chunk.split] += known.fingerprint in self.in_train
            if chunk.split == "train":
                self.in_train.add(known.fingerprint)

    def entry(self, split: str) -> dict:
        """The manifest's: nothing for test, which is compared with nothing."""
        return {} if split == "test" else {"duplicates": self.found[split]}
