"""Kernels: digits, gather, fusion and pooling in one pass, forward and backward, on the CPU.

Compiled:
    digits.py     ids to pool rows, a block at a time    readers.py    rows to numbers
    fused.py      rows to pieces, and back               walk.py       what walks share
    forward.py, backward.py, touched.py: the walks       updates.py    optimizers' steps of rows
    vectors.py    a piece of a row as one value          denormals.py  tiny numbers as zeros

Around them:
    reading.py    what a lookup is told, once            packing.py    a program as 64-bit words
    held.py       what is told, held against the truth   ready.py      readings made ready
    lookup.py, gradients.py: tensors in, tensors out     kept.py       a thread's memory
    call.py       what a kernel is told                  compiled.py   kernels on disk, and run
    ops.py        as operators of torch                  choice.py     which path a lookup takes
"""
