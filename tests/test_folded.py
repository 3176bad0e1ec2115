"""Folding somebody's model: what is found, kept, refused; that it reads what it says."""

import copy
import gc
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, IdOutOfRange, UnknownName
from bitfold.embedder.column import column
from bitfold.folded.faces import Folded
from bitfold.folded.joint import Joint

SIZES = (4000, 300, 2500)


class Net(nn.Module):
    """Tables called one by one on the columns of a batch, and one of two rows."""

    def __init__(self, kind: str = "ids", dim: int = 8, sizes: tuple[int, ...] = SIZES) -> None:
        super().__init__()
        self.kind = kind
        self.tables = nn.ModuleList(
            nn.Embedding(size, dim) if kind == "ids" else nn.EmbeddingBag(size, dim, mode="sum")
            for size in sizes
        )
        self.small = nn.Embedding(2, dim)
        self.top = nn.Linear(dim * (len(sizes) + 1), 1)

    def forward(self, ids: Tensor) -> Tensor:
        starts = torch.arange(len(ids))
        found = [
            table(ids[:, f]) if self.kind == "ids" else table(ids[:, f], starts)
            for f, table in enumerate(self.tables)
        ]
        return self.top(torch.cat([*found, self.small(ids[:, 0] % 2)], 1))


def batch(rows: int, seed: int = 0, sizes: tuple[int, ...] = SIZES) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in sizes], 1)


def joints(model: nn.Module) -> list[Joint]:
    return [part for part in model.modules() if isinstance(part, Joint)]


def one_by_one(model: Net, ids: Tensor) -> Tensor:
    """The model's vectors without reading ahead: each table's column by itself."""
    return torch.cat(
        [
            t.joint.columns[t.field](ids[:, f : f + 1]).squeeze(1)
            for f, t in enumerate(model.tables)
        ],
        1,
    )


def stacked(model: Net, ids: Tensor) -> Tensor:
    return torch.cat([table(ids[:, f]) for f, table in enumerate(model.tables)], 1)


