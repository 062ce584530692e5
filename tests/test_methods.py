import pytest

from vlcomp.errors import ArgumentError
from vlcomp.methods import METHODS, get_method
from vlcomp.studies.frame import Study


@pytest.mark.parametrize("name", METHODS)
def test_every_part_of_every_method_can_be_imported(name):
    from pathlib import Path

    method = get_method(name)
    for part in ("model", "trainer", "arguments", "demo"):
        assert callable(method.load(part)), part
    assert isinstance(method.load("study"), Study) and method.load("study").name == name
    assert (Path(__file__).parents[1] / method.example).is_file()


def test_unknown_method():
    with pytest.raises(ArgumentError, match="'clipp' is not known; did you mean 'clip'"):
        get_method("clipp")
