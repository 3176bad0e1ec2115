"""Wrong arguments for every kernel, one after another: run as a process of its own.

    python tests/wrong_arguments.py COUNT [FIRST]

Each case is written before it is tried, so that the last line of a process that died names it.
"""

import random
import sys
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

import bitfold
from bitfold import optim
from bitfold.address import Mapped, Mixed, Salted, Stored
from bitfold.kernels import gradients, lookup, updates
from bitfold.kernels.move import Move
from bitfold.kernels.packing import pack
from bitfold.kernels.reading import LENGTH, Reading
from bitfold.pool.lowbit import LowBitPool

DIM, ROWS = 6, 5
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip


class Wrapped(torch.Tensor):
    """A tensor whose memory lies elsewhere."""

    @staticmethod
    def __new__(cls, tensor):
        return torch.Tensor._make_wrapper_subclass(cls, tensor.shape, dtype=tensor.dtype)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(f"{func} of a wrapped tensor")


SHAPES = {
    "no rows": lambda t: t[:0],
    "one row": lambda t: t[:1],
    "half": lambda t: t[: len(t) // 2],
    "twice": lambda t: torch.cat([t, t]),
    "one more": lambda t: torch.cat([t, t[-1:]]),
    "one less": lambda t: t[:-1],
    "one dimension more": lambda t: t.unsqueeze(-1),
    "flat": lambda t: t.flatten(),
    "a scalar": lambda t: t.flatten()[0],
    "transposed": lambda t: t.transpose(0, -1),
    "narrower": lambda t: t[..., :-1],
    "wider": lambda t: torch.cat([t, t], -1),
    "every other": lambda t: t[::2],
    "a strided copy": lambda t: torch.stack([t, t], -1)[..., 0],
    "columns first": lambda t: t.t().contiguous().t(),
    "of no stride": lambda t: t[:1].expand(t.shape),
    "resized": lambda t: t.detach().clone().resize_(2),
}
VALUES = {
    "zeros": torch.zeros_like,
    "minus one": lambda t: torch.full_like(t, -1),
    "large": lambda t: torch.full_like(t, 2**31),
    "largest": lambda t: torch.full_like(t, torch.iinfo(t.dtype).max),
    "least": lambda t: torch.full_like(t, torch.iinfo(t.dtype).min),
    "random": lambda t: torch.randint_like(t, -(2**40), 2**40),
    "shuffled": lambda t: t.flatten()[torch.randperm(t.numel())].view(t.shape),
    "one changed": lambda t: t.index_put((torch.randint(0, len(t), (1,)),), t.new_tensor(977)),
    "one bit": lambda t: t.index_put(
        (i := torch.randint(0, len(t), (1,)),), t[i] ^ (1 << random.randrange(63))
    ),
    "not a number": lambda t: torch.full_like(t, float("nan")),
}
KINDS = {
    **{str(dtype): lambda t, dtype=dtype: t.to(dtype) for dtype in DTYPES},
    "on meta": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "csr": lambda t: t.to_sparse_csr(),
    "fake": lambda t: FakeTensorMode().from_tensor(t),
    "wrapped": Wrapped,
    "a parameter": lambda t: nn.Parameter(t.detach().clone(), requires_grad=False),
    "a negative view": torch._neg_view,
    "an array": lambda t: t.detach().numpy(),
    "a list": lambda t: t.tolist(),
    "none": lambda t: None,
}
TENSORS = {**SHAPES, **VALUES, **KINDS}
NUMBERS = {
    "none": None, "minus one": -1, "zero": 0, "one": 1, "three": 3, "four": 4, "five": 5,
    "large": 2**31, "larger": 2**62, "true": True, "a float": 1.5, "a word": "one",
}  # fmt: skip


def program(fusion, hashed=False):
    """A module, and what its kernels are told."""
    fields = [bitfold.Field("a", 40), bitfold.Field("b", 7)]
    if hashed:
        fields.append(bitfold.Field("c", distinct=90))
    made = bitfold.EmbeddingCollection(fields, DIM, budget="2x", fusion=fusion, seed=1)
    corridor = made.embedder
    number = {"sum": 0, "mean": 1, "product": 2, "weighted": 3}[fusion]
    return corridor, (corridor.packed, number), corridor.shape


def with_tables(corridor):
    """The packed program of a module where codes are read from tables, and any tables."""
    made, mixed = corridor.plan.program, Mixed(7)
    table, pointers = Mapped("map", 30, 5, Mixed(6, 64, 20), 3), Stored("pointers", 90, 5)
    kinds = [
        Salted("salt", 8, 70),
        table,
        replace(table, of=mixed),
        pointers,
        replace(pointers, of=mixed),
        Stored("over", 5, 7, table),
    ]
    fields = []
    for lookups in made.fields:
        source = random.choice(kinds)
        fields.append(tuple(replace(each, source=source, leading=False) for each in lookups))
    made = replace(made, fields=tuple(fields))
    limits = [field.num_embeddings or 0 for field in corridor.plan.fields]
    tables = [torch.randint(0, 256, (t.bytes,), dtype=torch.uint8) for t in made.tables.values()]
    return torch.from_numpy(pack(made, limits)), tables


def lookups(fusion, pooling, hashed):
    """The arguments of a lookup, by name, in order."""
    corridor, (packed, number), (fields, dim, room, raw) = program(fusion, hashed)
    tables = []
    ids = torch.randint(0, 7, (ROWS, fields))
    offsets = weights = None
    if pooling:
        ids, offsets = ids.flatten(), torch.arange(0, ROWS * fields + 1)
    if pooling == 1:
        weights = torch.rand(ids.shape)
    importance = corridor.fuse.importance.detach() if fusion == "weighted" else None
    weight, rounding = corridor.pool.weight.detach().clone(), (None, None, 0)
    bits = random.choice([0, 0, 8, 4, 3, 1])
    if random.random() < 0.4:
        bits, raw, (packed, tables) = 0, False, with_tables(corridor)
    if bits:
        slices = sorted({lookup.base for lookup in corridor.plan.program})
        limits = [field.num_embeddings or 0 for field in corridor.plan.fields]
        packed = torch.from_numpy(pack(corridor.plan.program, limits, slices))
        pool = LowBitPool(*weight.shape, bits, slices)
        pool.weight.data.copy_(weight)
        pool.refresh()
        rounding = pool.told()
        if random.random() < 0.5:
            weight, rounding = pool.serving().weight, pool.serving().told()
    return {
        "pool": weight, "importance": importance, "ids": ids, "offsets": offsets,
        "weights": weights, "packed": packed, "fusion": number, "pooling": pooling,
        "padding": random.choice([None, 3]), "fields": fields, "dim": dim, "room": room,
        "raw": raw, **dict(zip(("centres", "steps", "bits"), rounding, strict=True)),
        "tables": tables,
    }  # fmt: skip


def lookup_case(which):
    fusion = random.choice(["sum", "mean", "product", "weighted"])
    pooling = 3 if which == "firsts" else random.choice([0, 1, 2, 3])
    given = lookups(fusion, pooling, random.random() < 0.5)
    shape = ROWS, given["fields"], DIM
    if which == "forward":
        return torch.ops.bitfold.lookup, {**given, "sparse": random.random() < 0.5}
    if which == "direct":
        return lambda *reading: lookup.forward(Reading(*reading)), given
    if which == "firsts":
        return torch.ops.bitfold.lookup_firsts, {**given, "top": torch.zeros(shape)}
    first = torch.zeros(shape) if pooling == 3 else None
    backward = {"grad": torch.rand(shape), **given, "first": first}
    wants = {"importance": fusion == "weighted", "of weights": pooling == 1}
    if which == "backward":
        return torch.ops.bitfold.lookup_backward, {
            **backward, "sparse": random.random() < 0.5,
            **{f"wants {k}": v for k, v in wants.items()},
        }  # fmt: skip
    kind = random.choice(list(optim.OPTIMIZERS))
    move = move_of(kind, given["pool"])

    def moved(grad, *args):
        *rest, weight, one, two = args[LENGTH:]
        how = move._replace(weight=weight, one=one, two=two)
        gradients.PRIVATE_BYTES = random.choice([-1, 24 << 20])
        return gradients.move(grad, Reading(*args[:LENGTH]), *rest, how=how)

    return moved, {
        **backward, **{f"wants {k}": v for k, v in wants.items()}, "weight": move.weight,
        "one": move.one, "two": move.two,
    }  # fmt: skip


def move_of(kind, weight):
    shape = weight.shape[:1] if kind == "rowwise-adagrad" else weight.shape
    words = 0.1, 1.0, 0.0, 1e-8, 0.9, 0.9
    return Move(kind, weight, torch.zeros(shape), torch.zeros(weight.shape), words)


def update_case(which):
    kind = random.choice(list(optim.OPTIMIZERS))
    weight = torch.rand(9, DIM)
    move = move_of(kind, weight)
    rows = random.choice([None, torch.tensor([0, 3, 8])])
    grad = torch.rand(9 if rows is None else 3, DIM)

    def call(weight, one, two, rows, grad):
        updates.update(move._replace(weight=weight, one=one, two=two), rows, grad, 1)

    return call, {"weight": weight, "one": move.one, "two": move.two, "rows": rows, "grad": grad}


def step_case(which):
    """An optimizer's state, a weight's own gradient, or the weight itself."""
    kind = optim.OPTIMIZERS[random.choice(list(optim.OPTIMIZERS))]
    options = {"momentum": 0.9} if kind is optim.SGD else {}
    weight = nn.Parameter(torch.rand(9, DIM))
    weight.grad = torch.rand(9, DIM)
    optimizer = kind([weight], lr=0.1, **options)
    optimizer.step()
    state = dict(optimizer.state[weight])

    def call(data, grad, *state_values):
        weight.data = data
        weight.grad = grad
        optimizer.state[weight] = dict(zip(state, state_values, strict=True))
        optimizer.step()

    return call, {"data": weight.data, "grad": weight.grad, **state}


def module_case(which):
    """A module whose weight is replaced, and what its users hand it."""
    method = random.choice(["full", "hash", "binary-code"])
    bag = random.random() < 0.5
    kind = bitfold.EmbeddingBag if bag else bitfold.Embedding
    more = {"mode": random.choice(["sum", "mean", "max"])} if bag else {}
    module = kind(50, DIM, method=method, budget="2x" if method != "full" else None, **more)
    weight, how = module.embedder.pool.weight, random.choice(["call", "data", "assign", "set"])
    ids = torch.randint(0, 50, (4, 3))
    inputs = {"ids": ids.flatten(), "offsets": torch.tensor([0, 4, 4])} if bag else {"ids": ids}

    def call(weight, *inputs):
        if how == "call":
            out = functional_call(module, {"embedder.pool.weight": weight}, inputs)
        else:
            if how == "data":
                module.embedder.pool.weight.data = weight
            elif how == "set":
                module.embedder.pool.weight = nn.Parameter(weight)
            else:
                state = {**module.state_dict(), "embedder.pool.weight": weight}
                module.load_state_dict(state, assign=True)
            out = module(*inputs)
        out.sum().backward()

    return call, {"weight": weight.detach().clone(), **inputs}


CASES = {
    "forward": lookup_case, "direct": lookup_case, "backward": lookup_case, "firsts": lookup_case,
    "move": lookup_case, "update": update_case, "step": step_case, "module": module_case,
}  # fmt: skip


LISTS = [
    lambda t: ("none of them", []),
    lambda t: ("one more", [*t, torch.zeros(5, dtype=torch.uint8)]),
    lambda t: ("in another order", t[::-1]),
    lambda t: ("no list", None),
]


def changed(value):
    """A tensor that is wrong in some way, and how."""
    how = random.choice(list(TENSORS))
    try:
        return TENSORS[how](value), how
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return None, "none"  # what torch itself cannot make


def main(count, first=0):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    refused = 0
    for number in range(first, first + count):
        random.seed(number)
        torch.manual_seed(number)
        np.random.seed(number)
        which = list(CASES)[number % len(CASES)]
        function, given = CASES[which](which)
        said = []
        for name in random.sample(list(given), random.choice([1, 1, 1, 2])):
            value = given[name]
            if name == "tables" and value and random.random() < 0.8:
                given[name] = [*value]
                place = random.randrange(len(value))
                given[name][place], how = changed(value[place])
            elif name == "tables":
                how, given[name] = random.choice(LISTS)(value)
            elif isinstance(value, torch.Tensor):
                given[name], how = changed(value)
            else:
                how = random.choice(list(NUMBERS))
                given[name] = NUMBERS[how]
            said.append(f"{name}: {how}")
        print(number, which, "; ".join(said), flush=True)
        try:
            function(*given.values())
        except Exception as error:
            refused += 1
            print("  ", type(error).__name__, str(error).split("\n")[0][:90], flush=True)
    print(f"done: {count} tried, {refused} refused", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
