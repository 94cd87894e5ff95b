"""Model architectures, with their data, training, decoding, evaluation and commands."""

__project__ = "tensorlib"  # distinguishes this package from others of its name, see tensorlib.shadowing

from importlib import import_module
from typing import TYPE_CHECKING

from models.system.shadowing import require_own_nn

if TYPE_CHECKING:
    from models.architectures.language import LanguageConfig, LanguageModel
    from models.architectures.recurrent import RecurrentConfig, RecurrentTranslator
    from models.architectures.sentence_encoder import SentenceEncoder, SentenceEncoderConfig
    from models.architectures.transformer import Transformer, TransformerConfig
    from models.decoding.beam import beam_search
    from models.decoding.token_by_token import greedy
    from models.evaluation.translator import load
    from models.runs.word_vectors import WordVectors
    from models.text.batching import make_batch
    from models.text.subwords import Tokenizer

__all__ = [
    "LanguageConfig", "LanguageModel", "RecurrentConfig", "RecurrentTranslator", "SentenceEncoder",
    "SentenceEncoderConfig", "Tokenizer", "Transformer", "TransformerConfig", "WordVectors", "beam_search", "greedy",
    "load", "make_batch",
]  # fmt: skip

_MODULES = {
    "LanguageConfig": "models.architectures.language",
    "LanguageModel": "models.architectures.language",
    "RecurrentConfig": "models.architectures.recurrent",
    "RecurrentTranslator": "models.architectures.recurrent",
    "SentenceEncoder": "models.architectures.sentence_encoder",
    "SentenceEncoderConfig": "models.architectures.sentence_encoder",
    "Tokenizer": "models.text.subwords",
    "Transformer": "models.architectures.transformer",
    "TransformerConfig": "models.architectures.transformer",
    "WordVectors": "models.runs.word_vectors",
    "beam_search": "models.decoding.beam",
    "greedy": "models.decoding.token_by_token",
    "load": "models.evaluation.translator",
    "make_batch": "models.text.batching",
}

if not TYPE_CHECKING:  # otherwise type checkers would accept every name

    def __getattr__(name: str) -> object:
        """Import a public name on first use, because `tensorlib --help` needs none of them and should start at once."""
        if name not in _MODULES:
            raise AttributeError(f"module 'models' has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


require_own_nn()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
