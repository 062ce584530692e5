"""The real client of the Hub against a server on loopback."""

import os

import pytest

from .server import TOKEN, Server


@pytest.fixture(scope="module")
def server():
    with Server() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The client of this process talks to the loopback server, signed in and with caches of its own."""
    from huggingface_hub import constants, hf_api
    from transformers.utils import hub as transformers_hub

    server.repos.clear()
    server.down = False
    # These are read when the client is imported, which conftest.py does offline.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    # Functions such as create_repo belong to one object, made at import; transformers keeps another.
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    monkeypatch.setattr(transformers_hub, "_hf_api", None)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    # The storage of large files in chunks (xet) is another protocol, spoken by a library in Rust.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    return server


@pytest.fixture
def environment(server, tmp_path):
    """Environment of a new process that talks to the loopback server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    return {
        **kept,
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
