"""JSON bodies and messages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

RELEASE = "The release that answers in this session; null for a bundle outside a registry."


class Shape(BaseModel):
    """Refuses unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Refusal(Shape):
    """The reason for a refusal, and a remedy."""

    error: str


class LimitsView(Shape):
    """Limits for a client."""

    upload_bytes: int
    question_characters: int
    idle_seconds: float


class SessionView(Shape):
    """A session, and the format of its model's chunks."""

    id: str = Field(description="Cannot be guessed; anyone who knows it may use the session.")
    release: str | None = Field(description=RELEASE)
    chunk_seconds: float = Field(description="Length of a chunk of a camera's stream.")
    frames_per_chunk: int = Field(description="K")
    size: int = Field(description="Height and width of a frame in pixels.")
    sample_rate: int = Field(description="Samples of mono sound per second.")
    mels: int = Field(description="Rows of a spectrogram.")
    audio_columns: int = Field(description="Columns of a chunk's spectrogram.")
    max_chunks: int = Field(description="How many chunks the text model remembers.")
    live: bool = Field(description="Whether chunks can be pushed; else the model spreads its chunks over a whole file.")
    chunks: int = Field(description="Chunks that the stream has taken in.")
    media: MediaView | None = Field(description="The upload, if any.")
    limits: LimitsView


class MediaView(Shape):
    """An upload that can be played."""

    chunk_seconds: float
    seconds: float | None = Field(description="As the file states it; null if it does not.")
    has_video: bool
    has_audio: bool


class SampleView(Shape):
    """A sample clip, at /api/samples/FILE."""

    file: str
    question: str = Field(description="One that fits it; may be empty.")
    bytes: int


class About(Shape):
    """What the page offers."""

    prompts: list[str] = Field(description="Questions that the model learnt.")
    samples: list[SampleView]


class Question(Shape):
    """A question, in the words of the training questions."""

    question: str = Field(min_length=1, max_length=100_000, examples=["Which sound came first?"])


class Answer(Shape):
    """An answer about the last `max_chunks` of `chunks` chunks."""

    answer: str
    complete: bool = Field(description="Whether the model ended it; else it was cut at the longest answer.")
    score: float = Field(description="Probability of the answer's tokens, in [0, 1].")
    flags: list[str] = Field(description="Remarks, such as that the question is unlike any that was learnt.")
    chunks: int
    seconds: float = Field(description="Length of the stream so far.")
    release: str | None = Field(description=RELEASE)


class Health(Shape):
    """The service is running."""

    status: Literal["ok"] = "ok"


class Ready(Shape):
    """The engine computes; number of sessions, and how many may exist."""

    status: Literal["ready"] = "ready"
    sessions: int
    most: int
    release: str | None = Field(description="The release that new sessions use; null for a bundle outside a registry.")
    failed: str | None = Field(description="The registry's current release, if it could not be loaded: see the log.")


class Play(Shape):
    """Over the WebSocket: stream the upload from its beginning."""

    type: Literal["play"]
    pace: Literal["live", "fast"] = "live"


class Ask(Question):
    """Over the WebSocket: a question about the stream so far."""

    type: Literal["ask"]
    influence: bool = Field(False, description="Score the answer again without each chunk.")


Order = Annotated[Play | Ask, Field(discriminator="type")]
SessionView.model_rebuild()
