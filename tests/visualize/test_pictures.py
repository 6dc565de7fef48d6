"""Pictures: what is drawn, in which colour and in which proportions."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from monai.data import MetaTensor

from common.checks import InputError
from common.visualize import curves, prediction
from common.visualize.curves import training_curves
from common.visualize.palette import background_classes, class_colour
from common.visualize.prediction import prediction_figure
from common.visualize.projection import surface_view

NAMES = ["background", "organ", "lesion"]


def scene():
    image = np.random.default_rng(0).normal(size=(1, 20, 16, 10)).astype(np.float32)
    pred = np.zeros((20, 16, 10), dtype=np.uint8)
    pred[4:14, 3:12, 2:8] = 1
    pred[6:9, 5:8, 4:6] = 2
    return image, pred


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


def panels(figure):
    return {axes.get_title(loc="left").split(",")[0]: axes for axes in figure.axes}


def test_colours_differ_and_do_not_change():
    assert len({class_colour(k) for k in range(14)}) == 14
    assert [class_colour(k) for k in range(3)] == ["#E69F00", "#56B4E9", "#009E73"]
    assert background_classes(["Background", "a", "b"]) == (0,)
    assert background_classes(["a"]) == ()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 5.0)])
def test_proportions_are_those_of_the_body(tmp_path, drawn, spacing):
    image, pred = scene()
    assert prediction_figure(image, pred, tmp_path / "p.png", affine=np.diag([*spacing, 1.0]), class_names=NAMES)
    size = np.array(pred.shape) * spacing
    found = panels(drawn[0])
    for name, (across, along) in {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2), "prediction": (0, 2)}.items():
        left, right, bottom, top = found[name].images[0].get_extent()
        assert (right - left, top - bottom) == pytest.approx((size[across], size[along])), name
        assert found[name].get_aspect() == 1.0
    pixels = imread(tmp_path / "p.png")
    assert pixels.shape[1] > 1000 and pixels[..., :3].std() > 0.1


@pytest.mark.parametrize("flips, order", [((-1, -1, 1), (0, 1, 2)), ((1, -1, -1), (2, 0, 1))])
def test_same_picture_however_the_volume_is_stored(tmp_path, flips, order):
    image, pred = scene()
    region = np.zeros_like(pred)
    region[3:17, 2:6, 1:9] = 1
    prediction_figure(image, pred, tmp_path / "ras.png", affine=np.eye(4), class_names=NAMES, region=region)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for position, axis in enumerate(order):
        affine[axis, position] = flips[axis]
    turn = lambda array: np.flip(array, [a for a in range(3) if flips[a] < 0]).transpose(order)  # noqa: E731
    prediction_figure(
        turn(image[0])[None], turn(pred), tmp_path / "other.png", None, affine, NAMES, region=turn(region)
    )
    assert np.array_equal(imread(tmp_path / "ras.png"), imread(tmp_path / "other.png"))


def test_fill_is_the_prediction_in_its_colour(tmp_path, drawn):
    image, pred = scene()
    prediction_figure(image, pred, tmp_path / "p.png", class_names=NAMES)
    fill = panels(drawn[0])["axial"].images[1].get_array().transpose(1, 0, 2)
    index = int(panels(drawn[0])["axial"].get_title(loc="left").split()[2])
    for k in (1, 2):
        here = pred[:, :, index] == k
        assert here.any() and np.allclose(fill[here][:, :3], to_rgb(class_colour(k)))
    assert (fill[pred[:, :, index] == 0][:, 3] == 0).all()


def test_reference_is_outlined_where_it_is_labelled(tmp_path, drawn):
    image, pred = scene()
    label = np.full_like(pred, 9, dtype=np.int16)
    label[:, :, 3] = pred[:, :, 3]
    prediction_figure(image, pred, tmp_path / "with.png", label=label[None], class_names=NAMES)
    prediction_figure(image, pred, tmp_path / "without.png", class_names=NAMES)
    # the annotated slice is the one to look at
    assert "slice 3 of 10" in panels(drawn[0])["axial"].get_title(loc="left")
    assert len(panels(drawn[0])["axial"].collections) > 0 and len(panels(drawn[1])["axial"].collections) == 0


def tumour(at=(30, 8, 4), size=(6, 5, 3), shape=(48, 40, 12)):
    volume = np.zeros(shape, dtype=np.uint8)
    volume[tuple(slice(start, start + length) for start, length in zip(at, size))] = 1
    return volume


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 4.0), (0.7, 0.7, 4.0)])
def test_something_small_gets_a_close_up(tmp_path, drawn, spacing):
    """Thick slices: the window is a square in mm around the reference, drawn as a frame in the axial slice."""
    label = tumour()
    image = np.random.default_rng(0).normal(size=(1, *label.shape)).astype(np.float32)
    far = tumour((2, 30, 5), (8, 8, 3))  # a larger false find must not draw the eye from what is there
    affine = np.diag([*spacing, 1.0])
    prediction_figure(image, label | far, tmp_path / "p.png", label, affine, ["background", "tumour"])
    found = panels(drawn[0])
    assert list(found) == ["axial", "coronal", "sagittal", "close-up", "prediction"]
    right, left = (limit / spacing[0] for limit in found["close-up"].get_xlim())
    bottom, top = (limit / spacing[1] for limit in found["close-up"].get_ylim())
    assert left < 30 and right > 36 and bottom < 8 and top > 13 and right - left == pytest.approx(1.8 * 6)
    assert right - left == pytest.approx(top - bottom) and found["close-up"].get_aspect() == 1.0
    (frame,) = found["axial"].patches
    assert frame.get_bbox().extents == pytest.approx(np.array([left, bottom, right, top]) * spacing[0])
    assert f"slice {5} of 12" in found["axial"].get_title(loc="left")


@pytest.mark.parametrize("at", [(0, 0, 0), (42, 35, 9)])
def test_a_close_up_ends_where_the_volume_does(tmp_path, drawn, at):
    pred = tumour(at)
    prediction_figure(np.zeros((1, *pred.shape)), pred, tmp_path / "p.png", class_names=["background", "tumour"])
    right, left = panels(drawn[0])["close-up"].get_xlim()
    bottom, top = panels(drawn[0])["close-up"].get_ylim()
    assert (left, bottom) == (0, 0) if at == (0, 0, 0) else (right, top) == pytest.approx((48, 40))
    assert right - left == pytest.approx(10.8) and top - bottom == pytest.approx(10.8)


def test_grey_values_of_something_small_are_those_of_its_neighbourhood(tmp_path, drawn):
    """A bright spot alone would set a window in which all else is black."""
    pred = tumour(size=(4, 4, 2))
    image = np.random.default_rng(0).uniform(0, 100, (1, *pred.shape))
    image[0][pred == 1] = 180
    prediction_figure(image, pred, tmp_path / "p.png", class_names=["background", "tumour"])
    shown = np.asarray(panels(drawn[0])["axial"].images[0].get_array())
    assert shown.min() == 0 and 0.2 < np.median(shown) < 0.8


def test_the_region_is_dashed_and_what_is_empty_is_said(tmp_path, drawn):
    pred = tumour()
    region, nothing = tumour((28, 6, 3), (12, 10, 6)), np.zeros_like(pred)
    image = np.zeros((1, *pred.shape))
    for label, where in ((pred, region[None]), (nothing, nothing)):
        prediction_figure(image, label, tmp_path / "p.png", label, class_names=["background", "t"], region=where)
    styles = [line.get_linestyle()[0][1] for line in panels(drawn[0])["axial"].collections]
    assert [style is not None for style in styles] == [True, True, False, False]
    texts = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert texts[0][1:] == ["outline: reference", "dashed: candidate region"]
    assert texts[1] == ["t  0 mm³", "outline: reference (nothing labelled)", "dashed: candidate region (empty)"]
    assert list(panels(drawn[1])) == ["axial", "coronal", "sagittal", "prediction"]
    with pytest.raises(InputError, match=r"candidate region \(48, 40, 11\)"):
        prediction_figure(image, pred, tmp_path / "p.png", region=region[..., 1:])


def test_warning_and_title_are_on_the_picture(tmp_path, drawn):
    image, pred = scene()
    prediction_figure(image, pred, tmp_path / "p.png", class_names=NAMES, title="case 7", warning="phantom weights")
    texts = [text.get_text() for text in drawn[0].texts]
    assert "case 7" in texts and "WARNING: phantom weights" in texts


def test_nothing_found_and_thin_and_constant_volumes(tmp_path, drawn):
    prediction_figure(torch.zeros(3, 9, 8, 1), torch.zeros(1, 9, 8, 1), tmp_path / "p.png", class_names=NAMES)
    assert [text.get_text() for text in panels(drawn[0])["prediction"].texts] == ["nothing found"]
    assert (tmp_path / "p.png").stat().st_size > 0


def test_meta_tensors(tmp_path):
    image, pred = scene()
    affine = torch.diag(torch.tensor([-1.0, 2.0, 3.0, 1.0]))
    one = MetaTensor(torch.as_tensor(image), affine=affine)
    two = MetaTensor(torch.as_tensor(pred)[None], affine=affine)
    assert prediction_figure(one, two, tmp_path / "p.png", affine=two.affine, class_names=NAMES)


def test_grids_must_agree(tmp_path):
    image, pred = scene()
    with pytest.raises(InputError, match=r"prediction \(20, 16, 9\).*on one grid"):
        prediction_figure(image, pred[..., 1:], tmp_path / "p.png", class_names=NAMES)


def test_without_matplotlib_there_is_a_word_and_no_picture(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(prediction, "has_matplotlib", False)
    monkeypatch.setattr(curves, "has_matplotlib", False)
    image, pred = scene()
    assert not prediction_figure(image, pred, tmp_path / "p.png", class_names=NAMES)
    assert not training_curves([{"epoch": 1, "loss": 1.0}], tmp_path / "c.png")
    assert caplog.text.count("matplotlib is not installed") == 2 and not list(tmp_path.iterdir())


def test_surface_view_shows_what_is_nearest_along_the_ray():
    labels = np.zeros((5, 6, 4), dtype=int)
    labels[1:4, 2, 1:3] = 1
    labels[2, 4, 1] = 2  # nearer to the viewer, who stands at high Y
    colours = np.array([[0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    view = surface_view(labels, [1, 2], colours, (1, 1, 1))
    assert np.array_equal(view[..., 3] > 0, (labels > 0).any(axis=1))
    assert view[2, 1, 2] > 0 and view[2, 1, 0] == 0
    assert view[2, 2, 0] > 0 and view[2, 2, 2] == 0
    assert surface_view(labels, [2], colours, (1, 1, 1))[..., 3].sum() == 1


def test_a_small_class_inside_a_large_one_shines_through():
    labels = np.zeros((9, 9, 9), dtype=int)
    labels[1:8, 1:8, 1:8] = 1
    labels[4, 4, 4] = 2
    colours = np.array([[0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    view = surface_view(labels, [1, 2], colours, (1, 1, 1))
    assert view[4, 4, 2] > 0.2 and view[3, 4, 2] == 0


HISTORY = [
    {"epoch": e, "stage": stage, "loss": 1 / e, "learning_rate": 0.1 / 10**e}
    | ({"val_iou": e / 10} if e % 2 == 0 else {})
    for stage in ("first", "second")
    for e in range(1, 6)
]


def test_curves(tmp_path, drawn):
    assert training_curves(HISTORY, tmp_path / "c.png", title="both")
    axes = drawn[0].axes
    assert len(axes) == 6
    assert [axis.get_title(loc="left") for axis in axes[:2]] == ["first", "second"]
    assert np.allclose(axes[0].lines[0].get_xydata(), [(e, 1 / e) for e in range(1, 6)])
    assert np.allclose(axes[2].lines[0].get_xydata(), [(2, 0.2), (4, 0.4)])
    assert axes[2].get_legend().get_texts()[0].get_text() == "val_iou, highest 0.400 in epoch 4"
    assert axes[4].get_yscale() == "log" and axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    "history",
    [
        [{"epoch": 1, "loss": 0.5}],
        [{"epoch": 1, "loss": math.nan, "lr": 0.0}, {"epoch": 2, "loss": 0.1, "lr": 0.0}],
        [{"epoch": 3, "loss": None, "val_iou": math.nan}],
    ],
)
def test_curves_of_poor_histories(tmp_path, history):
    assert training_curves(history, tmp_path / "c.png")
    assert imread(tmp_path / "c.png").shape[0] > 200


def test_no_epoch_no_curves(tmp_path):
    assert not training_curves([], tmp_path / "c.png") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("volume, text", [(0.0, "0 mm³"), (324.0, "0.3 ml"), (12.5, "12.5 mm³"), (4.5e-6, "4,500 µm³")])
def test_volumes_stand_in_the_unit_of_their_readers(volume, text):
    assert prediction._volume_text(volume) == text
