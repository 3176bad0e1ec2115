"""Kernels of few bits read what plain torch reads, to the bit, and nothing that is not there."""

import pytest
import torch

import bitfold
from bitfold import BitfoldError
from bitfold.address import Lookup, Program, Raw
from bitfold.kernels import gradients, sharing
from bitfold.kernels.choice import DIRECT
from bitfold.kernels.denormals import X86, no_denormals
from bitfold.kernels.ops import FUSIONS, vectors
from bitfold.kernels.packing import in_one_slice, pack, scratch_words
from bitfold.kernels.reading import lanes_of_packed, row_bytes
from bitfold.optim import SGD
from bitfold.pool import LowBitPool, PackedPool

ROWS, SLICES = 60, (0, 17)
# Bits and widths: rows of one piece and of several, codes within a byte and across, odd ends.
FORMS = [
    *((8, 6, "slice"), (4, 16, "slice"), (3, 10, "slice"), (3, 64, "slice"), (2, 6, "slice")),
    *((1, 40, "slice"), (1, 37, "slice"), (4, 16, "row"), (3, 64, "row"), (1, 37, "row")),
]
forms = pytest.mark.parametrize(("bits", "width", "scale"), FORMS)


def read_by_kernels(weight, rounding, width, rows=ROWS, ids=None):
    """Rows as a lookup of one term reads them, from two fields that read a slice each."""
    raw = Raw()
    program = Program(
        1, ((Lookup(raw, SLICES[1], 0),), (Lookup(raw, ROWS - SLICES[1], SLICES[1]),)), ROWS
    )
    packed = torch.from_numpy(pack(program, [SLICES[1], ROWS - SLICES[1]], SLICES))
    words = (packed, 0, 0, None, 2, width, scratch_words(program, width), program.raw)
    if ids is None:
        ids = torch.arange(rows)
    pair = torch.stack([ids % SLICES[1], ids % (ROWS - SLICES[1])], 1)
    found = vectors(weight, None, pair, None, None, words + rounding, DIRECT)
    return found, pair + torch.tensor(SLICES)


def special_numbers(width):
    """Rows of everything that a float can be."""
    generator = torch.Generator().manual_seed(width)
    scale = torch.pow(10.0, torch.randint(-30, 30, (ROWS, width), generator=generator))
    rows = torch.randn(ROWS, width, generator=generator)
    rows[20:30] *= scale[20:30]
    rows[30] = torch.finfo(torch.float32).max
    rows[31] = -torch.finfo(torch.float32).max
    rows[32], rows[33] = 1e-40, -1e-40
    rows[34], rows[35], rows[36] = float("inf"), -float("inf"), float("nan")
    return rows


def special_scales(pool):
    """Scales of everything that a float16 can be, a column each."""
    steps = [0.5, 0.0, 2.0**-24, 2.0**-14, 65504.0, 0.1, 6e-6]
    centres = [0.0, 1.0, -65504.0, 2.0**-24, -0.0, 3e-5, -1.0, 0.3]
    for scales, values in ((pool.steps, steps), (pool.centres, centres)):
        if scales is None:  # they follow from the rows
            continue
        number = torch.arange(scales.numel()).reshape(scales.shape)
        scales.copy_(torch.tensor(values)[number % len(values)])


@forms
@pytest.mark.parametrize("special", [False, True])
def test_rounded_rows_equal_plain_torchs_to_the_bit(bits, width, special, scale):
    pool = LowBitPool(ROWS, width, bits, SLICES, scale=scale).eval()
    with torch.no_grad():
        pool.weight.copy_(special_numbers(width) if special else torch.randn(ROWS, width))
        pool.refresh()
        if special:
            special_scales(pool)
        found, cells = read_by_kernels(pool.weight, pool.told(), width)
        with bitfold.plain_torch():
            expected = pool(cells)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@forms
@pytest.mark.parametrize("special", [False, True])
def test_packed_rows_equal_plain_torchs_to_the_bit(bits, width, special, scale):
    pool = PackedPool(ROWS, width, bits, SLICES, scale=scale)
    pool.weight.random_(0, 256, generator=torch.Generator().manual_seed(bits))
    pool.steps.uniform_(0, 1)
    if special:
        special_scales(pool)
    found, cells = read_by_kernels(pool.weight, pool.told(), width)
    assert torch.equal(found, pool(cells))