@pytest.mark.parametrize("budget", ["4x", "10x", "40x"])
@pytest.mark.parametrize("kind", ["ids", "bags"])
def test_the_budget_is_met_and_the_model_runs_and_learns(kind: str, budget: str) -> None:
    torch.manual_seed(0)
    model = Net(kind)
    before = sum(t.weight.nbytes for t in (*model.tables, model.small))
    report = bitfold.fold(model, budget, seed=1)
    assert report.model is model
    assert report.budget == int(before / float(budget[:-1]))
    assert 0 < report.bytes <= report.budget
    assert report.bytes == model.small.weight.nbytes + sum(plan.bytes for plan in report.plans)
    assert all(isinstance(table, Folded) for table in model.tables)
    assert isinstance(model.small, nn.Embedding)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    ids, wanted = batch(200), torch.randn(200, 1)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = (model(ids) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("rows", [1, 40, 200])
@pytest.mark.parametrize("form", ["columns", "rows", "scattered", "scattered rows", "apart"])
@pytest.mark.parametrize("grad", [True, False])
def test_what_is_read_ahead_is_what_each_table_reads(rows: int, form: str, grad: bool) -> None:
    model = Net().eval()
    bitfold.fold(model, "40x", seed=0)
    for seed in range(4):
        ids = batch(rows, seed)
        if form == "rows":
            ids = ids.t().contiguous().t()
        with torch.set_grad_enabled(grad):
            if "scattered" in form:  # other columns lie between, in another order
                wide = torch.full((rows, 7), -1)
                wide[:, [5, 1, 2]] = ids
                wide = wide.t().contiguous().t() if "rows" in form else wide
                parts = [wide[:, column] for column in (5, 1, 2)]
                found = torch.cat([t(p) for t, p in zip(model.tables, parts, strict=True)], 1)
            elif form == "apart":
                parts = [ids[:, f].clone() for f in range(len(SIZES))]
                found = torch.cat([t(p) for t, p in zip(model.tables, parts, strict=True)], 1)
            else:
                found = stacked(model, ids)
            assert torch.equal(found, one_by_one(model, ids))
        assert found.requires_grad == grad
    guessed = joints(model)[0].states[grad].guess
    assert (guessed is None) == (form == "apart")


def test_gradients_are_those_of_the_collection() -> None:
    torch.manual_seed(0)
    model = Net().eval()
    bitfold.fold(model, "40x", seed=0)
    (joint,) = joints(model)
    ids, weights = batch(50), torch.randn(50, 3 * 8)
    (joint.embedder(ids).flatten(1) * weights).sum().backward()
    wanted = [p.grad.clone() for p in joint.parameters()]
    for _ in range(3):  # the first call learns how the batch lies, the others read ahead
        joint.zero_grad()
        (stacked(model, ids) * weights).sum().backward()
        for parameter, each in zip(joint.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, each, rtol=1e-5, atol=1e-6)


def test_a_guess_that_is_wrong_costs_nothing_but_time() -> None:
    model = Net().eval()
    bitfold.fold(model, "40x", seed=0)
    ids = batch(5)
    stacked(model, ids)
    stacked(model, ids)  # a forward ends where the next one begins
    assert joints(model)[0].states[True].guess is not None
    # The same memory, but the second table is asked for other ids.
    other = ids[:, 1].flip(0) if not torch.equal(ids[:, 1], ids[:, 1].flip(0)) else ids[:, 1] * 0
    found = torch.cat([model.tables[0](ids[:, 0]), model.tables[1](other)], 1)
    wanted = one_by_one(model, torch.stack([ids[:, 0], other, ids[:, 2]], 1))[:, :16]
    assert torch.equal(found, wanted)
    # What lies beside the ids are no ids.
    stacked(model, ids)
    stacked(model, ids)
    wide = torch.full((5, 3), 10**9)
    wide[:, 0] = ids[:, 0]
    assert torch.equal(model.tables[0](wide[:, 0]), one_by_one(model, ids)[:, :8])


def test_what_was_read_ahead_is_not_kept_past_a_step() -> None:
    model = Net()
    bitfold.fold(model, "40x", seed=0)
    model.eval()
    ids = batch(4)
    stacked(model, ids)
    model.tables[0](ids[:, 0])  # the others are ahead, and not asked for
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0
    assert torch.equal(model.tables[1](ids[:, 1]), one_by_one(model, ids)[:, 8:16])
    model.tables[0](ids[:, 0]).sum().backward()
    model.tables[2](ids[:, 2]).sum().backward()  # and not of a graph that is gone


def test_ids_changed_between_two_tables_are_seen() -> None:
    model = Net().eval()
    bitfold.fold(model, "40x", seed=0)
    ids = batch(3)
    with torch.inference_mode():
        ids = ids.clone()
        for _ in range(3):
            model.tables[0](ids[:, 0])
            ids[:, 1] = (ids[:, 1] + 1) % 300
            got = model.tables[1](ids[:, 1])
            assert torch.equal(got, model.tables[1].embedder(ids[:, 1:2]).squeeze(1))
            model.tables[2](ids[:, 2])


@pytest.mark.parametrize("grad", [True, False])
def test_padding_is_zero_and_learns_nothing_when_read_ahead(grad: bool) -> None:
    model = Net()
    for table in model.tables:
        table.padding_idx = 7
    bitfold.fold(model, "40x", seed=0)
    ids = batch(6)
    ids[2] = 7
    for _ in range(3):
        with torch.set_grad_enabled(grad):
            found = stacked(model, ids)
        assert not found[2].any()
        assert found[[0, 1, 3, 4, 5]].abs().sum(1).min() > 0


def test_a_bad_id_is_named_with_its_table() -> None:
    model = Net()
    bitfold.fold(model, "40x")
    ids = batch(4)
    for _ in range(2):
        model(ids)
    ids[1, 1] = 300
    with pytest.raises(IdOutOfRange, match=r"tables\.1|300"):
        model(ids)


def test_shared_tables_stay_shared_and_tied_ones_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.items = nn.Embedding(1000, 8), nn.Embedding(900, 8)
            self.again = nn.Embedding(900, 8)
            self.again.weight = self.items.weight
            self.head = nn.Linear(8, 1000, bias=False)
            self.head.weight = self.words.weight
            self.twice = self.items  # one module in two places

    model = Tied()
    report = bitfold.fold(model, "10x")
    assert type(model.words) is nn.Embedding
    assert model.head.weight is model.words.weight
    rows = {row["table"]: row for row in report.records()}
    assert "head.weight" in rows["words"]["how"]
    assert model.twice is model.items
    ids = torch.tensor([1, 899])
    assert torch.equal(model.items(ids), model.again(ids))
    assert report.before == 900 * 8 * 4  # what is left alone does not count


def test_hooks_flags_and_names_stay() -> None:
    model = Net()
    seen: list[int] = []
    handle = model.tables[1].register_forward_hook(lambda *given: seen.append(len(given[2])))
    model.tables[2].eval()
    held = list(model.tables)
    names = [name for name, _ in model.named_modules() if not name.endswith("joint")]
    bitfold.fold(model, "10x")
    assert all(a is b for a, b in zip(held, model.tables, strict=True))
    kept = [name for name, _ in model.named_modules()]
    assert set(names) <= set(kept)
    model(batch(9))
    assert seen == [9]
    handle.remove()
    assert (model.tables[1].training, model.tables[2].training) == (True, False)
    assert isinstance(model.tables[0], nn.Embedding)
    assert model.tables[0].num_embeddings == 4000
    assert model.tables[0].weight.shape == (4000, 8)


@pytest.mark.parametrize("word", ["max_norm", "scale_grad_by_freq"])
def test_what_needs_a_row_for_each_id_is_refused_by_table_and_word(word: str) -> None:
    model = Net()
    setattr(model.tables[1], word, 1.0 if word == "max_norm" else True)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BitfoldError, match=rf"'tables\.1' cannot be folded with {word}"):
        bitfold.fold(model, "10x")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    bitfold.fold(model, "10x", exclude="tables.1")
    assert type(model.tables[1]) is nn.Embedding


