"""Pictures of a volume filled up from slices: which way up, which planes, which colours."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from common.checks import InputError
from common.visualize import densify
from common.visualize.densify import densify_figure, next_figure
from common.visualize.palette import class_colour
from common.visualize.planes import ERROR_COLOUR, FilledVolume, draw_plane

SIZE = (8, 10, 6)


def volume(**changes) -> FilledVolume:
    """A box in the middle, drawn on two planes."""
    dense = np.zeros(SIZE, np.uint8)
    dense[2:6, 3:8, 1:5] = 1
    drawn = np.full(SIZE, 2, np.uint8)
    drawn[3], drawn[:, :, 2] = dense[3], dense[:, :, 2]
    given = {
        "image": np.random.default_rng(0).random(SIZE),
        "drawn": drawn,
        "dense": dense,
        "uncertainty": np.linspace(0, 1, dense.size).reshape(SIZE),
        "class_names": ["background", "box"],
        "unlabelled": 2,
    }
    return FilledVolume(**{**given, **changes})


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that would be written."""
    kept = []
    monkeypatch.setattr(densify, "_save", lambda figure, path: kept.append(figure) or True)
    return kept


def titles(figure: Figure) -> list[str]:
    return [text for panel in figure.axes if (text := panel.get_title(loc="left"))]


def panel_image(case: FilledVolume, *args, **kwargs) -> np.ndarray:
    figure = Figure()
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    draw_plane(panel, case, *args, **kwargs)
    return np.asarray(panel.images[0].get_array())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_without_a_patient_rows_and_columns_are_the_array_axes_in_order(axis):
    case, across = volume(), [other for other in range(3) if other != axis]
    plane = case.dense.take(2, axis)
    assert case.frame(axis) == tuple(across)
    np.testing.assert_array_equal(case.turned(plane, axis), plane.T)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "ASR", "SPL", "PIR"])
