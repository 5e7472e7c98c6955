"""Masks as run lengths: COCO's, plain and compressed, and Label Studio's brush. All masks here are bool (height, width)."""

from collections.abc import Sequence

import numpy as np

from contracts.errors import Invalid

WORD = 8
RUN_BITS = (2, 5, 10, 16)
"""The four widths, in bits, that a run's length is written with here; a reader takes them from the file."""
CURE = "Export the annotations again."


def counts_of(mask: np.ndarray) -> list[int]:
    """COCO's run lengths: down the columns, false first."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate([[0], edges, [mask.size]])
    runs = np.diff(ends).tolist()
    return runs if len(runs) % 2 == 0 or runs[-1] else runs[:-1]


def counts_of_part(part: np.ndarray, left: int, top: int, size: tuple[int, int]) -> list[int]:
    """COCO's run lengths of a mask of (height, width) = size that is false but for a part of it, at that place."""
    height, width = size
    columns = np.pad(part.T, ((0, 0), (1, 1))).view(np.int8)
    column, row = np.nonzero(np.diff(columns, axis=1))
    # Runs begin and end in turn. One that ends at a column's foot where the next begins at its head is one with it.
    edges = (left + column) * height + top + row
    apart = np.flatnonzero(edges[2::2] != edges[1:-1:2])
    begins, ends = edges[0::2][np.r_[0, apart + 1]], edges[1::2][np.r_[apart, -1]]
    places = np.stack([begins, ends], axis=1).ravel()
    runs = np.diff(np.r_[0, places, height * width]).tolist()
    return runs if runs[-1] else runs[:-1]


def mask_of_counts(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask of COCO's run lengths. Raises Invalid where they do not add up to the picture."""
    height, width = size
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise Invalid(f"Its run lengths add up to {sum(counts)} pixels, but the picture has {height * width}.", CURE)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, np.asarray(counts, np.int64)).reshape(width, height).T


def pack_counts(counts: Sequence[int]) -> str:
    """COCO's compressed run lengths: from the third on as differences to the last but one, in groups of five bits."""
    letters = []
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        while True:
            group, rest = rest & 31, rest >> 5
            # The sixth bit says that more follow; the fifth of the last group is the sign.
            done = rest == (-1 if group & 16 else 0)
            letters.append(chr(48 + (group if done else group | 32)))
            if done:
                break
    return "".join(letters)


def unpack_counts(text: str) -> list[int]:
    """The run lengths in COCO's compressed string. Raises Invalid for a string that is none."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise Invalid(f"Its compressed run lengths hold {letter!r}, which they never do.", CURE)
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise Invalid("Its compressed run lengths break off.", CURE)
    return counts


def brush_of(mask: np.ndarray) -> list[int]:
    """Label Studio's brush as bytes: the mask as four equal channels of 0 and 255, row by row."""
    flat = np.repeat(mask.ravel(), 4)
    ends = np.concatenate([np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    bits = [f"{flat.size:032b}{WORD - 1:05b}", *(f"{width - 1:04b}" for width in RUN_BITS)]
    start = 0
    for end in ends.tolist():
        value = 255 if flat[start] else 0
        while start < end:
            length = min(end - start, 2 ** RUN_BITS[-1])
            kind = next(kind for kind, width in enumerate(RUN_BITS) if length <= 2**width)
            bits.append(f"1{kind:02b}{length - 1:0{RUN_BITS[kind]}b}{value:0{WORD}b}")
            start += length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def mask_of_brush(data: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask in Label Studio's brush bytes: where its fourth channel is not 0. Raises Invalid for what does not fit the picture.

    32 bits: how many values. 5: bits a value, less one. Four times 4: bits of a run's length, less one, for its four kinds. Then
    runs: one bit says “repeated”, two bits name the kind, the length less one, and one value or as many as the length says.
    """
    height, width = size
    if any(not 0 <= byte <= 255 for byte in data):
        raise Invalid("Its brush holds numbers that are no bytes.", CURE)
    stream = _Bits(np.unpackbits(np.asarray(data, np.uint8)))
    total, word = stream.number(32), stream.number(5) + 1
    widths = [stream.number(4) + 1 for _ in range(4)]
    if total != height * width * 4:
        raise Invalid(f"Its brush holds {total // 4} pixels, but the picture has {height * width}.", CURE)
    values = np.zeros(total, np.int64)
    done = 0
    while done < total:
        repeated = stream.number(1)
        length = stream.number(widths[stream.number(2)]) + 1
        if done + length > total:
            raise Invalid("Its brush runs beyond the picture.", CURE)
        values[done : done + length] = stream.number(word) if repeated else stream.numbers(length, word)
        done += length
    return values[3::4].reshape(height, width) > 0


class _Bits:
    """Numbers of any width, read from bits one after another."""

    def __init__(self, bits: np.ndarray) -> None:
        self.bits, self.place = bits, 0

    def numbers(self, count: int, width: int) -> np.ndarray:
        end = self.place + count * width
        if end > len(self.bits):
            raise Invalid("Its brush breaks off.", CURE)
        taken = self.bits[self.place : end].reshape(count, width).astype(np.int64)
        self.place = end
        return taken @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))

    def number(self, width: int) -> int:
        return int(self.numbers(1, width)[0])