def test_impossible_budgets_and_unknown_tables_are_refused() -> None:
    model = Net()
    with pytest.raises(BudgetTooSmall) as refusal:
        bitfold.fold(model, 10)
    minimum = refusal.value.minimum
    with pytest.raises(BudgetTooSmall):
        bitfold.fold(model, minimum - 1)
    assert all(type(table) is nn.Embedding for table in model.tables)
    for words in ({"exclude": "tabels.*"}, {"include": ["nope"]}, {"overrides": {"x": {}}}):
        with pytest.raises(UnknownName):
            bitfold.fold(model, "10x", **words)
    with pytest.raises(UnknownName):
        bitfold.fold(model, "10x", counts={"tables.9": np.ones(3)})
    with pytest.raises(BitfoldError, match="counts of table"):
        bitfold.fold(model, "10x", counts={"tables.1": np.ones(3, np.int64)})
    with pytest.raises(BitfoldError, match="no table to fold"):
        bitfold.fold(nn.Linear(3, 3), "10x")
    report = bitfold.fold(model, minimum)
    assert report.bytes <= minimum


def test_at_the_full_size_tables_stay_as_they_are() -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    report = bitfold.fold(model, "1x")
    assert report.bytes == report.before
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_copy_has_the_rows_of_tables_that_stay_whole() -> None:
    model = Net().eval()
    report = bitfold.fold(model, "1x", inplace=False)
    ids = batch(5)
    assert torch.equal(report.model.eval()(ids), model(ids))