def test_every_code_of_every_place_is_expanded():
    for bits in (1, 2, 3, 4, 8):
        pool = PackedPool(ROWS, 16, bits, SLICES)
        pool.steps.fill_(1)
        pool.centres.fill_(((1 << bits) - 1) / 2)
        for code in range(1 << min(bits, 4)):
            for place in range(16):
                pool.weight.zero_()
                value = code << (bits * place)
                row = list(value.to_bytes(row_bytes(16, bits), "little"))
                pool.weight[5] = torch.tensor(row, dtype=torch.uint8)
                found, _ = read_by_kernels(pool.weight, pool.told(), 16, ids=torch.tensor([5]))
                expected = [0.0] * 16
                expected[place] = code
                assert found[0, 0].tolist() == expected


@pytest.mark.skipif(not X86, reason="tiny numbers are zeros on x86 alone")
def test_where_tiny_numbers_are_zeros_scales_are_what_they_are():
    pool = LowBitPool(ROWS, 16, 4, SLICES).eval()
    with torch.no_grad():
        pool.weight.normal_()
        special_scales(pool)
        expected, _ = read_by_kernels(pool.weight, pool.told(), 16)
        with no_denormals():
            found, _ = read_by_kernels(pool.weight, pool.told(), 16)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("fusion", ["product", "sum", "mean", "concat", "weighted"])
@pytest.mark.parametrize(("bits", "scale"), [(4, "slice"), (3, "row")])
def test_modules_read_alike_rounded_and_packed(bits, fusion, scale):
    fields = [bitfold.Field("a", 3000), bitfold.Field("b", 40), bitfold.Field("c", distinct=500)]
    more = {"blocks": 2} if fusion == "concat" else {}
    module = bitfold.EmbeddingCollection(
        fields, 12, budget="10x", bits=bits, scale=scale, fusion=fusion, mode="mean", **more
    ).eval()
    assert module.embedder.by_kernels
    served = module.serving()
    assert served.embedder.by_kernels
    ids = torch.randint(0, 40, (300, 3))
    bags = ids.t().flatten(), torch.arange(0, 901, 3)
    for inputs in ((ids,), bags):
        got = module(*inputs)
        assert torch.equal(served(*inputs), got)
        with bitfold.plain_torch():
            torch.testing.assert_close(got, module(*inputs))
            torch.testing.assert_close(got, served(*inputs))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("threads", [1, 3])