def test_a_patient_is_upright_with_right_and_front_on_the_left(codes):
    """One voxel each at the patient's right, front and head: these are where a radiologist looks for them."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    world = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    for axis, code in enumerate(codes):
        row, sign = world[code]
        affine[row, axis] = sign
    cube = np.zeros((5, 5, 5))
    case = volume(**dict.fromkeys(["image", "drawn", "dense", "uncertainty"], cube), affine=affine)
    for axis, normal in enumerate(codes):
        across = {"R": "R", "L": "R", "A": "A", "P": "A", "S": "S", "I": "S"}[normal]
        left, top = {"R": ("A", "S"), "A": ("R", "S"), "S": ("R", "A")}[across]
        for side, at in ((left, (2, 0)), (top, (0, 2))):
            opposite = {"R": "L", "A": "P", "S": "I"}[side]
            along = next(k for k, code in enumerate(codes) if code in (side, opposite))
            spot = [2, 2, 2]
            spot[along] = 4 if codes[along] == side else 0
            marked = cube.copy()
            marked[tuple(spot)] = 1
            assert np.argwhere(case.turned(marked.take(2, axis), axis)).tolist() == [list(at)]


def test_lengths_follow_spacing_or_affine():
    assert volume().size == (8.0, 10.0, 6.0)
    assert volume(spacing=(0.5, 1, 2)).size == (4.0, 10.0, 12.0)
    assert volume(affine=np.diag([-2.0, 1.0, 3.0, 1.0])).size == (16.0, 10.0, 18.0)


def test_grey_values_are_the_mean_of_channels_each_in_its_own_range():
    image = np.zeros((*SIZE, 2))
    image[4:, ..., 0], image[:, 5:, ..., 1] = 1000, 3
    grey = volume(image=image).grey(2, 0)
    assert [grey[0, 0], grey[7, 0], grey[0, 9], grey[7, 9]] == [0, 0.5, 0.5, 1]
    assert not volume(image=np.full(SIZE, 7.0)).grey(0, 0).any()


def test_classes_are_painted_what_is_not_drawn_is_dimmed_and_errors_are_marked():
    case = volume(image=np.ones(SIZE) * np.arange(SIZE[0])[:, None, None])
    grey = np.repeat(case.grey(2, 0).T[..., None], 3, axis=2)
    np.testing.assert_allclose(panel_image(case, 2, 0), grey)
    painted = panel_image(case, 2, 2, case.dense)
    inside = case.dense[:, :, 2].T == 1
    np.testing.assert_allclose(painted[~inside], grey[~inside])
    np.testing.assert_allclose(painted[inside], 0.5 * grey[inside] + 0.5 * np.array(to_rgb(class_colour(1))))
    undrawn = case.drawn == case.unlabelled
    dimmed = panel_image(case, 2, 0, case.drawn, dimmed=undrawn)
    np.testing.assert_allclose(dimmed[:, 4], 0.4 * grey[:, 4])
    marked = panel_image(case, 2, 2, marked=case.dense == 1)
    assert (marked[inside] == to_rgb(ERROR_COLOUR)).all() and not (marked[~inside] == to_rgb(ERROR_COLOUR)).all(
        -1
    ).any()


def test_a_plane_that_was_not_drawn_is_shown_beside_the_drawn_one(figures):
    assert densify_figure(volume(), "unused.png", "A box")
    told = titles(figures[0])
    assert len(told) == 12 and figures[0].get_suptitle() == "A box  (slices counted from 1)"
    assert (
        told[0] in ("x slice 3", "x slice 5")
        and told[1] == "nearest drawn: x slice 4"
        and told[2] == f"filled up: {told[0]}"
    )
    assert (
        told[4] in ("y slice 5", "y slice 6") and told[5] == f"nearest drawn: {told[4]}"
    )  # across y nothing was drawn
    assert told[8] == "z slice 4" and told[9] == "nearest drawn: z slice 3"


def test_of_the_planes_held_out_the_worst_of_each_axis_is_shown(figures):
    case = volume()
    tested = case.dense.copy()
    tested[3, :5, 0] = 1  # 5 of 60 voxels
    tested[0, :1, 2] = 1
    case.drawn[6] = case.dense[6]
    densify_figure(case, "unused.png", held_out=[[3, 6], [], [2]], tested=tested)
    told = titles(figures[0])[12:]
    assert told[0] == "held out: x slice 4" and told[3] == "8.3 % wrong"
    assert told[4] == "held out: z slice 3" and told[7] == "1.2 % wrong"
    assert len(told) == 8


def test_planes_to_draw_next_come_in_order_with_their_gain(figures):
    ranked = [(2, 4, 0.25), (0, 1, 0.125), (1, 9, 0.01)]
    assert next_figure(volume(), ranked, "unused.png")
    assert titles(figures[0]) == [
        *("1. z slice 5", "uncertainty; gain 25.0 %"),
        *("2. x slice 2", "uncertainty; gain 12.5 %"),
        *("3. y slice 10", "uncertainty; gain 1.0 %"),
    ]
    assert not next_figure(volume(), [], "unused.png") and len(figures) == 1


@pytest.mark.parametrize("size", [(1, 9, 7), (3, 4, 60), (5, 5, 5)])
def test_pictures_of_any_volume_are_written(tmp_path, size):
    empty = np.zeros(size, np.uint8)
    given = {"image": np.zeros((*size, 3)), "drawn": empty + 2, "dense": empty, "uncertainty": empty.astype(float)}
    case = volume(**given, affine=np.diag([1.0, 1.0, 4.0, 1.0]), unit="µm")
    assert densify_figure(case, tmp_path / "densify.png", held_out=[[0], [], []], tested=empty)
    assert next_figure(case, [(0, 0, 1.0)], tmp_path / "next.png")
    for name in ("densify.png", "next.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 150


def test_volumes_of_other_grids_are_refused():
    with pytest.raises(InputError, match=r"\(8, 10, 5\).* on one grid, X Y Z"):
        volume(uncertainty=np.zeros((8, 10, 5)))
    with pytest.raises(InputError, match="on one grid"):
        volume(image=np.zeros((3, *SIZE)))


def test_without_matplotlib_there_is_no_picture_but_a_word(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(densify, "has_matplotlib", False)
    assert not densify_figure(volume(), tmp_path / "a.png") and "pip install matplotlib" in caplog.text
    assert not list(tmp_path.iterdir())