def test_overrides_include_and_widths() -> None:
    model = nn.ModuleDict(
        {"a": nn.Embedding(5000, 16), "b": nn.Embedding(4000, 16), "w": nn.Embedding(5000, 1)}
    )
    report = bitfold.fold(model, "10x", overrides={"b": {"method": "hash", "budget": "20x"}})
    rows = {row["table"]: row for row in report.records()}
    assert rows["b"]["how"] == "hash"
    assert rows["b"]["after"] <= 4000 * 16 * 4 / 20
    assert report.bytes <= report.budget
    assert len(report.plans) == 3
    assert model["w"](torch.tensor([4999])).shape == (1, 1)


def test_a_copy_is_folded_and_the_model_is_as_it_was() -> None:
    model = Net()
    report = bitfold.fold(model, "10x", inplace=False)
    assert all(type(table) is nn.Embedding for table in model.tables)
    assert all(isinstance(table, Folded) for table in report.model.tables)
    assert torch.equal(report.model.top.weight, model.top.weight)
    assert report.model.top.weight is not model.top.weight


def test_optimizers_and_lists_follow() -> None:
    model = Net()
    model.penalties = [(list(model.tables[0].parameters()), 0.1), ("other", 1)]
    model.named = [("w", model.tables[1].weight)]
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    model(batch(20)).sum().backward()
    optimizer.step()
    report = bitfold.fold(model, "10x")
    assert len(report.notes) == 3
    assert model.penalties[0][0] == []
    assert model.named == []
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    before = [p.detach().clone() for p in joints(model)[0].parameters()]
    optimizer.zero_grad()
    model(batch(20)).sum().backward()
    optimizer.step()
    after = joints(model)[0].parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    gc.collect()


def test_fresh_rows_have_the_deviation_of_those_they_replace() -> None:
    model = Net()
    for table in model.tables:
        nn.init.normal_(table.weight, std=0.01)
    bitfold.fold(model, "10x", seed=0)
    found = model.tables[0](torch.arange(4000))
    assert found.std().item() == pytest.approx(0.01, rel=0.15)


def _round_trip(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("budget", ["4x", "10x", "40x"])
@pytest.mark.parametrize("packed", [False, True])
def test_checkpoints_are_read_in_a_fresh_model(budget: str, packed: bool, tmp_path: Any) -> None:
    model = bitfold.fold(Net(), budget, seed=4).model
    model(batch(30)).sum().backward()
    model.eval()
    ids = batch(70, 3)
    kept = bitfold.serving(model) if packed else model
    wanted = kept(ids)
    torch.save({"state_dict": kept.state_dict()}, tmp_path / "last.ckpt")
    bitfold.save(kept, tmp_path / "folder")
    for source in (
        kept.state_dict(),
        _round_trip(kept.state_dict()),
        tmp_path / "last.ckpt",
        tmp_path / "folder",
        tmp_path / "folder" / "model.safetensors",
    ):
        again = bitfold.load_model(source, Net)
        assert torch.equal(again(ids), wanted)
    if packed:
        size = sum(
            value.nbytes for name, value in kept.state_dict().items() if ".joint.embedder." in name
        )
        assert size == sum(joint.embedder.plan.bytes for joint in joints(kept))
        resumed = bitfold.resume(kept).eval()
        torch.testing.assert_close(resumed(ids), wanted)
        assert any(p.requires_grad for p in joints(resumed)[0].parameters())
    else:
        torch.testing.assert_close(bitfold.serving(model)(ids), wanted)


def test_files_of_other_writers_are_read_too(tmp_path: Any) -> None:
    model = bitfold.fold(Net(), "10x").model.eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    again = bitfold.load_model(tmp_path / "model.safetensors", Net)
    ids = batch(20)
    assert torch.equal(again(ids), model(ids))


def test_a_checkpoint_of_another_fold_says_how_to_read_it(tmp_path: Any) -> None:
    model, other = bitfold.fold(Net(), "40x").model, bitfold.fold(Net(), "20x").model
    with pytest.raises(BitfoldError, match="load_model"):
        other.load_state_dict(model.state_dict())
    with pytest.raises(BitfoldError, match="another form"):
        model.load_state_dict(bitfold.serving(model).state_dict())
    with pytest.raises(BitfoldError, match=r"another table at 'tables\.0'"):
        bitfold.load_model(model.state_dict(), lambda: Net(sizes=(4001, 300, 2500)))
    with pytest.raises(BitfoldError, match="no plan"):
        bitfold.load_model(Net().state_dict(), Net)
    state = model.state_dict()
    del state["top.bias"]
    with pytest.raises(BitfoldError, match="another model"):
        bitfold.load_model(state, Net)
    folder = bitfold.save(model, tmp_path / "m")
    with pytest.raises(BitfoldError, match="exists already"):
        bitfold.save(model, folder)
    bitfold.save(other, folder, force=True)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    with pytest.raises(BitfoldError, match="damaged"):
        bitfold.load_model(folder, Net)
    flipped = bytearray(content)
    flipped[-5] ^= 1
    weights.write_bytes(bytes(flipped))
    with pytest.raises(BitfoldError, match="not what was saved"):
        bitfold.load_model(folder, Net)
    (tmp_path / "no.pt").write_bytes(b"nothing")
    with pytest.raises(BitfoldError, match="cannot be read"):
        bitfold.load_model(tmp_path / "no.pt", Net)


def test_copies_and_pickles_read_the_same() -> None:
    model = bitfold.fold(Net(), "40x").model.eval()
    ids = batch(30)
    wanted = model(ids)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(ids), wanted)
    assert joints(twin)[0] is not joints(model)[0]
    assert all(table.joint is joints(twin)[0] for table in twin.tables)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(ids), wanted)


