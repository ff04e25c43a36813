"""What is in each image, as numbers: drawn here with numpy for many images at once, painted by render.py.

Every number is a pure function of (seed, world name, split, class, index): a counter-based hash, no state.
"""

import zlib

import numpy as np

from preprocess.small_world.classes import LAYOUTS, SHAPES, TEXTURES, class_table

SPLITS = ("train", "val", "test")
# One object: columns of `objects`, lengths in units of the image side.
(
    SHAPE,
    CX,
    CY,
    RADIUS,
    COS,
    SIN,
    STRETCH,
    TEXTURE,
    PERIOD,
    PHASE_X,
    PHASE_Y,
    RED_A,
    RED_B,
    MAIN,
    SHADOW,
    DETAIL_SEED,
) = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 17, 18, 19)
OBJECT_COLUMNS = 20
# The picture around them: columns of `settings`.
(GROUND, FAR_RED, NEAR_RED, GRAIN, HORIZON, TILT_COS, TILT_SIN, LIGHT_X, LIGHT_Y, GAIN, CAST_RED, SENSOR, HAZE) = (
    0,
    1,
    4,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    17,
    18,
)
SETTING_COLUMNS = 19
CLUTTER_BEHIND, COPIES, CLUTTER_BEFORE = 5, 5, 1
OBJECTS = CLUTTER_BEHIND + COPIES + CLUTTER_BEFORE
STRAY = 0.15  # share of images in any palette, so that palette is a hint and no proof
# hue range of the first and of the second colour (turns), saturation range
PALETTE_HUES = np.array(
    [
        [-0.03, 0.05, 0.08, 0.15, 0.65, 1.00],  # warm: red with orange and yellow
        [0.56, 0.67, 0.46, 0.54, 0.55, 1.00],  # cool: blue with teal
        [0.27, 0.42, 0.17, 0.24, 0.50, 0.90],  # leafy: green with lime
        [0.03, 0.09, 0.07, 0.13, 0.25, 0.55],  # earthy: brown with sand
        [0.88, 0.97, 0.72, 0.82, 0.35, 0.75],  # candy: pink with violet
        [0.00, 1.00, 0.00, 1.00, 0.00, 0.10],  # stark: black with white
    ]
)


