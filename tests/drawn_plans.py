"""Plans drawn by hypothesis: fields of up to 2**63 ids, every option, a budget that fits."""

import hypothesis.strategies as st
from hypothesis import assume, currently_in_test_context

from bitfold import BudgetTooSmall, Field, Plan, plan
from bitfold.config import parse_options
from bitfold.method.registry import method_kind
from bitfold.planning.ask import Ask

LARGEST = 2**63 - 1
INT64 = st.integers(-(2**63), LARGEST)
SEEDS = st.integers(0, 2**64 - 1)


@st.composite
def dense_fields(draw, largest=LARGEST, most=3):
    """A few dense fields; small ones, ragged ones and gigantic ones."""
    size = st.one_of(st.integers(1, 40), st.integers(1, 10**6), st.integers(1, largest))
    sizes = draw(st.lists(size.filter(lambda v: v <= largest), min_size=1, max_size=most))
    return [Field(f"f{i}", v) for i, v in enumerate(sizes)]


@st.composite
def hashed_fields(draw, most=3):
    """A few hashed fields."""
    sizes = draw(st.lists(st.integers(1, 2**40), min_size=1, max_size=most))
    return [Field(f"h{i}", distinct=n) for i, n in enumerate(sizes)]


@st.composite
def options(draw, *, hashed=False):
    """Options of binary-code, with a budget (mixed radices)."""
    words = {
        "strategy": draw(st.sampled_from(["succession", "skip"])),
        "digits": draw(st.sampled_from(["positional", "residues"])),
        "sharing": draw(st.sampled_from(["slices", "shared", "fields"])),
        "fusion": draw(st.sampled_from(["sum", "mean", "product", "weighted"])),
        "balance": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "blocks": draw(st.one_of(st.none(), st.integers(1, 40))),
        "allocation": draw(st.sampled_from([0.0, 0.5, 1.0])),
    }
    if hashed:
        most = 56 if words["blocks"] == 1 else 64  # one block of 63 bits has too many cells
        words["code_bits"] = draw(st.one_of(st.none(), st.integers(1, most)))
    else:
        words["mix"] = draw(st.booleans())
    return words


@st.composite
def binary_options(draw, *, hashed=False):
    """Options of binary-code without a budget (power-of-two blocks)."""
    words = {
        "strategy": draw(st.sampled_from(["succession", "skip"])),
        "sharing": draw(st.sampled_from(["slices", "shared", "fields"])),
        "fusion": "sum",
    }
    if draw(st.booleans()):
        words["block_bits"] = draw(st.integers(1, 40))
    else:
        words["blocks"] = draw(st.integers(2, 40))
    if hashed:
        words["code_bits"] = draw(st.one_of(st.none(), st.integers(1, 64)))
    else:
        words["mix"] = draw(st.booleans())
    return words


@st.composite
def spares(draw):
    """Bytes above the least: none, a few, many."""
    return draw(st.one_of(st.just(0), st.integers(0, 400), st.integers(0, 10**9)))


def least_budget(fields, dim, **words) -> int:
    """The minimum that `BudgetTooSmall` names for a budget of one byte."""
    try:
        plan(fields, dim, budget=1, **words)
    except BudgetTooSmall as error:
        return error.minimum
    return 1


def fitting_plan(fields, dim, spare, seed=0, **words) -> Plan:
    """A plan with `spare` bytes more than the least, if int64 can number its cells."""
    budget = least_budget(fields, dim, **words) + spare
    if currently_in_test_context():
        assume(budget < 2**63)
    return plan(fields, dim, budget=budget, seed=seed, **words)


def unbounded_plan(fields, dim, seed=0, **words) -> Plan:
    """The size that binary-code's options ask for, however much larger than the full table."""
    recipe = parse_options(method_kind("binary-code"), words)
    groups = recipe.groups(Ask(tuple(fields), dim, seed=seed))
    return Plan(tuple(fields), dim, None, recipe.name, words, groups)


def some_ids(draw, fields: list[Field], rows: int = 4) -> list[list[int]]:
    """Ids `ids[b][f]` of a few rows, the ends of their ranges among them."""

    def one(field: Field) -> st.SearchStrategy[int]:
        if field.hashed:
            return st.one_of(INT64, st.sampled_from([-(2**63), LARGEST, -1, 0, 1]))
        last = field.num_embeddings - 1
        return st.one_of(st.integers(0, last), st.sampled_from([0, last, last // 2]))

    row = st.tuples(*[one(field) for field in fields]).map(list)
    return draw(st.lists(row, min_size=1, max_size=rows))
