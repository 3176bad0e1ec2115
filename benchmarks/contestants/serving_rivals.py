"""Servers of a full model as they are commonly written: a DeepFM whose tables are torch's own.

    python serving_rivals.py fastapi|onnx PORT VALUES

VALUES is JSON: for each field its values, and the names of numbers. Values become ids by a
dictionary a field; weights are as they were drawn, which makes no difference to speed.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

WIDTH, HIDDEN = 16, (64, 32)


class DeepFM(nn.Module):
    """Click probabilities `[B]` of ids `[B, F]` and numbers `[B, N]`."""

    def __init__(self, sizes: list[int], numbers: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, WIDTH) for size in sizes)
        self.first = nn.ModuleList(nn.Embedding(size, 1) for size in sizes)
        widths = [len(sizes) * WIDTH + numbers, *HIDDEN]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.deep = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        vectors = torch.stack([table(ids[:, f]) for f, table in enumerate(self.tables)], 1)
        linear = torch.cat([table(ids[:, f]) for f, table in enumerate(self.first)], 1).sum(1)
        pairs = 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(1)
        deep = self.deep(torch.cat([vectors.flatten(1), numbers], 1)).squeeze(1)
        return torch.sigmoid(linear + pairs + deep)


class Encoder:
    """Rows of JSON to ids and numbers."""

    def __init__(self, path: str) -> None:
        found = json.loads(Path(path).read_text())
        self.fields = {
            name: {value: place + 1 for place, value in enumerate(values)}
            for name, values in found["fields"].items()
        }
        self.numbers: list[str] = found["numbers"]
        self.sizes = [len(values) + 1 for values in self.fields.values()]

    def __call__(self, rows: list[dict[str, Any]]) -> tuple[list[list[int]], list[list[float]]]:
        fields = self.fields.items()
        ids = [[values.get(row.get(name), 0) for name, values in fields] for row in rows]
        return ids, [[float(row.get(name) or 0) for name in self.numbers] for row in rows]


def model_of(encoder: Encoder) -> DeepFM:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return DeepFM(encoder.sizes, len(encoder.numbers)).eval()


def eager(model: DeepFM, ids: list[list[int]], numbers: list[list[float]]) -> list[float]:
    with torch.inference_mode():
        return model(torch.tensor(ids), torch.tensor(numbers)).tolist()


def fastapi(port: int, values: str, *, onnx: bool) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    encode = Encoder(values)
    model = model_of(encode)
    session = session_of(model, encode) if onnx else None

    class Body(BaseModel):
        rows: list[dict[str, str | int | float | None]]

    app = FastAPI()

    @app.post("/score")
    async def score(body: Body) -> dict[str, list[float]]:
        ids, numbers = encode(body.rows)
        if session is None:
            return {"scores": eager(model, ids, numbers)}
        import numpy as np

        given = {"ids": np.array(ids, np.int64), "numbers": np.array(numbers, np.float32)}
        return {"scores": session.run(None, given)[0].tolist()}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def session_of(model: DeepFM, encode: Encoder) -> Any:
    import tempfile

    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        rows = torch.export.Dim("rows", min=1, max=1 << 16)
        example = (torch.zeros(2, len(encode.sizes), dtype=torch.int64),
                   torch.zeros(2, len(encode.numbers)))  # fmt: skip
        torch.onnx.export(
            model, example, path, input_names=["ids", "numbers"], output_names=["scores"],
            dynamic_shapes=({0: rows}, {0: rows}), dynamo=True,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    kind, at, file = sys.argv[1:]
    fastapi(int(at), file, onnx=kind == "onnx")
