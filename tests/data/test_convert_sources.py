"""What the converters of abdominal CT ask of images and labels."""

from __future__ import annotations

import numpy as np
import pytest
from organ_sets import AFFINE, SHAPE, numbers, save, scan

from common.data.convert import sources
from common.data.convert.sources import Dropped, hounsfield_fault, open_volume, read_numbers


def test_signs_of_hounsfield_units():
    values = np.full((4, 4, 4), -1000, np.int16)
    organ = np.zeros(values.shape, bool)
    organ[1:3] = True
    for tissue, text in ((60, None), (-90, None), (-300, "is -300,"), (1100, "is 1100,")):
        values[1:3] = tissue
        fault = hounsfield_fault(values, 1, 0, organ, least=10)
        assert fault is None if text is None else text in fault
        assert hounsfield_fault(values, 1, 0, organ) is None  # fewer than 100 voxels say nothing
    assert "no air (its values are -150 to 4050)" in hounsfield_fault(values, -2, 2050, organ)
    assert "not finite" in hounsfield_fault(values.astype(float), np.inf, 0, organ)


def test_a_label_may_lie_beside_its_image_by_what_headers_lose(tmp_path):
    image = open_volume(save(tmp_path / "a.nii.gz", scan()))
    turned = AFFINE.copy()
    turned[:3, :3] *= 1 + 1e-4  # a few um at the far corner
    path = save(tmp_path / "b.nii.gz", numbers(3), turned)
    np.testing.assert_array_equal(read_numbers(path, image, 3), numbers(3))
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])
    with pytest.raises(Dropped, match=r"b.nii.gz lies up to 12\.8 mm beside"):  # 8 steps of 0.8 mm, there and back
        read_numbers(save(tmp_path / "b.nii.gz", numbers(3), flipped), image, 3)
    with pytest.raises(Dropped, match="unknown numbers -1, 4$"):
        read_numbers(save(path, np.where(numbers(5) == 5, np.int16(-1), numbers(5))), image, 3)
    with pytest.raises(Dropped, match="unknown numbers 1, 2, 3, 4, 5, 6, 7, 8, ...$"):
        read_numbers(save(path, numbers(20)), image, 0)
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(Dropped, match="not numbers"):
        read_numbers(save(path, colour), image, 3)


def test_counts_by_slabs_see_every_slice():
    covered = np.zeros(SHAPE, int)
    for part in sources.slabs(SHAPE):
        covered[part] += 1
    assert (covered == 1).all() and len(sources.slabs(SHAPE)) > 1
