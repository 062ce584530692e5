"""Resuming runs over streams: a pass is gone on with where it was left."""

import pytest
import torch

from vlcomp.testing import tiny_clip

from .common import rows, trainer, weights, with_dropout

STEPS = 7


def run(folder, resume=None, rows_of_a_pass=20, **changes):
    """Train over a shuffled stream; three batches a pass, the last of them smaller."""
    data = rows(rows_of_a_pass).to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=10)
    options = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant", "max_steps": STEPS}
    model = with_dropout(tiny_clip())
    done = trainer(folder, model=model, data=data, **{**options, "learning_rate": 0.005, **changes})
    seen, collate = [], done.data_collator

    def noted(batch):
        seen.append([row["caption"] for row in batch])
        return collate(batch)

    done.data_collator = noted
    done.train(resume_from_checkpoint=str(resume) if resume else None)
    return done, seen


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_stream_resumed_in_any_pass_equals_an_uninterrupted_run(tmp_path, accumulation):
    whole, seen = run(tmp_path / "whole", gradient_accumulation_steps=accumulation)
    assert len(seen) > 2 * 3 and seen[0] != seen[3]  # three passes, in other orders
    for step in range(1, STEPS):
        resumed, _ = run(
            tmp_path / "resumed", tmp_path / "whole" / f"checkpoint-{step}", gradient_accumulation_steps=accumulation
        )
        assert resumed.state.global_step == STEPS
        for name, value in weights(whole.model).items():
            assert torch.equal(value, weights(resumed.model)[name]), (step, name)


def test_passes_that_were_finished_are_not_read_again(tmp_path):
    _, whole = run(tmp_path / "whole")
    _, seen = run(tmp_path / "resumed", tmp_path / "whole" / "checkpoint-5")
    assert seen == whole[3:]
    # Without the skipped batches its pass begins again.
    _, seen = run(tmp_path / "resumed", tmp_path / "whole" / "checkpoint-5", ignore_data_skip=True)
    assert seen[:2] == whole[3:5]


def test_a_finished_run_trains_no_further_and_a_longer_one_does(tmp_path):
    first, _ = run(tmp_path / "first", max_steps=2)
    again, seen = run(tmp_path / "again", tmp_path / "first" / "checkpoint-2", max_steps=2)
    assert again.state.global_step == 2 and not seen
    whole, _ = run(tmp_path / "whole")
    longer, _ = run(tmp_path / "longer", tmp_path / "first" / "checkpoint-2")
    for name, value in weights(whole.model).items():
        assert torch.equal(value, weights(longer.model)[name]), name
        assert torch.equal(weights(first.model)[name], weights(again.model)[name]), name
