"""Full rankings: known answers by hand, by all orders of ties, and by brute force."""

import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.nets.building import build_network
from bitfold.nets.model import ClickModel
from bitfold.ranking import RankConfig, Ranking, Ranks, figures
from bitfold.ranking.figures import mean_by_group
from test_negatives import columns


def test_by_hand() -> None:
    """Five items, relevant ones in places 1 and 4: b at .9, e at .2."""
    scores = np.array([[0.5, 0.9, 0.4, 0.1, 0.2]])
    found = figures(Ranks.of(scores, [np.array([1, 4])]), (1, 3, 4))
    expected = {
        "recall@1": 0.5,
        "recall@3": 0.5,
        "recall@4": 1.0,
        "ndcg@1": 1.0,
        # 1 of the best order's 1 + 1/log2(3); with place 4, 1 + 1/log2(5).
        "ndcg@3": 1 / (1 + 1 / math.log2(3)),
        "ndcg@4": (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
        "mrr": 1.0,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tolist() == pytest.approx([value]), name


def test_what_is_masked_is_not_ranked() -> None:
    scores = np.array([[-np.inf, 0.3, -np.inf, 0.1]])
    ranks = Ranks.of(scores, [np.array([3])])
    assert (ranks.above.tolist(), ranks.tied.tolist()) == ([1], [1])


def test_relevant_items_that_are_not_ranked_are_never_found() -> None:
    """One of three is ranked, in the first place."""
    ranks = Ranks.of(np.array([[2.0, 1.0]]), [np.array([0])], np.array([2]))
    found = figures(ranks, (2,))
    assert found["recall@2"][0] == pytest.approx(1 / 3)
    assert found["ndcg@2"][0] == pytest.approx(1 / (1 + 1 / math.log2(3)))
    none = figures(Ranks.of(np.array([[2.0, 1.0]]), [np.array([], int)], np.array([2])), (2,))
    assert {name: value.tolist() for name, value in none.items()} == {
        "recall@2": [0], "ndcg@2": [0], "mrr": [0]
    }  # fmt: skip


def ordered(places: list[int], total: int, at: tuple[int, ...]) -> dict[str, float]:
    """The figures of one order: the places (from 1) of the relevant items that are ranked."""
    out = {}
    for k in at:
        out[f"recall@{k}"] = sum(place <= k for place in places) / total
        gain = sum(1 / math.log2(1 + place) for place in places if place <= k)
        best = sum(1 / math.log2(1 + place) for place in range(1, min(k, total) + 1))
        out[f"ndcg@{k}"] = gain / best
    out["mrr"] = 1 / min(places) if places else 0.0
    return out


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_the_mean_over_all_their_orders(seed: int) -> None:
    """Six items of two or three scores: every permutation that the scores allow."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 1 + seed % 3, 6).astype(float)
    relevant = draw.choice(6, draw.integers(1, 5), replace=False)
    at = (1, 2, 3, 5)
    sums: dict[str, float] = defaultdict(float)
    orders = [
        order
        for order in itertools.permutations(range(6))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    for order in orders:
        places = [order.index(item) + 1 for item in relevant]
        for name, value in ordered(places, len(relevant), at).items():
            sums[name] += value / len(orders)
    found = figures(Ranks.of(scores[None], [relevant]), at)
    for name, value in sums.items():
        assert found[name][0] == pytest.approx(value), name


def test_one_score_for_all_is_chance() -> None:
    found = figures(Ranks.of(np.zeros((1, 1000)), [np.array([3, 997])]), (10,))
    assert found["recall@10"][0] == pytest.approx(0.01)


def test_every_user_counts_the_same() -> None:
    assert mean_by_group(np.array([1.0, 0, 0, 0, 1.0]), np.array([2, 2, 2, 2, 5])) == 0.625


# Against brute force, on logs


class Sum(nn.Module):
    """A network whose logit depends on every field and number."""

    def __init__(self, fields: int, width: int, numbers: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.pairs = torch.rand(fields, fields, generator=draw) * 50
        self.numbers = torch.rand(numbers, generator=draw)

    def forward(self, vectors: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
        products = vectors @ vectors.transpose(1, 2)
        return (products * self.pairs).sum((1, 2)) + (numeric * self.numbers).sum(1)


class Waves(nn.Module):
    """A vector for every id, no two alike; bags are summed."""

    def __init__(self, fields: int, width: int) -> None:
        super().__init__()
        self.fields = fields
        self.factor = nn.Parameter(torch.linspace(1.0, 2.0, width))

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
        phase = (ids % 1_000_003).float()[..., None] * 0.001
        waves = torch.sin(phase * self.factor)
        if offsets is None:
            return waves
        owner = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())
        sums = torch.zeros(len(offsets) - 1, waves.shape[1]).index_add(0, owner, waves)
        return sums.view(self.fields, -1, waves.shape[1]).transpose(0, 1)


def model_of(log: PreparedLog, width: int = 4) -> ClickModel:
    fields, numbers = len(log.schema.fields), len(log.schema.numeric_names)
    return ClickModel(Waves(fields, width), Sum(fields, width, numbers))


def write(folder: Path, data: dict[str, Any], **words: Any) -> tuple[PreparedLog, Path]:
    folder.mkdir(exist_ok=True)
    raw = folder / "raw.parquet"
    pl.DataFrame(data).write_parquet(raw)
    config = DataConfig(
        **{"fields": ("user", "item"), "group": "user", "item": "item", "time": "time",
           "split": "last:1,3", "negatives": 2, **words}
    )  # fmt: skip
    return prepare(raw, folder / "log", config), raw


def parts_of(data: dict[str, Any], test: int = 3) -> list[str]:
    """The part of each row of a `last:1,N` split, counted here anew."""
    order: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(data["user"])), key=lambda r: data["time"][r]):
        order[data["user"][row]].append(row)
    out = [""] * len(data["user"])
    for rows in order.values():
        for place, row in enumerate(reversed(rows)):
            out[row] = "test" if place < test else "valid" if place == test else "train"
    return out


def brute(
    data: dict[str, Any],
    score: Any,
    own: tuple[str, ...],
    context: tuple[str, ...],
    at: tuple[int, ...],
    items: str = "train",
    seen: bool = False,
) -> dict[str, float]:
    """Every item for every user and context, row by row, from the raw columns."""
    part = parts_of(data)
    rows = range(len(part))
    had = defaultdict(set)
    sides: dict[str, dict[str, Any]] = {}
    for row in rows:
        if part[row] == "train":
            had[data["user"][row]].add(data["item"][row])
        sides.setdefault(data["item"][row], {name: data[name][row] for name in own})
    inside = sorted({data["item"][row] for row in rows if items == "all" or part[row] == "train"})
    asked = defaultdict(set)
    for row in rows:
        if part[row] == "test":
            key = (data["user"][row], tuple(data[name][row] for name in context))
            asked[key].add(data["item"][row])
    by_user = defaultdict(list)
    for (user, values), wanted in asked.items():
        masked = set() if seen else had[user]
        wanted -= masked
        if not wanted:
            continue
        ranked = [item for item in inside if item not in masked]
        lines = [
            {"user": user, "item": item, **sides[item], **dict(zip(context, values, strict=True))}
            for item in ranked
        ]
        scores = score(lines)
        order = [ranked[i] for i in np.argsort(-scores, kind="stable")]
        places = [order.index(item) + 1 for item in wanted if item in order]
        by_user[user].append(ordered(places, len(wanted), at))
    return {
        name: float(np.mean([np.mean([f[name] for f in one]) for one in by_user.values()]))
        for name in next(iter(by_user.values()))[0]
    }


SIDE = {"fields": ("user", "item", "genre", "age"), "item_fields": ("genre",)}
CASES = {
    "user and item": ({}, (), ()),
    "vocabulary": ({"ids": "vocabulary"}, (), ()),
    "rare items": ({"ids": "vocabulary", "min_count": 3}, (), ()),
    "sides": (SIDE, ("genre",), ("age",)),
    "contexts": ({"fields": ("user", "item", "hour")}, (), ("hour",)),
    "numbers": (
        {"numeric": ("price", "hour"), "numeric_transform": "standard", "item_fields": ("price",)},
        ("price",),
        ("hour",),
    ),
    "buckets": (
        {"numeric": ("price", "age"), "numeric_transform": "buckets:4", "item_fields": ("price",)},
        ("price",),
        ("age",),
    ),
    "bags": (
        {
            "fields": ("user", "item", "tags", "age"),
            "multi": {"tags": "|"},
            "item_fields": ("tags",),
        },
        ("tags",),
        ("age",),
    ),
    "bags of the context": (
        {"fields": ("user", "item", "tags"), "multi": {"tags": "|"}},
        (),
        ("tags",),
    ),
    "crosses": (
        SIDE | {"cross": ("user*genre", "item*genre", "age*user", "age*genre*item")},
        ("genre",),
        ("age",),
    ),
    "crosses with a vocabulary": (
        SIDE | {"cross": ("user*genre", "item*genre", "age*user"), "ids": "vocabulary"},
        ("genre",),
        ("age",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_brute_force(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, own, context = CASES[name]
    data = columns(users=12, items=25)
    if name == "bags of the context":
        data["tags"] = ["|".join(f"t{k}" for k in range(int(h) % 3)) for h in data["hour"]]
    log, _ = write(tmp_path, data, **words)
    model = model_of(log)
    # Blocks and batches that end in the middle of things.
    monkeypatch.setattr("bitfold.ranking.scoring.PAIRS", 37)
    monkeypatch.setattr("bitfold.ranking.scoring.SCORES", 100)

    def score(lines: list[dict[str, Any]]) -> np.ndarray:
        from bitfold.data.raw import read_batches

        frame = pl.DataFrame(lines)
        frame.write_parquet(tmp_path / "lines.parquet")
        with torch.no_grad():
            parts = [model(b) for b in read_batches(tmp_path / "lines.parquet", log.schema)]
        return torch.cat(parts).numpy()

    if name == "rare items":
        # Rare items share an id, and none of them is a candidate: nothing to hold against.
        found = Ranking.of(log, "test", RankConfig("item", (5, 10))).by_model(model)
        size = log.schema.fields[1].num_embeddings
        assert size is not None
        assert found["items"] == size - 2 < 25
        assert found["absent"] > 0
        return
    found = Ranking.of(log, "test", RankConfig("item", (1, 5, 10))).by_model(model)
    expected = brute(data, score, own, context, (1, 5, 10))
    for figure, value in expected.items():
        assert found[figure] == pytest.approx(value, abs=1e-6), figure
    assert 0 < found["recall@5"] < found["recall@10"] <= 1


@pytest.mark.parametrize("items", ["train", "all"])
@pytest.mark.parametrize("seen", [False, True])
def test_items_of_all_parts_and_items_that_were_seen(
    tmp_path: Path, items: str, seen: bool
) -> None:
    data = columns(users=12, items=40)
    # Some take again in the test part what they have.
    last = parts_of(data)
    for row, part in enumerate(last):
        if part == "test" and row % 3 == 0:
            mine = [r for r in range(len(last)) if data["user"][r] == data["user"][row]]
            data["item"][row] = data["item"][next(r for r in mine if last[r] == "train")]
    log, _ = write(tmp_path, data)
    model = model_of(log)

    def score(lines: list[dict[str, Any]]) -> np.ndarray:
        from bitfold.data.raw import read_batches

        pl.DataFrame(lines).write_parquet(tmp_path / "lines.parquet")
        with torch.no_grad():
            parts = [model(b) for b in read_batches(tmp_path / "lines.parquet", log.schema)]
        return torch.cat(parts).numpy()

    words = RankConfig("item", (5,), items=items, seen=seen)
    found = Ranking.of(log, "test", words).by_model(model)
    expected = brute(data, score, (), (), (5,), items=items, seen=seen)
    for figure, value in expected.items():
        assert found[figure] == pytest.approx(value, abs=1e-6), figure


def test_popularity_equals_its_brute_force(tmp_path: Path) -> None:
    """Counts tie a lot: against the general way of ranking, from counts taken here."""
    data = columns(users=20, items=30)
    log, _ = write(tmp_path, data)
    ranking = Ranking.of(log, "test", RankConfig("item", (3, 10)))
    found = ranking.by_popularity()
    part = parts_of(data)
    from bitfold.data.hashing import hash_values

    counts: dict[int, int] = defaultdict(int)
    for item, where in zip(hash_values(data["item"]).tolist(), part, strict=True):
        counts[item] += where == "train"
    scores = np.array([[float(counts[i]) for i in ranking.items.ids.tolist()]])
    scores = np.repeat(scores, len(ranking.asked), axis=0)
    for question, row in enumerate(scores):
        row[ranking.asked.masked(question)] = -np.inf
    asked = range(len(scores))
    ranks = Ranks.of(scores, [ranking.asked.relevant(q) for q in asked], ranking.asked.absent)
    for name, values in figures(ranks, (3, 10)).items():
        assert found[name] == pytest.approx(mean_by_group(values, ranking.asked.groups)), name
    # By hand for one user: popular items the user lacks stand first.
    assert found["recall@10"] > 10 / 30


def test_labels_of_a_log_with_explicit_negatives(tmp_path: Path) -> None:
    """Only clicks are relevant and only clicks are masked; a disliked item stays a candidate."""
    data = {
        "user": ["a", "a", "a", "b", "b"],
        "item": ["x", "y", "z", "x", "z"],
        "click": [1, 0, 1, 0, 1],
        "part": ["train", "train", "test", "train", "train"],
        "time": range(5),
    }
    log, _ = write(tmp_path, data, label="click", negatives=0, split="column:part")
    ranking = Ranking.of(log, "test", RankConfig("item", (1, 2)))
    found = ranking.by_popularity()
    assert found["items"] == 3
    # a has x; z was taken once and y never: z is first.
    assert (found["recall@1"], found["mrr"], found["users"]) == (1.0, 1.0, 1)


@pytest.mark.parametrize(
    ("words", "rank", "text"),
    [
        ({}, "itme", "did you mean"),
        ({}, "user", "is the user"),
        ({"fields": ("user", "item", "age")}, "age", "another field is the item"),
        ({"group": None, "negatives": 0, "label": "click", "split": "random:0.8,0.1,0.1"}, "item",
         "needs the user's column"),
        ({"cross": ("hour*item",), "numeric": ("hour",), "numeric_transform": "buckets:3"},
         "item", r"the cross 'hour\*item' cannot be made"),
        ({"fields": ("user", "item", "genre"), "negatives": 0, "label": "click"}, "item",
         "'genre' belongs to 'item'"),
        ({"numeric": ("price",), "negatives": 0, "label": "click"}, "item",
         "'price' belongs to 'item'"),
        ({"fields": ("user", "item", "tags"), "multi": {"tags": "|"}, "negatives": 0,
          "label": "click"}, "item", "'tags' belongs to 'item'"),
        ({"cross": ("hour*item",)}, "item", r"the cross 'hour\*item' cannot be made"),
        ({"fields": ("user", "item", "tags"), "multi": {"tags": "|"}, "item": None, "negatives": 0,
          "label": "click"}, "tags", "'tags' cannot be ranked"),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_refused(
    tmp_path: Path, words: dict[str, Any], rank: str, text: str
) -> None:
    data = columns() | {"click": [i % 2 for i in range(240)]}
    log, _ = write(tmp_path, data, **words)
    with pytest.raises(BitfoldError, match=text):
        Ranking.of(log, "test", RankConfig(rank))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"users": -1}, "rank_users"),
        ({"at": ()}, "rank_at"),
        ({"at": (0, 10)}, "rank_at"),
        ({"items": "tests"}, "tests"),
    ],
)
def test_words_of_a_ranking(words: dict[str, Any], text: str) -> None:
    with pytest.raises(BitfoldError, match=text):
        RankConfig("item", **words)


def test_a_part_without_positives_and_items_all_seen(tmp_path: Path) -> None:
    data = {
        "user": ["a", "a", "b", "b", "a"],
        "item": ["x", "y", "x", "y", "x"],
        "part": ["train", "train", "train", "valid", "test"],
        "click": [1, 1, 0, 0, 1],
        "time": range(5),
    }
    log, _ = write(tmp_path, data, label="click", negatives=0, split="column:part")
    with pytest.raises(BitfoldError, match="no positives in the valid part"):
        Ranking.of(log, "valid", RankConfig("item"))
    with pytest.raises(BitfoldError, match="its user has in training"):
        Ranking.of(log, "test", RankConfig("item"))
    found = Ranking.of(log, "test", RankConfig("item", (1,), seen=True)).by_popularity()
    assert found["recall@1"] == 0.5  # x and y were each taken once


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    log, _ = write(tmp_path, columns())
    model = model_of(log)
    with torch.no_grad():
        next(iter(model.embeddings.parameters())).fill_(float("nan"))
    with pytest.raises(BitfoldError, match="scores that are no numbers"):
        Ranking.of(log, "test", RankConfig("item")).by_model(model)


def test_a_sample_of_users_is_part_of_all(tmp_path: Path) -> None:
    """Each user's figures are the same whoever else is asked; the same users each time."""
    log, _ = write(tmp_path, columns(users=20, items=30))
    model = model_of(log)
    whole = Ranking.of(log, "test", RankConfig("item"))
    some = Ranking.of(log, "test", RankConfig("item", users=7))
    assert some.by_model(model)["users"] == 7
    assert set(some.asked.users.tolist()) <= set(whole.asked.users.tolist())
    fewer = Ranking.of(log, "test", RankConfig("item", users=3))
    assert set(fewer.asked.users.tolist()) <= set(some.asked.users.tolist())
    for question, user in enumerate(some.asked.users[some.asked.groups].tolist()):
        place = whole.asked.users.tolist().index(user)
        (same,) = np.flatnonzero(whole.asked.groups == place)
        for name in ("relevant", "masked"):
            assert (getattr(some.asked, name)(question) == getattr(whole.asked, name)(same)).all()
    more = Ranking.of(log, "test", RankConfig("item", users=99)).by_model(model)
    assert more == whole.by_model(model)


def test_progress_ends(tmp_path: Path) -> None:
    log, _ = write(tmp_path, columns())
    told: list[tuple[str, int, int | None]] = []

    def tell(stage: str, done: int, total: int | None = None, **facts: object) -> None:
        told.append((stage, done, total))

    ranking = Ranking.of(log, "test", RankConfig("item"), tell)
    ranking.by_model(model_of(log), progress=tell)
    assert told[-1] == ("ranking", 30, 30)
    assert {stage for stage, _, _ in told} == {"reading items", "reading users", "ranking"}


def test_the_networks_of_the_command(tmp_path: Path) -> None:
    """A real network, of ids that the method wants dense: the map is applied."""
    from bitfold.data.vocabulary import Vocabulary

    log, _ = write(tmp_path, columns(users=12, items=25), cross=("user*item",))
    dense = Vocabulary.fit(log)
    fields = dense.fields(log.schema.embedding_fields())
    model = ClickModel(
        EmbeddingCollection(fields, 4, method="full"), build_network("deepfm", 3, 4, 0, seed=1)
    )
    ranking = Ranking.of(log, "test", RankConfig("item", (5,)))
    found = ranking.by_model(model, dense=dense)
    # The same through batches of hashed ids, mapped batch by batch.
    from bitfold.ranking.scoring import Pairs

    whole = Pairs(ranking, None).batch(0, 0, len(ranking.asked) * len(ranking.items.ids))
    with torch.no_grad():
        scores = model(dense.apply(whole)).numpy().reshape(len(ranking.asked), -1)
    for question, row in enumerate(scores):
        row[ranking.asked.masked(question)] = -np.inf
    ranks = Ranks.of(
        scores, [ranking.asked.relevant(q) for q in range(len(scores))], ranking.asked.absent
    )
    assert found["mrr"] == pytest.approx(
        mean_by_group(figures(ranks, (5,))["mrr"], ranking.asked.groups), abs=1e-6
    )
