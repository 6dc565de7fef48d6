"""Maximum projections: what a ray shows, where it falls, and how it turns."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from common.checks import InputError
from common.visualize import rotating
from common.visualize.mip import FALSE, FALSE_COLOUR, MISSED, MISSED_COLOUR, grey_projection, ray_classes
from common.visualize.palette import class_colour
from common.visualize.prediction import prediction_figure
from common.visualize.rotating import rotating_projections

NAMES = ["background", "vessel", "clot"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, for a look at their parts."""
    figures = []
    save = Figure.savefig

    def keep(self, *args, **kwargs):
        figures.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def volume(*voxels, shape=(5, 6, 7), dtype=np.int16):
    found = np.zeros(shape, dtype=dtype)
    for index, value in voxels:
        found[index] = value
    return found


def frames(path):
    with Image.open(path) as file:
        pictures = []
        for index in range(file.n_frames):
            file.seek(index)
            pictures.append(np.asarray(file.convert("RGB")))
        return pictures, file.info


def slow_ray_class(found, reference, volumes, known):
    """One ray, voxel by voxel."""
    right, missed, false, classes = 0, 0, 0, set()
    for here, wanted in zip(found, [None] * len(found) if reference is None else reference, strict=True):
        judged = wanted is not None and 0 <= wanted < known
        if here > 0 and (not judged or here == wanted):
            right += 1
            classes.add(int(here))
        elif here > 0:
            false += 1
        elif judged and wanted > 0:
            missed += 1
    if missed > right and missed >= false:
        return MISSED
    if false > right and false > missed:
        return FALSE
    return min(classes, key=volumes.get) if classes else -1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("judged", [False, True])
def test_a_ray_shows_what_most_of_its_voxels_are(axis, judged):
    rng = np.random.default_rng(axis)
    found = rng.choice([0, 0, 0, 1, 2], size=(5, 6, 7), p=[0.3, 0.2, 0.2, 0.2, 0.1]).astype(np.int16)
    reference = rng.choice([0, 1, 2, -1, 9], size=found.shape, p=[0.5, 0.2, 0.1, 0.1, 0.1]) if judged else None
    seen = ray_classes(found, reference, [1, 2], axis, known=3)
    volumes = {k: int((found == k).sum()) for k in (1, 2)}
    rays = np.moveaxis(found, axis, -1)
    wanted = None if reference is None else np.moveaxis(reference, axis, -1)
    for index in np.ndindex(seen.shape):
        assert seen[index] == slow_ray_class(rays[index], None if wanted is None else wanted[index], volumes, 3)
    assert {1, 2} <= set(np.unique(seen)) and ({MISSED, FALSE} <= set(np.unique(seen))) == judged


def test_grey_values_are_the_scaled_maxima_of_every_channel():
    channel = np.zeros((4, 3, 5))
    channel[1, 2, 3] = -3
    channel[2, 1, 4], channel[2, 0, 4] = 2, 1
    assert np.array_equal(
        np.argwhere(grey_projection([channel - 7], 1) > 0.99), [[2, 4]]
    )  # negative intensities are as good
    both = grey_projection([channel, np.zeros((4, 3, 5))], 1)
    assert both[2, 4] == pytest.approx(0.5) and both[0, 0] == 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_figure_of_projections(tmp_path, drawn, spacing):
    label = volume(((3, slice(1, 5), 4), 1), ((1, 2, slice(0, 6)), 1))
    pred = volume(((3, slice(1, 5), 4), 1), ((0, 0, 0), 2))
    image = (label[None] * 100.0).astype(np.float32)
    affine = np.diag([*spacing, 1.0])
    assert prediction_figure(image, pred, tmp_path / "p.png", label, affine, NAMES, "case", "loud", view="mip")
    found = {axes.get_title(loc="left"): axes for axes in drawn[0].axes}
    size = np.array(pred.shape) * spacing
    for side, axis in {"front": 1, "left": 0, "feet": 2}.items():
        across, along = (other for other in range(3) if other != axis)
        plain, painted = found[f"maximum, {side}"], found[f"prediction, {side}"]
        for panel in (plain, painted):
            left, right, bottom, top = panel.images[0].get_extent()
            assert (right - left, top - bottom) == pytest.approx((size[across], size[along]))
            assert panel.get_aspect() == 1.0 and len(panel.get_title(loc="left")) <= 18  # panels may be narrow
            # the patient's right and front are on the left
            assert panel.get_xlim() == pytest.approx((size[across], 0))
        grey = plain.images[0].get_array().T
        assert np.array_equal(grey > 0.9, label.max(axis=axis) > 0)
        fill = painted.images[1].get_array().transpose(1, 0, 2)
        seen = ray_classes(pred, label, [1, 2], axis, 3)
        for k, colour in {1: class_colour(1), MISSED: MISSED_COLOUR, FALSE: FALSE_COLOUR}.items():
            assert (seen == k).any() and np.allclose(fill[seen == k][:, :3], to_rgb(colour))
        assert (fill[seen == -1][:, 3] == 0).all()
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts[2:] == ["missed", "false"] and texts[0].startswith("vessel")
    assert any("WARNING: loud" in text.get_text() for text in drawn[0].texts)


