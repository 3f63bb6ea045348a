"""What evaluating hands on: the Measurement of one model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shortlm.artifacts.base import (
    ONE_MISTAKE,
    Artifact,
    Count,
    DataFacts,
    ModelFacts,
    Positive,
    Provenance,
    Record,
    Share,
    Values,
)


class Perplexity(Record):
    """exp of the mean cross-entropy over all predicted tokens."""

    text: str
    data: DataFacts
    perplexity: float = Field(gt=0)
    nats_per_token: float
    stderr_nats: float | None = Field(
        None, description="Over windows; that of the perplexity is perplexity times this."
    )
    per_sequence_nats: Values
    tokens_per_sequence: Annotated[list[Positive], ONE_MISTAKE]
    healed_on: bool = Field(False, description="Whether the model was healed on this very text.")

    @model_validator(mode="after")
    def _fits(self) -> Perplexity:
        if len(self.per_sequence_nats) != len(self.tokens_per_sequence):
            raise ValueError("per_sequence_nats and tokens_per_sequence must be of one length")
        return self


class TaskResult(Record):
    """A task of lm-evaluation-harness as the harness reports it, and its main metric question by question."""

    task: str
    metric: str = Field(description="The main metric, e.g. acc_norm; with the harness's filter behind a comma if any.")
    value: float
    stderr: float | None = None
    higher_is_better: bool = True
    metrics: dict[str, float] = Field(description="All metrics of the task.")
    stderrs: dict[str, float] = Field({}, description="The standard errors of these, where the harness has some.")
    chance: Share | None = Field(None, description="Accuracy of guessing among the choices; none where there are none.")
    shots: Count = 0
    version: str = ""
    generates: bool = Field(False, description="Whether the model writes its answer, instead of ranking choices.")
    dataset: str = ""
    per_question: Values = Field([], description="The main metric of each question, where it is their mean.")
    questions_sha256: str = Field("", description="Hash of the questions, their order and their prompts.")
    questions: Count
    available: Count = Field(0, description="Questions that the task has; more than `questions` if they were limited.")

    @property
    def key(self) -> str:
        """Task and metric: what two models are compared by."""
        return f"{self.task}, {self.metric}"


class TaskMean(Record):
    """The mean over several tasks, plain or weighted."""

    name: str
    tasks: list[str]
    weights: Values
    value: float
    stderr: float | None = None


class Sample(Record):
    """A text that the model wrote."""

    prompt: str
    text: str


class Fluency(Record):
    """How much texts repeat themselves, by tokens."""

    texts: Count
    tokens: Count
    distinct: list[Share] = Field(description="Different n-grams over all n-grams of all texts, n = 1, 2, 3.")
    repeated: Share = Field(description="Share of the 4-grams of a text that it had before, mean over texts.")
    repeated_stderr: float | None = None


class Measurement(Artifact):
    """The output of `eval` for one model."""

    kind: Literal["Measurement"] = "Measurement"
    model: ModelFacts
    role: str = Field("model", description="Its place in a comparison: dense, cut, ...")
    bytes: Count = Field(0, description="Size of the weights on disk.")
    perplexities: list[Perplexity] = []
    tasks: list[TaskResult] = []
    task_means: list[TaskMean] = []
    samples: list[Sample] = []
    sampling: str = Field("", description="How the samples were drawn.")
    fluency: Fluency | None = Field(None, description="Of the samples.")
    text_fluency: Fluency | None = Field(None, description="Of windows of the first text, cut to the same length.")
    provenance: Provenance
