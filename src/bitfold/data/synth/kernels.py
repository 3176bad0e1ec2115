"""The loops of the synthetic log, compiled by Numba.

Everything random is a keyed hash of a counter (a row's number, an id, a cluster), so a row
depends on the seed and its own number alone: not on the chunk it falls in, nor on the threads.
The hash is Pelle Evensen's *moremur* finaliser, chosen because bitfold's own addressing does not
use it. Integers stay unsigned throughout: Numba turns `uint64 op int` into a float, and looks for
negative indices only among signed ones.

Shapes: C latent columns (F fields, then G bag fields), N numeric fields, K latent components,
H hidden units, R rows of the call, L the longest bag.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from bitfold.threads import as_many_as_torch

LATENTS = 4  # K: one 64-bit hash gives four components of 16 bits
HIDDEN = 8  # H
MAX_BAG = 6  # L
BINS = 1 << 16  # of the logit, for the Bayes AUC
BIN_LIMIT = 16.0  # logits beyond it share the outermost bins

_U = np.uint64
_STEP = _U(0xD1342543DE82EF95)  # odd: row numbers become well-spread counters
_MUL1, _MUL2 = _U(0x3C79AC492BA7B653), _U(0x1C69B3F74AC4AE35)
_S0, _S11, _S16, _S27, _S32, _S33, _S48 = _U(0), _U(11), _U(16), _U(27), _U(32), _U(33), _U(48)
_LANE = _U(0xFFFF)
_LANE_SCALE = math.sqrt(12.0) / 65536.0  # sixteen even bits to a uniform of variance 1
_UNIT = 1.0 / 9007199254740992.0  # 2^-53

# The columns of `words[C, :]`, uint64.
SIZE, MASK, SHIFT, KEY_ADD, KEY_MUL1, KEY_MUL2, KEY_ID, CLUSTERS = range(8)
WORDS = 8
# A slot of the tables that ranks are drawn from: the chance that it keeps a draw (in units of
# 2^-21), and above it the slot that gets the draw otherwise.
SLOT_BITS = 11
SLOTS = 1 << SLOT_BITS
KEEP_BITS = 32 - SLOT_BITS
_SLOT_SHIFT, _ALIAS_SHIFT = _U(64 - SLOT_BITS), _U(32)
_KEEP_MASK, _LOW32 = _U((1 << KEEP_BITS) - 1), _U(0xFFFFFFFF)
_ONE = _U(1)

_inline = numba.njit(inline="always", cache=True)


@_inline
def mix(x):  # type: ignore[no-untyped-def]
    """A bijection of 64 bits in which every bit of the input moves half of the output's."""
    x ^= x >> _S27
    x *= _MUL1
    x ^= x >> _S33
    x *= _MUL2
    return x ^ (x >> _S27)


@_inline
def unit(x):  # type: ignore[no-untyped-def]
    """64 random bits as a float in [0, 1)."""
    return np.float64(np.int64(x >> _S11)) * _UNIT


@_inline
def lane(x, shift):  # type: ignore[no-untyped-def]
    """Sixteen of 64 random bits as a uniform number of mean 0 and variance 1."""
    return (np.float64(np.int64((x >> shift) & _LANE)) - 32767.5) * _LANE_SCALE


@_inline
def zipf_rank(bits, c, slots, starts):  # type: ignore[no-untyped-def]
    """The rank, from 0, that 64 random bits stand for: a slot, or its alias; a rank in it."""
    slot = bits >> _SLOT_SHIFT
    entry = slots[c, slot]
    slot = slot if ((bits >> _S32) & _KEEP_MASK) < (entry & _LOW32) else entry >> _ALIAS_SHIFT
    first = starts[c, slot]
    return first + (((bits & _LOW32) * (starts[c, slot + _ONE] - first)) >> _S32)


@_inline
def number(rank, c, w):  # type: ignore[no-untyped-def]
    """A keyed bijection of 0..V-1: mix below the next power of two, again until it is below V."""
    x = rank
    while True:
        x = (x + w[c, KEY_ADD]) & w[c, MASK]
        x ^= x >> w[c, SHIFT]
        x = (x * w[c, KEY_MUL1]) & w[c, MASK]
        x ^= x >> w[c, SHIFT]
        x = (x * w[c, KEY_MUL2]) & w[c, MASK]
        x ^= x >> w[c, SHIFT]
        if x < w[c, SIZE]:
            return x


