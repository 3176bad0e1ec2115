"""Click models: networks above embeddings.

layers    what networks are made of, and the two steps of each
networks  logistic regression, DeepFM, DCNv2, DLRM
sets      several embedding sets under one network
building  networks by name, with their options
model     a network above one collection
"""
