"""Paints the scenes that scene.py drew: numba, one thread per call, the interpreter lock released.

Written without `parallel=True`: threads that each paint a chunk of images use the cores as well, and compile
sooner. Few functions, because each pays for its own compilation.
"""

import math

import numba
import numpy as np

from preprocess.small_world import scene as sc

_jit = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
TAU = np.float32(2 * math.pi)
HALF, ONE, TWO = np.float32(0.5), np.float32(1), np.float32(2)


@_jit
def _noise(x, y, seed):
    """Value noise: smooth, 0..1, one bump per unit, from an integer hash of the lattice points."""
    ix, iy = math.floor(x), math.floor(y)
    fx, fy = np.float32(x - ix), np.float32(y - iy)
    fx, fy = fx * fx * (np.float32(3) - TWO * fx), fy * fy * (np.float32(3) - TWO * fy)
    total = np.float32(0)
    for corner in range(4):
        dx, dy = corner & 1, corner >> 1
        h = np.uint32(np.int64(ix) + dx) * np.uint32(0x8DA6B343)
        h = h ^ np.uint32(np.int64(iy) + dy) * np.uint32(0xD8163841)
        h = np.uint32(h ^ np.uint32(seed) * np.uint32(0xCB1AB31F))
        h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D))
        h = np.uint32((h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39))
        w = (fx if dx else ONE - fx) * (fy if dy else ONE - fy)
        total += w * np.float32(h >> np.uint32(8)) * np.float32(1 / 16777216)
    return total


@_jit
def _polygon(r, angle, n):
    """Distance-like value of a regular n-gon of circumradius 1."""
    sector = TAU / np.float32(n)
    folded = angle - sector * np.float32(math.floor(angle / sector + HALF))
    return r * math.cos(folded) - math.cos(sector * HALF)


@_jit
def _edge(shape, u, v):
    """Signed distance-like value, negative inside, of a shape of radius about 1 (order of classes.SHAPES)."""
    r = math.sqrt(u * u + v * v)
    if shape == 0:  # disc
        return r - np.float32(0.88)
    if shape == 7:  # ring
        return abs(r - np.float32(0.68)) - np.float32(0.27)
    if shape == 1:  # square
        return max(abs(u), abs(v)) - np.float32(0.76)
    if shape == 8:  # cross
        a, b = abs(u), abs(v)
        return max(min(a, b) - np.float32(0.3), max(a, b) - np.float32(0.95))
    if shape == 9:  # crescent
        w = u - np.float32(0.48)
        return max(r - np.float32(0.95), np.float32(0.74) - math.sqrt(w * w + v * v))
    if shape == 10:  # capsule
        w = max(abs(u) - np.float32(0.6), np.float32(0))
        return math.sqrt(w * w + v * v) - np.float32(0.38)
    if shape == 11:  # heart: a square on its corner and two discs
        a, b = abs(u), np.float32(0.06) - v
        lobe = math.sqrt((a - np.float32(0.37)) ** 2 + (b - np.float32(0.37)) ** 2) - np.float32(0.523)
        return min(lobe, (a + abs(b) - np.float32(0.74)) * np.float32(0.7071))
    if shape == 12:  # arch: a half ring on two legs
        up = r if v < 0 else abs(u)
        return max(abs(up - np.float32(0.62)) - np.float32(0.27), v - np.float32(0.8))
    angle = math.atan2(u, -v)
    if shape == 2:  # triangle
        return _polygon(r, angle + np.float32(math.pi / 3), 3) * np.float32(0.95)
    if shape == 3:  # hexagon
        return _polygon(r, angle, 6)
    if shape == 4:  # star: five points, straight edges
        sector = TAU / np.float32(5)
        folded = abs(angle - sector * np.float32(math.floor(angle / sector + HALF)))
        x, y = r * math.cos(folded), r * math.sin(folded)
        return (x - ONE) * np.float32(0.42) + y * np.float32(0.91)
    if shape == 5:  # flower
        return (r - np.float32(0.68) - np.float32(0.27) * math.cos(angle * np.float32(5))) * np.float32(0.7)
    wave = min(max(np.float32(3) * math.cos(angle * np.float32(9)), -ONE), ONE)
    return max(r - np.float32(0.84) - np.float32(0.12) * wave, np.float32(0.22) - r)  # gear, with a hub


@_jit
def _wave(x):
    """A soft square wave of period 1, 0..1."""
    return min(max(HALF + np.float32(1.4) * math.sin(TAU * x), np.float32(0)), ONE)


