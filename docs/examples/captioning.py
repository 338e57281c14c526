"""A small network that describes pictures of shapes in words, and the score of a caption.

Where does each word of "a star and a circle" come from?

    CAPTION="a star and a circle" evalcam gradcam PICTURES --model docs/examples/captioning.py:captioner \\
        --target docs/examples/captioning.py:words --layer encoder.features \\
        --set data.image_size=64 --set data.resize=squash

A `--model` is called with images alone, so the caption is read from the environment; in Python it is the second input.
"""

import os
from pathlib import Path

import torch
from encoder import CHANNELS, Encoder
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS = Path(__file__).with_suffix(".safetensors")
SHAPES = ("circle", "square", "star", "triangle")
WORDS = ("", "<end>", "a", "and", *SHAPES)
"""A word is its place in this list; the empty one comes before the first word, and fills up shorter captions."""
LONGEST = 6
"""Words of the longest caption, with its end."""


class Captioner(nn.Module):
    """A recurrent network that is handed what an encoder saw, and then says one word after the other.

    As in Vinyals et al., "Show and Tell", CVPR 2015, https://arxiv.org/abs/1411.4555; small, and with a GRU.
    """

    def __init__(self, caption: str = "a star") -> None:
        super().__init__()
        self.encoder = Encoder()
        self.start = nn.Linear(CHANNELS, CHANNELS)
        self.embedding = nn.Embedding(len(WORDS), 16, padding_idx=0)
        self.decoder = nn.GRU(16, CHANNELS, batch_first=True)
        self.head = nn.Linear(CHANNELS, len(WORDS))
        self.caption = caption
        """Scored when no captions are given."""

    def forward(self, images: Tensor, captions: Tensor | None = None) -> Tensor:
        """(N, L) log-probabilities of the words, each given the image and the words before it; 0 after the end.

        Args:
            images: (N, 3, 64, 64), normalised.
            captions: (N, L) int64, as of `encode`.
        """
        if captions is None:
            captions = encode([self.caption] * len(images)).to(images.device)
        foreseen = self.next_words(images, captions[:, :-1])
        return foreseen.gather(2, captions[..., None]).squeeze(2) * (captions != 0)

    def next_words(self, images: Tensor, words: Tensor) -> Tensor:
        """(N, L + 1, W) log-probabilities of all words: in the first place, and after each of (N, L) words."""
        state = self.start(self.encoder(images)).tanh()
        begun = functional.pad(words, (1, 0))  # the empty word goes first
        states, _ = self.decoder(self.embedding(begun), state[None])
        foreseen: Tensor = self.head(states).log_softmax(dim=2)
        return foreseen


def caption_of(*shapes: str) -> str:
    """`a star and a circle`."""
    return " and ".join(f"a {shape}" for shape in shapes)


def shapes_in(caption: str) -> list[str]:
    """The shapes that a caption names."""
    return [word for word in caption.split() if word in SHAPES]


def encode(captions: list[str]) -> Tensor:
    """(N, L) int64 words, each caption with its end, shorter ones filled up."""
    rows = [[WORDS.index(word) for word in (*caption.split(), "<end>")] for caption in captions]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def describe(model: Captioner, images: Tensor) -> list[str]:
    """What the network says of each image, always taking the likeliest next word."""
    words = torch.zeros(len(images), 0, dtype=torch.int64, device=images.device)
    with torch.no_grad():
        for _ in range(LONGEST):
            words = torch.cat([words, model.next_words(images, words)[:, -1:].argmax(dim=2)], dim=1)
    said = [[WORDS[word] for word in row] for row in words.tolist()]
    return [" ".join(row[: row.index("<end>")] if "<end>" in row else row) for row in said]


def captioner() -> Captioner:
    """The trained network, which scores the caption in the environment variable CAPTION (default: a star)."""
    caption = os.environ.get("CAPTION", "a star")
    unknown = [word for word in caption.split() if word not in WORDS]
    if unknown or not caption.strip():
        raise ValueError(f"CAPTION={caption!r}: the network knows the words {', '.join(WORDS[2:])}")
    model = Captioner(caption)
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def caption(word_scores: Tensor) -> Tensor:
    """(N, 1) log-probability of the whole caption, from what the network returns."""
    return word_scores.sum(dim=1, keepdim=True)


def words(word_scores: Tensor) -> Tensor:
    """(N, L): a score, and so a map, for every word and the end."""
    return word_scores
