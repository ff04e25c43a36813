"""What a file is by its first bytes, whatever its name says: which format of images, or none.

Named after Pillow's plugins, so that an image is opened by the one plugin that its bytes call for. HEIF and JPEG XL are
known although Pillow alone reads neither: such a photo is then said to need a library, and is not passed over as no
image at all. Icons, and formats without a signature of their own, are no images here.
"""

import re

HEAD_BYTES = 64  # as many of a file's first bytes as format_of looks at
NAMES = "JPEG, PNG, GIF, BMP, WebP, AVIF, TIFF, JPEG 2000, PPM, QOI, SGI, PSD or HEIC"

STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),
    (b"qoif", "QOI"),
    (b"8BPS\0\x01", "PSD"),
    (b"\x01\xda", "SGI"),
)
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"
)
PORTABLE = re.compile(rb"P(?:[1-6]\s+(?:#|\d)|[Ff]\r?\n\d)")
BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes
MISSING = {"HEIF": "pip install pillow-heif", "JXL": "pip install pillow-jxl-plugin"}  # plugins for Pillow

# Names that say image: a file of such a name is one, and a bad one where its bytes are none.
IMAGE_ENDINGS = (
    *(".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".avif", ".avifs", ".tif"),
    *(".tiff", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".heic", ".heif", ".hif", ".jxl", ".ppm", ".pgm"),
    *(".pbm", ".pnm", ".pfm", ".qoi", ".psd"),
)
# What a camera's sensor saw, in TIFF's clothes: Pillow would read the tiny preview in it.
RAW_ENDINGS = (".dng", ".cr2", ".nef", ".nrw", ".arw", ".orf", ".pef", ".rw2", ".srw", ".3fr", ".iiq")


def format_of(head: bytes) -> str | None:
    """The format that a file's first HEAD_BYTES bytes show; None where they are no image's."""
    for start, name in STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BITMAP_HEADERS:
        return "BMP"
    return "PPM" if PORTABLE.match(head) else None


def _of_brands(head: bytes) -> str | None:
    """AVIF and HEIC are one container: the main brand decides, then those that it is compatible with."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    kinds = [BRANDS[brand] for brand in brands if brand in BRANDS]
    return "AVIF" if "AVIF" in kinds else kinds[0] if kinds else None
