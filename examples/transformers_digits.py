"""Hugging Face's Trainer, tracked: a tiny vision transformer, made here, on the digits that come with mnist_tb.

.venv/bin/python examples/transformers_digits.py --lr 0.003
.venv/bin/mnist-tb compare
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from transformers import EvalPrediction, Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from mnist_tb.config.schema import Data
from mnist_tb.data.datasets import load_dataset
from mnist_tb.integrations.transformers import TrackerCallback


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, kind, default in (("lr", float, 3e-3), ("epochs", int, 4), ("logdir", str, "runs")):
        parser.add_argument(f"--{name}", type=kind, default=default)
    options = parser.parse_args()
    data = load_dataset(Data(name="digits"))
    parts: dict[str, list[dict[str, Any]]] = {}
    for name, split in (("train", data.train), ("validation", data.validation)):
        pairs = zip(data.inputs(split.images), split.labels, strict=True)
        parts[name] = [{"pixel_values": image, "labels": label} for image, label in pairs]
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = ViTForImageClassification(ViTConfig(image_size=28, patch_size=7, num_channels=1, num_labels=10, **size))
    with tempfile.TemporaryDirectory() as folder, TrackerCallback(options.logdir, "vit", dataset=data.name) as tracker:
        quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_steps": 5}
        arguments = TrainingArguments(
            folder, num_train_epochs=options.epochs, learning_rate=options.lr, per_device_train_batch_size=64,
            eval_strategy="epoch", use_cpu=True, **quiet,
        )  # fmt: skip
        data_and_more = {"compute_metrics": accuracy, "callbacks": [tracker]}
        trainer = Trainer(
            model, arguments, train_dataset=parts["train"], eval_dataset=parts["validation"], **data_and_more
        )
        trainer.train()


if __name__ == "__main__":
    main()
