"""Half an image is no image: decoders fill in what a file lacks and say nothing, so that is found here.

JPEG  What a scan lacks becomes gray. No decoder uses a bit behind the last one of a whole scan. So other bits are put
      there: the pixels of a whole image stay the same, those of a cut one change, wherever it was cut. Where a scan is
      missing altogether the headers of the others say so.
PNG   Rows that the stream lacks stay black, so a last row of zeros makes it worth counting them.
TIFF  Strips that are not listed stay black; JPEG inside is JPEG.
Everything else is refused by Pillow's readers when it ends early.
"""

import io
import re
import zlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from fastres.data.convert import BadImage

END, SCAN, RESTARTS, TABLES, EVERY = 0xD9, 0xDA, range(0xD0, 0xD8), 0xC4, 0xDD  # EVERY: so many blocks a restart
FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # that go by DCT
PROGRESSIVE = (0xC2, 0xCA)
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# No block of the standard's Huffman tables ends within these bits, whichever bit a decoder begins to take them at:
# it runs out of them instead. Found by search; a decoder looks this far ahead.
FILLER = bytes.fromhex("edfda59b4bc789fc")
SMALL = 1 << 16  # bytes of a file; of a larger one the few bits that a block needs to end are not worth a second decode
BANDS = {0: ((1, 1),), 1: ((8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2))}  # PNG's passes: see _rows
STARTS = {0: ((0, 0),), 1: ((0, 0), (4, 0), (0, 4), (2, 0), (0, 2), (1, 0), (0, 1))}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type


@dataclass
class Jpeg:
    """What a JPEG's markers say. end: where its last scan's data do. lasting: by component, the lowest bit that was
    sent of each of its 64 coefficients."""

    end: int = 0
    scans: int = 0
    frame: int = 0
    restart: int | None = None
    lasting: dict[int, list[int | None]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.frame not in FRAMES or all(low == 0 for bits in self.lasting.values() for low in bits)

    def filled(self, data: bytes) -> bytes:
        """The file with FILLER behind its last scan instead of the end marker. Where the scan was cut at a restart, the
        restart marker that a decoder waits for next follows."""
        mark = b"" if self.restart is None else bytes((0xFF, RESTARTS[(self.restart + 1) % 8])) + FILLER
        return data[: self.end].rstrip(b"\xff") + FILLER + mark


def read_jpeg(data: bytes) -> Jpeg | None:
    """The way along the markers to the image's end; None where it has none."""
    found, at = Jpeg(), 2
    try:
        while True:
            at = data.index(b"\xff", at)
            marker = data[at + 1]
            if marker == END:
                found.end = at
                return found if found.scans else None
            if marker == 0xFF or marker in (0, 1, 0xD8, *RESTARTS):  # fill bytes, marks without content
                at += 1 if marker == 0xFF else 2
                continue
            content = data[at + 4 : at + 2 + (data[at + 2] << 8 | data[at + 3])]
            at += 4 + len(content)
            if 0xC0 <= marker < 0xD0 and marker not in (TABLES, 0xC8, 0xCC):
                found.frame = marker
                found.lasting = {content[6 + 3 * k]: [None] * 64 for k in range(content[5])}
            elif marker == EVERY:
                found.restart = 7 if content != b"\0\0" else None
            elif marker == SCAN:
                found.scans += 1
                _note_scan(found, content)
                start, at = at, AFTER_SCAN.search(data, at).start()
                if found.restart is not None:
                    marks = [(data.rfind(bytes((0xFF, mark)), start, at), mark & 7) for mark in RESTARTS]
                    found.restart = max(marks)[1] if max(marks)[0] >= 0 else 7
    except (ValueError, IndexError, AttributeError, KeyError):
        return None


def _note_scan(jpeg: Jpeg, content: bytes) -> None:
    first, last, bits = content[-3:]
    first, last, low = (first, last, bits & 15) if jpeg.frame in PROGRESSIVE else (0, 63, 0)
    for k in range(content[0]):
        jpeg.lasting[content[1 + 2 * k]][first : last + 1] = [low] * (last + 1 - first)


def check_listed(image: Image.Image) -> None:
    """BadImage where a TIFF lists too few strips for its rows. image: opened and not loaded."""
    if image.format == "TIFF":
        listed = sum((right - left) * (low - top) for _, (left, top, right, low), *_ in image.tile)
        if listed < image.width * image.height:
            raise BadImage(f"is truncated: lists {listed:,} pixels, expected {image.width * image.height:,}")


def check_whole(image: Image.Image, data: bytes, jpeg: Jpeg | None) -> None:
    """BadImage where some of the file's pixels are not in it. image: from `data`, loaded. jpeg: of read_jpeg."""
    if image.format in ("JPEG", "MPO"):
        _check_jpeg(image, data, jpeg)
    elif image.format == "PNG":
        _check_png(image, data)
    elif image.format == "TIFF" and image.tag_v2.get(259) == 7:
        tables = image.tag_v2.get(347, b"\xff\xd8\xff\xd9")[:-2]
        places = zip(*(image.tag_v2.get(strips, image.tag_v2.get(tiles)) for strips, tiles in ((273, 324), (279, 325))))
        for start, length in places:
            strip = tables + data[start + 2 : start + length]
            with Image.open(io.BytesIO(strip), formats=("JPEG",)) as part:
                part.load()
                _check_jpeg(part, strip, read_jpeg(strip))


def _check_jpeg(image: Image.Image, data: bytes, jpeg: Jpeg | None) -> None:
    if jpeg is None:
        raise BadImage("is truncated: found no end of the image, expected one behind its pixels")
    if not jpeg.complete:
        raise BadImage(f"is truncated: found {jpeg.scans} of its scans, expected all that make up its pixels")
    with Image.open(io.BytesIO(jpeg.filled(data) + b"\xff\xd9"), formats=("JPEG",)) as filled:
        if image.tobytes() != filled.tobytes():
            raise BadImage("is truncated: its pixels end before its last rows do")


def _check_png(image: Image.Image, data: bytes) -> None:
    """Checks the pixels' own chunks, too, which Pillow takes as they come."""
    at, packed, header = 8, [], data[16:29]
    while (kind := data[at + 4 : at + 8]) and kind != b"IEND":
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IDAT":
            if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise BadImage("is damaged: the checksum of its pixels is another")
            packed.append(data[at + 8 : end])
        at = end + 4
    width, height, last = *image.size, np.asarray(image.crop((0, image.height - 1, *image.size)))
    if last.any() and not header[12]:
        return
    width, height = (int.from_bytes(header[k : k + 4], "big") for k in (0, 4))
    expected = _rows(width, height, header[8] * CHANNELS[header[9]], header[12])
    found = len(zlib.decompressobj().decompress(b"".join(packed), expected))
    if found < expected:
        raise BadImage(f"is truncated: found {found:,} bytes of pixels, expected {expected:,}")


def _rows(width: int, height: int, bits: int, interlaced: int) -> int:
    """Bytes that a PNG's pixels take unpacked: each row of each pass is a byte and its pixels' bits."""
    total = 0
    for (across, down), (left, top) in zip(BANDS[interlaced], STARTS[interlaced], strict=True):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 else 0
    return total
