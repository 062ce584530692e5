"""Recall@k of retrieval, ties wrong, as a metric of `evaluate`."""

import datasets
import evaluate
import numpy as np

from vlcomp.errors import ArgumentError, check_count
from vlcomp.evaluation.scoring import chance_recall, rank_candidates

_DESCRIPTION = """Share of queries that find a candidate of their own strictly among the first k. A candidate is a
query's own if both belong to the same group, for instance an image and its five captions; own candidates do not
compete with each other. A foreign candidate with the same score (within 1e-6) counts as ranked before."""

_INPUTS = """
Args:
    scores (`list` of shape [queries, candidates]):
        Similarities.
    query_groups (`list[int]`):
        Group of each query, for instance the id of its image.
    candidate_groups (`list[int]`, *optional*):
        Group of each candidate; by default candidates are in the order of `query_groups`, one each.
    k (`list[int]`, defaults to `[1, 5, 10]`):
        Cut-offs.

Returns:
    `dict`: `recall@<k>` and `chance@<k>` (of a random order) for each k; `median_rank`; `tied_queries`, the number of
    queries for which a foreign candidate ties with the best own one; `queries`.

Raises:
    EvaluationError: if a score is not finite; names the query.
    ArgumentError: if shapes do not fit, or a query has no candidate of its own.

Example:
    >>> import evaluate
    >>> from vlcomp import metrics
    >>> metric = evaluate.load(metrics.path("retrieval_recall"))
    >>> scores = [[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.5, 0.5, 0.5]]
    >>> found = metric.compute(scores=scores, query_groups=[0, 1, 2], k=[1, 2])
    >>> round(found["recall@1"], 3), round(found["recall@2"], 3), found["tied_queries"]
    (0.333, 0.667, 1)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class RetrievalRecall(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"scores": row, "query_groups": datasets.Value("int64")}),
        )

    def _compute(
        self,
        scores: list,
        query_groups: list[int],
        candidate_groups: list[int] | None = None,
        k: list[int] | tuple[int, ...] = (1, 5, 10),
    ) -> dict[str, float]:
        candidates = list(query_groups if candidate_groups is None else candidate_groups)
        for index, row in enumerate(scores):
            if len(row) != len(candidates):
                hint = "" if candidate_groups is not None else "; pass candidate_groups unless each query has one"
                raise ArgumentError(f"scores[{index}] has {len(row)} scores for {len(candidates)} candidates{hint}")
        cuts = [k] if isinstance(k, int) else list(k)
        for cut in cuts:
            check_count("k", cut)
        ranks = rank_candidates(np.asarray(scores), query_groups, candidates)
        own = (np.asarray(query_groups)[:, None] == np.asarray(candidates)[None, :]).sum(axis=1)
        found: dict[str, float] = {}
        for cut in cuts:
            found[f"recall@{cut}"] = float(ranks.hits(cut).mean())
            found[f"chance@{cut}"] = chance_recall(own, len(candidates), cut)
        found["median_rank"] = float(np.median(ranks.rank))
        found["tied_queries"] = int((ranks.tied > 0).sum())
        found["queries"] = len(ranks.rank)
        return found
