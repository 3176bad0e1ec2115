"""Click models: networks above embeddings."""
