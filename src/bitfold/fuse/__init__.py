"""The third room of the corridor: pieces to one vector."""

from bitfold.fuse.fusion import FUSIONS, Concat, Fusion, Mean, Product, Sum, Weighted, fusion_named

__all__ = ["FUSIONS", "Concat", "Fusion", "Mean", "Product", "Sum", "Weighted", "fusion_named"]
