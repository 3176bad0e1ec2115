"""The names of the methods, known without loading any of them."""

from importlib.metadata import entry_points

BUILT_IN = {
    "auto": "bitfold.method.auto:Auto",
    "full": "bitfold.method.full:Full",
    "hash": "bitfold.method.hash:Hash",
    "multi-hash": "bitfold.method.multi_hash:MultiHash",
    "binary-code": "bitfold.method.binary_code:BinaryCode",
    "quotient-remainder": "bitfold.method.quotient_remainder:QuotientRemainder",
    "tensor-train": "bitfold.method.tensor_train:TensorTrainMethod",
    "dhe": "bitfold.method.dhe:DHE",
    "unified": "bitfold.method.unified:Unified",
    "robe": "bitfold.method.robe:Robe",
    "hash-embeddings": "bitfold.method.hash_embeddings:HashEmbeddings",
    "magnitude-pruning": "bitfold.method.magnitude_pruning:MagnitudePruning",
    "pep": "bitfold.method.pep:Pep",
    "optembed": "bitfold.method.optembed:OptEmbed",
    "amtl": "bitfold.method.amtl:Amtl",
    "low-rank": "bitfold.method.low_rank:LowRank",
    "mixed-dimensions": "bitfold.method.mixed_dimensions:MixedDimensions",
    "mpe": "bitfold.method.mpe:Mpe",
    "hot-cold": "bitfold.method.hot_cold:HotCold",
    "cafe": "bitfold.method.cafe:Cafe",
    "managed-collision": "bitfold.method.managed_collision:ManagedCollision",
    "scall": "bitfold.method.scall:Scall",
    "cce": "bitfold.method.cce:Cce",
    "fiited": "bitfold.method.fiited:Fiited",
    "dpq": "bitfold.method.dpq:Dpq",
    "mgqe": "bitfold.method.dpq:Mgqe",
    "learned-hash": "bitfold.method.learned_hash:LearnedHash",
    "semantic-ids": "bitfold.method.semantic_ids:SemanticIds",
    "scma": "bitfold.method.scma:Scma",
}
GROUP = "bitfold.methods"


def known_names() -> list[str]:
    """The built-in methods and those of installed packages, as the command completes them.

    Example:
        >>> known_names()[:2]
        ['auto', 'full']
    """
    return [*BUILT_IN, *sorted(entry.name for entry in entry_points(group=GROUP))]
