"""Everything that is done to a divided model and compared with one process, by name."""

from tests.ranks.cases import CASES as OF_PRUNING
from tests.ranks.factors import FACTORS
from tests.ranks.looking import LOOKING
from tests.ranks.options import OPTIONS
from tests.ranks.schedules import SCHEDULES
from tests.ranks.signs import SIGNS
from tests.ranks.tickets import TICKETS

__all__ = ["CASES"]

CASES = OF_PRUNING | SIGNS | TICKETS | FACTORS | SCHEDULES | LOOKING | OPTIONS
