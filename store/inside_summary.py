"""What `summary.json` says of attribution and patching: do deciding and reporting use the same parts of an adapter?

Every arm that was looked into is there, and every context of it; nothing is left out by its outcome.
"""

from __future__ import annotations

from typing import Literal

from store.inside import Order, Task
from store.settings import Settings
from store.values import Figure

Contrast = Literal["labels", "start", "backbone"]
"""What two arms differ in: the labels they were taught, whether they were taught at all, or what is frozen below."""


class EndsSummary(Settings):
    """A figure and its 95% interval by context; None where it cannot be computed."""

    estimate: Figure
    low: Figure = None
    high: Figure = None


class ProfileSummary(Settings):
    """Share of the importance that lies in each layer, or in each kind of matrix, by task; the shares sum to 1."""

    names: list[str]
    shares: dict[Task, list[Figure]]


class SimilaritySummary(Settings):
    """Attribution similarity of one arm; see `analysis.stats.similarity` and `analysis.stats.score_profile`.

    Attributes:
        backbone: What is frozen below the adapter.
        n_contexts, left_out: Contexts with scores for both tasks, and the others.
        rows, matrices: Of the adapter.
        similarity: Cosine of the scores for deciding and for reporting, averaged over contexts.
        corrected: Without the noise of contexts; None where it is not defined.
        reliability: Of the scores of each task.
        random: Similarity of each random adapter with the same shapes and matrix norms.
        p_random: (1 + those at least as high) / (1 + all); None without any.
        rows_null_mean, rows_null_sd, p_rows: With the rows of each matrix in random order.
        without_matrix_low, without_matrix_high: The similarity without one matrix, whichever makes it least and most.
        decisive_matrix: Without which matrix the similarity changes most.
        rows_with_half: The smallest share of rows with half of the importance.
        largest_row: Share of the sum of squared scores that one row has.
        layers, kinds: Where the importance lies.
        peak_layer: The layer with most of it.
        mean_layer: Mean layer, weighted by importance.
        profile_distance: Between the layers of both tasks: 0 for the same shares, 1 for disjoint ones.
        completeness_error: How far scores miss what they must sum to, as a share of it.
        unreadable: Reports without numbers, left out.
    """

    backbone: str
    n_contexts: int
    left_out: list[str]
    rows: int
    matrices: int
    similarity: EndsSummary
    corrected: EndsSummary
    reliability: dict[Task, Figure]
    random: list[Figure]
    p_random: Figure
    rows_null_mean: Figure
    rows_null_sd: Figure
    p_rows: Figure
    without_matrix_low: Figure
    without_matrix_high: Figure
    decisive_matrix: str
    rows_with_half: dict[Task, Figure]
    largest_row: dict[Task, Figure]
    layers: ProfileSummary
    kinds: ProfileSummary
    peak_layer: dict[Task, int | None]
    mean_layer: dict[Task, EndsSummary]
    profile_distance: EndsSummary
    completeness_error: dict[Task, Figure]
    unreadable: int


class FreshArmSummary(Settings):
    """A small adapter that was trained on one context, on top of a frozen arm.

    Attributes:
        similarity: Of its scores for both tasks, in its context.
        rows_null_mean: Of the similarity if the rows of each matrix changed places.
        random: Similarity of each random adapter in its place.
        faithfulness: r of its mean report with the weights that drive its decisions, over the attributes of its
            context; None where one of them is not known.
    """

    arm: str
    context: str
    similarity: Figure
    rows_null_mean: Figure
    random: list[Figure]
    faithfulness: Figure


class FreshSummary(Settings):
    """All small adapters of one training, a context each, on one frozen backbone.

    Attributes:
        backbone: The frozen arm.
        arms: Each of them.
        missing: Those without scores for both tasks.
        similarity, faithfulness: Means over contexts.
        similarity_sd: Standard deviation between contexts.
        random: Mean similarity of the random adapters, by draw.
        relation: r(similarity, faithfulness) over contexts, within this backbone.
        p_relation: Two-sided, contexts permuted.
        relation_contexts: Contexts behind it.
    """

    backbone: str
    arms: list[FreshArmSummary]
    missing: list[str]
    similarity: EndsSummary
    similarity_sd: Figure
    faithfulness: EndsSummary
    random: list[Figure]
    relation: EndsSummary
    p_relation: Figure
    relation_contexts: int


class InsideDifferenceSummary(Settings):
    """How one arm, or all small adapters on a backbone, differ from another, paired by context.

    Attributes:
        contrast: What they differ in.
        first, second: Names of arms, or of trainings of small adapters; figures are first less second.
        similarity, corrected: Differences of the similarities; the corrected one is None for small adapters.
        p: Two-sided p-value that goes with the interval of `similarity`.
        faithfulness: Difference of the mean faithfulness of small adapters.
        profile_distance: Difference of the distances between the layers of both tasks.
        mean_layer: Difference of the mean layers, by task.
        times_fewer: How many times fewer matrices the first needs for half recovery across tasks, by the task on which
            it is measured; above 1 where it needs fewer.
        n_contexts: Contexts of both; 0 where similarities are not both known.
        patched_contexts: Contexts of both in patching, likewise.
    """

    contrast: Contrast
    first: str
    second: str
    similarity: EndsSummary | None = None
    corrected: EndsSummary | None = None
    p: Figure = None
    faithfulness: EndsSummary | None = None
    profile_distance: EndsSummary | None = None
    mean_layer: dict[Task, EndsSummary] | None = None
    times_fewer: dict[Task, EndsSummary] | None = None
    n_contexts: int = 0
    patched_contexts: int = 0


class CurveSummary(Settings):
    """Recovery by number of matrices, on one task, in one order.

    Attributes:
        task: On which it is measured.
        ranked_by: The order.
        draws: Random orders; 1 for an order by scores.
        k: Numbers of matrices.
        recovery: 1 - KL(full || top k) / KL(full || backbone), of sums over contexts.
        low, high: 95% interval by context; of random orders the least and the most of any draw.
        half: Matrices to half recovery, interpolated in log2 k; None where it is not reached.
        times_fewer: How many times more matrices a random order needs; None for that order itself.
    """

    task: Task
    ranked_by: Order
    draws: int
    k: list[int]
    recovery: list[Figure]
    low: list[Figure]
    high: list[Figure]
    half: EndsSummary
    times_fewer: EndsSummary | None


class PatchingSummary(Settings):
    """Patching of one arm, or of all small adapters of one training together.

    Attributes:
        backbone: What is left with no matrix.
        matrices: Of the adapter.
        n_contexts: By the task on which it is measured.
        left_out: Contexts without a report that could be read.
        curves: Within a task and across tasks, and random orders.
    """

    backbone: str
    matrices: int
    n_contexts: dict[Task, int]
    left_out: list[str]
    curves: list[CurveSummary]


class InsideSummary(Settings):
    """What was found inside the arms of a run.

    Attributes:
        arms: Attribution by arm.
        fresh: Attribution of small adapters, a context each, by training.
        differences: Between arms that differ in one thing.
        patching: By arm, or by training of small adapters.
        notes: What is not there, and why.
    """

    arms: dict[str, SimilaritySummary]
    fresh: dict[str, FreshSummary]
    differences: list[InsideDifferenceSummary]
    patching: dict[str, PatchingSummary]
    notes: list[str]
