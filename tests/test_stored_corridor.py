"""A module whose address reads tables: maps of hashed ids, pointers, several pools, signs."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from bitfold import BitfoldError, Field, Plan, plain_torch
from bitfold.address import Lookup, Mapped, Mixed, Program, Raw, Stored
from bitfold.address.stored import pack_bits
from bitfold.embedder.corridor import Corridor
from bitfold.kernels.map_building import build_map
from bitfold.optim import SGD
from bitfold.planning.spec import Group, PoolSpec, StoredSpec

IDS = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 300)
MAP = Mapped("map_0", 300, 5, Mixed(6), misses=4)
POINTERS = Stored("pointers", 40, 3)


def corridor_of(program, pools, fusion="sum", fields=None, device=None):
    stored = tuple(StoredSpec(*table) for table in program.tables.values())
    fields = fields or (Field("query", distinct=300), Field("item", 40))
    group = Group(
        tuple(range(len(fields))), "hash", 1, {}, program, pools, stored, fusion, 8 * program.chunks
    )
    plan = Plan(tuple(fields), group.width, None, "hash", {}, (group,))
    return Corridor(plan, std=0.1, seed=0, device=device)


def mapped(device=None):
    """A map of hashed ids beside pointers of dense ones, in one pool."""
    program = Program(1, ((Lookup(MAP, 304, 0),), (Lookup(POINTERS, 8, 304),)), 312)
    return corridor_of(program, (PoolSpec("pool", 312, 8),), device=device)


def filled(module):
    module.stored.put("map_0", torch.from_numpy(build_map(MAP.map, IDS)))
    module.waits = False  # `prepare` says so, or a state dict
    module.stored.put("pointers", pack_bits(torch.arange(40) % 8, 3))
    return module


BATCH = torch.stack([torch.from_numpy(IDS[:80]), torch.arange(80) % 40], 1)


def expected(module, batch):
    """Vectors by the program's definition."""
    tables = {name: table.tolist() for name, table in module.stored.named().items()}
    rows = [
        [module.program.cells_int(f, value, tables) for f, value in enumerate(row)]
        for row in batch.tolist()
    ]
    return module.pool.weight[torch.tensor(rows)].sum(2)


def test_vectors_are_those_of_the_definition():
    module = filled(mapped())
    assert torch.equal(module(BATCH), expected(module, BATCH))
    bags = module.forward_bags(BATCH.T.reshape(-1), torch.arange(0, 161, 2))
    pairs = expected(module, BATCH).unflatten(0, (-1, 2)).sum(1)
    torch.testing.assert_close(bags, pairs)


def test_an_empty_table_can_be_read():
    module = mapped()
    with pytest.raises(BitfoldError, match="not built yet"):
        module(BATCH)
    module.waits = False  # whatever lies in a table, no row outside of the pool is read
    assert torch.equal(module(BATCH), expected(module, BATCH))