def test_without_a_reference_nothing_is_called_wrong(tmp_path, drawn):
    pred = volume(((2, 2, 2), 1))
    region = volume(((slice(1, 4), slice(1, 4), slice(1, 4)), 1))
    prediction_figure(pred[None], pred, tmp_path / "p.png", class_names=NAMES, view="mip", region=region)
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts[1].startswith("clot") and texts[2:] == ["dashed: candidate region"]
    found = {axes.get_title(loc="left"): axes for axes in drawn[0].axes}
    assert found["prediction, front"].collections and not found["maximum, front"].collections


def test_an_unknown_view_is_refused(tmp_path):
    pred = volume()
    with pytest.raises(InputError, match="view is 'surface'.*slices, mip.*take mip for vessels"):
        prediction_figure(pred[None], pred, tmp_path / "p.png", view="surface")
    assert not list(tmp_path.iterdir())


def test_whole_turn(tmp_path):
    """A bright spot and a found one go round: the column follows from the angle; the patient's right is left."""
    shape = (31, 31, 9)
    pred = volume(((25, 15, 6), 1), shape=shape)
    image = (pred + volume(((15, 28, 2), 1), shape=shape))[None] * 50.0 - 200
    assert rotating_projections(image, pred, tmp_path / "p.gif", np.eye(4), NAMES, directions=12)
    pictures, info = frames(tmp_path / "p.gif")
    assert len(pictures) == 12 and info["loop"] == 0 and info["duration"] == 100
    factor = pictures[0].shape[0] // 9
    width = pictures[0].shape[1] // factor
    blue = np.array(to_rgb(class_colour(1))) * 255
    for number, picture in enumerate(pictures):
        small = picture[factor // 2 :: factor, factor // 2 :: factor].astype(float)
        assert small.shape == (9, width, 3) and width >= math.hypot(30, 30)
        theta = math.radians(30 * number)
        coloured = np.argwhere(np.ptp(small, axis=2) > 20)
        # R = 25, A = 15: ten voxels to the patient's right of the centre, and rows count from the top
        assert np.abs(coloured - [8 - 6, (width - 1) / 2 - 10 * math.cos(theta)]).max() <= 1
        grey = np.where(np.ptp(small, axis=2) > 20, 0, small.sum(axis=2))
        row, column = np.unravel_index(grey.argmax(), grey.shape)
        assert row == 8 - 2 and abs(column - ((width - 1) / 2 - 13 * math.sin(theta))) <= 1
    assert np.abs(pictures[0].astype(float) - blue).sum(axis=2).min() < 6
    assert np.array_equal(pictures[7], pictures[1][:, ::-1])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 4.0), (0.5, 1.0, 1.0), (5.0, 1.0, 2.0)])