@pytest.mark.parametrize("kind", ["ids", "bags"])
def test_a_folded_model_compiles_whole_and_exports(kind: str) -> None:
    model = bitfold.fold(Net(kind), "40x").model.eval()
    ids = batch(17)
    wanted = model(ids)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids), wanted)
    exported = torch.export.export(model, (ids,))
    torch.testing.assert_close(exported.module()(ids), wanted)


def test_models_that_never_fitted() -> None:
    def build() -> nn.Module:
        model = Net(sizes=(10**9, 3 * 10**8, 500))
        nn.init.normal_(model.tables[0].weight, std=0.02)
        model.tables[1].weight.data.uniform_(-0.02, 0.02)
        return model

    with bitfold.folding("600KiB", seed=2) as folded:
        model = build()
    assert folded.report.model is model
    assert folded.report.bytes <= 600 * 1024
    sizes = (10**9, 3 * 10**8, 500)
    assert model(batch(9, sizes=sizes)).shape == (9, 1)
    assert isinstance(model.small, nn.Embedding)
    assert not any("_folded_to" in vars(part) for part in model.modules())
    assert nn.Embedding(500, 4).weight.device.type == "cpu"  # outside, tables are tables
    state = model.state_dict()
    again = bitfold.load_model(state, build).eval()
    ids = batch(5, sizes=sizes)
    assert torch.equal(again(ids), model.eval()(ids))


def test_constructors_that_move_their_tables_make_none() -> None:
    def build() -> nn.Module:
        model = Net().to("cpu")  # a table without memory cannot be copied
        model.tables.to(torch.float64)
        return model

    with bitfold.folding("10x", seed=2):
        model = build()
    vectors = model.tables[0](torch.tensor([3]))
    assert vectors.dtype == torch.float64
    again = bitfold.load_model(model.state_dict(), build)
    assert torch.equal(again.tables[0](torch.tensor([3])), vectors)
    assert "_apply" not in vars(nn.Embedding)  # outside, they move as ever
    assert nn.Embedding(1000, 4).to(torch.float64).weight.dtype == torch.float64


def test_folding_refuses_what_it_cannot_see() -> None:
    with pytest.raises(BitfoldError, match="one model"), bitfold.folding("1MiB"):
        kept = [nn.Embedding(1000, 4), nn.Embedding(1000, 4)]
    del kept
    with pytest.raises(BitfoldError, match="one model"), bitfold.folding("1MiB"):
        nn.Linear(3, 3)
    with pytest.raises(ZeroDivisionError), bitfold.folding("1MiB") as folded:
        raise ZeroDivisionError
    with pytest.raises(BitfoldError, match="nothing is folded yet"):
        _ = folded.report
    assert nn.Embedding(1000, 4).weight.device.type == "cpu"


