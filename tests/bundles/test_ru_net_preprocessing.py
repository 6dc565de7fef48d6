"""What `ru_net_colorectal` makes of volumes as scanners leave them, by its own configs, there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, Orientation
from scipy import ndimage, stats

from common.transforms import AppendContour

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "ru_net_colorectal" / "configs"
CELL = (2, 4, 4)
TUMOUR = (8.0, -12.0, 6.0)  # mm, RAS

# axes, voxel edges in mm and size along these axes, of a field of about 96 x 88 x 60 mm
GRIDS = [
    ("LPS", (1.0, 1.0, 4.0), (96, 88, 15)),
    ("RAS", (0.8, 0.8, 3.3), (121, 111, 18)),
    ("LAI", (1.3, 0.7, 4.0), (73, 125, 15)),
    ("PIR", (0.9, 1.1, 3.5), (97, 55, 27)),  # sagittal slices
    ("SRA", (0.75, 1.5, 5.0), (81, 63, 19)),  # coronal slices
    ("RPS", (1.0, 1.0, 1.0), (95, 87, 61)),
]


def parsed(*names: str, **settings: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in names])
    parser.update({"device": "cpu", **settings})
    return parser


def made(folder: Path, axes: str, edges: tuple, size: tuple, tilt: float = 0.0) -> dict[str, str]:
    """A body of fat and muscle in air with a bright tumour in it, and its label, drawn in mm on any grid."""
    orientation = nibabel.orientations.axcodes2ornt(axes)
    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(orientation):
        affine[int(world), axis] = sign * edges[axis]
    affine[3, 3] = 1
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ affine
    affine[:3, 3] = np.array([3.0, -5.0, 7.0]) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    rng = np.random.default_rng(0)
    volume = np.abs(6 * rng.standard_normal(size))
    radius = ((x - 3) / 38) ** 2 + ((y + 5) / 33) ** 2
    volume[radius < 1] += 420
    volume[radius < 0.75] -= 160
    label = ((x - TUMOUR[0]) / 13) ** 2 + ((y - TUMOUR[1]) / 11) ** 2 + ((z - TUMOUR[2]) / 14) ** 2 < 1
    volume[label] = 400
    for name, values in (("image", volume.round().astype(np.int16)), ("label", label.astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{name}.nii.gz")
    return {name: str(folder / f"{name}.nii.gz") for name in ("image", "label")}


def centre(volume: torch.Tensor, affine: torch.Tensor) -> np.ndarray:
    """Centre of mass in mm, RAS."""
    index = ndimage.center_of_mass(np.asarray(volume, dtype=np.float64))
    return (np.asarray(affine, dtype=np.float64) @ np.array([*index, 1.0]))[:3]


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def check_working_grid(image: MetaTensor, spacing: tuple[float, ...] = (4.0, 1.0, 1.0)) -> None:
    assert image.shape[0] == 1 and all(size % cell == 0 for size, cell in zip(image.shape[1:], CELL, strict=True))
    np.testing.assert_allclose(image.pixdim, spacing, rtol=1e-5)
    assert nibabel.aff2axcodes(image.affine.numpy()) == ("S", "P", "L")
    assert image.dtype == torch.float32 and image.isfinite().all() and image.min() >= 0 and image.max() <= 1


def inverted(parser: ConfigParser, data: dict, pred: torch.Tensor, steps: int = 1) -> MetaTensor:
    """A prediction taken back to the file's grid by the first `steps` of what the bundle does after the network."""
    transforms = parser.get_parsed_content("validate::postprocessing").transforms
    return Compose(transforms[:steps])({**data, "pred": MetaTensor(pred)})["pred"]


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize(("axes", "edges", "size"), GRIDS)
def test_a_volume_of_any_grid_there_and_back(tmp_path, axes, edges, size, tilt):
    files = made(tmp_path, axes, edges, size, tilt)
    parser = parsed("train")
    data = parser.get_parsed_content("validate::preprocessing")(files)
    image = data["image"]
    check_working_grid(image)
    # the body is 76 x 66 mm, turned in the field by the tilt: neither cut nor left in all its air
    height, width = image.shape[2:]
    assert 64 <= height <= 76 and 72 <= width <= 84
    *training, _, contour = parser.get_parsed_content("train::preprocessing").transforms  # without augmentation
    trained = Compose([*training, contour])(files)
    assert torch.equal(trained["image"], image) and "body" not in trained and "body" not in data
    label = trained["label"]
    assert label.shape == (2, *image.shape[1:]) and label.dtype == torch.uint8 and label.max() == 1
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-5)
    np.testing.assert_allclose(centre(label[0], label.affine), TUMOUR, atol=0.6)
    assert not (label[1] > label[0]).any() and 0 < label[1].sum() < label[0].sum()

    source = nibabel.load(files["image"])
    truth = np.asarray(nibabel.load(files["label"]).dataobj) > 0
    found = inverted(parser, data, label[:1].as_tensor().float(), steps=2)
    assert found.shape == (1, *source.shape) and set(found.unique().tolist()) == {0, 1}
    np.testing.assert_allclose(found.affine, source.affine, atol=1e-4)
    assert dice(found[0].numpy() > 0, truth) > 0.9
    np.testing.assert_allclose(centre(found[0], source.affine), TUMOUR, atol=0.6)