@_jit
def _weave(texture, s, t, seed):
    """How much of the second colour, 0..1, at (s, t) in periods (order of classes.TEXTURES)."""
    if texture == 0:  # plain
        return np.float32(0)
    if texture == 1:  # striped
        return _wave(s)
    if texture == 2:  # checked
        return min(max(HALF + TWO * math.sin(TAU * s * HALF) * math.sin(TAU * t * HALF), np.float32(0)), ONE)
    if texture == 3 or texture == 10:
        row = math.floor(t)
        shift = HALF * np.float32(np.int64(row) & 1) if texture == 10 else np.float32(0)
        x, y = s * (HALF if texture == 10 else ONE) + shift, t - np.float32(row) - HALF
        x = x - np.float32(math.floor(x)) - HALF
        if texture == 3:  # dotted
            inside = np.float32(0.36) - math.sqrt(x * x + y * y)
            return min(max(inside * np.float32(6) + HALF, np.float32(0)), ONE)
        gap = min((HALF - abs(x)) * TWO, HALF - abs(y))  # bricked
        return min(max((np.float32(0.16) - gap) * np.float32(7) + HALF, np.float32(0)), ONE)
    if texture == 5:  # zigzag
        bend = t * HALF
        return _wave(s + np.float32(1.6) * abs(bend - np.float32(math.floor(bend + HALF))))
    if texture == 7:  # spotted
        blot = _noise(s * np.float32(0.6), t * np.float32(0.6), seed)
        return min(max((blot - HALF) * np.float32(9) + HALF, np.float32(0)), ONE)
    if texture == 8:  # gridded
        a, b = math.sin(TAU * s * HALF), math.sin(TAU * t * HALF)
        return min(max((np.float32(0.38) - min(abs(a), abs(b))) * np.float32(5) + HALF, np.float32(0)), ONE)
    if texture == 9:  # wavy
        return _wave(s + np.float32(0.45) * math.sin(TAU * t * np.float32(0.3)))
    if texture == 4:  # ringed
        return _wave(math.sqrt(s * s + t * t))
    angle = math.atan2(t, s) / TAU
    if texture == 6:  # spoked
        return _wave(angle * np.float32(9))
    return _wave(math.sqrt(s * s + t * t) + angle)  # spiral


@_jit
def _ground(picture, g, seed):
    """The background: 0 a slope of two colours, 1 a horizon, 2 blotches, 3 faint wide stripes; all grainy."""
    side = picture.shape[0]
    step = ONE / np.float32(side)
    kind = int(g[sc.GROUND])
    for i in range(side):
        y = (np.float32(i) + HALF) * step
        for j in range(side):
            x = (np.float32(j) + HALF) * step
            along = g[sc.TILT_COS] * (y - HALF) + g[sc.TILT_SIN] * (x - HALF)
            across = g[sc.TILT_COS] * (x - HALF) - g[sc.TILT_SIN] * (y - HALF)
            rough = _noise(x * g[sc.GRAIN], y * g[sc.GRAIN], seed)
            if kind == 1:
                t = min(max((along + HALF - g[sc.HORIZON]) * np.float32(60), np.float32(0)), ONE)
                rough = HALF + (rough - HALF) * (np.float32(0.3) + np.float32(0.9) * t)
            elif kind == 2:
                t = min(
                    max(
                        (_noise(x * g[sc.GRAIN] * HALF, y * g[sc.GRAIN] * HALF, seed + 7) - HALF) * np.float32(4)
                        + HALF,
                        np.float32(0),
                    ),
                    ONE,
                )
            elif kind == 3:
                t = _wave(across * g[sc.GRAIN] * np.float32(0.8) + rough * np.float32(0.3)) * np.float32(0.6)
            else:
                t = along + HALF
            fine = _noise(x * np.float32(40), y * np.float32(40), seed + 3)
            bright = np.float32(0.78) + np.float32(0.3) * rough + np.float32(0.14) * fine
            for c in range(3):
                picture[i, j, c] = bright * (g[sc.FAR_RED + c] + t * (g[sc.NEAR_RED + c] - g[sc.FAR_RED + c]))