@_inline
def occupant(rank, t, c, w, clock, keys):  # type: ignore[no-untyped-def]
    """The id that has a rank at a time `t` in days: ranks are given anew, and ids die.

    With a clock, an id is its number and `V` for each that has lived under the number before.

    Args:
        rank: from 0.
        t: days since the log's first row.
        c: the column.
        w: as laid out above.
        clock: how often a day a rank changes its id, and how often an id dies, `[C, 2]`.
        keys: of the moments at which they do, and of where ranks go, `[C, 3]` uint64.
    """
    drift, death = clock[c, 0], clock[c, 1]
    if drift > 0.0:
        turn = np.int64(t * drift + unit(mix(rank ^ keys[c, 0])))
        if turn > 0:
            away = mix(keys[c, 1] + _U(turn) * _STEP) % w[c, SIZE]
            rank = (rank + away) % w[c, SIZE]
    x = number(rank, c, w)
    if death > 0.0:
        x += w[c, SIZE] * _U(np.int64(t * death + unit(mix(x ^ keys[c, 2]))))
    return x


@_inline
def add_latents(x, c, w, clusters, own, scale, out):  # type: ignore[no-untyped-def]
    """Add id `x`'s hidden numbers to `out[K + 2]`: components, first-order weight, numeric link."""
    a = mix(x + w[c, KEY_ID])
    b = mix(a ^ _STEP)
    group = ((b >> _S32) * w[c, CLUSTERS]) >> _S32  # half of b's bits; the lanes below use others
    out[0] += scale * (own * lane(a, _S0) + clusters[c, group, 0])
    out[1] += scale * (own * lane(a, _S16) + clusters[c, group, 1])
    out[2] += scale * (own * lane(a, _S32) + clusters[c, group, 2])
    out[3] += scale * (own * lane(a, _S48) + clusters[c, group, 3])
    out[4] += scale * (own * lane(b, _S0) + clusters[c, group, 4])
    out[5] += scale * (own * lane(b, _S16) + clusters[c, group, 5])


@_inline
def normal(x):  # type: ignore[no-untyped-def]
    """A nearly normal number from 64 random bits: the sum of four uniform ones."""
    return 0.5 * (lane(x, _S0) + lane(x, _S16) + lane(x, _S32) + lane(x, _S48))


