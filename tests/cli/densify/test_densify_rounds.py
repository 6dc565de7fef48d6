"""Further slices: what is trained on, scored and kept from round to round."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from drawn_ball import PLANES, SIZE, UNDRAWN, save, slices, volume

from common.cli.commands import main
from common.cli.densify.folder import NEXT, read_record


def test_further_slices_are_added_and_training_goes_on_from_what_has_not_seen_those_held_out(
    densify, lines, more, tmp_path
):
    densify()
    out, before = tmp_path / "out", read_record(tmp_path / "out")
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0
    record = read_record(out)
    assert lines[0][1]["start_from"] == str(out / "fit" / "model.pt")
    assert record["planes"] == [[5, 12, 18], [4, 10, 15], [2, 4, 8, 12, 14]]
    assert all(set(old) <= set(new) for old, new in zip(before["held_out"], record["held_out"], strict=True))
    new = sum(map(len, record["held_out"])) - sum(map(len, before["held_out"]))
    assert new == 1
    assert [len(one) for one in record["inputs"]["slices"]] == [1, 1]
    assert not (out / NEXT).exists() and "contents" not in record
    assert sorted(path.name for path in (out / "data" / "imagesTr").iterdir()) == ["volume2.nii.gz"]
    both = np.where(slices(PLANES) == UNDRAWN, volume(Path(more)), slices(PLANES))
    assert np.array_equal(volume(out / "dense.nii.gz")[both != UNDRAWN], both[both != UNDRAWN])


@pytest.mark.parametrize("factor", [1, 2])
def test_nothing_is_scored_that_an_earlier_round_was_trained_on(densify, more, tmp_path, capsys, factor):
    out, words = tmp_path / "out", ["--downsample", str(factor)]

    def case(number):
        return volume(out / "data" / "labelsTr" / f"volume{number}.nii.gz") != 2

    def on(held_out):
        mask = np.zeros(case_shape, bool)
        for axis, indices in enumerate(held_out):
            mask[tuple(indices if a == axis else slice(None) for a in range(3))] = True
        return mask

    densify(*words)
    case_shape = tuple(n // factor for n in SIZE)
    trained, drawn = [case(1) & ~on(read_record(out)["held_out"])], [case(1)]
    last = save(slices([(0, 2), (1, 7), (2, 6), (2, 10)]), tmp_path / "last.nii.gz")
    for number, given in ((2, more), (3, last)):
        capsys.readouterr()
        assert densify("--continue", "true", given=[given]) == 0
        told, held_out = capsys.readouterr().out, on(read_record(out)["held_out"])
        everything = drawn[-1] | coarse(volume(Path(given)) != UNDRAWN, factor)
        scored = case(number) & held_out
        crossed = everything & held_out & trained[-1]
        assert crossed.any() and not (scored & trained[-1]).any()
        np.testing.assert_array_equal(scored, everything & held_out & ~trained[-1])
        np.testing.assert_array_equal(case(number) & ~held_out, everything & ~held_out)
        assert f"{crossed.sum()} voxels held out are not scored" in told
        trained.append(trained[-1] | (case(number) & ~held_out))
        drawn.append(everything)
        dense = volume(out / "dense.nii.gz")
        there = volume(Path(given)) != UNDRAWN
        assert np.array_equal(dense[there], volume(Path(given))[there])
        if factor == 1:
            assert json.loads((out / "report.json").read_text())["uncertainty"]["voxels"] == scored.sum()
    data = [nibabel.load(next((out / "data" / part).iterdir())) for part in ("imagesTr", "labelsTr")]
    assert np.allclose(data[0].affine, data[1].affine)
    assert data[0].header.get_xyzt_units() == data[1].header.get_xyzt_units()


def coarse(mask, factor):
    for axis in range(3):
        mask = np.logical_or.reduceat(mask, range(0, mask.shape[axis], factor), axis)
    return mask


def test_a_folder_may_have_any_name(lines, image, drawn, more, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    out = tmp_path / NEXT
    for words in ([drawn], [drawn], [more, "--continue", "true"]):
        assert main(["densify", image, *words, "--out", str(out)]) == 0
        assert (out / "report.md").is_file() and (out / "fit" / "model.pt").is_file() and not (out / NEXT).exists()
    assert read_record(out)["planes"] == [[5, 12, 18], [4, 10, 15], [2, 4, 8, 12, 14]]


def test_a_round_that_fails_leaves_the_one_before_whole(densify, lines, more, tmp_path):
    densify()
    out = tmp_path / "out"
    kept = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    lines.fails = "inference"
    assert densify("--continue", "true", given=[more]) == 1
    assert all((out / path).read_bytes() == content for path, content in kept.items())
    lines.fails = ""
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0
    assert lines.names() == ["inference+uncertainty"] and not (out / NEXT).exists()


def test_a_round_is_given_up_for_other_slices(densify, lines, more, tmp_path):
    densify()
    lines.fails = "train"
    assert densify("--continue", "true", given=[more]) == 1
    lines.fails = ""
    other = save(slices([(1, 4)]), tmp_path / "other.nii.gz")
    assert densify("--continue", "true", given=[other]) == 0
    assert read_record(tmp_path / "out")["planes"] == [[5, 12], [4, 10], [4, 8, 12]]


def test_one_axis_is_warned_of_only_when_it_is_one_of_all(densify, tmp_path, capsys):
    densify(given=[save(slices([(2, 3), (2, 6), (2, 8), (2, 12)]), tmp_path / "z.nii.gz")])
    assert "Warning: slices were drawn across z only" in capsys.readouterr().out
    assert densify("--continue", "true", given=[save(slices([(1, 10)]), tmp_path / "y.nii.gz")]) == 0
    told = capsys.readouterr().out
    assert "slices were drawn across" not in told and "All slices (counted from 0): y 10; z 3, 6, 8, 12" in told


def test_the_second_round_again_does_nothing(densify, lines, more, tmp_path):
    densify()
    densify("--continue", "true", given=[more])
    lines.clear()
    assert densify("--continue", "true", given=[more]) == 0 and not lines


def test_voxels_drawn_anew_replace_the_old_ones(densify, tmp_path, capsys):
    densify()
    capsys.readouterr()
    again = slices([(2, 8)])
    again[0, 0, 8] = 100
    assert densify("--continue", "true", given=[save(again, tmp_path / "again.nii.gz")]) == 0
    assert "1 were labelled otherwise" in capsys.readouterr().out
    assert volume(tmp_path / "out" / "dense.nii.gz")[0, 0, 8] == 100


def test_a_new_class_starts_from_random_weights(densify, lines, tmp_path, capsys):
    densify()
    lines.clear()
    third = slices([(2, 6)], values=(0, 7))
    assert densify("--continue", "true", given=[save(third, tmp_path / "third.nii.gz")]) == 0
    assert lines[0][1]["start_from"] is None and lines[0][1]["num_classes"] == 3
    assert "There are 3 classes now and were 2" in capsys.readouterr().out


def test_further_slices_want_what_is_done(densify, lines, more, capsys):
    lines.fails = "score"
    densify()
    assert densify("--continue", "true", given=[more]) == 2
    assert "is not done with the slices before" in capsys.readouterr().err


def test_the_grid_stays_in_further_rounds(densify, more, capsys):
    densify()
    assert densify("--continue", "true", "--downsample", "2", given=[more]) == 2
    assert "--downsample is 2 and was not given" in capsys.readouterr().err
