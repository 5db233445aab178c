"""Sentences as word vectors that need no download: hashed words and character n-grams in a trained table (Bojanowski et al. 2017, fastText).

A word that was never trained on shares its n-grams with words that were ("drawers" with "drawer"), which carries over to other phrasings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from robopref.arrays import InputError

GRAMS = (3, 4, 5)
"""Lengths of the character n-grams of a word, its two boundaries counted."""
MOST = 32
"""Features of a word at most: the word itself and its first n-grams, short ones first."""


def words_of(sentence: str, most: int) -> list[str]:
    """The words of a sentence, lower case, without punctuation. Raises `InputError` for none, or more than `most`."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", sentence.casefold())
    if not words:
        raise InputError(f"sentence: got {sentence!r}, wanted at least one word. Say what the robot should do.")
    if len(words) > most:
        raise InputError(
            f"sentence: got {len(words)} words ({' '.join(words[:6])} ...), wanted at most {most}, which is what the policy reads.\n"
            "Say it shorter, or train a policy with more `words`."
        )
    return words


@lru_cache(maxsize=4096)
def hashed(sentence: str, most: int, buckets: int) -> np.ndarray:
    """Features of a sentence's words, (most, MOST) int64: places 1 to `buckets` of a table, 0 where there is no word or feature.

    No tensor: one that is kept would carry the mode in which it was made (inference, fake) into every later use.
    """
    table = np.zeros((most, MOST), dtype=np.int64)
    for row, word in enumerate(words_of(sentence, most)):
        marked = f"<{word}>"
        grams = [marked[i : i + n] for n in GRAMS for i in range(len(marked) - n + 1)]
        features = list(dict.fromkeys([f"word:{word}", *grams]))[:MOST]
        table[row, : len(features)] = [1 + crc32(one.encode()) % buckets for one in features]
    return table


class WordEmbedding(nn.Module):
    """Sentences -> one vector per word, with a place of its own: (B, words, width), and which of them are words: (B, words) bool.

    Raises `InputError` for a sentence without words, or with more than `words`.
    """

    def __init__(self, words: int, width: int, buckets: int = 2048) -> None:
        super().__init__()
        if words < 1 or buckets < 1:
            raise InputError(f"WordEmbedding: got words={words}, buckets={buckets}, wanted both >= 1.")
        self.words, self.buckets = words, buckets
        self.table = nn.Embedding(buckets + 1, width, padding_idx=0)
        self.place = nn.Parameter(0.02 * torch.randn(words, width))

    def forward(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B sentences -> vectors (B, words, width) and mask (B, words); each distinct sentence is looked up once."""
        distinct = list(dict.fromkeys(sentences))
        device = self.table.weight.device
        found = np.stack([hashed(one, self.words, self.buckets) for one in distinct])
        features = torch.from_numpy(found).to(device)  # (S, words, MOST)
        live = features > 0
        total = self.table(features).sum(dim=2)  # (S, words, width); padding is zero
        mean = total / live.sum(dim=2, keepdim=True).clamp(min=1)
        number = {one: i for i, one in enumerate(distinct)}
        rows = torch.tensor([number[one] for one in sentences], device=device)
        return (mean + self.place)[rows], live.any(dim=2)[rows]
