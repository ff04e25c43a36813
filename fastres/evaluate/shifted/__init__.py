"""The validation photos, corrupted in fifteen ways: whether an answer survives noise, blur, weather and compression."""

from fastres.evaluate.shifted.corruptions import CORRUPTIONS, corrupt
from fastres.evaluate.shifted.judge import Shifted, judge_shifted

__all__ = ["CORRUPTIONS", "Shifted", "corrupt", "judge_shifted"]
