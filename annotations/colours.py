"""The colours of classes, and masks drawn over pictures. The same class has the same colour everywhere."""

import numpy as np

# Okabe and Ito's colours, which the colour-blind can tell apart; class 0 is taken as the background.
OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
BACKGROUND = (0, 0, 0)


def class_colours(classes: int) -> list[tuple[int, int, int]]:
    """A colour for every class id. Past the seven of Okabe and Ito they repeat, each round darker."""
    colours = [BACKGROUND]
    for index in range(classes - 1):
        round_, place = divmod(index, len(OKABE_ITO))
        red, green, blue = OKABE_ITO[place]
        shade = 0.72**round_
        colours.append((int(red * shade), int(green * shade), int(blue * shade)))
    return colours[:classes]


def voc_palette() -> np.ndarray:
    """The 256 colours of Pascal VOC, uint8 (256, 3): what existing clients read from palette.txt.

    Each bit triple of the index, from the lowest, sets the next lower bit of red, green and blue.
    """
    palette = np.zeros((256, 3), np.uint8)
    for index in range(256):
        rest = index
        for bit in range(7, -1, -1):
            for channel in range(3):
                palette[index, channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
    return palette


def overlay(picture: np.ndarray, mask: np.ndarray, colours: list[tuple[int, int, int]], opacity: float = 0.55) -> np.ndarray:
    """The picture, uint8 (height, width, 3), with its classes laid over it; background and ignored pixels stay bare."""
    table = np.zeros((256, 3), np.float32)
    table[: len(colours)] = colours
    strength = np.zeros(256, np.float32)
    strength[1 : len(colours)] = opacity
    share = strength[mask][..., None]
    return (picture * (1 - share) + table[mask] * share + 0.5).astype(np.uint8)
