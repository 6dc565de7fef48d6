"""Classes that a data set labels."""

from __future__ import annotations

import pytest
from folders import write_folder

from common.checks import InputError
from common.data import labelled_classes

NAMES = ["background", "artery", "portal vein", "liver", "spleen"]
ALL = {"0": "background", "1": "artery", "2": "portal vein", "3": "liver", "4": "spleen"}


@pytest.mark.parametrize(
    "labels",
    [ALL, None, {}, {**ALL, "2": "Portal_Vein"}, {**ALL, "0": "unlabelled rest"}, dict(list(ALL.items())[1:])],
)
def test_all_organs(tmp_path, caplog, labels):
    fields = {} if labels is None else {"labels": labels}
    assert labelled_classes(write_folder(tmp_path, ["a"], **fields), NAMES) == [1, 2, 3, 4]
    assert not caplog.records


def test_some_organs_and_one_warning(tmp_path, caplog):
    folder = write_folder(tmp_path, ["a"], labels={"4": "Spleen", "0": "background", "3": "liver"})
    assert labelled_classes(folder, NAMES) == [3, 4]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("artery, portal vein not labelled in this data set: left out of scores; ")
    assert "training on it teaches them as background" in record.getMessage()


def test_background_need_not_come_first(tmp_path):
    folder = write_folder(tmp_path, ["a"], labels={"0": "inside", "1": "tubule", "2": "background"})
    assert labelled_classes(folder, ["inside", "tubule", "background"]) == [0, 1]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({**ALL, "3": "spleen", "4": "liver"}, r"label 3 is 'spleen': class 3 is 'liver'.*renumber.*'spleen' is 4"),
        (
            {**ALL, "4": "left kidney"},
            r"label 4 is 'left kidney': class 4 is 'spleen'.*convert the data;.*name differs",
        ),
        ({**ALL, "5": "kidney"}, r"label 5 is 'kidney': classes are 0 to 4"),
        ({"0": "liver"}, r"label 0 is 'liver': class 0 is 'background'.*'liver' is 3"),
        ({"1": "background", "3": "liver"}, r"label 1 is 'background': class 1 is 'artery'"),
        ({"0": "background"}, r"labels 'background': at least one of 'artery', .*'spleen' must be labelled"),
        ({"background": 0, "liver": 3}, r"must go from number to name"),
        (["liver"], r"is \['liver'\]: it must go from number to name"),
    ],
)
def test_refusals(tmp_path, labels, text):
    folder = write_folder(tmp_path, ["a"], labels=labels)
    with pytest.raises(InputError, match=text):
        labelled_classes(folder, NAMES)
