"""The full model of `serving_rivals.py` behind LitServe, which gathers requests into batches.

python serving_litserve.py litserve PORT VALUES
"""

import sys
from typing import Any

import litserve as ls
from serving_rivals import Encoder, eager, model_of


class Api(ls.LitAPI):
    """Rows of several requests, scored together. Its processes load it by name."""

    def setup(self, device: str) -> None:
        self.encode = Encoder(sys.argv[3])
        self.model = model_of(self.encode)

    def decode_request(self, request):  # a type would make it part of the query
        return request["rows"]

    def batch(self, inputs: Any) -> Any:
        return inputs

    def predict(self, inputs: Any) -> Any:
        ids, numbers = self.encode([row for rows in inputs for row in rows])
        scores = iter(eager(self.model, ids, numbers))
        return [[next(scores) for _ in rows] for rows in inputs]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Any:
        return {"scores": output}


if __name__ == "__main__":
    server = ls.LitServer(
        Api(max_batch_size=64, batch_timeout=0.001, api_path="/score"), accelerator="cpu"
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, num_api_servers=1,
        log_level="warning",
    )  # fmt: skip
