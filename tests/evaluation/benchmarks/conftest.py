"""Fixtures of the benchmark tests."""

import hashlib
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def benchmark_root() -> Path:
    """Folder of official benchmark files: $VLCOMP_BENCHMARKS, else ../shared/benchmarks; skips without it."""
    root = Path(os.environ.get("VLCOMP_BENCHMARKS") or Path(__file__).resolve().parents[4] / "shared" / "benchmarks")
    if not root.is_dir():
        pytest.skip(f"official benchmark files not found at {root}; VLCOMP_BENCHMARKS says where they are")
    return root


@pytest.fixture(scope="session")
def placeholders(benchmark_root, tmp_path_factory) -> Path:
    """A small picture of its own for every image that the official files at hand name."""
    folder = tmp_path_factory.mktemp("placeholders")
    names = set()
    for path in [*benchmark_root.glob("sugarcrepe*/*.json"), *benchmark_root.glob("valse/*.json")]:
        content = json.loads(path.read_text())
        rows = content.values() if isinstance(content, dict) else content
        names |= {row.get("filename") or row["image_file"] for row in rows}
    for split in ("dev", "test"):
        lines = (benchmark_root / "vsr_zeroshot" / f"{split}.jsonl").read_text().splitlines()
        names |= {json.loads(line)["image"] for line in lines}
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, format="BMP")
    head = buffer.getvalue()[:-36]  # three rows of three pixels, filled up to 12 bytes
    for name in names:
        (folder / name).write_bytes(head + hashlib.blake2b(name.encode(), digest_size=36).digest())
    return folder
