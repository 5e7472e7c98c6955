"""Outlines and run lengths: what is imported, exported and imported again is the same, pixel by pixel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from annotations.exporting import export_coco, export_index_masks
from annotations.formats import Choices, recognise_format
from annotations.importing import import_dataset
from annotations.run_lengths import brush_of, counts_of, mask_of_brush, mask_of_counts, pack_counts, unpack_counts
from annotations.shapes import fill_area, trace
from tests.labelled import (
    CLASSES,
    NAMES,
    expect,
    picture,
    quiet,
    save,
    write,
)

masks = arrays(np.uint8, some.tuples(some.integers(1, 14), some.integers(1, 14)), elements=some.sampled_from([0, 0, 1, 2, 255]))
areas = arrays(np.bool_, some.tuples(some.integers(1, 24), some.integers(1, 24)))
there_and_back = settings(max_examples=25, deadline=None)


def round_trip(folder: Path, mask: np.ndarray, export: Callable[[Path, Path], None]) -> None:
    picture(folder / "source" / "images" / "a.png", mask.shape)
    save(folder / "source" / "labels" / "a.png", mask)
    write(folder / "source" / "objectclasses.json", CLASSES)
    import_dataset(folder / "source", folder / "once", "index_masks", Choices(), quiet)
    export(folder / "once", folder / "exported")
    assert recognise_format(folder / "exported") in ("index_masks", "coco")
    import_dataset(folder / "exported", folder / "twice", None, Choices(), quiet)
    expect(folder / "once", {"a": mask}, NAMES)
    expect(folder / "twice", {"a": mask}, NAMES)
    assert (folder / "source" / "images" / "a.png").read_bytes() == (folder / "twice" / "images" / "a.png").read_bytes()


@there_and_back
@given(mask=masks)
def test_import_export_import_of_index_masks_is_the_identity(tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray):
    round_trip(tmp_path_factory.mktemp("trip"), mask, export_index_masks)


@pytest.mark.parametrize("outlines", ["polygons", "rle", "compressed_rle"])
@there_and_back
@given(mask=masks)
def test_import_export_import_of_coco_is_the_identity(tmp_path_factory: pytest.TempPathFactory, outlines: Any, mask: np.ndarray):
    round_trip(tmp_path_factory.mktemp("trip"), mask, lambda dataset, to: export_coco(dataset, to, outlines))


@given(area=areas)
def test_outlines_fill_to_the_mask_they_were_traced_from(area: np.ndarray):
    filled = np.zeros_like(area)
    for ring in trace(area):
        filled |= fill_area(ring, area.shape)
    np.testing.assert_array_equal(filled, area)


@given(area=areas)
def test_run_lengths_unpack_to_the_mask_they_were_made_of(area: np.ndarray):
    counts = counts_of(area)
    assert unpack_counts(pack_counts(counts)) == counts
    np.testing.assert_array_equal(mask_of_counts(counts, area.shape), area)
    np.testing.assert_array_equal(mask_of_brush(brush_of(area), area.shape), area)


@given(counts=some.lists(some.integers(0, 2**40), max_size=12))
def test_compressed_run_lengths_hold_any_number(counts: list[int]):
    assert unpack_counts(pack_counts(counts)) == counts


def test_literal_runs_of_a_brush_are_read():
    """Other writers mix repeated values with literal ones, and choose the widths of their lengths themselves."""
    bits = f"{8:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    bits += f"0{0:02b}{3:03b}" + "".join(f"{value:08b}" for value in (9, 9, 9, 0))  # one literal pixel, not in the mask
    bits += f"1{1:02b}{3:04b}{200:08b}"  # one repeated pixel, in it
    bits += "0" * (-len(bits) % 8)
    data = list(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    np.testing.assert_array_equal(mask_of_brush(data, (1, 2)), [[False, True]])