def test_gradients_of_bags_are_those_of_plain_torch(mode, threads, monkeypatch):
    monkeypatch.setattr(sharing, "SERIAL_NUMBERS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    fields = [bitfold.Field("a", 3000), bitfold.Field("b", 40)]
    for private in (24 << 20, -1):
        monkeypatch.setattr(gradients, "PRIVATE_BYTES", private)
        module = bitfold.EmbeddingCollection(fields, 6, budget="4x", bits=4, mode=mode).eval()
        with torch.no_grad():
            module.embedder.pool.weight.normal_()
            module.embedder.pool.refresh()
        bags = torch.randint(0, 40, (600,)), torch.arange(0, 601, 6)
        drawn, found = torch.randn(50, 2, 6), []
        for plain in (False, True):
            module.zero_grad()
            with bitfold.plain_torch() if plain else torch.enable_grad():
                (module(*bags) * drawn).sum().backward()
            found.append(module.embedder.pool.weight.grad.clone())
        torch.testing.assert_close(*found)


def test_packed_rows_give_gradients_of_weights_and_factors():
    bag = bitfold.EmbeddingBag(
        900, 6, mode="sum", method="binary-code", fusion="weighted", budget="4x", bits=4
    )
    served = bag.eval().embedder.serving()
    served.fuse.importance.requires_grad_()
    ids, offsets, found = torch.arange(40), torch.tensor([0, 5, 5, 40]), []
    for plain in (False, True):
        weights = torch.rand(40, generator=torch.Generator().manual_seed(0)).requires_grad_()
        served.zero_grad()
        with bitfold.plain_torch() if plain else torch.enable_grad():
            served.forward_bags(ids, offsets, weights).square().sum().backward()
        found.append((weights.grad, served.fuse.importance.grad.clone()))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("centres", lambda each: each.float()),
        ("centres", lambda each: each[:1]),
        ("centres", lambda each: each[:, :-1]),
        ("centres", lambda each: None),
        ("steps", lambda each: each[0]),
        ("steps", lambda each: each.to("meta")),
        ("steps", lambda each: each.to_sparse()),
        ("bits", lambda each: 5),
        ("bits", lambda each: -4),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_scales_that_are_not_the_rows_are_refused(name, change, packed):
    pool = LowBitPool(ROWS, 8, 4, SLICES)
    pool.weight.data.zero_()
    pool = pool.serving() if packed else pool
    told = pool.told()
    place = ("centres", "steps", "bits").index(name)
    wrong = (*told[:place], change(told[place]), *told[place + 1 :])
    with pytest.raises(BitfoldError, match="not what this lookup needs"):
        read_by_kernels(pool.weight, wrong, 8)
    read_by_kernels(pool.weight, told, 8)


@pytest.mark.parametrize("change", [lambda w: w[:-1], lambda w: w[:, 1:], lambda w: w.float()])
def test_codes_of_another_shape_are_refused(change):
    pool = LowBitPool(ROWS, 8, 4, SLICES)
    pool.weight.data.zero_()
    pool = pool.serving()
    with pytest.raises(BitfoldError, match="the weight is not what this lookup needs"):
        read_by_kernels(change(pool.weight), pool.told(), 8)


def test_scales_and_codes_of_any_stride_are_read():
    pool = LowBitPool(ROWS, 8, 4, SLICES)
    pool.weight.data.normal_()
    pool.refresh()
    pool = pool.serving()
    expected, _ = read_by_kernels(pool.weight, pool.told(), 8)
    other = [each.t().contiguous().t() for each in (pool.weight, pool.centres, pool.steps)]
    told = (other[1], other[2], pool.bits)
    found, _ = read_by_kernels(other[0], told, 8)
    assert torch.equal(found, expected)


def test_rows_that_no_piece_of_whole_bytes_divides_are_read_by_plain_torch():
    assert lanes_of_packed(74, 1) == 0
    module = bitfold.Embedding(500, 74, budget="40x", bits=1)
    assert module.embedder.by_kernels
    served = module.eval().embedder.serving()
    assert torch.equal(served(torch.arange(500)[:, None])[:, 0], module(torch.arange(500)))


def test_packing_knows_the_slice_of_each_lookup():
    program = bitfold.plan(
        [bitfold.Field("a", 3000)], 8, budget="10x", bits=4, method="binary-code"
    ).program
    first, second = program.fields[0]
    assert in_one_slice(program, (0, second.base))
    assert not in_one_slice(program, (0, second.base - 1))
    with pytest.raises(BitfoldError, match="several slices"):
        pack(program, [3000], (0, first.span // 2))


def test_scales_written_between_two_lookups_are_read():
    """Nothing of them is kept from call to call, however they are written."""
    pool = LowBitPool(ROWS, 8, 4, SLICES).eval()
    pool.weight.data.normal_()
    pool.refresh()
    before, _ = read_by_kernels(pool.weight.data, pool.told(), 8)
    pool.steps.data.mul_(2)
    after, cells = read_by_kernels(pool.weight.data, pool.told(), 8)
    assert not torch.equal(before, after)
    assert torch.equal(after, pool(cells).detach())


def test_a_step_moves_rows_by_gradients_of_what_was_read():
    """Of a product, the gradient of one factor is the other's rounded value."""
    module = bitfold.Embedding(900, 4, budget="100x", bits=2, std=1.0)
    pool, program = module.embedder.pool, module.embedder.program
    optimizer = SGD(module.parameters(), lr=1.0)
    optimizer.into_backward(module)
    before = pool.weight.detach().clone()
    cells = program.cells_int(0, 7)
    module(torch.tensor([7])).sum().backward()
    read = pool.eval()(torch.tensor(cells))
    assert len(cells) == 2
    moved = before - pool.weight.detach()
    with torch.no_grad():
        pool.weight.copy_(before)
    read = pool(torch.tensor(cells)).detach()
    torch.testing.assert_close(moved[cells[0]], read[1])
    torch.testing.assert_close(moved[cells[1]], read[0])
    assert FUSIONS[module.plan.fusion] == 2
