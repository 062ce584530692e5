"""Measuring models: tasks, strict scoring, honest intervals, reports."""

from .registry import TaskInfo, get_task, list_tasks, register_task, resolve_tasks
from .results import Report
from .statistics import Interval, cluster_bootstrap, mean_interval, paired_difference
from .suite import evaluate, prepare_tasks
from .task import Score, Task, TaskResult

__all__ = [
    "Interval",
    "Report",
    "Score",
    "Task",
    "TaskInfo",
    "TaskResult",
    "cluster_bootstrap",
    "evaluate",
    "get_task",
    "list_tasks",
    "mean_interval",
    "paired_difference",
    "prepare_tasks",
    "register_task",
    "resolve_tasks",
]
