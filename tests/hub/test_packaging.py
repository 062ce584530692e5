"""The wheel holds the package, and nothing else."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the files of this repository, built in a copy: building leaves folders behind."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    # Tests and results lie beside the package, so that taking them in by mistake would show.
    for name in ("tests", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info"))  # caches included
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(place)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = place.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert inside == modules
    about = {Path(name).name for name in names if ".dist-info/" in name}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "LICENSE"}
    assert wheel.stat().st_size < 5_000_000


@pytest.mark.slow
def test_the_metadata_can_be_published(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (file,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        data = email.message_from_string(archive.read(file).decode("utf-8"))
    assert data["Description-Content-Type"] == "text/markdown" and data["License-Expression"] == "Apache-2.0"
    assert data["Name"] == "vlcomp" and data["Summary"] and "\n" not in data["Summary"]
    text = data.get_payload()
    assert text.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert not re.search(r"/work/|/root/", text)


@pytest.mark.slow
def test_the_wheel_works(wheel, tmp_path):
    place = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(place), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    code = "import sys, vlcomp, _vlcomp_cli; print(vlcomp.__file__); sys.exit(_vlcomp_cli.main(['tasks']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(place)) and "scenes/swap_attribute" in done.stdout
