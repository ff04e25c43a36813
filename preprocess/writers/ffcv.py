"""FFCV's format, by FFCV's own DatasetWriter: <split>.beton with raw images, labels and sample ids.

image  RGBImageField, raw u8 [S, S, 3]
label  IntField, -1 in an unlabelled split
id     IntField, the row number

The DatasetWriter wants to pull samples through worker processes of its own, in which images would be decoded
again, orders the file by who was first, and takes 60 us of interpreter an image. Here its parts are driven from
the one stream of chunks, in this process: the same code lays out header, fields, pages and allocation table, and
the bytes do not depend on chance.
"""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from fastres.data.ffcv_import import load_ffcv
from fastres.machine.errors import MachineError
from preprocess.decode_pool import Chunk

PAGE = 1 << 22  # bytes; images do not cross pages, and one of LARGEST_SIDE fits
PER_IMAGE = 100  # bytes beside the pixels: metadata and allocation table


class FfcvWriter:
    """Writes one split after the other into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pages = None

    @staticmethod
    def bytes_needed(count: int, side: int) -> int:
        per_page = PAGE // (3 * side * side)
        return (count // max(1, per_page) + 3) * PAGE + count * PER_IMAGE

    @staticmethod
    def file_names(split: str) -> list[str]:
        return [f"{split}.beton"]

    def open(self, split: str, count: int, side: int, labelled: bool) -> None:
        ffcv = load_ffcv("ffcv.writer")  # here: it takes seconds, and other formats do without
        fields, memory = load_ffcv("ffcv.fields"), load_ffcv("ffcv.memory_allocator")
        self.raw = load_ffcv("ffcv.fields.rgb_image").IMAGE_MODES["raw"]
        self.name, self.done = self.file_names(split)[0], 0
        layout = {"image": fields.RGBImageField(write_mode="raw"), "label": fields.IntField(), "id": fields.IntField()}
        self.writer = ffcv.DatasetWriter(str(self.folder / self.name), layout, page_size=PAGE, num_workers=1)
        self.writer.num_samples = count
        try:
            self.writer.prepare()
        except OSError as error:
            raise MachineError(
                f"/dev/shm: FFCV's writer cannot have shared memory there ({error.strerror}), expected "
                f"{count * self.writer.metadata_type.itemsize:,} bytes; free some, or leave FFCV out with --engines"
            ) from error
        shared, size = self.writer.metadata_sm, count * self.writer.metadata_type.itemsize
        self.writer.metadata_sm = SimpleNamespace(buf=bytearray(size))  # no other process fills it
        shared.close()
        shared.unlink()
        self.metadata = np.frombuffer(self.writer.metadata_sm.buf, self.writer.metadata_type)
        self.pages = memory.MemoryAllocator(self.writer.fname, self.writer.data_region_start, PAGE)
        self.pages.__enter__()

    def write(self, chunk: Chunk) -> None:
        """What RGBImageField.encode does to each image, for as many at once as the page has room for."""
        image_bytes = chunk.pixels[0].nbytes if len(chunk.pixels) else 0
        first = 0
        while first < len(chunk.pixels):
            room = self.pages.space_left_in_page // image_bytes or PAGE // image_bytes
            images = chunk.pixels[first : first + room]
            self.pages.set_current_sample(self.done)
            start, storage = self.pages.malloc(images.nbytes)
            storage[:] = images.reshape(-1)
            rows = np.arange(self.done, self.done + len(images))
            image, label, sample_id = (self.metadata[name][rows[0] : rows[-1] + 1] for name in ("f0", "f1", "f2"))
            image["mode"], image["data_ptr"] = self.raw, start + np.arange(len(rows)) * image_bytes
            image["height"], image["width"] = images.shape[1:3]
            label[:] = [record.label for record in chunk.records[first : first + len(images)]]
            sample_id[:] = rows
            self.done, first = self.done + len(images), first + len(images)

    def close(self) -> list[str]:
        """Finish the split."""
        pages, self.pages = self.pages, None
        pages.__exit__(None, None, None)
        self.writer.header["num_samples"] = self.done  # bad images were left out: metadata keeps its room
        self.writer.finalize([self._allocations()])
        return [self.name]

    def _allocations(self) -> np.ndarray:
        """FFCV's table of which bytes belong to which image."""
        image = self.metadata["f0"][: self.done]
        table = np.empty(self.done, load_ffcv("ffcv.types").ALLOC_TABLE_TYPE)
        table["sample_id"], table["ptr"] = np.arange(self.done), image["data_ptr"]
        table["size"] = 3 * image["height"].astype(np.uint64) * image["width"]
        return table

    def discard(self) -> None:
        if self.pages is not None:
            with contextlib.suppress(OSError):
                self.pages.fp.close()
