"""Draws datasets/dummy_dataset: pads and circles on noisy, textured plates. The same bytes every time.

python -m annotations.dummy FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from annotations.colours import class_colours

CLASSES = ("background", "pad", "circle")
PICTURES = 50
SIZE = (256, 192)
SEED = 20190308


def draw_dummy_dataset(folder: Path) -> None:
    """Fill images/, labels/ and objectclasses.json of `folder`."""
    numbers = np.random.Generator(np.random.PCG64(SEED))
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(PICTURES):
        picture, mask = _draw(numbers)
        picture.save(folder / "images" / f"plate_{index:02d}.png")
        mask.save(folder / "labels" / f"plate_{index:02d}.png")
    classes = {"classes": len(CLASSES), "classesname": list(CLASSES)}
    (folder / "objectclasses.json").write_text(json.dumps(classes, indent=4) + "\n")


def _draw(numbers: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """One plate and its mask: things that are neither pad nor circle first, then pads and circles, some overlapping."""
    picture, mask = _plate(numbers), Image.new("L", SIZE, 0)
    paint, ids = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    for _ in range(_whole(numbers, 3, 7)):
        _distract(paint, numbers)
    things = ["pad"] * _whole(numbers, 2, 5) + ["circle"] * _whole(numbers, 1, 3)
    for thing in numbers.permutation(things):
        (_pad if thing == "pad" else _circle)(paint, ids, numbers)
    return _photograph(picture, numbers), _with_palette(mask)


def _plate(numbers: np.random.Generator) -> Image.Image:
    """A background: a colour that drifts from corner to corner, with a coarse and a fine grain."""
    width, height = SIZE
    base = numbers.integers(90, 150, 3)
    drift = numbers.integers(-35, 36, (2, 3))
    y, x = np.mgrid[0:height, 0:width]
    pixels = base + (x[..., None] * drift[0]) // width + (y[..., None] * drift[1]) // height
    coarse = Image.fromarray(numbers.integers(0, 50, (12, 16), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    pixels = pixels + np.asarray(coarse, np.int64)[..., None] - 25 + numbers.integers(-9, 10, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _distract(paint: ImageDraw.ImageDraw, numbers: np.random.Generator) -> None:
    """A line or a dark bar, which a network must learn to leave alone."""
    x, y = _whole(numbers, 0, SIZE[0]), _whole(numbers, 0, SIZE[1])
    shade = (_whole(numbers, 20, 70),) * 3
    if numbers.integers(2):
        paint.line((x, y, x + _whole(numbers, -90, 90), y + _whole(numbers, -90, 90)), shade, _whole(numbers, 1, 4))
    else:
        paint.rectangle((x, y, x + _whole(numbers, 30, 60), y + _whole(numbers, 3, 8)), shade)


def _pad(paint: ImageDraw.ImageDraw, ids: ImageDraw.ImageDraw, numbers: np.random.Generator) -> None:
    """A small tilted square, darker than its plate."""
    x, y, side = _whole(numbers, 12, SIZE[0] - 12), _whole(numbers, 12, SIZE[1] - 12), _whole(numbers, 7, 13)
    lean = _whole(numbers, -4, 5)
    corners = [(x - side, y - side + lean), (x + side - lean, y - side), (x + side, y + side - lean), (x - side + lean, y + side)]
    shade = _whole(numbers, 45, 95)
    paint.polygon(corners, (shade, shade + _whole(numbers, -8, 9), shade + _whole(numbers, 0, 20)))
    ids.polygon(corners, CLASSES.index("pad"))


def _circle(paint: ImageDraw.ImageDraw, ids: ImageDraw.ImageDraw, numbers: np.random.Generator) -> None:
    """A ring or a disc, slightly squeezed, its inside as mixed as a hole's; all of it is the circle."""
    x, y = _whole(numbers, 20, SIZE[0] - 20), _whole(numbers, 20, SIZE[1] - 20)
    wide, high = _whole(numbers, 14, 30), _whole(numbers, 14, 30)
    shade = _whole(numbers, 150, 200)
    paint.ellipse((x - wide, y - high, x + wide, y + high), (shade, shade, shade - _whole(numbers, 0, 25)))
    inside = _whole(numbers, 60, 140)
    paint.ellipse((x - wide * 0.7, y - high * 0.7, x + wide * 0.7, y + high * 0.7), (inside, inside, inside))
    ids.ellipse((x - wide, y - high, x + wide, y + high), CLASSES.index("circle"))


def _photograph(picture: Image.Image, numbers: np.random.Generator) -> Image.Image:
    """What a camera adds: a little blur, light that varies, noise."""
    blurred = np.asarray(picture.filter(ImageFilter.BoxBlur(1)), np.int64)
    light = _whole(numbers, 82, 119)
    noise = numbers.integers(-12, 13, blurred.shape)
    return Image.fromarray(np.clip(blurred * light // 100 + noise, 0, 255).astype(np.uint8))


def _with_palette(mask: Image.Image) -> Image.Image:
    mask.putpalette([channel for colour in class_colours(len(CLASSES)) for channel in colour])
    return mask


def _whole(numbers: np.random.Generator, low: int, high: int) -> int:
    return int(numbers.integers(low, high))


if __name__ == "__main__":
    draw_dummy_dataset(Path(sys.argv[1]))
