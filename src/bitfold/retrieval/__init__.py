"""Two-tower retrieval on any embedding method: users and items as vectors of one space.

options     how it is trained, indexed and measured
positives   what users took, in memory: rows, items, histories
towers      the user's tower and the item's above one collection of one budget
moments     mean and deviation of vectors, tracked by a Kalman filter
memory      item vectors of earlier batches, as they were or renormalised
losses      sampled softmax with log-popularity correction; BPR
negatives   items drawn alike, unseen ones, hard ones from the index
loop        epochs, validation by ranking, early stopping
checkpoint  all that a training needs to go on
lowbit      item vectors in few bits
index       exact and approximate search, and what an index weighs
measuring   recall and NDCG over all items, exact with ties
prototypes  items as the mean of the users who took them; the relation loss
remarnet    item vectors that lean on prototypes where clicks are few
by_clicks   recall, NDCG and AUC by the clicks of an item
retriever   a trained one: users in, items out
folder      a trained one on the disk
job         from a log to a retriever
"""
