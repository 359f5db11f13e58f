"""The Trainer of transformers: a callback that prunes, and a trainer that saves what it prunes.

Needs transformers and accelerate: ``pip install "torch-polarity[transformers]"``.
"""

try:
    import accelerate  # noqa: F401  the Trainer needs it, and says so only when it is built
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(
        "polarity.integrations.transformers needs transformers and accelerate: "
        'pip install "torch-polarity[transformers]"'
    ) from error

from polarity.integrations.transformers.callback import SparsityCallback
from polarity.integrations.transformers.trainer import SparseTrainer

__all__ = ["SparseTrainer", "SparsityCallback"]
