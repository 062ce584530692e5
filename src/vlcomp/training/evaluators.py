"""Measuring a model while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from ..embeddings import Embedder
from ..errors import ArgumentError, EvaluationError
from .adapters import base_model
from .grad_cache import RandomState


class EvaluatorTrainer(Trainer):
    """A `Trainer` that measures the model with evaluators at every evaluation.

    Metrics are part of what `evaluate()` returns, so `metric_for_best_model` can name one. Evaluators need no
    `eval_dataset`, and evaluating leaves the random numbers of training as they are.

    A subclass sets `self.evaluators` ([`resolve_evaluators`]) before `Trainer.__init__`; its arguments have a `fit`.
    """

    evaluators: list[Any] = []
    _evaluating = False
    _evaluators_pending = False

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss of the evaluation set, if there is one, and metrics of the evaluators."""
        outermost = not self._evaluating
        if outermost:
            self._evaluating, self._evaluators_pending = True, bool(self.evaluators)
            self._evaluators_prefix = metric_key_prefix
        try:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        finally:
            if outermost:
                self._evaluating = self._evaluators_pending = False

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Batches of the evaluation set; none at all if there are only evaluators."""
        if eval_dataset is None and self.eval_dataset is None and self.evaluators:
            return DataLoader([])
        return super().get_eval_dataloader(eval_dataset)

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> DataLoader:
        # `dataloader_drop_last` is about training batches; an evaluation that leaves rows out is wrong.
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Run the evaluation set and then the evaluators, without touching the random numbers of training."""
        state = RandomState(self.model.parameters())
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            if self._evaluators_pending:
                self._evaluators_pending = False
                metrics = run_evaluators(
                    self.evaluators,
                    base_model(self.model),
                    self.processing_class,
                    batch_size=self.args.per_device_eval_batch_size,
                    fit=self.args.fit,
                )
                output.metrics.update({f"{self._evaluators_prefix}_{name}": value for name, value in metrics.items()})
        finally:
            state.restore()
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        wanted = (self.args.metric_for_best_model or "").removeprefix("eval_")
        if wanted and f"eval_{wanted}" not in metrics:
            names = [name.removeprefix("eval_") for name in metrics]
            close = get_close_matches(wanted, names, 3) or names
            raise ArgumentError(
                f"metric_for_best_model={wanted!r} is no result of the evaluation; did you mean {' or '.join(close)}?"
            )
        return super()._determine_best_metric(metrics, trial)

    def _validate_args(self) -> None:
        # Evaluators are something to evaluate with, even if there is no evaluation set.
        absent = self.eval_dataset is None and bool(self.evaluators)
        if absent:
            self.eval_dataset = {}
        try:
            super()._validate_args()
        except ValueError as error:
            raise ArgumentError(str(error).strip()) from error
        finally:
            if absent:
                self.eval_dataset = None


def resolve_evaluators(evaluators: list[Any] | None) -> list[Any]:
    """Turn task names into tasks and check the rest.

    Args:
        evaluators (`list`, *optional*):
            Tasks, task names or functions `embedder -> dict[str, float]`.

    Returns:
        `list`: tasks and functions.

    Raises:
        ArgumentError: if an entry is none of these.
    """
    resolved: list[Any] = []
    if isinstance(evaluators, str) or callable(evaluators) or hasattr(evaluators, "run"):
        evaluators = [evaluators]
    for evaluator in evaluators or []:
        if isinstance(evaluator, str):
            from ..evaluation.registry import get_task, resolve_tasks

            resolved.extend(get_task(name) for name in resolve_tasks([evaluator]))
        elif hasattr(evaluator, "run") or callable(evaluator):
            resolved.append(evaluator)
        else:
            raise ArgumentError(
                f"evaluators holds a {type(evaluator).__name__}; pass tasks, task names or functions of an Embedder"
            )
    return resolved


def run_evaluators(
    evaluators: list[Any], model: Any, processor: Any, *, batch_size: int, fit: str | None
) -> dict[str, float]:
    """Run evaluators on the main process and give all processes the metrics.

    Args:
        evaluators (`list`):
            From [`resolve_evaluators`].
        model (`PreTrainedModel`):
            The dual encoder.
        processor (`ProcessorMixin`):
            Its processor.
        batch_size (`int`):
            Images or texts in one forward pass.
        fit (`str`, *optional*):
            How pictures become square.

    Returns:
        `dict[str, float]`

    Raises:
        EvaluationError: if an evaluator returns something other than numbers, or two return one name.
    """
    outcome: list[Any] = [None]
    if not _distributed() or dist.get_rank() == 0:
        try:
            outcome = [_run(evaluators, Embedder(model, processor, batch_size=batch_size, fit=fit))]
        except Exception as error:
            if not _distributed():
                raise
            # The other processes are waiting: let them stop too.
            outcome = [error]
    if _distributed():
        dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _run(evaluators: list[Callable[[Embedder], dict[str, float]]], embedder: Embedder) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        found = evaluator.run(embedder).metrics if hasattr(evaluator, "run") else evaluator(embedder)
        name = getattr(evaluator, "name", None) or getattr(evaluator, "__name__", type(evaluator).__name__)
        if not isinstance(found, dict):
            raise EvaluationError(f"the evaluator {name} returned a {type(found).__name__}, not a dictionary")
        for key, value in found.items():
            if not isinstance(value, (int, float)) or math.isnan(value):
                raise EvaluationError(f"the evaluator {name} returned {key}={value!r}, not a number")
            if key in metrics:
                raise EvaluationError(f"two evaluators return the metric {key!r}; rename one of them")
            metrics[key] = float(value)
    return metrics


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
