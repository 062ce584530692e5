"""What happens at which step of a run by generations, and with which random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GenerationSchedule:
    """What happens at which step of a run by generations; steps and generations follow from each other.

    Args:
        num_generations (`int`):
            Generations of the run.
        generation_steps (`int`):
            Steps of each.
        codebook_freeze_steps (`int`):
            Steps at the start of each generation but the first with a frozen codebook.
        rewarmup_steps (`int`):
            Steps in which the learning rate rises again after each spawn.
        rewarmup_start (`float`):
            Share of the learning rate with which that rise begins.

    Example:
        >>> from vlcomp.training.generations import GenerationSchedule
        >>> schedule = GenerationSchedule(3, 10, 4, 2, 0.1)
        >>> [schedule.generation(step) for step in (0, 9, 10, 29)]
        [1, 1, 2, 3]
        >>> schedule.spawns_at(10), schedule.frozen_at(13), schedule.frozen_at(14), schedule.rate_factor(11)
        (True, True, False, 0.55)
    """

    num_generations: int
    generation_steps: int
    codebook_freeze_steps: int
    rewarmup_steps: int
    rewarmup_start: float

    def generation(self, step: int) -> int:
        """The generation, counted from 1, of the optimiser step after `step` steps."""
        return min(step // self.generation_steps + 1, self.num_generations)

    def position(self, step: int) -> int:
        """Steps since that generation began."""
        return step - (self.generation(step) - 1) * self.generation_steps

    def spawns_at(self, step: int) -> bool:
        """Whether an agent is replaced before the next optimiser step."""
        return self.generation(step) > 1 and self.position(step) == 0

    def frozen_at(self, step: int) -> bool:
        """Whether the codebook is frozen in the next optimiser step."""
        return self.generation(step) > 1 and self.position(step) < self.codebook_freeze_steps

    def rate_factor(self, step: int) -> float:
        """Factor of the learning rate in the next optimiser step."""
        position = self.position(step)
        if self.generation(step) == 1 or position >= self.rewarmup_steps:
            return 1.0
        return self.rewarmup_start + (1 - self.rewarmup_start) * position / self.rewarmup_steps


def generation_seed(spawn_seed: int, generation: int) -> int:
    """Seed of the weights with which the new agent of a generation starts.

    Args:
        spawn_seed (`int`):
            Seed of the run's spawns.
        generation (`int`):
            The generation that begins, counted from 1.

    Returns:
        `int`: another one for each pair of arguments (runs with neighbouring seeds share none), below 2**63.

    Example:
        >>> from vlcomp.training.generations import generation_seed
        >>> generation_seed(0, 2) == generation_seed(0, 2), generation_seed(0, 3) == generation_seed(1, 2)
        (True, False)
    """
    return int(np.random.SeedSequence([spawn_seed, generation]).generate_state(1, np.uint64)[0] >> np.uint64(1))
