"""Click models: networks above embeddings.

networks  logistic regression, DeepFM, DCNv2, DLRM
building  networks by name, with their options
model     a network above one collection
"""
