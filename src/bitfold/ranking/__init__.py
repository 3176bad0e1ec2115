"""Full rankings: where a model puts a user's held-out items among all items.

config      which field is ranked, at which depths, over which items
figures     recall@k, NDCG@k and MRR from ranks, exact with ties
candidates  the items, their own columns, and how often each was taken in training
questions   who is asked: users in a context, what they took, what they have already
scoring     every item for every question through a model, in batches; the popularity floor
"""

from bitfold.ranking.config import RankConfig, check_rank
from bitfold.ranking.figures import Ranks, figures
from bitfold.ranking.scoring import Ranking

__all__ = ["RankConfig", "Ranking", "Ranks", "check_rank", "figures"]