def _mix(z: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser: u64 -> u64, a bijection whose output bits look independent."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Draws:
    """Counter-based uniform numbers for n images at once; the k-th call gives every image its k-th number."""

    def __init__(self, seed: int, stream: str, split: str, classes: np.ndarray, index: np.ndarray):
        key = np.zeros(len(index), np.uint64)
        for word in (seed, zlib.crc32(stream.encode()), SPLITS.index(split) + 1, classes, index):
            word = np.asarray(word).astype(np.uint64)
            key = _mix(key * np.uint64(0x9E3779B97F4A7C15) + word + np.uint64(1))
        self.key, self.count = key, 0

    def uniform(self, low=0.0, high=1.0, per_image: int = 1) -> np.ndarray:
        """[n, per_image] (or [n] for one) in [low, high)."""
        slots = np.arange(self.count, self.count + per_image, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
        self.count += per_image
        u = (_mix(self.key[:, None] + slots[None]) >> np.uint64(11)) * 2.0**-53
        u = u[:, 0] if per_image == 1 else u
        return low + (high - low) * u

    def below(self, m: int) -> np.ndarray:
        """Integers 0..m-1, i64 [n]."""
        return (self.uniform() * m).astype(np.int64)


def hsv_to_rgb(h: np.ndarray, s: np.ndarray, v: np.ndarray) -> np.ndarray:
    """[...] turns and fractions -> [..., 3] RGB in 0..1."""
    ramp = np.abs((h[..., None] + np.array([0.0, 2 / 3, 1 / 3])) % 1.0 * 6.0 - 3.0) - 1.0
    return v[..., None] * (1.0 + s[..., None] * (np.clip(ramp, 0.0, 1.0) - 1.0))


def _colours(draws: Draws, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two RGB colours [n, 3] of a palette, one light and one dark in random order, so that the texture also
    shows in a grayscale image."""
    hues = PALETTE_HUES[palette]
    light, dark = draws.uniform(0.6, 1.0), draws.uniform(0.15, 0.45)
    swap = draws.uniform() < 0.5
    first = hsv_to_rgb(
        draws.uniform(hues[:, 0], hues[:, 1]), draws.uniform(hues[:, 4], hues[:, 5]), np.where(swap, dark, light)
    )
    second = hsv_to_rgb(
        draws.uniform(hues[:, 2], hues[:, 3]), draws.uniform(hues[:, 4], hues[:, 5]), np.where(swap, light, dark)
    )
    return first, second


def _place(objects: np.ndarray, x, y, radius, angle) -> None:
    objects[:, CX], objects[:, CY], objects[:, RADIUS] = x, y, radius
    objects[:, COS], objects[:, SIN] = np.cos(angle), np.sin(angle)


def _copies(draws: Draws, layout: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where the copies of the class's shape stand: x, y, radius [n, COPIES]; radius 0 means no such copy."""
    n = len(layout)
    turn = draws.uniform(0, 2 * np.pi)
    x, y, radius = np.zeros((n, COPIES)), np.zeros((n, COPIES)), np.zeros((n, COPIES))
    size = draws.uniform(0.85, 1.15, COPIES)
    wobble_x, wobble_y = draws.uniform(-1, 1, COPIES), draws.uniform(-1, 1, COPIES)
    for name, rows in ((name, layout == i) for i, name in enumerate(LAYOUTS)):
        k = np.arange(COPIES)
        if name == "single":
            px, py, r = 0 * k, 0 * k, np.array([0.30, 0, 0, 0, 0])
        elif name == "pair":
            px, py, r = np.array([-0.2, 0.2, 0, 0, 0]), 0 * k, np.array([0.21, 0.17, 0, 0, 0])
        elif name == "row":
            px, py, r = np.array([-0.29, 0.0, 0.29, 0, 0]), 0 * k, np.array([0.135, 0.135, 0.135, 0, 0])
        elif name == "orbit":
            px = np.append(0, 0.30 * np.cos(k[1:] * np.pi / 2))
            py, r = np.append(0, 0.30 * np.sin(k[1:] * np.pi / 2)), np.array([0.20, 0.09, 0.09, 0.09, 0.09])
        else:
            px, py = 0.27 * np.cos(k * 2 * np.pi / 5), 0.27 * np.sin(k * 2 * np.pi / 5)
            r = np.full(COPIES, 0.135)
        c, s = np.cos(turn[rows, None]), np.sin(turn[rows, None])
        loose = {"single": 0.0, "pair": 0.03, "row": 0.02, "orbit": 0.02, "swarm": 0.06}[name]
        x[rows] = c * px - s * py + loose * wobble_x[rows]
        y[rows] = s * px + c * py + loose * wobble_y[rows]
        radius[rows] = r * size[rows]
    return x, y, radius


def draw_scenes(
    seed: int, stream: str, split: str, classes: np.ndarray, index: np.ndarray, num_classes: int, detail: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """classes, index i64 [n] -> objects f32 [n, OBJECTS, OBJECT_COLUMNS], settings f32 [n, SETTING_COLUMNS],
    sensor seeds u32 [n]. `detail` is the side in pixels of the small image: texture periods
    start at its Nyquist limit, two pixels."""
    table = class_table(num_classes)
    rows = np.array([[c.shape, c.texture, c.palette, c.layout, c.fine] for c in table])[classes]
    draws, n = Draws(seed, stream, split, classes, index), len(classes)
    objects = np.zeros((n, OBJECTS, OBJECT_COLUMNS))
    _draw_main(draws, objects[:, CLUTTER_BEHIND : CLUTTER_BEHIND + COPIES], rows, detail)
    for k in (*range(CLUTTER_BEHIND), OBJECTS - 1):
        _draw_clutter(draws, objects[:, k], k == OBJECTS - 1, detail)
    settings = _draw_settings(draws)
    sensor = (draws.key >> np.uint64(32)).astype(np.uint32)
    return objects.astype(np.float32), settings.astype(np.float32), sensor


def _draw_main(draws: Draws, copies: np.ndarray, rows: np.ndarray, detail: int) -> None:
    """The class's own shape, [n, COPIES, OBJECT_COLUMNS]; copies share shape, texture and colours."""
    x, y, radius = _copies(draws, rows[:, 3])
    scale = draws.uniform(0.8, 1.3)
    at_x, at_y = draws.uniform(0.33, 0.67), draws.uniform(0.33, 0.67)
    strays = draws.uniform() < STRAY
    first, second = _colours(draws, np.where(strays, draws.below(len(PALETTE_HUES)), rows[:, 2]))
    fine = rows[:, 4] > 0
    period = np.where(fine, draws.uniform(2.0, 2.4), draws.uniform(2.2, 4.5)) / detail
    angle, stretch = draws.uniform(-1.0, 1.0), draws.uniform(0.8, 1.25)
    for k in range(COPIES):
        o = copies[:, k]
        _place(
            o, at_x + scale * x[:, k], at_y + scale * y[:, k], scale * radius[:, k], angle + draws.uniform(-0.4, 0.4)
        )
        o[:, SHAPE], o[:, TEXTURE], o[:, STRETCH], o[:, PERIOD] = rows[:, 0], rows[:, 1], stretch, period
        o[:, PHASE_X], o[:, PHASE_Y] = draws.uniform(), draws.uniform()
        o[:, RED_A : RED_A + 3], o[:, RED_B : RED_B + 3] = first, second
        o[:, MAIN], o[:, SHADOW], o[:, DETAIL_SEED] = 1, 1, draws.below(1 << 20)


def _draw_clutter(draws: Draws, o: np.ndarray, before: bool, detail: int) -> None:
    """One thing of no class, [n, OBJECT_COLUMNS]: small and behind the main shape, or thin and in front."""
    n = len(o)
    present = draws.uniform() < (0.4 if before else 0.7)
    radius = draws.uniform(0.10, 0.2) if before else draws.uniform(0.05, 0.16)
    _place(o, draws.uniform(0, 1), draws.uniform(0, 1), np.where(present, radius, 0.0), draws.uniform(0, 2 * np.pi))
    o[:, SHAPE] = SHAPES.index("capsule") if before else draws.below(len(SHAPES))
    o[:, TEXTURE] = TEXTURES.index("plain") if before else draws.below(len(TEXTURES))
    o[:, STRETCH] = 2.2 if before else draws.uniform(0.7, 1.4)
    o[:, PERIOD] = draws.uniform(2.5, 5.0) / detail
    o[:, PHASE_X], o[:, PHASE_Y] = draws.uniform(), draws.uniform()
    o[:, RED_A : RED_A + 3], o[:, RED_B : RED_B + 3] = _colours(draws, draws.below(len(PALETTE_HUES)))
    o[:, SHADOW], o[:, DETAIL_SEED] = np.full(n, 0.6), draws.below(1 << 20)


def _draw_settings(draws: Draws) -> np.ndarray:
    """The ground, the light and the camera: [n, SETTING_COLUMNS]."""
    n = len(draws.key)
    s = np.zeros((n, SETTING_COLUMNS))
    s[:, GROUND] = draws.below(4)
    hue, apart = draws.uniform(), draws.uniform(-0.2, 0.2)
    far, near = draws.uniform(0.25, 0.95), draws.uniform(0.2, 0.85)
    s[:, FAR_RED : FAR_RED + 3] = hsv_to_rgb(hue, draws.uniform(0.05, 0.55), far)
    s[:, NEAR_RED : NEAR_RED + 3] = hsv_to_rgb(hue + apart, draws.uniform(0.05, 0.6), near)
    s[:, GRAIN] = draws.uniform(3.0, 9.0)
    s[:, HORIZON] = draws.uniform(0.3, 0.7)
    tilt = draws.uniform(-0.25, 0.25)
    s[:, TILT_COS], s[:, TILT_SIN] = np.cos(tilt), np.sin(tilt)
    light = draws.uniform(0, 2 * np.pi)
    s[:, LIGHT_X], s[:, LIGHT_Y] = np.cos(light), np.sin(light)
    s[:, GAIN], s[:, HAZE] = draws.uniform(0.65, 1.12), draws.uniform(0.0, 0.3)
    s[:, CAST_RED : CAST_RED + 3] = draws.uniform(0.88, 1.12, 3)
    s[:, SENSOR] = draws.uniform(0.01, 0.035)
    return s
