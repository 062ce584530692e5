"""Rules of the source tree that no linter knows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vlcomp

ROOT = Path(vlcomp.__file__).parent
# A layer may import from itself (without cycles between its packages) and from the layers after it.
LAYERS = [
    {"cli"},
    {"studies", "pipelines"},
    {"analysis", "protocols"},
    {"training"},
    {"hub"},
    {"metrics"},
    {"evaluation"},
    {"scorers"},
    {"embeddings"},
    {"checkpoints"},
    {"data", "losses"},
    {"models"},
    {"methods"},
    {"files"},
    {"errors", "_version"},
]
# testing is for tests and may use everything below the command line; registration only names models and pipelines.
FREE = {"testing", "registration", "__init__"}


def unit(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path):
    """Top-level units of vlcomp that a file imports, wherever in the file it does so."""
    parts = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = parts[: len(parts) - node.level + 1]
                full = [*base, *(node.module.split(".") if node.module else [])]
            elif node.module and node.module.split(".")[0] == "vlcomp":
                full = node.module.split(".")[1:]
            else:
                continue
            if full:
                yield full[0]
            else:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                names = alias.name.split(".")
                if names[0] == "vlcomp" and len(names) > 1:
                    yield names[1]


def level(name: str) -> int | None:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    own = unit(path)
    if own in FREE:
        return
    assert level(own) is not None, f"{own} has no layer: add it to LAYERS and to CONTRIBUTING.md"
    for name in imports(path):
        if name in ("_version", "__version__", own):
            continue
        assert name not in ("testing", "registration"), f"{path} imports {name}"
        target = level(name)
        if target is None:
            continue  # a public name of the package itself
        assert target > level(own), f"{path.relative_to(ROOT)} imports {name}, which lies above or beside {own}"


def test_no_cycle_within_a_layer():
    edges = {(unit(p), name) for p in FILES for name in imports(p)}
    for a, b in edges:
        assert a == b or (b, a) not in edges or {a, b} & FREE, f"{a} and {b} import each other"


def test_method_folders_are_flat_and_self_contained():
    # Remote code copies only what a file reaches by `from .name import x`.
    for folder in (ROOT / "models").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert not [p for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"]
            for path in folder.glob("*.py"):
                assert not [name for name in imports(path) if name != "models"], path
                for node in ast.walk(ast.parse(path.read_text())):
                    if isinstance(node, ast.ImportFrom) and node.level:
                        assert node.level == 1 and node.module and "." not in node.module, path


def test_only_registration_registers():
    for path in FILES:
        if path.name != "registration.py":
            text = path.read_text(encoding="utf-8")
            assert ".register(Auto" not in text and "register_pipeline" not in text, path


def test_import_is_lazy():
    code = (
        "import sys, vlcomp;"
        "print([m for m in sys.modules if m.startswith(('vlcomp.training', 'vlcomp.evaluation', 'vlcomp.data', 'peft',"
        " 'datasets', 'evaluate'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "[]"


def test_every_lazy_name_resolves():
    for name in vlcomp.__all__:
        assert getattr(vlcomp, name) is not None
    assert set(vlcomp.__all__) <= set(dir(vlcomp))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vlcomp.nothing  # noqa: B018


def test_files_stay_small():
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 550, f"{path.relative_to(ROOT)} has {lines} lines: is it two ideas?"


def test_no_machine_paths_in_the_source():
    words = ("/work/", "/root/", "/opt/")
    for path in [*FILES, *(ROOT.parent.parent / "examples").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], path