def test_proportions_of_the_turning_picture_are_those_of_the_body(tmp_path, spacing):
    """A box: from the front it is as wide as its right-left length, a quarter turn later as its depth."""
    pred = volume(((slice(4, 16), slice(6, 14), slice(2, 8)), 1), shape=(20, 20, 10))
    rotating_projections(pred[None], pred, tmp_path / "p.gif", np.diag([*spacing, 1.0]), NAMES, directions=4)
    pictures, _ = frames(tmp_path / "p.gif")
    lengths = np.array([12, 8, 6]) * spacing
    for picture, across in ((pictures[0], 0), (pictures[1], 1)):
        rows, columns = np.nonzero(np.ptp(picture.astype(int), axis=2) > 20)
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(lengths[across] / lengths[2], rel=0.15)


def test_same_turn_however_the_volume_is_stored(tmp_path):
    rng = np.random.default_rng(0)
    image, pred = rng.normal(size=(1, 12, 9, 7)).astype(np.float32), volume(((3, slice(2, 6), 4), 1), shape=(12, 9, 7))
    rotating_projections(image, pred, tmp_path / "ras.gif", np.eye(4), NAMES)
    affine = np.array([[0, 0, -1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # stored as A S L
    turned = [np.flip(array, 0).transpose(1, 2, 0) for array in (image[0], pred)]
    rotating_projections(turned[0][None].copy(), turned[1].copy(), tmp_path / "asl.gif", affine, NAMES)
    assert (tmp_path / "ras.gif").read_bytes() == (tmp_path / "asl.gif").read_bytes()


@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5])
def test_a_lone_voxel_is_in_every_frame(tmp_path, offset):
    at = (int(9 + 8 * offset), 3, 4)
    pred = volume((at, 2), shape=(20, 23, 8))
    noise = np.random.default_rng(0).normal(size=(1, *pred.shape))  # equal frames would be joined
    rotating_projections(noise, pred, tmp_path / "p.gif", np.eye(4), NAMES)
    pictures, _ = frames(tmp_path / "p.gif")
    assert len(pictures) == 36
    assert all((np.ptp(picture.astype(int), axis=2) > 20).any() for picture in pictures)


def test_the_smaller_of_two_classes_shows_on_a_large_volume_of_bounded_size(tmp_path):
    pred = volume(((slice(30, 300), 1, slice(0, 4)), 1), ((100, 0, 2), 2), shape=(330, 3, 4))
    image = torch.zeros(2, *pred.shape)
    rotating_projections(image, torch.as_tensor(pred), tmp_path / "p.gif", torch.eye(4), NAMES, "not for care")
    pictures, _ = frames(tmp_path / "p.gif")
    assert pictures[0].shape[1] <= 226 and tuple(pictures[0][0, 0]) == (176, 0, 32)
    distance = [np.abs(pictures[0] - 0.4 * 255 * np.array(to_rgb(class_colour(k)))).sum(axis=2).min() for k in (1, 2)]
    assert max(distance) < 6


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 5), (6, 1, 1)])
def test_flat_volumes_turn_too(tmp_path, shape):
    image = np.random.default_rng(0).normal(size=(1, *shape))
    assert rotating_projections(image, np.zeros(shape), tmp_path / "p.gif", class_names=NAMES)
    assert frames(tmp_path / "p.gif")[0]


@pytest.mark.parametrize("directions", [0, 7, -2])
def test_a_turn_has_an_even_number_of_directions(tmp_path, directions):
    with pytest.raises(InputError, match=f"{directions} directions.*must be even.*such as 36"):
        rotating_projections(volume()[None], volume(), tmp_path / "p.gif", directions=directions)


def test_without_pillow_there_is_a_word_and_no_picture(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(rotating, "has_pillow", False)
    assert not rotating_projections(volume()[None], volume(), tmp_path / "p.gif")
    assert "pip install pillow" in caplog.text and not list(tmp_path.iterdir())
