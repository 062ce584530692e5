"""Ranking one right answer among many candidates: the common part of retrieval and classification."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .scoring import Ranks, chance_recall
from .task import Score


def recall_scores(
    ranks: Ranks,
    clusters: Sequence[Hashable],
    own: np.ndarray,
    candidates: int,
    ks: Sequence[int],
    *,
    prefix: str = "",
    metric: str = "recall@{k}",
    expected: bool = False,
) -> dict[str, Score]:
    """Recall at several cut-offs.

    Args:
        ranks ([`~vlcomp.evaluation.scoring.Ranks`]):
            Where each query finds its own candidate.
        clusters (`Sequence` of shape [queries]):
            Cluster of each query.
        own (`np.ndarray` of shape [queries], int):
            Number of own candidates of each query, for chance.
        candidates (`int`):
            Number of candidates.
        ks (`Sequence[int]`):
            Cut-offs; those that cover all candidates are left out, because everything is right there.
        prefix (`str`, defaults to `""`):
            Put before each name.
        metric (`str`, defaults to `"recall@{k}"`):
            Name of each score.
        expected (`bool`, defaults to `False`):
            Break ties at random, in expectation (reference scorers); otherwise they are wrong.

    Returns:
        `dict[str, Score]`
    """
    ties = int((ranks.tied > 0).sum())
    return {
        prefix + metric.format(k=k): Score.from_values(
            ranks.expected_hits(k) if expected else ranks.hits(k).astype(float),
            clusters,
            ties=ties,
            chance=chance_recall(own, candidates, k),
        )
        for k in ks
        if k < candidates or k == min(ks)
    }


def ranking_rows(
    task: str,
    ranks: Ranks,
    *,
    item_ids: Sequence[str],
    clusters: Sequence[Hashable],
    subset: str | None = None,
    query: Sequence[str],
    candidates: Sequence[str],
    query_is_image: bool,
) -> list[dict[str, Any]]:
    """Rows for the table of items.

    Args:
        task (`str`):
            Name of the task.
        ranks ([`~vlcomp.evaluation.scoring.Ranks`]):
            Where each query finds its own candidate.
        item_ids (`Sequence[str]` of shape [queries]):
            Names of the items.
        clusters (`Sequence` of shape [queries]):
            Cluster of each query.
        subset (`str`, *optional*):
            Direction of retrieval.
        query (`Sequence[str]` of shape [queries]):
            Name of the image, or the text, of each query.
        candidates (`Sequence[str]`):
            Texts, or names of images.
        query_is_image (`bool`):
            Queries are images and candidates texts, or the other way round.

    Returns:
        `list[dict]`
    """
    rank = ranks.rank
    rows = []
    for i in range(len(query)):
        right = candidates[int(ranks.own[i])]
        wrong = candidates[int(ranks.other[i])] if ranks.other[i] >= 0 else None
        rows.append(
            {
                "task": task,
                "item_id": item_ids[i],
                "subset": subset,
                "cluster": str(clusters[i]),
                "correct": bool(rank[i] == 1),
                "tie": bool(ranks.tied[i] > 0),
                "rank": int(rank[i]),
                "margin": float(ranks.own_score[i] - ranks.other_score[i]) if wrong is not None else None,
                "true_score": float(ranks.own_score[i]),
                "false_score": float(ranks.other_score[i]) if wrong is not None else None,
                "text": right if query_is_image else query[i],
                "false_text": wrong if query_is_image else None,
                "image": query[i] if query_is_image else right,
                "false_image": None if query_is_image else wrong,
            }
        )
    return rows