def test_the_report_shows_every_table() -> None:
    report = bitfold.fold(Net(), "10x")
    text = repr(report)
    assert all(name in text for name in ("tables.0", "tables.2", "small", "fewer than 100 rows"))
    assert "<table>" in report._repr_html_()
    assert len(report.to_frame()) == 4
    assert sum(row["after"] for row in report.records()) == report.bytes


FORMS: list[tuple[str, dict[str, Any]]] = [
    ("auto", {}), ("hash", {}), ("hash-embeddings", {}), ("tensor-train", {}), ("low-rank", {}),
    ("quotient-remainder", {}), ("robe", {}), ("unified", {}), ("dhe", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options"), FORMS)
def test_a_column_reads_what_the_whole_reads(method: str, options: dict[str, Any]) -> None:
    fields = [bitfold.Field("a", 700), bitfold.Field("b", 90), bitfold.Field("c", 300)]
    try:
        made = bitfold.EmbeddingCollection(fields, 8, method=method, budget="5x", seed=0, **options)
    except BudgetTooSmall as error:
        made = bitfold.EmbeddingCollection(
            fields, 8, method=method, budget=error.minimum, seed=0, **options
        )
    whole: Any = made.embedder.eval()
    ids = torch.stack([torch.randint(0, f.num_embeddings or 1, (20,)) for f in fields], 1)
    wanted = whole(ids)
    close: Callable[..., None] = torch.testing.assert_close
    for f in range(3):
        one = column(whole, f)
        close(one(ids[:, f : f + 1]), wanted[:, f : f + 1])
        bags = one.forward_bags(ids[:, f], torch.tensor([0, 3, 3, 20]), None, "sum")
        close(bags[0, 0], wanted[:3, f].sum(0))
        assert not bags[1].any()
        with pytest.raises(IdOutOfRange):
            one(torch.tensor([[fields[f].num_embeddings]]))
        assert list(one.parameters(recurse=False)) == []


@pytest.mark.parametrize("budget", ["4x", "8x", "30x"])
def test_a_trained_model_is_folded_into_what_comes_nearest(budget: str) -> None:
    torch.manual_seed(0)
    model = Net(dim=16)
    with torch.no_grad():
        for table in model.tables:  # rows that lie near a few directions, as trained ones do
            table.weight.copy_(torch.randn(len(table.weight), 3) @ torch.randn(3, 16))
            table.weight += 0.1 * torch.randn_like(table.weight)
    ids = batch(400)
    with torch.no_grad():
        wanted = stacked(model, ids)
    fresh = bitfold.fold(model, budget, seed=0, inplace=False)
    fitted = bitfold.fold(model, budget, seed=0, fit=True, inplace=False)

    @torch.no_grad()
    def lost(folded: nn.Module) -> float:
        found = stacked(folded.eval(), ids)
        return float(((found - wanted).square().sum() / wanted.square().sum()).sqrt())

    errors = [row["error"] for row in fitted.records() if row["table"] != "small"]
    assert lost(fitted.model) < min(0.95, lost(fresh.model))
    assert lost(fitted.model) == pytest.approx(np.mean(errors), abs=0.15)
    if budget == "4x":
        assert max(errors) < 0.15  # 4 bits


def test_frozen_tables_are_folded_when_they_are_fitted() -> None:
    model = Net()
    model.tables[0].weight.requires_grad_(False)
    report = bitfold.fold(model, "8x", fit=True)
    assert isinstance(model.tables[0], Folded)
    assert not any(p.requires_grad for p in model.tables[0].joint.parameters())
    assert all(p.requires_grad for p in model.tables[1].joint.parameters())
    assert len(report.plans) == 2
