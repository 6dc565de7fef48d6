"""A cache of cases that waits for what its preprocessing reads."""

from __future__ import annotations

import pytest
from monai.data import DataLoader
from monai.transforms import Compose, MapTransform, RandomizableTransform

from common.data.deferred import DeferredCacheDataset


class ReadFiled(MapTransform):
    """The number in a file; `read` counts."""

    def __init__(self, keys: str) -> None:
        super().__init__(keys)
        self.read = 0

    def __call__(self, data):
        self.read += 1
        return {**data, "value": int(data["path"].read_text())}


class RandNothing(RandomizableTransform):
    def __call__(self, data):
        return {**data, "drawn": True}


@pytest.fixture
def dataset(tmp_path):
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    reader = ReadFiled("path")
    made = DeferredCacheDataset([{"path": path} for path in paths], Compose([reader, RandNothing()]), progress=False)
    return made, reader, paths


def test_nothing_is_read_before_it_is_filled(dataset):
    made, reader, paths = dataset
    assert len(made) == 3 and [case["path"] for case in made.data] == paths and reader.read == 0
    with pytest.raises(RuntimeError) as told:  # nor is there anything to read yet
        made.fill()
    assert "0.txt" in str(told.value.__cause__)
    for number, path in enumerate(paths):
        path.write_text(str(number))
    made.fill()  # what failed is done now
    read = reader.read
    made.fill()
    assert [case["value"] for case in made] == [0, 1, 2] and all(case["drawn"] for case in made)
    assert reader.read == read >= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_item_fills_it(dataset, workers):
    made, _, paths = dataset
    for number, path in enumerate(paths):
        path.write_text(str(number))
    loader = DataLoader(made, batch_size=3, num_workers=workers, collate_fn=lambda cases: [c["value"] for c in cases])
    assert list(loader) == [[0, 1, 2]]


def test_other_cases_take_the_place_of_those_that_wait(dataset):
    made, _, paths = dataset
    paths[2].write_text("7")
    made.set_data([{"path": paths[2]}])
    assert [case["value"] for case in made] == [7] and len(made) == 1


def test_a_cache_that_was_released_holds_nothing_and_is_filled_again(dataset):
    made, reader, paths = dataset
    for number, path in enumerate(paths):
        path.write_text(str(number))
    made.fill()
    made.release()
    assert not made._cache and len(made) == 3
    paths[1].write_text("5")
    assert [case["value"] for case in made] == [0, 5, 2]
