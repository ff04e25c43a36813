"""Sizes of one stage's input, all derived from the source side S and the upscale factor u.

Section 3.4 of the paper: 64-pixel images are scaled by 4 and cropped to 224 = 7/8 * 256; after size adaptation
they are cropped to 56 = 7/8 * 64 directly. The small world runs the same arithmetic at other sides.
"""

from dataclasses import dataclass

from fastres.machine.errors import UsageError


@dataclass(frozen=True)
class Geometry:
    """A square source image and the square crop the network sees.

    side     S, pixels a side of the packed images; a multiple of 8 so that 7/8 of it is a whole number
    upscale  u, how many times larger the image is made before cropping (4 before size adaptation, then 1); below 1:
             photos that were packed large are made smaller
    whole    nothing is cropped away
    """

    side: int
    upscale: float
    whole: bool = False

    def __post_init__(self) -> None:
        if self.side < 8 or self.side % 8:
            raise UsageError(f"image side is {self.side} pixels, expected a multiple of 8: pack with another side")
        made = self.side * self.upscale
        if not 8 <= made < 1e9 or abs(made - 8 * round(made / 8)) > 1e-6:
            raise UsageError(
                f"upscale is {self.upscale}: images of {self.side} pixels would have {made:g}, expected a multiple of 8"
            )

    @property
    def resized(self) -> int:
        """Pixels a side after upscaling: 256, or 64 after size adaptation."""
        return round(self.side * self.upscale)

    @property
    def crop(self) -> int:
        """Pixels a side of the network's input: 224, or 56 after size adaptation; whole 256, or 64."""
        return self.resized if self.whole else self.resized * 7 // 8

    @property
    def room(self) -> int:
        """Largest crop offset; offsets run over 0..room inclusive."""
        return self.resized - self.crop
