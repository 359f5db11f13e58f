"""Which kinds of layers, in which forms, a law is tried on: all pairs, or a cross of them."""

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from tests.forms import FORMS, Form
from tests.models import KINDS, WIDE, Kind

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
EVERY_KIND = pytest.mark.parametrize("kind", [*KINDS, WIDE], ids=lambda kind: kind.name)


def pairs_in_turn(
    kinds: Sequence[Kind], forms: Sequence[Form], whole: Collection[Kind]
) -> list[Any]:
    """Return all pairs; slow but for every form of the ``whole`` kinds, and one of each other."""
    pairs = []
    for place, kind in enumerate(kinds):
        for at, form in enumerate(forms):
            quick = kind in whole or at == place % len(forms)
            marks = () if quick else pytest.mark.slow
            pairs.append(pytest.param(kind, form, id=f"{kind.name}-{form.name}", marks=marks))
    return pairs


# For laws that take long, compiling for instance: every kind and every form, but not all pairs.
# Of two linear layers all, below and above the sizes where the library changes its way.
KINDS_IN_TURN = pytest.mark.parametrize(
    ("kind", "form"), pairs_in_turn([*KINDS, WIDE], FORMS, whole=(KINDS[0], WIDE))
)