@pytest.mark.parametrize(("axes", "edges", "size"), GRIDS)
def test_a_map_comes_back_where_it_was_and_is_0_where_nothing_was_looked_at(tmp_path, axes, edges, size):
    files = made(tmp_path, axes, edges, size)
    parser = parsed("train")
    data = parser.get_parsed_content("validate::preprocessing")(files)
    found = inverted(parser, data, torch.ones_like(data["image"].as_tensor()))[0].numpy()
    volume = np.asarray(nibabel.load(files["image"]).dataobj)
    assert found.shape == volume.shape
    # the box is that of the body on the working grid, where its rim is rounded to whole voxels
    assert (found[ndimage.binary_erosion(volume > 100, np.ones((3, 3, 3)), border_value=1)] > 0.99).all()
    assert found[volume <= 100].min() == 0 and 0.5 < (found > 0.5).mean() < 0.9


def test_a_prediction_is_placed_voxel_by_voxel(tmp_path):
    """Without resampling the way back is exact: only turned, cropped and padded."""
    files = made(tmp_path, "RAI", (1.0, 1.0, 4.0), (97, 90, 13))
    parser = parsed("train")
    data = parser.get_parsed_content("validate::preprocessing")(files)
    number = torch.rand(data["image"].shape, generator=torch.Generator().manual_seed(0)) + 1
    found = inverted(parser, data, number)
    again = Orientation("SPL", labels=None)(found)
    offset = (again.affine.inverse() @ data["image"].affine)[:3, 3].round().long().tolist()
    assert any(offset)
    shape = data["image"].shape[1:]
    inside = [slice(max(start, 0), start + size) for start, size in zip(offset, shape, strict=True)]
    taken = [
        slice(max(-start, 0), min(size, whole - start))
        for start, size, whole in zip(offset, shape, again.shape[1:], strict=True)
    ]
    torch.testing.assert_close(again.as_tensor()[(0, *inside)], number[(0, *taken)], rtol=0, atol=1e-6)
    again[(0, *inside)] = 0
    assert not again.any()


@pytest.mark.parametrize(("slices", "edge"), [(1, 3.0), (1, 4.0), (2, 9.0), (3, 1.5)])
@pytest.mark.parametrize("axes", ["LPS", "SRA"])
def test_a_few_slices(tmp_path, axes, slices, edge):
    edges, size = ((1.0, 1.0, edge), (96, 88, slices)) if axes == "LPS" else ((edge, 1.0, 1.0), (slices, 96, 88))
    files = made(tmp_path, axes, edges, size)
    parser = parsed("train")
    data = parser.get_parsed_content("validate::preprocessing")(files)
    check_working_grid(data["image"])
    found = inverted(parser, data, torch.ones_like(data["image"].as_tensor()))
    assert found.shape == (1, *size) and found[0].numpy()[nibabel.load(files["image"]).get_fdata() > 100].min() > 0.49


