"""Saving of volumes: whole or not at all, and under names of their own."""

import errno
import inspect

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import LoadImaged, SaveImaged

from common.checks import InputError
from common.transforms.save import AtomicSaveImaged, CaseNames

AFFINE = torch.tensor([[-0.5, 0, 0, 7], [0, 2.0, 0, -3], [0, 0, 3.0, 1], [0, 0, 0, 1]], dtype=torch.float64)


def volume(source, value=1):
    meta = {"filename_or_obj": str(source)} if source else {}
    return MetaTensor(torch.full((1, 4, 5, 6), value, dtype=torch.int64), affine=AFFINE, meta=meta)


def saver(folder, **changes):
    options = {
        "output_postfix": "seg",
        "output_dtype": np.uint8,
        "separate_folder": False,
        "print_log": False,
        **changes,
    }
    return AtomicSaveImaged(keys="pred", output_dir=str(folder), **options)


def read(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_takes_the_arguments_of_save_imaged():
    assert inspect.signature(AtomicSaveImaged) == inspect.signature(SaveImaged)
    assert issubclass(AtomicSaveImaged, SaveImaged) and "SaveImage" in AtomicSaveImaged.__name__


def test_writes_what_monai_writes(tmp_path):
    pred = volume("in/scan.nii.gz")
    pred.as_tensor()[0, 1, 2, 3] = 2
    saver(tmp_path / "ours")({"pred": pred})
    SaveImaged(
        keys="pred",
        output_dir=str(tmp_path / "stock"),
        output_postfix="seg",
        output_dtype=np.uint8,
        separate_folder=False,
        print_log=False,
    )({"pred": pred})
    ours, stock = (nibabel.load(tmp_path / name / "scan_seg.nii.gz") for name in ("ours", "stock"))
    assert np.array_equal(read(tmp_path / "ours" / "scan_seg.nii.gz"), pred[0].numpy())
    assert np.array_equal(ours.affine, AFFINE.numpy()) and np.array_equal(ours.affine, stock.affine)
    assert ours.get_data_dtype() == np.uint8
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["scan_seg.nii.gz"]


@pytest.mark.parametrize("shape", [(3, 4, 1), (3, 1, 1), (1, 4, 5)])
def test_a_volume_of_one_slice_keeps_its_axes(tmp_path, shape):
    pred = volume("in/scan.nii.gz")
    pred = MetaTensor(torch.ones(1, *shape), meta=dict(pred.meta))
    saver(tmp_path)({"pred": pred})
    assert read(tmp_path / "scan_seg.nii.gz").shape == shape


@pytest.mark.parametrize(
    "options, path",
    [
        ({"separate_folder": True}, "scan/scan_seg.nii.gz"),
        ({"output_ext": ".nii"}, "scan_seg.nii"),
        ({"output_postfix": ""}, "scan.nii.gz"),
    ],
)
def test_folders_and_endings(tmp_path, options, path):
    saver(tmp_path, **options)({"pred": volume("in/scan.nii.gz")})
    assert (tmp_path / path).is_file()


def test_without_a_file_name_volumes_are_numbered(tmp_path):
    write = saver(tmp_path)
    write({"pred": volume(None)})
    write({"pred": volume(None)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_seg.nii.gz", "1_seg.nii.gz"]


def test_same_name_in_two_folders(tmp_path, caplog):
    write = saver(tmp_path)
    sources = ["a/scan.nii.gz", "b/scan.nii.gz", "c/b/scan.nii.gz", "a/scan.nii.gz"]
    names = [write({"pred": volume(source, value)})["pred"].meta["case_name"] for value, source in enumerate(sources)]
    assert names == ["scan", "b_scan", "scan_2", "scan"]
    # the same source again replaces its own file, no other
    saved = {path.name: int(read(path).max()) for path in tmp_path.iterdir()}
    assert saved == {"scan_seg.nii.gz": 3, "b_scan_seg.nii.gz": 1, "scan_2_seg.nii.gz": 2}
    assert "taken by another case of this run" in caplog.text


def test_two_keys_of_one_case_do_not_overwrite_each_other(tmp_path):
    write = AtomicSaveImaged(keys=["pred", "box"], output_dir=str(tmp_path), separate_folder=False, print_log=False)
    write({"pred": volume("a/scan.nii", 1), "box": volume("a/scan.nii", 2)})
    assert {path.name: int(read(path).max()) for path in tmp_path.iterdir()} == {
        "scan_trans.nii.gz": 1,
        "scan_box_trans.nii.gz": 2,
    }


def test_a_run_replaces_files_of_an_earlier_run(tmp_path):
    saver(tmp_path)({"pred": volume("a/scan.nii", 1)})
    saver(tmp_path)({"pred": volume("b/scan.nii", 2)})
    assert {path.name: int(read(path).max()) for path in tmp_path.iterdir()} == {"scan_seg.nii.gz": 2}


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    saver(tmp_path)({"pred": volume("a/scan.nii", 1)})

    def half(image, path):
        with open(path, "wb") as stream:
            stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nibabel, "save", half)
    with pytest.raises(KeyboardInterrupt):
        saver(tmp_path)({"pred": volume("a/scan.nii", 2)})
    assert [path.name for path in tmp_path.iterdir()] == ["scan_seg.nii.gz"]
    assert read(tmp_path / "scan_seg.nii.gz").max() == 1


def test_full_disk_is_named(tmp_path, monkeypatch):
    def full(image, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(InputError, match=r"scan_seg\.nii\.gz' failed \(No space left on device\).*free some space"):
        saver(tmp_path, writer="NibabelWriter")({"pred": volume("a/scan.nii")})
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="can not be written.*choose another folder"):
        saver(tmp_path / "file" / "out")({"pred": volume("a/scan.nii")})


def test_other_faults_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="cannot find a suitable writer"):
        saver(tmp_path, output_dtype="no such type")({"pred": volume("a/scan.nii")})


def test_names_are_stable():
    names = CaseNames()
    assert [names(path) for path in ("x/1.2.dcm", "x/series.7", "y/series.7", "x/1.2.dcm")] == [
        "1.2",
        "series.7",
        "y_series.7",
        "1.2",
    ]


def test_path_of_the_saved_file(tmp_path):
    done = saver(tmp_path, savepath_in_metadict=True)({"pred": volume("a/scan.nii")})
    assert done["pred"].meta["saved_to"] == str(tmp_path / "scan_seg.nii.gz")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("units, wanted", [(3, ("micron", "unknown")), (10, ("mm", "sec")), (None, ("unknown",) * 2)])
def test_the_unit_of_the_grid_is_kept(tmp_path, ending, units, wanted):
    pred = volume("in/scan.nii.gz", 2)
    if units is not None:
        pred.meta["xyzt_units"] = np.asarray(units, dtype=np.uint8)
    saver(tmp_path, output_ext=ending)({"pred": pred})
    done = nibabel.load(tmp_path / f"scan_seg{ending}")
    assert done.header.get_xyzt_units() == wanted
    assert done.get_data_dtype() == np.uint8 and read(tmp_path / f"scan_seg{ending}").max() == 2
    assert np.array_equal(done.affine, AFFINE.numpy()) and (done.header["qform_code"], done.header["sform_code"]) == (
        1,
        1,
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_the_unit_of_a_file_that_was_read_is_that_of_the_file_written(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), dtype=np.float32), AFFINE.numpy())
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "scan.nii.gz")
    batch = list_data_collate([LoadImaged(keys="pred", ensure_channel_first=True)({"pred": tmp_path / "scan.nii.gz"})])
    saver(tmp_path / "out")(decollate_batch(batch)[0])
    assert nibabel.load(tmp_path / "out" / "scan_seg.nii.gz").header.get_xyzt_units() == ("micron", "unknown")
