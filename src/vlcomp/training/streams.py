"""Where a run over a stream stands: streams have no length, and `transformers.Trainer` counts no passes over them."""

from __future__ import annotations

import math

from transformers import TrainerState


def stream_position(state: TrainerState, accumulation: int) -> tuple[int, int]:
    """The pass over a stream that a checkpoint was written in, and the batches taken from that pass.

    Args:
        state (`TrainerState`):
            As the checkpoint holds it: its `epoch` is the number of full passes plus the share of *all* batches of
            the run that were taken from the present one, since the length of a pass is not known.
        accumulation (`int`):
            Batches of an optimiser step.

    Returns:
        `tuple[int, int]`: passes before, counted from 0, and batches.

    Example:
        >>> from transformers import TrainerState
        >>> from vlcomp.training.streams import stream_position
        >>> stream_position(TrainerState(epoch=2 + 3 / 18, global_step=15, max_steps=18), 1)
        (2, 3)
    """
    total, epoch = state.max_steps * accumulation, state.epoch or 0.0
    passes = math.floor(epoch)
    batches = round((epoch - passes) * total)
    if batches == 0 and passes > 0:
        # At least one batch of a pass comes before its checkpoints: this is all of a run that fitted one pass.
        return passes - 1, total
    return passes, batches