def test_what_is_written_into_a_table_is_read():
    module = filled(mapped())
    before = module(BATCH)
    module.stored.put("pointers", pack_bits(torch.arange(40) // 8, 3))
    assert torch.equal(module(BATCH), expected(module, BATCH))
    assert not torch.equal(module(BATCH), before)


def test_tables_go_with_the_state_dict_and_count_in_the_bytes():
    module, other = filled(mapped()), mapped()
    state = module.state_dict()
    assert set(state) == {"pool.weight", "stored.map_0", "stored.pointers", "fingerprint"}
    assert sum(tensor.nbytes for tensor in state.values()) == module.plan.bytes
    assert module.bytes()["map"] == MAP.map.bytes
    assert module.bytes()["pointers"] == 15
    other.load_state_dict(state)
    assert torch.equal(other(BATCH), module(BATCH))
    meta = mapped("meta")
    meta.load_state_dict(state, assign=True)
    assert torch.equal(meta(BATCH), module(BATCH))
    served = copy.deepcopy(module).serving()
    assert torch.equal(served(BATCH), module(BATCH))
    assert torch.equal(module.double()(BATCH).float(), served(BATCH))


def test_a_compiled_module_reads_tables():
    module = filled(mapped())
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(BATCH), module(BATCH))
    module.stored.put("pointers", pack_bits(torch.arange(40) // 8, 3))
    assert torch.equal(compiled(BATCH), module(BATCH))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("bags", [False, True])
def test_kernels_and_plain_torch_have_one_gradient(bags, sparse):
    module = filled(mapped())
    module.sparse = sparse
    unseen = torch.stack([torch.arange(40), torch.arange(40)], 1)
    batch = torch.cat([BATCH, unseen]).repeat(5, 1)
    found = []
    for plain in (False, True):
        module.zero_grad()
        with plain_torch() if plain else nullcontext():
            if bags:
                out = module.forward_bags(batch.T.reshape(-1), torch.arange(0, 1201, 3), mode="max")
            else:
                out = module(batch)
            (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        found.append((out.detach(), module.pool.weight.grad.to_dense()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_an_optimizer_moves_rows_that_tables_lead_to():
    ways = []
    for inside in (False, True):
        module = filled(mapped())
        optimizer = SGD(module.parameters(), lr=0.5)
        if inside:
            optimizer.into_backward(module)
        module(BATCH).square().sum().backward()
        optimizer.step()
        ways.append(module.pool.weight.detach())
    torch.testing.assert_close(*ways)
    assert not torch.equal(ways[0], mapped().pool.weight)


def test_a_compiled_module_is_trained():
    module, compiled = filled(mapped()), filled(mapped())
    torch.compile(compiled, backend="aot_eager", fullgraph=True)(BATCH).square().sum().backward()
    module(BATCH).square().sum().backward()
    torch.testing.assert_close(compiled.pool.weight.grad, module.pool.weight.grad)


def test_the_kernels_run_what_reads_tables():
    """Else the tests above would hold plain torch against itself."""
    module = filled(mapped())
    (grad,) = torch.autograd.grad(
        module(BATCH).square().sum(), module.pool.weight, create_graph=True
    )
    with pytest.raises(BitfoldError, match="second derivatives"):
        torch.autograd.grad(grad.sum(), module.pool.weight)


@pytest.mark.parametrize(
    "table",
    [
        torch.zeros(14, dtype=torch.uint8),
        torch.zeros(16, dtype=torch.uint8),
        torch.zeros(15),
        torch.zeros(15, 1, dtype=torch.uint8),
        torch.zeros(15, dtype=torch.uint8, device="meta"),
    ],
)
def test_a_kernel_refuses_a_table_that_is_not_the_plans(table):
    module = filled(mapped())
    module.stored.named()["pointers"] = table
    with pytest.raises(BitfoldError, match="tables is not what this lookup needs"):
        module(BATCH)
    strided = torch.arange(30, dtype=torch.uint8)[::2]
    module.stored.named()["pointers"] = strided
    found = module(BATCH)
    module.stored.named()["pointers"] = strided.clone()
    assert torch.equal(found, module(BATCH))


@pytest.mark.parametrize("sparse", [False, True])
def test_several_pools_and_signs(sparse):
    first = Lookup(Mixed(1), 10, 0, leading=True, signed=True)
    second = Lookup(Mixed(2), 20, 0, leading=True, pool=1)
    program = Program(1, ((first, second), (Lookup(Raw(), 40, 20, pool=1),)), 10, (60,))
    module = corridor_of(program, (PoolSpec("pool", 10, 8), PoolSpec("second", 60, 8)))
    module.sparse = sparse
    found, pools = module(BATCH), module.pools()
    bags = module.forward_bags(BATCH.T.reshape(-1), torch.arange(161))
    torch.testing.assert_close(bags, found)
    for b, row in enumerate(BATCH.tolist()):
        for f, value in enumerate(row):
            cells, signs = program.cells_int(f, value), program.signs_int(f, value)
            parts = [
                sign * pools[lookup.pool].weight[cell]
                for lookup, cell, sign in zip(program.fields[f], cells, signs, strict=True)
            ]
            torch.testing.assert_close(found[b, f], sum(parts))
    found.sum().backward()
    assert all(pool.weight.grad.to_dense().abs().sum() > 0 for pool in pools)


def test_a_plan_without_the_tables_of_its_address_is_refused():
    program = Program(1, ((Lookup(POINTERS, 8, 0),),), 8)
    with pytest.raises(BitfoldError, match="tables that are not stored"):
        Group((0,), "hash", 1, {}, program, (PoolSpec("pool", 8, 4),), width=4)
    with pytest.raises(BitfoldError, match="not those of its address"):
        Group((0,), "hash", 1, {}, program, (PoolSpec("pool", 8, 4),) * 2, width=4)
