"""Anybody's checkpoint, looked at from outside: its tables, their weight, and what budgets cost.

    file or folder --opening--> tensors --tables--> tables --rows--> zeros, NaN
                                                           --costs--> what each ratio keeps
                                             a log --usage--> how rows are read
                                                           --suggestion--> a budget

Nothing is unpickled but weights, and no table is read unless its rows are asked for. Reading a
safetensors file loads no torch; only planning, and files of torch, do.
"""