@_jit
def _paint(picture, o, g, box):
    """One object over the picture, with its shadow; `box` (x0 y0 x1 y1 in px) grows to hold it, if it is main."""
    side = picture.shape[0]
    radius, stretch = o[sc.RADIUS], o[sc.STRETCH]
    shape, texture, seed = int(o[sc.SHAPE]), int(o[sc.TEXTURE]), int(o[sc.DETAIL_SEED])
    reach = radius * max(stretch, ONE / stretch) * np.float32(1.1) + np.float32(0.08)
    fall_x, fall_y = -np.float32(0.05) * g[sc.LIGHT_X], -np.float32(0.05) * g[sc.LIGHT_Y]
    low_i, high_i = int((o[sc.CY] - reach) * side), int((o[sc.CY] + reach) * side) + 1
    low_j, high_j = int((o[sc.CX] - reach) * side), int((o[sc.CX] + reach) * side) + 1
    sharp = radius * np.float32(side)  # one pixel of edge
    for i in range(max(low_i, 0), min(high_i, side)):
        y = (np.float32(i) + HALF) / np.float32(side) - o[sc.CY]
        for j in range(max(low_j, 0), min(high_j, side)):
            x = (np.float32(j) + HALF) / np.float32(side) - o[sc.CX]
            u, v = o[sc.COS] * x + o[sc.SIN] * y, o[sc.COS] * y - o[sc.SIN] * x
            d = _edge(shape, u / (radius * stretch), v * stretch / radius)
            cover = min(max(HALF - d * sharp, np.float32(0)), ONE)
            if cover < ONE:
                xs, ys = x - fall_x, y - fall_y
                us, vs = o[sc.COS] * xs + o[sc.SIN] * ys, o[sc.COS] * ys - o[sc.SIN] * xs
                ds = _edge(shape, us / (radius * stretch), vs * stretch / radius) * radius
                dark = np.float32(0.5) * o[sc.SHADOW] * min(max(HALF - ds * np.float32(30), np.float32(0)), ONE)
                for c in range(3):
                    picture[i, j, c] *= ONE - dark
            if cover > 0:
                t = _weave(texture, u / o[sc.PERIOD] + o[sc.PHASE_X], v / o[sc.PERIOD] + o[sc.PHASE_Y], seed)
                lit = ONE + np.float32(0.28) * (g[sc.LIGHT_X] * x + g[sc.LIGHT_Y] * y) / radius
                lit *= np.float32(0.72) + np.float32(0.28) * min(max(-d * np.float32(9), np.float32(0)), ONE)
                for c in range(3):
                    own = (o[sc.RED_A + c] + t * (o[sc.RED_B + c] - o[sc.RED_A + c])) * lit
                    picture[i, j, c] += cover * (own - picture[i, j, c])
                if o[sc.MAIN] > 0 and cover > HALF:
                    box[0], box[1] = min(box[0], j), min(box[1], i)
                    box[2], box[3] = max(box[2], j), max(box[3], i)


@_jit
def paint_scenes(objects, settings, seeds, images, boxes):
    """objects f32 [n, K, OBJECT_COLUMNS], settings f32 [n, SETTING_COLUMNS], seeds u32 [n] ->
    fills images u8 [n, R, R, 3] and boxes i32 [n, 4] (x0 y0 x1 y1, inclusive pixels, of the main shape)."""
    side = images.shape[1]
    picture = np.empty((side, side, 3), np.float32)
    for n in range(len(images)):
        g, h = settings[n], seeds[n]
        _ground(picture, g, np.int64(seeds[n] >> 12))
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = side, side, -1, -1
        for k in range(objects.shape[1]):
            if objects[n, k, sc.RADIUS] > 0:
                _paint(picture, objects[n, k], g, boxes[n])
        for i in range(side):
            for j in range(side):
                x, y = np.float32(j) / np.float32(side) - HALF, np.float32(i) / np.float32(side) - HALF
                light = g[sc.GAIN] * (ONE + np.float32(0.35) * (x * g[sc.LIGHT_X] + y * g[sc.LIGHT_Y]))
                h = np.uint32(h * np.uint32(1664525) + np.uint32(1013904223))  # starts anew in every image
                speck = np.float32((h >> np.uint32(8)) & np.uint32(255)) + np.float32(h >> np.uint32(24))
                speck = (speck - np.float32(255)) * g[sc.SENSOR]
                for c in range(3):
                    seen = picture[i, j, c] + g[sc.HAZE] * (HALF - picture[i, j, c])
                    value = np.float32(255) * light * g[sc.CAST_RED + c] * seen + speck
                    images[n, i, j, c] = np.uint8(min(max(value + HALF, np.float32(0)), np.float32(255)))
