"""The loops of the synthetic log, compiled by Numba.

Everything random is a keyed hash of a counter (a row's number, an id, a cluster), so a row
depends on the seed and its own number alone: not on the chunk it falls in, nor on the threads.
The hash is Pelle Evensen's *moremur* finaliser, chosen because bitfold's own addressing does not
use it. Integers stay unsigned throughout: Numba turns `uint64 op int` into a float. Tables are
indexed as `table[c, ...]`: a slice `table[c]` inside the loop would cost half of the speed.

Shapes: C latent columns (F fields, then G bag fields), N numeric fields, K latent components,
H hidden units, R rows of the call, L the longest bag.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

LATENTS = 4  # K: one 64-bit hash gives four components of 16 bits
HIDDEN = 8  # H
MAX_BAG = 6  # L
BINS = 1 << 16  # of the logit, for the Bayes AUC
BIN_LIMIT = 16.0  # logits beyond it share the outermost bins

_U = np.uint64
_STEP = _U(0xD1342543DE82EF95)  # odd: row numbers become well-spread counters
_MUL1, _MUL2 = _U(0x3C79AC492BA7B653), _U(0x1C69B3F74AC4AE35)
_S11, _S16, _S27, _S32, _S33, _S48 = _U(11), _U(16), _U(27), _U(32), _U(33), _U(48)
_LANE = _U(0xFFFF)
_ONE = _U(1)
_LANE_SCALE = math.sqrt(12.0) / 65536.0  # sixteen even bits to a uniform of variance 1
_UNIT = 1.0 / 9007199254740992.0  # 2^-53

# The columns of `words[C, :]`, uint64.
SIZE, MASK, SHIFT, KEY_ADD, KEY_MUL1, KEY_MUL2, KEY_CLUSTER, KEY_ID, KEY_GROUP, CLUSTERS = range(10)
WORDS = 10
# The columns of `zipf[C, :]`, float64.
HEAD, HEAD_MASS, HEAD_SCALE, LOW, SLOPE, POWER = range(6)
ZIPF = 6

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
    return np.float64(x >> _S11) * _UNIT


@_inline
def lane(x, shift):  # type: ignore[no-untyped-def]
    """Sixteen of 64 random bits as a uniform number of mean 0 and variance 1."""
    return (np.float64((x >> shift) & _LANE) - 32767.5) * _LANE_SCALE


@_inline
def zipf_rank(u, c, z, share, alias):  # type: ignore[no-untyped-def]
    """The rank, from 0, that `u` of [0, 1) stands for: an alias table's head, a power's tail."""
    if u < z[c, HEAD_MASS]:
        scaled = u * z[c, HEAD_SCALE]
        rank = np.int64(scaled)
        return _U(rank if scaled - rank < share[c, rank] else np.int64(alias[c, rank]))
    x = z[c, LOW] + (u - z[c, HEAD_MASS]) * z[c, SLOPE]
    x = math.exp(x) if z[c, POWER] == 0.0 else x ** z[c, POWER]
    return _U(max(x - 0.5, z[c, HEAD]))


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
def draw_id(bits, c, w, z, share, alias):  # type: ignore[no-untyped-def]
    """A Zipf id from 64 random bits."""
    rank = zipf_rank(unit(bits), c, z, share, alias)
    return number(min(rank, w[c, SIZE] - _ONE), c, w)


@_inline
def add_latents(x, c, w, own, shared, scale, out):  # type: ignore[no-untyped-def]
    """Add id `x`'s hidden numbers to `out[K + 2]`: components, first-order weight, numeric link."""
    cluster = ((mix(x ^ w[c, KEY_CLUSTER]) >> _S32) * w[c, CLUSTERS]) >> _S32
    a = mix(x + w[c, KEY_ID])
    b = mix(cluster + w[c, KEY_GROUP])
    a2 = mix(a ^ _STEP)
    b2 = mix(b ^ _STEP)
    out[0] += scale * (own * lane(a, _U(0)) + shared * lane(b, _U(0)))
    out[1] += scale * (own * lane(a, _S16) + shared * lane(b, _S16))
    out[2] += scale * (own * lane(a, _S32) + shared * lane(b, _S32))
    out[3] += scale * (own * lane(a, _S48) + shared * lane(b, _S48))
    out[4] += scale * (own * lane(a2, _U(0)) + shared * lane(b2, _U(0)))
    out[5] += scale * (own * lane(a2, _S16) + shared * lane(b2, _S16))


@_inline
def normal(x):  # type: ignore[no-untyped-def]
    """A standard normal from 64 random bits (Box and Muller)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - unit(x)))
    return radius * math.cos(2.0 * math.pi * unit(mix(x ^ _MUL2)))


@numba.njit(parallel=True, cache=True)
def rows(  # type: ignore[no-untyped-def]
    first, keys, words, zipf, share, alias, own, shared, strength,
    numeric_dirs, numeric_linear, hidden_in, hidden_bias, hidden_out,
    ids, bag_ids, bag_lengths, numeric, parts,
):  # fmt: skip
    """Fill rows `first ..` of the log.

    Args:
        first: the number of the first row, uint64.
        keys: one key per random stream, `[C + G + N]` uint64.
        words, zipf, share, alias: per latent column, as laid out above.
        own, shared: weights of an id's own numbers and of its cluster's.
        strength: how much each latent column counts, `[C]`.
        numeric_dirs, numeric_linear: `[N, K]` and `[N]`.
        hidden_in, hidden_bias, hidden_out: the hidden network, `[C*K + N, H]`, `[H]`, `[H]`.
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
        units = np.empty(HIDDEN)
        for row in range(part * block, min((part + 1) * block, num_rows)):
            counter = (first + _U(row)) * _STEP
            linear = 0.0
            squares = 0.0
            total[:] = 0.0
            for c in range(columns):
                vector[:] = 0.0
                bits = mix(counter ^ keys[c])
                if c < num_fields:
                    x = draw_id(bits, c, words, zipf, share, alias)
                    ids[c, row] = x
                    add_latents(x, c, words, own, shared, 1.0, vector)
                else:
                    g = c - num_fields
                    length = 1 + np.int64(mix(counter ^ keys[columns + g]) % _U(MAX_BAG))
                    bag_lengths[g, row] = length
                    for slot in range(length):
                        x = draw_id(bits, c, words, zipf, share, alias)
                        bag_ids[g, row, slot] = x
                        add_latents(x, c, words, own, shared, 1.0 / math.sqrt(length), vector)
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
            units[:] = hidden_bias
            for i in range(inputs.shape[0]):  # the units side by side: eight sums, not one long
                for h in range(HIDDEN):
                    units[h] += hidden_in[i, h] * inputs[i]
            network = 0.0
            for h in range(HIDDEN):
                network += hidden_out[h] * units[h] / (1.0 + abs(units[h]))
            parts[0, row] = linear
            parts[1, row] = 0.5 * pairs
            parts[2, row] = network


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
