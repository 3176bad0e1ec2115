"""Models as files that other runtimes score: one function, ids and numbers in, scores out.

graphs     a model as such a function, recorded by `torch.export` in the address's export form
clicks     the function of a click model: probabilities, and NaN for ids out of range
formats    the kinds of files, by name
onnx_file  ONNX: what `torch.onnx` writes, made small
checking   a file held against its model before it takes its place
models     that of anybody's model
beside     what turns raw values into the inputs
writing    `bitfold.export`
"""

from bitfold.exporting.writing import export

__all__ = ["export"]
