"""Kernels: digits, gather, fusion and pooling in one pass, forward and backward, on the CPU.

words.py      a program as an array of words        call.py      what a kernel is told
vectors.py    a piece of a row as one value         compiled.py  kernels kept on disk, and run
digits.py     ids to pool rows, a block at a time   fused.py     rows to pieces, and back
walk.py       what walks over a batch share         forward.py, backward.py, touched.py: the walks
updates.py    optimizers' steps of rows             denormals.py  tiny numbers as zeros
lookup.py     around it: tensors in, tensors out    ops.py       as operators of torch
"""
