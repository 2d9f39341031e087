"""Text: a BERT embedding per spoken word.

The embedding of a word piece is the sum of BERT's last four hidden layers, that of a word the mean of its pieces.
Words are read in their sentence, which the transcript's punctuation ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

import numpy as np
import torch

from affuse.extract.transcripts import Word
from affuse.extract.weights.checkpoints import load_transformer
from affuse.extract.weights.locate import Located

SENTENCE_END = (".", "?", "!", "…", "。", "？", "！")
LENGTH = 512  # pieces: BERT's positions, of which [CLS] and [SEP] take two
LAYERS = 4
BATCH = 32  # sentences


class WordEncoder:
    """A BERT encoder (Devlin et al. 2019) from a transformers folder."""

    def __init__(self, located: Located, device: torch.device, dtype: torch.dtype = torch.float32):
        from transformers import AutoTokenizer

        network, _ = load_transformer(located, "BERT encoder")
        self.network = network.eval().requires_grad_(False).to(device, dtype)
        options = {"use_fast": True, "local_files_only": True}
        self.tokenizer = AutoTokenizer.from_pretrained(located.path, **options)
        if hasattr(self.tokenizer, "add_prefix_space"):  # byte-level pieces: a word begins with its space
            self.tokenizer = AutoTokenizer.from_pretrained(located.path, **options, add_prefix_space=True)
        self.length = min(LENGTH, getattr(network.config, "max_position_embeddings", LENGTH))
        self.width = network.config.hidden_size
        self.device = device
        self._turn = Lock()  # a fast tokenizer serves one thread at a time

    @torch.inference_mode()
    def __call__(self, words: list[Word]) -> np.ndarray:
        """Words in spoken order → embeddings (W, width) float16."""
        with self._turn:
            sentences = list(self._sentences([w.text for w in words]))
            out = [
                row
                for first in range(0, len(sentences), BATCH)
                for row in self._encode(sentences[first : first + BATCH])
            ]
        return np.stack(out).astype(np.float16)

    def _sentences(self, texts: list[str]) -> Iterator[list[str]]:
        """Split at sentence ends, and before a sentence would pass the encoder's length."""
        sentence: list[str] = []
        length = 0
        for text in texts:
            pieces = len(self.tokenizer.tokenize(text))
            if sentence and length + pieces > self.length - 2:
                yield sentence
                sentence, length = [], 0
            sentence.append(text)
            length += pieces
            if text.endswith(SENTENCE_END):
                yield sentence
                sentence, length = [], 0
        if sentence:
            yield sentence

    def _encode(self, sentences: list[list[str]]) -> Iterator[np.ndarray]:
        tokens = self.tokenizer(
            sentences,
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        hidden = self.network(**tokens.to(self.device), output_hidden_states=True).hidden_states[-LAYERS:]
        pieces = torch.stack(hidden).float().sum(dim=0).cpu().numpy()
        for i, sentence in enumerate(sentences):
            owner = np.array([-1 if word is None else word for word in tokens.word_ids(i)])
            for word in range(len(sentence)):
                mine = owner == word
                # A word that the tokenizer drops altogether (a lone control character) takes its sentence's mean.
                yield pieces[i, mine if mine.any() else owner >= 0].mean(axis=0)
