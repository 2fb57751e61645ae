"""A program takes the skull off, or the import says why not; the program here peels voxels off, as no clinic would."""

import shlex
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from gmmas_data.skull_stripping import find_brain
from gmmas_schema.dicom import SkullStripper
from gmmas_schema.errors import ConfigError, DataError

PROGRAM = """
import sys, time
from pathlib import Path
image, brain, kind = sys.argv[1:]
if kind == "sleep":
    time.sleep(60)
if kind == "fail":
    sys.exit("no GPU, and no patience")
if kind == "damaged":
    Path(brain).write_bytes(b"half an image")
    sys.exit()
while kind == "wait" and not Path(__file__).with_name("go").exists():
    time.sleep(0.01)
if kind != "nothing":
    import nibabel as nib
    import numpy as np
    from scipy import ndimage
    head = nib.load(image)
    values = np.asarray(head.dataobj)
    depth_mm = ndimage.distance_transform_edt(values > 100, sampling=head.header.get_zooms())
    kept = np.where(depth_mm > (40 if kind == "small" else 10), values, 0)
    nib.save(nib.Nifti1Image((kept[1:] if kind == "grid" else kept).astype(np.int16), head.affine), brain)
"""


def peeler(folder: Path, kind: str, *, timeout_s: float = 60.0) -> SkullStripper:
    program = folder / "peel.py"
    program.write_text(PROGRAM)
    return SkullStripper(
        command=f"{shlex.quote(sys.executable)} {shlex.quote(str(program))} {{image}} {{brain}} {kind}", timeout_s=timeout_s
    )


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A ball of 60 mm in a shell, with a hole that belongs to the brain."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    grid = np.indices((40, 40, 40)) - 20
    radius = np.sqrt((grid**2).sum(axis=0))
    values = np.where(radius < 15, 500, np.where(radius < 17, 900, 0))
    values[18:22, 18:22, 18:22] = 150
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([4.0, 4.0, 4.0, 1.0])), folder / "head.nii.gz")
    return folder / "head.nii.gz"


def test_what_the_program_leaves_is_the_brain(head: Path) -> None:
    mask = find_brain(peeler(head.parent, "good"), head)
    values = np.asarray(nib.load(head).dataobj)
    assert values[mask].max() == 500
    assert mask[18:22, 18:22, 18:22].all()
    assert sorted(path.name for path in head.parent.iterdir()) == ["head.nii.gz", "peel.py"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("fail", "exit status 1: no GPU, and no patience"),
        ("nothing", "no file where {brain} stands"),
        ("grid", "an image on another grid"),
        ("small", "ml"),
        ("damaged", "a file cannot be read"),
        ("sleep", "no end within 0.5 s"),
    ],
)
def test_a_program_that_does_not_do_it_is_refused_with_its_words(head: Path, kind: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        find_brain(peeler(head.parent, kind, timeout_s=0.5 if kind == "sleep" else 60.0), head)
    assert said in str(caught.value)
    assert "run the program by hand" in str(caught.value)
    assert sorted(path.name for path in head.parent.iterdir()) == ["head.nii.gz", "peel.py"]


def test_what_a_program_has_started_ends_with_it(head: Path) -> None:
    """Such programs are often scripts around the one that works."""
    script = 'sleep 60 & echo $! > "$0.pid"; wait'
    stripper = SkullStripper(command=f"sh -c {shlex.quote(script)} {{image}} {{brain}}", timeout_s=1.0)
    with pytest.raises(DataError, match="no end within 1 s"):
        find_brain(stripper, head)
    worker = int(head.with_name("head.nii.gz.pid").read_text())
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


def test_a_program_that_is_not_there_is_named(head: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-program"):
        find_brain(SkullStripper(command="no-such-program {image} {brain}"), head)


@pytest.mark.parametrize(
    "command", ["", "hd-bet", "hd-bet -i {image}", "hd-bet {image} {image} {brain}", "{image} {brain}", "hd-bet '{image} {brain}"]
)
def test_a_command_without_both_files_is_refused(command: str) -> None:
    with pytest.raises(ConfigError, match="--skull-stripper"):
        SkullStripper.parse({"command": command}, where="--skull-stripper")