@as_many_as_torch
@numba.njit(parallel=True, cache=True)
def rows(  # type: ignore[no-untyped-def]
    first, keys, words, slots, starts, clusters, own, strength,
    numeric_dirs, numeric_linear, hidden_in, hidden_bias, hidden_out,
    days, clock, clock_keys, ids, bag_ids, bag_lengths, numeric, parts,
):  # fmt: skip
    """Fill rows `first ..` of the log.

    Args:
        first: the number of the first row, uint64.
        keys: one key per random stream, `[C + G + N]` uint64.
        words, slots, starts: per latent column, as laid out above.
        clusters: the clusters' hidden numbers, `[C, clusters, K + 2]`.
        own: weight of an id's own numbers.
        strength: how much each latent column counts, `[C]`.
        numeric_dirs, numeric_linear: `[N, K]` and `[N]`.
        hidden_in, hidden_bias, hidden_out: the hidden network, `[C*K + N, H]`, `[H]`, `[H]`.
        days: how many of them a row takes; 0 where none passes.
        clock, clock_keys: as `occupant` has them.
        ids: out, `[F, R]` int64.
        bag_ids, bag_lengths: out, `[G, R, L]` and `[G, R]` int64.
        numeric: out, `[N, R]` float32.
        parts: out, `[3, R]` float64: first-order, pairs, hidden network; not yet scaled.
    """
    num_fields, num_rows = ids.shape
    num_bags = bag_ids.shape[0]
    columns = num_fields + num_bags
    num_numeric = numeric.shape[0]
    block = 1024
    for part in numba.prange((num_rows + block - 1) // block):
        inputs = np.empty(columns * LATENTS + num_numeric)
        links = np.empty(columns)
        vector = np.empty(LATENTS + 2)
        total = np.empty(LATENTS)
        for row in range(part * block, min((part + 1) * block, num_rows)):
            counter = (first + _U(row)) * _STEP
            t = np.float64(first + _U(row)) * days
            linear = 0.0
            squares = 0.0
            total[:] = 0.0
            for c in range(columns):
                vector[:] = 0.0
                bits = mix(counter ^ keys[c])
                if c < num_fields:
                    x = occupant(zipf_rank(bits, c, slots, starts), t, c, words, clock, clock_keys)
                    ids[c, row] = x
                    add_latents(x, c, words, clusters, own, 1.0, vector)
                else:
                    g = c - num_fields
                    length = 1 + np.int64(mix(counter ^ keys[columns + g]) % _U(MAX_BAG))
                    bag_lengths[g, row] = length
                    for slot in range(length):
                        rank = zipf_rank(bits, c, slots, starts)
                        x = occupant(rank, t, c, words, clock, clock_keys)
                        bag_ids[g, row, slot] = x
                        add_latents(x, c, words, clusters, own, 1.0 / math.sqrt(length), vector)
                        bits = mix(bits ^ _STEP)
                weight = strength[c]
                linear += weight * vector[LATENTS]
                links[c] = vector[LATENTS + 1]
                for k in range(LATENTS):
                    v = weight * vector[k]
                    inputs[c * LATENTS + k] = v
                    total[k] += v
                    squares += v * v
            for n in range(num_numeric):
                noise = normal(mix(counter ^ keys[columns + num_bags + n]))
                z = math.sqrt(0.5) * (links[n % columns] + noise)
                numeric[n, row] = math.exp(z)
                inputs[columns * LATENTS + n] = z
                linear += numeric_linear[n] * z
                for k in range(LATENTS):
                    v = z * numeric_dirs[n, k]
                    total[k] += v
                    squares += v * v
            pairs = -squares
            for k in range(LATENTS):
                pairs += total[k] * total[k]
            # Eight sums side by side: one long sum waits for each addition.
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0
            for i in range(inputs.shape[0]):
                x = inputs[i]
                a0 += hidden_in[i, 0] * x
                a1 += hidden_in[i, 1] * x
                a2 += hidden_in[i, 2] * x
                a3 += hidden_in[i, 3] * x
                a4 += hidden_in[i, 4] * x
                a5 += hidden_in[i, 5] * x
                a6 += hidden_in[i, 6] * x
                a7 += hidden_in[i, 7] * x
            network = 0.0
            for h, a in enumerate((a0, a1, a2, a3, a4, a5, a6, a7)):
                unit_in = a + hidden_bias[h]
                network += hidden_out[h] * unit_in / (1.0 + abs(unit_in))
            parts[0, row] = linear
            parts[1, row] = 0.5 * pairs
            parts[2, row] = network


@as_many_as_torch
@numba.njit(parallel=True, cache=True)
def labels(  # type: ignore[no-untyped-def]
    first, key_noise, key_label, parts, means, scales, bias, noise, logit, probability, label
):
    """Draw labels: `logit = bias + scaled parts`, `p = sigmoid(logit + noise * normal)`.

    `parts[3, R]` in; `logit[R]`, `probability[R]` float64 and `label[R]` int8 out.
    """
    for row in numba.prange(logit.shape[0]):
        counter = (first + _U(row)) * _STEP
        f = bias
        for j in range(3):
            f += scales[j] * (parts[j, row] - means[j])
        noisy = f
        if noise > 0.0:
            noisy += noise * normal(mix(counter ^ key_noise))
        p = 1.0 / (1.0 + math.exp(-noisy))
        logit[row] = f
        probability[row] = p
        label[row] = unit(mix(counter ^ key_label)) < p


@numba.njit(cache=True)
def tally(logit, probability, positives, negatives):  # type: ignore[no-untyped-def]
    """Add each row's probability of a click, and of none, to its logit's bin, in row order."""
    scale = BINS / (2.0 * BIN_LIMIT)
    for row in range(logit.shape[0]):
        place = min(max((logit[row] + BIN_LIMIT) * scale, 0.0), BINS - 1.0)
        positives[np.int64(place)] += probability[row]
        negatives[np.int64(place)] += 1.0 - probability[row]


@as_many_as_torch
@numba.njit(parallel=True, cache=True)
def mark(ids, starts, bitmap, distinct):  # type: ignore[no-untyped-def]
    """Note the ids `[F, R]` in the fields' bitmaps; count those met for the first time.

    A field's bitmap starts at byte `starts[f]`, so each field is one thread's alone.
    """
    for f in numba.prange(ids.shape[0]):
        count = 0
        for row in range(ids.shape[1]):
            x = ids[f, row]
            byte = starts[f] + (x >> 3)
            bit = np.uint8(1 << (x & 7))
            if not bitmap[byte] & bit:
                bitmap[byte] |= bit
                count += 1
        distinct[f] += count


@numba.njit(cache=True)
def bag_text_sizes(ids, lengths, offsets):  # type: ignore[no-untyped-def]
    """Where each row's text ends, `offsets[R + 1]` int32, if ids stand in base 10 between bars."""
    offsets[0] = 0
    for row in range(lengths.shape[0]):
        size = lengths[row] - 1
        for slot in range(lengths[row]):
            x = ids[row, slot]
            size += 1
            while x >= 10:
                x //= 10
                size += 1
        offsets[row + 1] = offsets[row] + size


@as_many_as_torch
@numba.njit(parallel=True, cache=True)
def bag_text(ids, lengths, offsets, text):  # type: ignore[no-untyped-def]
    """Write the texts that `bag_text_sizes` measured into `text`, uint8."""
    for row in numba.prange(lengths.shape[0]):
        place = np.int64(offsets[row + 1])
        for back in range(lengths[row]):
            x = ids[row, lengths[row] - 1 - back]
            if back:
                place -= 1
                text[place] = 124  # "|"
            while True:
                place -= 1
                text[place] = 48 + x % 10
                x //= 10
                if x == 0:
                    break


def bitmap_bytes(sizes: NDArray[np.int64]) -> int:
    """Bytes of the bitmaps that `mark` needs for fields of these sizes."""
    return int(((sizes + 7) // 8).sum())
