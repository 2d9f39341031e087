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
from affuse.extract.weights.locate import Located

from affuse.errors import AffuseError

SENTENCE_END = (".", "?", "!", "…", "。", "？", "！")
MAX_PIECES = 510  # BERT's 512 positions less [CLS] and [SEP]
LAYERS = 4
BATCH = 32  # sentences


class WordEncoder:
    """A BERT encoder (Devlin et al. 2019) from a transformers folder."""

    def __init__(self, located: Located, device: torch.device, dtype: torch.dtype = torch.float32):
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = str(located.path)
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **local)
            if located.trained:
                network, loaded = AutoModel.from_pretrained(
                    folder, use_safetensors=True, output_loading_info=True, **local
                )
                missing = sorted(name for name in loaded["missing_keys"] if not name.startswith("pooler."))
                if missing:
                    raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} others")
            else:
                torch.manual_seed(0)
                network = AutoModel.from_config(AutoConfig.from_pretrained(folder, **local))
        except (OSError, ValueError, RuntimeError) as error:
            raise AffuseError(
                f"{located.path} is not a transformers folder of a BERT encoder with model.safetensors: {error}"
            ) from None
        self.network = network.eval().requires_grad_(False).to(device, dtype)
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
        """Split at sentence ends, and before a sentence would pass BERT's length."""
        sentence: list[str] = []
        length = 0
        for text in texts:
            pieces = len(self.tokenizer.tokenize(text))
            if sentence and length + pieces > MAX_PIECES:
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
            max_length=512,
            return_tensors="pt",
        )
        hidden = self.network(**tokens.to(self.device), output_hidden_states=True).hidden_states[-LAYERS:]
        pieces = torch.stack(hidden).sum(dim=0).float().cpu().numpy()
        for i, sentence in enumerate(sentences):
            owner = np.array([-1 if word is None else word for word in tokens.word_ids(i)])
            for word in range(len(sentence)):
                mine = owner == word
                # A word that the tokenizer drops altogether (a lone control character) takes its sentence's mean.
                yield pieces[i, mine if mine.any() else owner >= 0].mean(axis=0)
