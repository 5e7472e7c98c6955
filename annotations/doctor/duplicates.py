"""Pictures that look the same: a hash of 63 bits that a resized, recompressed or brightened copy keeps, and groups of it.

The hash holds the signs of the lowest 8 × 8 frequencies of the picture shrunk to 32 × 32, after Zauner's pHash
(“Implementation and benchmarking of perceptual image hash functions”, 2010). All arithmetic is in whole numbers, so that it
comes out the same on every machine.
"""

from collections import Counter
from itertools import pairwise

import numpy as np
from PIL import Image

BITS = 63
NEAR = 6
"""So many bits may differ: a strong JPEG compression changes 3 of them, and pictures of different scenes differ in about 31."""
SAMPLES = 128
"""So many pixels a side are enough to hash a picture from."""
_SIDE = 32
_WAVES = np.rint(np.cos(np.pi * (2 * np.arange(_SIDE) + 1) * np.arange(8)[:, None] / (2 * _SIDE)) * 1024).astype(np.int64)


def look_of(picture: Image.Image) -> int:
    """The hash of a picture of any mode, which must be loaded; its EXIF orientation is the caller's to apply."""
    if picture.mode not in ("L", "RGB") or min(picture.size) > 2 * SAMPLES:
        # A sample of a large picture is enough to shrink it from, at a fraction of the time that reading every pixel takes.
        picture = picture.resize((SAMPLES, SAMPLES), Image.Resampling.NEAREST)
    if picture.mode not in ("L", "RGB", "F") and not picture.mode.startswith("I"):  # neither grey nor numbers
        picture = picture.convert("RGB")
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L") if small.mode == "RGB" else small)
    waves = (_WAVES @ grey.astype(np.int64) @ _WAVES.T).ravel()[1:]
    return int.from_bytes(np.packbits(waves > 0).tobytes(), "big") >> 1


def group_alike(looks: list[int], contents: list[str]) -> list[int]:
    """For every picture the place of the first that looks the same, its own where none does.

    `contents` are digests of the files. Where more than half of all pictures would be one group, as from a camera that never
    moves, that likeness says nothing, and only equal hashes, then only equal files count.
    """
    for near in (NEAR, 0):
        firsts = _join(looks, near)
        if max(Counter(firsts).values(), default=0) * 2 <= max(len(looks), 2):
            return firsts
    first_of = {digest: place for place, digest in reversed(list(enumerate(contents)))}
    return [first_of[digest] for digest in contents]


def _join(looks: list[int], near: int) -> list[int]:
    """Connect pictures that differ in at most `near` bits, directly or over others between them."""
    distinct = sorted(set(looks))
    parent = list(range(len(distinct)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in _near_pairs(np.array(distinct, np.uint64), near):
        parent[root(one)] = root(other)
    place_of = {look: place for place, look in enumerate(distinct)}
    first: dict[int, int] = {}
    return [first.setdefault(root(place_of[look]), place) for place, look in enumerate(looks)]


def _near_pairs(looks: np.ndarray, near: int) -> list[tuple[int, int]]:
    """Places of hashes that differ in at most `near` bits: such two agree in one of near + 1 stretches of bits at least."""
    pairs: list[tuple[int, int]] = []
    edges = np.linspace(0, BITS, near + 2).astype(int)
    for low, high in pairwise(edges):
        keys = (looks >> np.uint64(low)) & np.uint64(2 ** int(high - low) - 1)
        order = np.argsort(keys, kind="stable")
        ordered, keys = looks[order], keys[order]
        for apart in range(1, len(looks)):
            same = np.flatnonzero(keys[apart:] == keys[:-apart])
            if not len(same):
                break  # no stretch is shared by more than `apart` hashes
            hits = same[_bits(ordered[same] ^ ordered[same + apart]) <= near]
            pairs += zip(order[hits].tolist(), order[hits + apart].tolist(), strict=True)
    return pairs


def _bits(numbers: np.ndarray) -> np.ndarray:
    """How many bits are set in each of uint64 (n,): added up in pairs, fours and eights of bits, then over the bytes."""
    numbers = numbers - ((numbers >> np.uint64(1)) & np.uint64(0x5555555555555555))
    numbers = (numbers & np.uint64(0x3333333333333333)) + ((numbers >> np.uint64(2)) & np.uint64(0x3333333333333333))
    numbers = (numbers + (numbers >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (numbers * np.uint64(0x0101010101010101)) >> np.uint64(56)