def test_inference_prepares_as_validation_does(tmp_path):
    files = made(tmp_path, *GRIDS[2])
    expected = parsed("train").get_parsed_content("validate::preprocessing")(files)["image"]
    found = parsed("inference").get_parsed_content("preprocessing")({"image": files["image"]})
    assert torch.equal(found["image"], expected) and torch.equal(found["image"].affine, expected.affine)
    assert set(found) == {"image"}


@pytest.mark.parametrize("pair", [{"spacing": [2.0, 1.5, 1.5]}, {"clip": None}, {"otsu_factor": 0.02}])
def test_the_settings_reach_the_steps(tmp_path, pair):
    files = made(tmp_path, *GRIDS[1])
    plain = parsed("train").get_parsed_content("validate::preprocessing")(files)["image"]
    image = parsed("train", **pair).get_parsed_content("validate::preprocessing")(files)["image"]
    assert image.shape != plain.shape or not torch.equal(image, plain)
    np.testing.assert_allclose(image.pixdim, pair.get("spacing", [4.0, 1.0, 1.0]), rtol=1e-5)
    assert (image.min() < 0) == ("clip" in pair)


def test_a_prepared_volume_arrives_voxel_for_voxel(tmp_path):
    rng = np.random.default_rng(0)
    volume = (170 + 90 * rng.standard_normal((45, 38, 7))).round().clip(0, 255).astype(np.uint8)
    volume[:8] = 0
    image = nibabel.Nifti1Image(volume, np.diag([-1.0, -1.0, 4.0, 1.0]))
    nibabel.save(image, tmp_path / "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 250).astype(np.uint8), image.affine), tmp_path / "label.nii.gz")
    check_prepared({key: str(tmp_path / f"{key}.nii.gz") for key in ("image", "label")})


def check_prepared(files: dict[str, str]) -> None:
    parser = parsed("train")
    image = parser.get_parsed_content("validate::preprocessing")(files)["image"]
    check_working_grid(image)
    whole = Orientation("SPL", labels=None)(LoadImage(ensure_channel_first=True)(files["image"]))
    assert [-(-size // cell) * cell for size, cell in zip(whole.shape[1:], CELL, strict=True)] == list(image.shape[1:])
    offset = (image.affine.inverse() @ whole.affine)[:3, 3]
    start = offset.round().long().tolist()
    np.testing.assert_allclose(offset, start, atol=1e-3)
    inside = tuple(slice(first, first + size) for first, size in zip(start, whole.shape[1:], strict=True))
    assert torch.equal(image.as_tensor()[(0, *inside)], whole.as_tensor()[0] / 255)
    padding = image.as_tensor().clone()
    padding[(0, *inside)] = 0
    assert not padding.any()


def test_flips_are_left_to_right(tmp_path):
    files = made(tmp_path, *GRIDS[0])
    parser = parsed("train", flip_probability=1.0, contrast=0.0)
    *steps, augmentation, _ = parser.get_parsed_content("train::preprocessing").transforms
    plain = Compose(steps)(files)
    flipped = augmentation({key: plain[key].clone() for key in ("image", "label")})
    for key in ("image", "label"):
        across = plain[key].affine[:3, 2].abs()  # the direction of the axis that is flipped, in mm, RAS
        assert across[0] > 0.99 and across[1:].max() < 1e-6
        torch.testing.assert_close(flipped[key].as_tensor(), plain[key].as_tensor().flip(3))
    assert not torch.equal(flipped["label"], plain["label"])


def test_the_contrast_changes_about_mid_grey():
    augmentation = parsed("train", flip_probability=0.0).get_parsed_content("augmentation")
    augmentation.set_random_state(0)
    image = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    image[0, 0, 0, :4] = torch.tensor([0.0, 0.5, 1.0, 0.25])
    factors = []
    for _ in range(400):
        found = augmentation({"image": image.clone(), "label": torch.zeros(2, 4, 8, 8)})["image"]
        factor = float((found[0, 0, 0, 3] - 0.5) / -0.25)
        torch.testing.assert_close(found.as_tensor(), (0.5 + factor * (image - 0.5)).clamp(0, 1), rtol=0, atol=2e-6)
        factors.append(factor)
    factors = np.sort(factors)
    # uniform in (0.9, 1.1): by Kolmogorov and Smirnov at 0.001
    assert 0.9 <= factors[0] < 0.905 and 1.095 < factors[-1] <= 1.1
    assert np.abs(np.linspace(0, 1, 400) - (factors - 0.9) / 0.2).max() < 1.95 / 20


REAL = [
    ("prostate_t2", "prostatex_0001"),
    ("abdomen_ct", "totalseg_example"),
    ("sarcoma_mr", "sts_001"),
    pytest.param("liver_ct", "chaos_03", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("folder", "case"), REAL)
def test_recorded_volumes(real_data, folder, case):
    source = real_data / folder / "imagesTr" / f"{case}.nii.gz"
    parser = parsed("inference")
    steps = parser.get_parsed_content("preprocessing")
    data = steps({"image": str(source)})
    image = data["image"]
    check_working_grid(image)
    # neither all clipped nor all alike: the body spreads over the range, whatever the scanner's unit
    assert (image == 1).float().mean() < 0.5 and (image == 0).float().mean() < 0.5 and image.std() > 0.05
    file = nibabel.load(source)
    extent = sorted(np.array(file.shape) * file.header.get_zooms())
    assert all(np.sort(np.array(image.shape[1:]) * (4, 1, 1)) <= np.array(extent) + 8)
    after = parser.get_parsed_content("postprocessing").transforms[0]
    found = after({**data, "pred": MetaTensor(image.as_tensor().clone())})["pred"]
    assert found.shape == (1, *file.shape)
    np.testing.assert_allclose(found.affine, file.affine, atol=1e-4)
    # what comes back is the image, smoothed by resampling twice
    values = np.asarray(file.dataobj, dtype=np.float64)
    inside = found[0].numpy() > 0  # air at its darkest, and what was cropped, is 0
    pairs = values[inside][::50], found[0].numpy()[inside][::50]
    assert inside.mean() > 0.2 and stats.spearmanr(*pairs).statistic > 0.9


def test_published_volumes_pass_unharmed(real_data):
    images = sorted((real_data / "colorectal_t2" / "imagesTr").glob("*.nii.gz"))
    assert len(images) == 8
    for image in images:
        check_prepared({"image": str(image), "label": str(image.parent.parent / "labelsTr" / image.name)})


@pytest.mark.parametrize("overlays", [("train",), ("train", "modern")])
def test_the_contour_is_that_of_the_augmented_label(tmp_path, overlays):
    files = made(tmp_path, *GRIDS[0])
    settings = {"pretrain_patch": [8, 32, 32]}
    for name in ("train", "pretrain"):
        augmented = parsed(*overlays, **settings).get_parsed_content(f"{name}::preprocessing")
        augmented.set_random_state(3)
        for _ in range(3):
            found = augmented(files)
            label = (found[0] if isinstance(found, list) else found)["label"].as_tensor()
            assert label.shape[0] == 2 and torch.equal(label, AppendContour()(label[:1]))
            assert name == "pretrain" or label[1].any()


def test_contrast_is_about_the_mean_where_nothing_is_clipped(tmp_path):
    files = made(tmp_path, *GRIDS[0])
    parser = parsed("train", clip=None, flip_probability=0.0, contrast=[0.5, 0.5])
    *plain, augmentation, _ = parser.get_parsed_content("train::preprocessing").transforms
    image = Compose(plain)(files)["image"]
    assert image.min() < -1 and image.max() > 1
    torch.testing.assert_close(augmentation({"image": image, "label": image})["image"], 1.5 * image)
    clipped = parsed("train", flip_probability=0.0, contrast=[0.5, 0.5])
    found = clipped.get_parsed_content("augmentation")({"image": torch.tensor([[[[0.0, 0.4, 0.6, 1.0]]]]), "label": 0})
    torch.testing.assert_close(found["image"].flatten(), torch.tensor([0.0, 0.35, 0.65, 1.0]))
