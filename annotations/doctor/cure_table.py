"""The cures that one click does, and what a person reads of them. What they do is in cures.py."""

TITLES = {
    "white_foreground": "Treat 255 as the foreground",
    "white_ignore": "Treat 255 as “ignore”",
    "map_colours": "Map colours to class ids",
    "to_eight_bits": "Write masks with 8 bits",
    "renumber": "Renumber values to class ids",
    "set_unpaired_aside": "Set files without a partner aside",
    "turn_masks": "Turn masks as their pictures",
    "turn_masks_left": "Turn masks to the left",
    "turn_masks_right": "Turn masks to the right",
}


def offered(code: str, classes: int) -> list[str]:
    """A finding's cure, and those that a person may choose in its place; none for the empty code."""
    if code == "turn_masks_left":
        return [code, "turn_masks_right"]
    if code == "white_ignore" and classes == 2:
        return [code, "white_foreground"]
    return [code] if code else []
