"""A converted model in one safetensors file: loading never unpickles."""

from pathlib import Path
from types import ModuleType

from torch import nn

from polarity.conversion import mask_weights

__all__ = ["load", "save"]

_MASK = ".0.mask"


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model's parameters, buffers and masks to a safetensors file.

    Args:
        model: any module, masked or plain.
        path: the file, conventionally ``*.safetensors``.

    Raises:
        ImportError: if safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.load_masks(nn.Linear(2, 2), {"weight": nn.Linear(2, 2).weight > 0})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pol.save(model, f"{folder}/ticket.safetensors")
        ...     copy = pol.load(nn.Linear(2, 2), f"{folder}/ticket.safetensors")
        >>> pol.density(copy) == pol.density(model)
        True
    """
    _safetensors().save_model(model, str(path))


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """Read a file of :func:`save` into a model, in place, masking what was masked there.

    Args:
        model: a model of the structure that was saved, plain or masked.
        path: the file.

    Returns:
        The model.

    Raises:
        ImportError: if safetensors is not installed.
        ValueError: if the file names a masked weight that the model lacks.
        RuntimeError: if the other names or shapes differ, as ``load_state_dict`` has it.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> import polarity as pol
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pol.save(pol.mask_weights(nn.Linear(2, 2)), f"{folder}/model.safetensors")
        ...     model = pol.load(nn.Linear(2, 2), f"{folder}/model.safetensors")
        >>> model.parametrizations.weight[0]
        MaskedWeight((2, 2), density=1)
    """
    safetensors = _safetensors()
    with safetensors.safe_open(str(path), framework="pt") as file:
        names = [key.removesuffix(_MASK) for key in file.keys() if key.endswith(_MASK)]  # noqa: SIM118
    masked = tuple(name.replace("parametrizations.", "", 1) for name in names)
    if masked:
        mask_weights(model, targets=masked)
    safetensors.load_model(model, str(path))
    return model


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "polarity.save and polarity.load need safetensors: pip install safetensors"
        ) from error
    return safetensors.torch
