"""Invariant 12: every loss agrees with its reference in value and gradient; and the checker sees it
when one does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.golden.check import report as golden
from tests.golden.check.runners import RUNNERS

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "tests" / "golden"
DETECTORS = ("reppoints", "rtmdet", "solo")
SHARED = ROOT.parent / "shared" / "golden"


def _cases(directory):
    paths = sorted(path for folder in RUNNERS for path in (directory / folder).glob("*.npz"))
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in paths]


@pytest.mark.parametrize("path", _cases(OWN))
def test_own_fixture_is_met(path):
    result = golden.run_case(path, RUNNERS[path.parent.name])
    assert result.ok, str(result)


# Fixtures beside the repository, which a bare machine does not have.
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
@pytest.mark.parametrize("path", _cases(SHARED))
def test_reference_implementation_is_met(path):
    result = golden.run_case(path, RUNNERS[path.parent.name])
    assert result.ok, str(result)


def test_every_runner_has_a_fixture_of_our_own():
    # Whole checkpoints are too large to stand here.
    assert {path.parent.name for path in OWN.glob("*/*.npz")} == set(RUNNERS) - {"mmdet"}


def test_own_fixtures_are_what_their_script_makes(tmp_path):
    command = [sys.executable, str(OWN / "make_fixtures.py"), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    # Those of detectors are the reference's own, or parts of them: a whole detector is not written down a second time.
    for path in sorted(path for path in OWN.glob("*/*.npz") if path.parent.name not in DETECTORS):
        made = np.load(tmp_path / path.relative_to(OWN))
        with np.load(path) as stored:
            assert set(made.files) == set(stored.files)
            for name in stored.files:
                if name == "meta":
                    assert made[name] == stored[name]
                else:
                    np.testing.assert_allclose(made[name], stored[name], rtol=1e-5, atol=1e-7)


@pytest.fixture
def copy_of(tmp_path):
    """Function that copies one of our cases under ``tmp_path``, with some arrays changed."""

    def copy(name, drop=(), **changed):
        path = tmp_path / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        with np.load(OWN / f"{name}.npz") as stored:
            arrays = {key: stored[key] for key in stored.files if key not in drop}
        for key, change in changed.items():
            arrays[key] = change(arrays[key])
        np.savez(path, **arrays)
        return path

    return copy


def _one_wrong(array):
    array = array.copy()
    array.flat[np.abs(array).argmax()] *= 1.001
    return array


@pytest.mark.parametrize(
    "array", ["out_loss", "out_terms_relation", "grad_student", "grad_param_conv_mask_t.weight"]
)
def test_a_deviation_is_a_failure(run_tool, copy_of, tmp_path, array):
    copy_of("fgd/case1")
    copy_of("fgd/case2", **{array: _one_wrong})
    done = run_tool("check_golden", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    first, second = (line for line in done.stdout.splitlines() if line.startswith("fgd/"))
    assert " ok " in first
    assert "FAILED" in second
    assert array.split("_")[-1] in done.stdout  # the line below names what is off


def test_all_within_tolerance_is_success_with_a_line_for_each_case(run_tool):
    done = run_tool("check_golden", OWN)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in OWN.glob("*/*.npz"):
        assert f"{path.parent.name}/{path.stem} " in done.stdout


def test_nothing_checked_is_an_error(run_tool, tmp_path):
    (tmp_path / "empty" / "fgd").mkdir(parents=True)
    for directory in (tmp_path / "nowhere", tmp_path / "empty", OWN / "fgd"):
        done = run_tool("check_golden", directory)
        assert done.returncode == 2, done.stdout + done.stderr
        assert str(directory) in done.stdout


def test_an_unknown_folder_is_named_and_no_failure(copy_of, tmp_path):
    copy_of("kl/case1")
    shutil.copytree(tmp_path / "kl", tmp_path / "loss_of_tomorrow")
    lines = []
    assert golden.report(tmp_path, lines.append) == 0
    assert "loss_of_tomorrow: no loss yet" in lines


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut short"])
def test_an_unreadable_file_is_a_failure_that_names_it(copy_of, tmp_path, content):
    copy_of("kl/case1")
    (tmp_path / "kl" / "case2.npz").write_bytes(content)
    good, bad = golden.check(tmp_path)
    assert good.ok
    assert not bad.ok
    assert "case2.npz" in bad.problem


def test_a_damaged_array_is_a_failure_that_names_it(copy_of, tmp_path):
    path = copy_of("kl/case1")
    content = path.read_bytes()
    damaged = np.load(path)["in_student"].tobytes()
    assert damaged in content
    path.write_bytes(content.replace(damaged, bytes(len(damaged))))
    (result,) = golden.check(tmp_path)
    assert not result.ok
    assert "case1.npz: array 'in_student'" in result.problem


@pytest.mark.parametrize("name", ["in_student", "out_loss", "grad_student", "meta"])
def test_a_missing_array_is_a_failure_that_names_it(copy_of, tmp_path, name):
    copy_of("kl/case1", drop=[name])
    (result,) = golden.check(tmp_path)
    assert not result.ok
    assert f"case1.npz: array '{name}' is missing" in result.problem


def test_a_missing_hyper_parameter_is_a_failure_that_names_it(copy_of, tmp_path):
    copy_of("kl/case1", meta=lambda meta: np.array([str(meta[0]).replace('"tau"', '"taw"')]))
    (result,) = golden.check(tmp_path)
    assert "case1.npz" in result.problem and "'tau'" in result.problem


def test_an_input_of_a_wrong_shape_is_a_failure_that_names_the_file(copy_of, tmp_path):
    copy_of("kl/case1", in_teacher=lambda array: array[:, 1:])
    (result,) = golden.check(tmp_path)
    assert not result.ok
    assert "case1.npz: ValueError" in result.problem


@pytest.mark.parametrize(
    ("ours", "reference", "error"),
    [
        ([1.0, 4.2], [1.0, 4.0], 0.05),
        ([0.0, 0.5], [0.0, 0.0], 0.5),
        ([1.0], [1.0, 1.0], np.inf),
        ([np.nan], [1.0], np.inf),
        (None, [1.0], np.inf),
    ],
)
def test_relative_error(ours, reference, error):
    assert golden.relative_error(ours, reference) == pytest.approx(error)
