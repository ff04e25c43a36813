"""One picture of 16 px, in colour and gray, and its way through an image file into the decoder."""

import io

import numpy as np
from PIL import Image

from fastres.data import decode
from fastres.data.decode import Recipe
from tests.support.trees import picture

SIDE = 16
UPRIGHT = picture(SIDE, 3)
GREY = np.asarray(Image.fromarray(UPRIGHT).convert("L"))


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data, **recipe):
    return decode.decode(data, Recipe(SIDE, **recipe))
