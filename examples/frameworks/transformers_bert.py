"""A small BERT over a rating's fields, with Hugging Face's `Trainer`, within a byte budget.

    python examples/frameworks/transformers_bert.py --data ../shared/data --budget 10x

A row is a sentence of seven tokens, one a field. Nothing is fetched: the configuration is made
here. Fold before `Trainer`. Its checkpoints are those of `save_pretrained`; the folded model is
kept by `bitfold.save`, which keeps the plan, too.
"""

import tempfile

import torch
from ml1m import BATCH, FIELDS, Part, Told, arguments, read, table_bytes
from sklearn.metrics import roc_auc_score
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
)  # fmt: skip
from transformers.trainer_utils import EvalPrediction

import bitfold


def make(sizes: dict[str, int]) -> BertForSequenceClassification:
    """Two layers of width 32 over one vocabulary of all fields."""
    config = BertConfig(
        vocab_size=sum(sizes.values()), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=len(FIELDS), type_vocab_size=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=None,
        num_labels=1, problem_type="multi_label_classification", initializer_range=0.05,
    )  # fmt: skip
    return BertForSequenceClassification(config)


class Sentences(torch.utils.data.Dataset):
    """Rows as tokens: each field's ids begin where those of the field before end."""

    def __init__(self, part: Part, sizes: dict[str, int]) -> None:
        starts = torch.tensor([0, *sizes.values()][:-1]).cumsum(0)
        self.tokens, self.labels = part.ids + starts, part.labels.unsqueeze(1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[row], "labels": self.labels[row]}


def auc(scored: EvalPrediction) -> dict[str, float]:
    """What `Trainer` watches."""
    return {"auc": roc_auc_score(scored.label_ids.ravel(), scored.predictions.ravel())}


def main() -> None:
    args = arguments(epochs=2)
    log = read(args.data, args.rows)
    model = make(log.sizes)
    size = table_bytes(model)
    if args.budget:
        report = bitfold.fold(model, args.budget)
        print(report)
        size = report.bytes
    train, valid, test = (Sentences(part, log.sizes) for part in log.parts)
    with tempfile.TemporaryDirectory() as folder:
        said = TrainingArguments(
            folder, num_train_epochs=args.epochs, per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=8192, learning_rate=2e-3, seed=args.seed, use_cpu=True,
            eval_strategy="epoch", save_strategy="epoch", save_total_limit=1,
            load_best_model_at_end=True, metric_for_best_model="auc", report_to=[],
            disable_tqdm=True, logging_strategy="epoch",
        )  # fmt: skip
        trainer = Trainer(
            model, said, train_dataset=train, eval_dataset=valid, compute_metrics=auc,
            callbacks=[EarlyStoppingCallback(1)],
        )  # fmt: skip
        told = Told(size)
        trainer.train()
        scored = trainer.predict(test).predictions
        if args.budget:
            bitfold.save(model, f"{folder}/folded")
            again = bitfold.load_model(f"{folder}/folded", lambda: make(log.sizes))
            ids = test.tokens[:512]
            assert torch.equal(model.eval()(ids).logits, again.eval()(ids).logits)
    told.tell(scored, log)


if __name__ == "__main__":
    main()
