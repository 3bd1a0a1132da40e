"""The sentences of data/topics.tsv: topics and words as arrays, for the examples beside this file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FILE = Path(__file__).resolve().parent / "data" / "topics.tsv"


class Topics:
    """The data set.

    Attributes:
        sentences: the words of each sentence.
        vocabulary: word -> index; 0 is padding.
        words: indices of the words, shape (sentences, longest), padded with 0.
        topics: names of the topics.
        labels: which topics each sentence has, bool, shape (sentences, topics).
        targets: the labels as distributions, uniform over a sentence's topics.
    """

    def __init__(self) -> None:
        rows = [line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines()]
        self.sentences = [text.split() for _, text in rows]
        kept = sorted({word for sentence in self.sentences for word in sentence})
        self.vocabulary = {word: index for index, word in enumerate(kept, start=1)}
        longest = max(map(len, self.sentences))
        self.words = np.zeros((len(rows), longest), dtype=np.int64)
        for row, sentence in zip(self.words, self.sentences, strict=True):
            row[: len(sentence)] = [self.vocabulary[word] for word in sentence]
        self.topics = sorted({topic for names, _ in rows for topic in names.split(",")})
        self.labels = np.array([[topic in names.split(",") for topic in self.topics] for names, _ in rows])
        self.targets = self.labels / self.labels.sum(axis=1, keepdims=True)

    def folds(self, count: int, seed: int = 0) -> list[np.ndarray]:
        """A random split into parts of nearly equal size, as indices of sentences."""
        return np.array_split(np.random.default_rng(seed).permutation(len(self.sentences)), count)


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Micro-averaged F1 of predicted label sets, both bool of shape (sentences, topics); in [0, 1]."""
    hits = np.count_nonzero(predicted & labels)
    return 2.0 * hits / max(np.count_nonzero(predicted) + np.count_nonzero(labels), 1)
