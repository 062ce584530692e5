"""Fixtures shared by all tests. Tests never use the network and run torch on one thread."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

# Two test workers on two cores: more threads than that only make the small models of the tests wait for each other.
torch.set_num_threads(1)
transformers_logging.disable_progress_bar()


@pytest.fixture(scope="session")
def clip_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny CLIP with its processor. Read it, never write into it."""
    from vlcomp.testing import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("clip") / "checkpoint", "clip")


@pytest.fixture(scope="session")
def siglip_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny SigLIP with its processor. Read it, never write into it."""
    from vlcomp.testing import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("siglip") / "checkpoint", "siglip")


@pytest.fixture(scope="session")
def siglip2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny SigLIP2 (any aspect ratio) with its processor. Read it, never write into it."""
    from vlcomp.testing import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("siglip2") / "checkpoint", "siglip2")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets: $VLCOMP_DATA, else ../shared/data beside the repository; skips without it."""
    root = Path(os.environ.get("VLCOMP_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"real data not found at {root}; README tells where to get it, VLCOMP_DATA says where it is")
    return root
