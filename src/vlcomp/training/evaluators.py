"""Measuring a model while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
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


class SuiteEvaluator:
    """Headline metrics of a suite, or of tasks, on a subset of their items: for `evaluators=` of a trainer.

    A suite measures composition, retrieval and zero-shot classification together, so that a gain in one that is paid
    for with another is seen while training.

    Args:
        tasks (`str` or a list of task names or tasks, *optional*):
            What to measure; the suite `"full"` if not given.
        suite (`str`, *optional*):
            The suite, where there are no `tasks`.
        limit (`int`, defaults to 200):
            About how many items of each task, the same ones each time.
        data (`Any`, *optional*):
            As in [`~vlcomp.evaluate`].
        **options:
            Options of the tasks, such as `split="validation"` for Scenes.

    Raises:
        ArgumentError: for an unknown task or option, or both `tasks` and `suite`.

    Attributes:
        left_out (`dict[str, str]`):
            Tasks of the suite that are not measured, and why.

    Example:
        >>> from vlcomp import Embedder
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> from vlcomp.training.evaluators import SuiteEvaluator
        >>> evaluator = SuiteEvaluator(["scenes/swap_object", "scenes/retrieval"], limit=10, size=20)
        >>> sorted(evaluator(Embedder(tiny_clip(), tiny_processor())))
        ['scenes/retrieval/image_to_text/recall@1', 'scenes/swap_object/accuracy']
    """

    name = "suite"

    def __init__(
        self,
        tasks: Any = None,
        *,
        suite: str | None = None,
        limit: int = 200,
        data: Any = None,
        **options: Any,
    ) -> None:
        from ..evaluation.suite import prepare_suite, prepare_tasks

        if tasks is not None and suite is not None:
            raise ArgumentError(f"suite={suite!r} chooses the tasks; leave tasks out, or pass only tasks")
        # Reference scorers and galleries do not change while a model trains.
        common = {"limit": limit, "references": False, "gallery": False, **options}
        self.left_out: dict[str, str] = {}
        if tasks is None:
            self.tasks, self.left_out = prepare_suite(suite or "full", data=data, **common)
        else:
            self.tasks = prepare_tasks(tasks, data=data, optional=("references", "gallery", "limit"), **common)

    def __call__(self, embedder: Embedder) -> dict[str, float]:
        """Measure a model.

        Args:
            embedder ([`~vlcomp.Embedder`]):
                The model.

        Returns:
            `dict[str, float]`: the headline metric of each task by its full name.
        """
        metrics = {}
        for task in self.tasks:
            result = task.run(embedder)
            headline = result.headline or next(iter(result.scores))
            metrics[f"{result.task}/{headline}"] = result.scores[headline].value
        return metrics


class EvaluationCallback(TrainerCallback):
    """Measures a dual encoder at every evaluation of any `transformers.Trainer`.

    Metrics are added to those that `trainer.evaluate()` returns, so `metric_for_best_model` can name one, and to the
    log history. Trainers of vlcomp have `evaluators=` instead, which also reach the loggers. Evaluating leaves the
    random numbers of training as they are.

    Args:
        evaluators (`list`):
            Tasks, task names, functions of an Embedder, or a [`SuiteEvaluator`].
        processor (`ProcessorMixin`, *optional*):
            Of the model; the trainer's `processing_class` if not given.
        batch_size (`int`, *optional*):
            Inputs in one forward pass; `per_device_eval_batch_size` if not given.
        fit (`str`, *optional*):
            How pictures are brought to the model's shape.

    Raises:
        ArgumentError: if an evaluator is none of these.

    Example:
        >>> from vlcomp.training.evaluators import EvaluationCallback, SuiteEvaluator
        >>> callback = EvaluationCallback([SuiteEvaluator(["scenes/retrieval"], size=20)])
        >>> len(callback.evaluators)
        1
    """

    def __init__(
        self, evaluators: Any, processor: Any = None, *, batch_size: int | None = None, fit: str | None = None
    ) -> None:
        self.evaluators = resolve_evaluators(evaluators)
        self.processor, self.batch_size, self.fit = processor, batch_size, fit

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Run the evaluators; called by the trainer."""
        model, processor = base_model(kwargs["model"]), self.processor or kwargs.get("processing_class")
        random_state = RandomState(model.parameters())
        try:
            found = run_evaluators(
                self.evaluators,
                model,
                processor,
                batch_size=self.batch_size or args.per_device_eval_batch_size,
                fit=self.fit,
            )
        finally:
            random_state.restore()
        named = {f"eval_{name}": value for name, value in found.items()}
        if kwargs.get("metrics") is not None:
            kwargs["metrics"].update(named)
        state.log_history.append({"step": state.global_step, "epoch": state.epoch, **named})


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
