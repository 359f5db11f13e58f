"""Which kinds of layers, in which forms, a law is tried on: all pairs, or a cross of them."""

import pytest

from tests.models import FORMS, KINDS, WIDE

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
EVERY_KIND = pytest.mark.parametrize("kind", [*KINDS, WIDE], ids=lambda kind: kind.name)


def _in_turn() -> list[object]:
    """Return all pairs; slow but for every form of two linear layers, and one of each other."""
    pairs = []
    for place, kind in enumerate([*KINDS, WIDE]):
        whole = kind in (KINDS[0], WIDE)  # below and above the sizes where the library changes
        for at, form in enumerate(FORMS):
            quick = whole or at == place % len(FORMS)
            marks = () if quick else pytest.mark.slow
            pairs.append(pytest.param(kind, form, id=f"{kind.name}-{form.name}", marks=marks))
    return pairs


# For laws that take long, compiling for instance: every kind and every form, but not all pairs.
KINDS_IN_TURN = pytest.mark.parametrize(("kind", "form"), _in_turn())
