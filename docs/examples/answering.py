"""A small network that answers questions about pictures of shapes, and the score of an answer.

What makes it say that there is a star?

    QUESTION="is there a star ?" evalcam gradcam PICTURES --model docs/examples/answering.py:answerer \\
        --target docs/examples/answering.py:yes --layer encoder.features \\
        --set data.image_size=64 --set data.resize=squash

A `--model` is called with images alone, so the question is read from the environment; in Python it is the second input.
Without `--target`, and with `--classes docs/examples/answers.txt`, the answers are classes: `--class yes`, or as always
the predicted one.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from encoder import CHANNELS, Encoder
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_suffix(".safetensors")
SHAPES = ("circle", "square", "star", "triangle")
WORDS = ("", "?", "a", "beside", "is", "the", "there", "what", "where", *SHAPES)
"""A word is its place in this list; the empty one fills up shorter questions."""
ANSWERS = ("no", "yes", "left", "right", "top", "bottom", "nothing", *SHAPES)


class Answerer(nn.Module):
    """A question, read word by word, chooses from what an encoder saw: the two vectors are multiplied.

    As in Antol et al., "VQA", ICCV 2015, https://arxiv.org/abs/1505.00468; small, and with a GRU.
    """

    def __init__(self, question: str = "is there a star ?") -> None:
        super().__init__()
        self.encoder = Encoder()
        self.embedding = nn.Embedding(len(WORDS), 16, padding_idx=0)
        self.reader = nn.GRU(16, CHANNELS, batch_first=True)
        self.seen = nn.Linear(CHANNELS, CHANNELS)
        self.hidden = nn.Linear(CHANNELS, CHANNELS)
        self.head = nn.Linear(CHANNELS, len(ANSWERS))
        self.question = question
        """Answered when no questions are given."""

    def forward(self, images: Tensor, questions: Tensor | None = None) -> Tensor:
        """(N, K) logits of the answers.

        Args:
            images: (N, 3, 64, 64), normalised.
            questions: (N, L) int64, as of `encode`.
        """
        if questions is None:
            questions = encode([self.question] * len(images)).to(images.device)
        states, _ = self.reader(self.embedding(questions))
        ends = (questions != 0).sum(dim=1) - 1  # what fills a question up is not read
        read = states[torch.arange(len(questions), device=states.device), ends]
        logits: Tensor = self.head(self.hidden(self.seen(self.encoder(images)) * read).relu())
        return logits


def encode(questions: list[str]) -> Tensor:
    """(N, L) int64 words, shorter questions filled up."""
    rows = [[WORDS.index(word) for word in question.split()] for question in questions]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def answerer() -> Answerer:
    """The trained network, which answers the environment variable QUESTION (default: is there a star ?)."""
    question = os.environ.get("QUESTION", "is there a star ?")
    unknown = [word for word in question.split() if word not in WORDS]
    if unknown or not question.strip():
        raise ValueError(f"QUESTION={question!r}: the network knows the words {' '.join(WORDS[1:])}")
    model = Answerer(question)
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def score_of(answers: Tensor) -> Callable[[Tensor], Tensor]:
    """The target that is the (N, 1) logit of one of ANSWERS for each of N questions."""
    return lambda logits: logits.gather(1, answers[:, None].to(logits.device))


def yes(logits: Tensor) -> Tensor:
    """(N,) logit of the answer yes."""
    return logits[:, ANSWERS.index("yes")]
