"""One look at every case before hours are spent on others."""

from __future__ import annotations

import pytest
from monai.data import Dataset
from monai.transforms import Compose, Transform

from common.checks import InputError, problem
from common.data import check_cases


class RefuseOdd(Transform):
    def __call__(self, number):
        if number % 2:
            raise InputError(problem(f"case {number} is odd", "it must be even", "take another"))
        return number


@pytest.mark.parametrize("numbers", [[], [2], [2, 4, 6]])
def test_good_cases_pass(numbers):
    check_cases(Dataset(numbers, Compose([RefuseOdd()])))


def test_every_bad_case_is_named_with_its_own_text():
    with pytest.raises(InputError, match="2 of 4 held-out cases can not be used.*case 1 is odd.*case 3 is odd") as told:
        check_cases(Dataset([1, 2, 3, 4], Compose([RefuseOdd()])))
    assert "applying transform" not in str(told.value)


def test_of_many_bad_cases_the_first_are_named():
    with pytest.raises(InputError, match="7 of 7 other cases.*case 9 is odd.*; and 2 more"):
        check_cases(Dataset(range(1, 15, 2), Compose([RefuseOdd()])), what="other")
