"""What a run may be resumed from."""

import json

import pytest

from vlcomp.errors import CheckpointError
from vlcomp.testing import tiny_clip

from .common import trainer

STEPS = {"save_strategy": "steps", "save_steps": 1}


def test_the_last_checkpoint_of_the_output_folder(tmp_path):
    trainer(tmp_path, **STEPS).train()
    again = trainer(tmp_path, **STEPS, max_steps=3)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3 and (tmp_path / "checkpoint-3").is_dir()
    with pytest.raises(CheckpointError, match="empty has no checkpoint to resume from"):
        trainer(tmp_path / "empty").train(resume_from_checkpoint=True)


def test_what_is_no_checkpoint_of_this_run_is_refused(tmp_path):
    trainer(tmp_path, **STEPS).train()
    folder = tmp_path / "checkpoint-2"
    with pytest.raises(CheckpointError, match="no trainer_state.json, so it is not a checkpoint"):
        trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path))
    wide = tiny_clip(projection_dim=48)
    with pytest.raises(CheckpointError, match=r"of another model: it holds .*projection.weight of shape \[32"):
        trainer(tmp_path, model=wide, max_steps=3).train(resume_from_checkpoint=str(folder))
    # A vocabulary learned from other rows, in which the same token is another word.
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="written with another vocabulary"):
        trainer(tmp_path, max_steps=3).train(resume_from_checkpoint=str(folder))
