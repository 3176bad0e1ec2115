"""Kernels: digits, gather, fusion and pooling in one pass, forward and backward, on the CPU.

words.py      a program as an array of words        vectors.py   a piece of a row as one value
digits.py     ids to pool rows, a block at a time    fused.py     rows to pieces, and back
walk.py       over a batch, forward and backward     compiled.py  for a width, on many threads
lookup.py     around it: tensors in, tensors out     ops.py       as operators of torch
"""
