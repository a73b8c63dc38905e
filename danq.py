"""DanQ: annotate the function of DNA from its sequence alone (Quang & Xie 2016).

    one-hot (1000, 4) -> conv motif scan -> max-pool -> BLSTM -> dense -> 919 probabilities

    python danq.py                           train and test: data/{train,valid,test}.mat -> runs/danq/
    python danq.py --test-data mouse         score runs/danq on another test.mat -> runs/danq/test-mouse/
    python danq.py --predict seqs.fa         annotate your own sequences with runs/danq -> predictions.tsv
    python danq.py --make-demo-data demo     a small SIMULATED data set in DeepSEA's layouts

Mean test scores: the paper, DeepSEA's 919 labels: AUROC .938, AUPRC .371; 6 hours an epoch on a GPU of 2015.
8,000 windows of real DNA, 177 labels: .691, .108; 15 minutes to the best epoch on 2 CPU cores.

--out-dir gets history.csv (a row an epoch), model.keras, metrics.csv (a row a label), summary.json; packed/ beside it
the data as bits. After a kill the same command goes on from checkpoint.npz, written after each epoch and every ten
minutes within one, on a CPU to the same end to the bit.
"""
import argparse
import ast
import contextlib
import csv
import dataclasses
import fcntl
import gzip
import hashlib
import itertools
import json
import math
import os
import platform
import resource
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import scipy.io

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # chatter buries errors
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
try:
    import keras
    from keras import layers, ops
finally:
    os.dup2(stderr, 2)
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score
from sklearn.utils import gen_batches

# ---- settings

LENGTH = 1000  # bases in a sequence
BASES = "AGCT"  # DeepSEA's order: reversing it complements a base
SPLITS = ("train", "valid", "test")
DEEPSEA_ASSAYS = ["DNase"] * 125 + ["TF"] * 690 + ["histone"] * 104
FILTERS, LSTM_UNITS, DENSE = 320, 320, 925  # the paper's
EPOCHS, BATCH, PATIENCE = 60, 100, 5
LEARNING_RATE = 1e-3  # RMSprop's
MEASURES = ("auroc", "auprc", "f1", "recall_at_10fdr")
# Test means over 918 labels of the DeepSEA bundle: (all, DNase, TF, histone). Quang & Xie 2016.
PUBLISHED = {
    "DeepSEA (2015)": {"auroc": (.9326, .9155, .9478, .8522), "auprc": (.3425, .4443, .3203, .3676)},
    "DanQ (2016)": {"auroc": (.9384, .9208, .9535, .8596), "auprc": (.3709, .4636, .3520, .3850)}}


# ---- the network

def blstm(units):
    """(B, steps, features) -> (B, steps, 2 units), in float32: cuDNN's kernel takes no other under JAX."""
    lstm = layers.LSTM(units, return_sequences=True, dtype="float32")
    return layers.Bidirectional(lstm, dtype="float32", name="motif_grammar")


def trunk(x, filters, lstm_units, conv_activation, dtype=None):
    """DanQ's trunk, also SuperQ's of 2018: (B, 1000, 4) -> (B, features); lstm_units 0: no BLSTM."""
    x = layers.Conv1D(filters, 26, activation=conv_activation, dtype=dtype, name="motif_scan")(x)  # (B, 975, 320)
    x = layers.MaxPooling1D(13, name="motif_pool")(x)  # (B, 75, 320)
    x = layers.Dropout(.2)(x)
    if lstm_units:
        x = blstm(lstm_units)(x)  # (B, 75, 640)
        x = layers.Dropout(.5)(x)
    return layers.Flatten()(x)  # (B, 48000)


def build_danq(n_labels=919, filters=FILTERS, lstm_units=LSTM_UNITS, conv_activation="relu", dtype=None):
    """DanQ: one-hot (B, 1000, 4) -> probabilities (B, n_labels). 46,926,479 parameters at 919 labels."""
    inputs = keras.Input((LENGTH, 4))
    x = trunk(inputs, filters, lstm_units, conv_activation, dtype)
    x = layers.Dense(DENSE, activation="relu", dtype=dtype, name="dense")(x)  # (B, 925)
    return keras.Model(inputs, layers.Dense(n_labels, activation="sigmoid", name="labels")(x), name="danq")


def compiled_danq(args, n_labels):
    keras.utils.set_random_seed(args.seed)
    network = build_danq(n_labels, args.filters, args.lstm_units, args.conv_activation, args.dtype)
    optimizer, accuracy = keras.optimizers.RMSprop(LEARNING_RATE), keras.metrics.BinaryAccuracy(name="acc")
    return compiled(FromBits(network, n_labels), optimizer, "binary_crossentropy", [accuracy])


def unpack(bits, n):
    """Packed bits (B, ceil(n / 8)) uint8 -> 0 and 1 (B, n) float32, on the device of the backend."""
    ones = ops.bitwise_and(ops.right_shift(bits[..., None], np.arange(7, -1, -1, dtype=np.uint8)), np.uint8(1))
    return ops.cast(ops.reshape(ones, (-1, 8 * bits.shape[-1]))[:, :n], "float32")


class FromBits(keras.Model):
    """A network fed with packed sequences (B, 500) and labels (B, ceil(K / 8)), which its device unpacks."""

    def __init__(self, network, n_labels=1):
        bits = keras.Input((LENGTH // 2,), dtype="uint8")
        super().__init__(bits, network(self.onehot(bits)), name=network.name)
        self.n_labels = n_labels

    def onehot(self, bits):
        return ops.reshape(unpack(bits, 4 * LENGTH), (-1, LENGTH, 4))

    def targets(self, x, y, weight):
        """Targets and weights of the network's outputs."""
        return unpack(y, self.n_labels), weight

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y, weight = self.targets(x, y, sample_weight)
        return super().compute_loss(x, y, y_pred, weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, weight = self.targets(x, y, sample_weight)
        return super().compute_metrics(x, y, y_pred, weight)


def compiled(model, optimizer, loss, accuracy, weights=None):
    jit = False if keras.backend.backend() == "tensorflow" else "auto"  # XLA on TensorFlow: a quarter of the speed
    model.compile(optimizer=optimizer, loss=loss, weighted_metrics=accuracy, loss_weights=weights, jit_compile=jit)
    return model


# ---- its training

def train_danq(args, train, valid):
    model, zeros = compiled_danq(args, train.n_labels), 1 - train.labels(slice(100_000)).mean()
    print(f"[2/3] DanQ: {model.count_params():,} parameters, {len(train):,} sequences")
    return fit(model, train, valid, args, args.patience, f" (always answering 0: acc {zeros:.4f})")


def fit(model, train, valid, args, patience, yardstick=""):
    """Train, print a line an epoch, keep the best model in model.keras.

    train, valid : Split; without valid, training goes to the end and keeps the last model
    Returns {epochs, best_epoch, seconds, seconds_to_best}. BadInput where the first epoch diverges.
    """
    out_dir = Path(args.out_dir)
    checkpoint, network = Checkpoint(out_dir / "checkpoint.npz", args), model.layers[-1]
    history, network.name = checkpoint.state["history"], network.name + "_SIMULATED" * train.simulated
    valid = valid and Batches(valid, args.batch_size)
    while len(history) < args.epochs and not reason_to_stop(checkpoint, patience):
        data = Batches(train, args.batch_size, args.seed, epoch=len(history))
        logs = train_epoch(model, data, valid, checkpoint)
        row = {"epoch": len(history) + 1, "seconds": round(checkpoint.seconds() - sum_seconds(history), 2)}
        row |= {key: logs.get(key, "") for key in ("loss", "acc", "val_loss", "val_acc")}
        history.append(row)
        if best_epoch(history) == len(history):
            with new_file(out_dir / "model.keras") as temporary:
                network.save(temporary)
        write_csv(out_dir / "history.csv", history)
        scores = "".join(f" - {key}: {value:.4g}" for key, value in [*row.items()][2:] if value != "")
        rate = args.batch_size * (checkpoint.state["step"] + 1) / row["seconds"]
        print(f"Epoch {row['epoch']}/{args.epochs} - {row['seconds']:.0f}s{scores} - {rate:,.0f} samples/s{yardstick}")
        if not best_epoch(history):
            raise BadInput(f"diverged in its first epoch: loss {row['loss']:.4g}: lower the learning rate, --restart")
        checkpoint.state["step"] = 0
        checkpoint.save()
    if reason := reason_to_stop(checkpoint, patience):
        print(f"stopped: {reason}; the model of epoch {best_epoch(history)} is kept")
    return {"epochs": len(history), "best_epoch": best_epoch(history), "seconds": sum_seconds(history),
            "seconds_to_best": sum_seconds(history[:best_epoch(history)])}


def train_epoch(model, data, valid, checkpoint):
    """One epoch, or what a kill left of it; its losses and accuracies."""
    epoch, data.first = len(checkpoint.state["history"]), checkpoint.state["step"]
    try:
        if not model.optimizer.built:  # fit() on JAX would lose the first batch
            model.test_on_batch(*data[0])
            model.optimizer.build(model.trainable_variables)
        logs = model.fit(data, validation_data=valid, initial_epoch=epoch, epochs=epoch + 1, shuffle=False,
                         verbose=0, callbacks=[checkpoint]).history
    except Exception as error:
        if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "OOM when", "out of memory")):
            raise
        fits = largest_that_fits(model, data)
        advice = f"try {fits} with --restart" if fits else "no smaller one tried does"
        raise BadInput(f"--batch-size {data.batch_size} does not fit in memory: {advice}") from error
    return {key.replace("bases_acc", "acc"): values[0] for key, values in logs.items()}


def largest_that_fits(model, data):
    """Half the batch size, a quarter and so on, tried for a step each; 0 where none fits."""
    size = data.batch_size // 2
    while size:
        with contextlib.suppress(Exception):
            for variable in state_of(model):  # a failed step on JAX leaves none
                variable.assign(np.zeros(variable.shape, variable.dtype))
            model.train_on_batch(*data.split.batch(data.order[:size]))
            break
        size //= 2
    return size


def sum_seconds(history):
    return round(sum(row["seconds"] for row in history), 2)


def best_epoch(history):
    """That of the lowest validation loss, or the last without validation; 0 where all are NaN."""
    losses = [-row["epoch"] if row["val_loss"] == "" else row["val_loss"] for row in history]
    return int(np.nanargmin(losses)) + 1 if np.isfinite(losses).any() else 0


def reason_to_stop(checkpoint, patience):
    history = checkpoint.state["history"]
    if history and history[-1]["val_loss"] != "" and not math.isfinite(history[-1]["loss"]):
        return f"it diverged, loss {history[-1]['loss']}"
    if history and checkpoint.is_late():
        return f"--max-seconds {checkpoint.args.max_seconds:g}"
    if len(history) - best_epoch(history) >= patience:
        return f"no better validation loss in {patience} epochs"


def state_of(model):
    """Keras' variables: weights, optimiser, dropout seeds, metrics."""
    return model.variables + model.optimizer.variables + model.metrics_variables


class Checkpoint(keras.callbacks.Callback):
    """All that training consists of: state_of(model) and `state`."""

    def __init__(self, path, args):
        super().__init__()
        self.path, self.args, self.values = path, args, []
        self.state = {"step": 0, "seconds": 0., "history": []}
        if path.is_file():
            with readable(path, "remove it to train from the start"), np.load(path) as file:
                self.state = json.loads(str(file["state"]))
                self.values = [file[f"v{i}"] for i in range(len(file.files) - 1)]
                print(f"going on after step {self.state['step']} of epoch {len(self.state['history']) + 1}")
        self.started, self.saved, self.steps, self.mark = time.time() - self.state["seconds"], time.time(), 0, 0.

    def on_epoch_begin(self, epoch, logs=None):
        for variable, value in zip(state_of(self.model), self.values, strict=bool(self.values)):
            variable.assign(value)
        if not self.state["step"]:  # else they are those of a validation
            self.model.reset_metrics()
        self.values, self.first = [], self.state["step"]
        self.bar = progress(self.params["steps"], f"step of epoch {epoch + 1}/{self.args.epochs}")

    def on_train_batch_begin(self, step, logs=None):  # ..._end would make JAX wait for each step's loss
        self.state["step"] = self.first + step  # those before are done
        self.bar.update(step)
        if step and time.time() - self.saved > 60 * self.args.checkpoint_minutes:
            self.save()
        if self.steps in (5, 105):  # the first ones compile
            ops.convert_to_numpy(self.model.trainable_variables[-1].value)  # wait for the device
            if self.steps == 105:
                hours = (time.time() - self.mark) / 100 / 3600 * (self.first + self.params["steps"]) * self.args.epochs
                print("\n" * sys.stdout.isatty() + f"at this rate {self.args.epochs} epochs take {hours:,.2f} hours")
            self.mark = time.time()
        self.steps += 1
        self.model.stop_training = self.is_late()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.update(self.state["step"] - self.first + 1, finalize=True)

    def seconds(self):
        return time.time() - self.started

    def is_late(self):
        return self.seconds() > (self.args.max_seconds or math.inf)

    def save(self):
        values = {f"v{i}": ops.convert_to_numpy(variable.value) for i, variable in enumerate(state_of(self.model))}
        self.state["seconds"] = self.seconds()
        with new_file(self.path) as temporary:
            np.savez(temporary, state=json.dumps(self.state), **values)
        self.saved = time.time()


# ---- scores

def strand_mean(score, X, windows, strands, batch_size):
    """Scores (windows, K) float32 of score(rows of X), over both strands where the data have them."""
    P, bar = [], progress(windows)
    for rows in gen_batches(windows, batch_size):
        p = score(X[rows])
        if strands:
            p = (p + score(X[windows + rows.start:windows + rows.stop])) / 2
        P.append(p.astype(np.float32))
        bar.update(rows.stop)
    return np.concatenate(P)


def best_thresholds(P, Y):
    """The threshold of the highest F1 (.5 without positives) for each column of P, Y (windows, K)."""
    thresholds = [.5] * Y.shape[1]
    for k in np.flatnonzero(Y.any(0)):
        precision, recall, cuts = precision_recall_curve(Y[:, k], P[:, k])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds[k] = float(cuts[f1[:-1].argmax()])
    return thresholds


def score_label(y, p, threshold):
    """AUROC, AUPRC (average precision), F1 at `threshold` and recall at 10 % FDR of one label."""
    precision, recall, _ = precision_recall_curve(y, p)
    return {"auroc": roc_auc_score(y, p), "auprc": average_precision_score(y, p), "f1": f1_score(y, p >= threshold),
            "recall_at_10fdr": float(recall[precision >= .9].max())}


def evaluate(P, Y, labels, thresholds):
    """Rows of metrics.csv (scores None where a label has one class) and means {"all" or assay: {...}}.

    P, Y : scores and labels (windows, K);  labels : [(column, assay, name)];  thresholds : of F1, (K,)
    """
    rows, means = [], {}
    for (column, assay, name), y, p, threshold in zip(labels, Y.T, P.T, thresholds):
        rows.append({"column": column, "assay": assay, "name": name, "positives": int(y.sum()),
                     "base_rate": float(y.mean()), "auroc": None, "auprc": None, "f1": None, "threshold": threshold,
                     "recall_at_10fdr": None} | (score_label(y, p, threshold) if 0 < y.sum() < len(y) else {}))
    for assay in dict.fromkeys(["all", *(row["assay"] for row in rows)]):
        scored = [row for row in rows if assay in ("all", row["assay"]) and row["auroc"] is not None]
        means[assay] = {"labels": len(scored)} | {
            key: float(np.mean([row[key] for row in scored])) if scored else None for key in ("base_rate", *MEASURES)}
    return rows, means


def finish_run(out_dir, rows, means, summary):
    """Write metrics.csv and, last, summary.json, which marks the run finished; print the means."""
    write_csv(out_dir / "metrics.csv", rows)
    summary |= {"labels": len(rows), "labels_scored": means["all"]["labels"], "means": means,
                "peak_memory_gb": peak_memory()}
    write_json(out_dir / "summary.json", summary)
    print(f"{means['all']['labels']} of {len(rows)} labels have both classes in the test split"
          + " (SIMULATED data)" * summary["simulated"])
    print(f"  {'':20} labels   AUROC   AUPRC      F1  recall at 10 % FDR   chance: AUROC .5, AUPRC")
    for name, mean in means.items():
        if mean["labels"]:
            scores = "".join(f"{mean[key]:8.4f}" for key in MEASURES)
            print(f"  {name:20}{mean['labels']:7}{scores}{mean['base_rate']:35.4f}")
    for name, paper in published(summary).items():
        print(f"  {'published ' + name:27}{paper['auroc'][0]:8.4f}{paper['auprc'][0]:8.4f}")


def published(summary):
    return PUBLISHED if summary["labels"] == 919 and not summary["simulated"] else {}


# ---- the command line

def shared_arguments(doc, out_dir, epochs, batch_size):
    """A parser of the arguments that both scripts take, and what adds one to each of its groups."""
    parser = Parser(usage="%(prog)s [options]", description=doc.splitlines()[0])
    groups = [parser.add_argument_group(name).add_argument
              for name in ("data", "network", "training", "forest", "after training")]
    data, network, training, _, after = groups
    data("--data-dir", default="data", help="folder of train.mat, valid.mat, test.mat (%(default)s)")
    data("--out-dir", default=out_dir, help=f"folder of this run ({out_dir or 'runs/MODEL'})")
    data("--limit", type=positive, metavar="N", help="take the first N windows of each split")
    data("--restart", action="store_true", help="discard the run in --out-dir")
    network("--mixed-precision", dest="dtype", action="store_const", const="mixed_bfloat16",
            help="convolution (and DanQ's dense layer) in bfloat16")
    training("--epochs", type=positive, default=epochs, help="at most (%(default)s)")
    training("--batch-size", type=positive, default=batch_size, help="sequences a training step (%(default)s)")
    training("--seed", type=number(int, 0, 2 ** 32 - 1), default=1337, help="of weights, dropout, order, forest (1337)")
    training("--checkpoint-minutes", type=number(float, 0), default=10., metavar="M", help="between checkpoints (10)")
    training("--max-seconds", type=number(float, 0), metavar="S", help="stop training then, even mid-epoch")
    after("--predict", metavar="FASTA", help="annotate it with the run in --out-dir, and exit")
    after("--output", metavar="FILE", help="where --predict, --compare, --curve write")
    after("--plot", metavar="FILE.png", help="draw --predict's ten highest labels along the first record")
    after("--motifs", metavar="FILE.meme", help="write and draw the filters' motifs, and exit")
    after("--test-data", metavar="DIR", help="score the run in --out-dir on its test.mat, and exit")
    return parser, *groups


def parse_args(argv=None):
    parser, data, network, training, *_ = shared_arguments(__doc__, "runs/danq", EPOCHS, BATCH)
    network("--filters", type=positive, default=FILTERS, help="motif detectors of the convolution (%(default)s)")
    network("--lstm-units", type=number(int, 0), default=LSTM_UNITS,
            help="of the BLSTM, each way; 0: none (%(default)s)")
    network("--conv-activation", default="relu", choices=("relu", "linear"),
            help="linear is what the 2018 Keras port did")
    training("--patience", type=positive, default=PATIENCE,
             help="epochs without a better validation loss (%(default)s)")
    data("--make-demo-data", metavar="DIR", help="write SIMULATED data, --limit windows (4,000), and exit")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.make_demo_data:
        return make_demo_data(args.make_demo_data, args.limit or 4000, args.seed)
    out_dir = Path(args.out_dir)
    if args.motifs:
        return write_motifs(out_dir, "danq.py", args.motifs)
    if args.predict or args.test_data:
        finished_settings(out_dir, "danq.py")
        return (annotate if args.predict else score_elsewhere)(args, FromBits(load_model(out_dir)).predict_on_batch)
    splits, labels = load_data(args)
    train, valid, test = splits.values()
    with run_folder(args, "danq.py", train.simulated, [split.source for split in splits.values()]) as finished:
        if finished:
            return
        with all_devices(args.batch_size):
            training = train_danq(args, train, valid)

        print(f"[3/3] test: {test.windows:,} windows")
        started, model = time.time(), load_model(out_dir)
        score = FromBits(model).predict_on_batch
        P_valid, P = (strand_mean(score, split.X, split.windows, split.strands, args.batch_size)
                      for split in (valid, test))
        seconds = {"training": training["seconds"], "prediction": round(time.time() - started, 2)}
        thresholds = best_thresholds(P_valid, valid.labels(slice(valid.windows)))
        finish_run(out_dir, *evaluate(P, test.labels(slice(test.windows)), labels, thresholds), {
            "model": "DanQ", "data": args.data_dir, "simulated": train.simulated,
            "limit": args.limit, "train_sequences": len(train), "test_windows": test.windows, "strands": test.strands,
            "training": training, "seconds": seconds, "training_seconds": training["seconds_to_best"],
            "parameters": model.count_params()})


def score_elsewhere(args, score):
    """Score the run in --out-dir on the test split of --test-data, labels matched by name -> out_dir/test-NAME/.

    score : packed (n, 500) -> (n, K)
    """
    out_dir, folder = Path(args.out_dir), Path(args.test_data)
    test, thresholds = load_split(folder, "test", packed_dir(out_dir), args.limit), trained_thresholds(out_dir)
    labels = [label for label in load_labels(folder, test.n_labels) if label[2] in thresholds]
    names = list(thresholds)
    print(f"test: {folder}, {test.windows:,} windows; {len(labels)} of {len(names)} labels are there")
    P = strand_mean(score, test.X, test.windows, test.strands, args.batch_size)
    P, Y = P[:, [names.index(name) for _, _, name in labels]], test.labels(slice(test.windows))
    rows, means = evaluate(P, Y[:, [column for column, _, _ in labels]], labels,
                           [thresholds[name] for _, _, name in labels])
    target, summary = out_dir / f"test-{Path(os.path.realpath(folder)).name}", read_json(out_dir / "summary.json")
    for key in ("reconstruction", "subset_accuracy", "label_output"):  # of the run's own test split
        summary.pop(key, None)
    (target / "summary.json").unlink(missing_ok=True)
    write_json(target / "args.json", read_json(out_dir / "args.json"))
    finish_run(target, rows, means, summary | {
        "data": str(folder), "limit": args.limit, "test_windows": test.windows, "strands": test.strands,
        "simulated": summary["simulated"] or test.simulated})
    print(f"-> {target}")


# ==== The machinery: not needed to understand DanQ.
# ---- errors and files

class BadInput(Exception):
    """A fault of the input, in one line: what is wrong, where, what to do."""


def command_line(main):
    """Run main(); a fault gives one line on stderr and exit code 2."""
    sys.stdout.reconfigure(line_buffering=True)  # a log gets lines at once
    try:
        return main()
    except BadInput as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'a file'}: {error.strerror or error} (what was finished is kept)"
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise BadInput(f"{message} (see --help)")

    def parse_args(self, argv=None):
        args = super().parse_args(argv)
        for flag, name, suffix in (("--plot", args.plot, ".png"), ("--motifs", args.motifs, ".meme")):
            if name and not name.endswith(suffix):
                raise BadInput(f"{flag}: must end in {suffix}, is {name}")
        if args.plot and not args.predict:
            raise BadInput("--plot needs --predict FASTA")
        return args


def number(kind, least, most=10 ** 9):
    """argparse type: an int or float from least to most."""
    def numeric(text):
        if not least <= (value := kind(text)) <= most:
            raise argparse.ArgumentTypeError(f"must be at least {least} and at most {most:,}, is {text}")
        return value
    return numeric


positive = number(int, 1)


@contextlib.contextmanager
def readable(path, advice="", damage=Exception):
    """Name the file in a system error or a library's `damage`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = error.filename or str(path)
        elif isinstance(error, damage) and not isinstance(error, BadInput):
            raise BadInput(f"{path} is damaged ({' '.join(str(error).split())}): {advice}") from error
        raise


@contextlib.contextmanager
def new_file(path):
    """Yield a temporary path, which becomes `path` when all went well and is removed otherwise."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} is a folder or a device: name a file")
    temporary = path.with_name(f".{path.stem}.tmp{os.getpid()}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with readable(path, damage=()):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # before it takes the name
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def claim(path, size):
    """Take `size` bytes of disk before they are written: on a full disk memory maps and HDF5 crash."""
    with open(path, "ab") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def read_json(path, *keys):
    """The record in a file; BadInput if it lacks a key."""
    with readable(path, "give --restart to start anew"):
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        return record | {key: record[key] for key in keys}


def write_json(path, record):
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def write_csv(path, rows):
    with new_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0] if rows else ())
        writer.writeheader()
        writer.writerows(rows)


def progress(total, unit="step"):
    return keras.utils.Progbar(total, verbose=int(sys.stdout.isatty()), unit_name=unit)


# ---- the folder of a run, and the machine

OUTPUTS = ("summary.json args.json history.csv model.keras checkpoint.npz autoencoder.json encodings.part "
           "encodings.h5 forest.npz metrics.csv").split()  # what --restart removes
FORMAT = 2
NO_SETTINGS = "out_dir", "output", "restart", "reuse_encodings", "checkpoint_minutes"  # leave results alone


@contextlib.contextmanager
def run_folder(args, script, simulated, source, changeable=()):
    """Hold --out-dir and record the run in args.json; yields True where it is finished already.

    source : state of the data;  changeable : settings that may differ from those of a run that is there
    """
    out_dir = Path(args.out_dir)
    record, summary = out_dir / "args.json", out_dir / "summary.json"
    settings = {key: value for key, value in vars(args).items() if key not in NO_SETTINGS} | {
        "script": script, "code": code_hash(script), "data_dir": os.path.realpath(args.data_dir), "data_files": source}
    with locked(out_dir):
        for name in OUTPUTS if args.restart else ():
            (out_dir / name).unlink(missing_ok=True)
        before = read_json(record, "settings")["settings"] if record.is_file() else settings
        for key in sorted(settings.keys() | before.keys()):
            if key not in changeable and before.get(key) != settings.get(key):
                name, old, new = key.replace("_", "-"), before.get(key), settings.get(key)
                raise BadInput(f"{out_dir}: its {name} was {old}, now {new}: use another --out-dir or --restart")
        if finished := summary.is_file() and before == settings:
            print(f"{out_dir} is finished already (--restart trains again)")
        else:
            for path in (summary, *out_dir.glob("test-*/summary.json")):
                path.unlink(missing_ok=True)
            data = "SIMULATED" if simulated else args.data_dir
            write_json(record, {"settings": settings, "data": data, **surroundings(script)})
        yield finished
        (out_dir / "checkpoint.npz").unlink(missing_ok=True)
        made = ", ".join(name for name in OUTPUTS if (out_dir / name).is_file())
        print(f"+-- {out_dir}: {made}\n"
              f"+-- next: python {sys.argv[0]} --out-dir {str(out_dir)!r} --predict seqs.fa --plot tracks.png")


@contextlib.contextmanager
def locked(folder, wait=False):
    """Hold a folder; if another process has it, wait or BadInput."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            file.seek(0)
            raise BadInput(f"{folder} is in use by {file.read()}: wait, or use another --out-dir") from error
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", end="", file=file, flush=True)
        for path in folder.glob(".*.tmp*"):
            path.unlink()
        yield


def code_hash(script):
    files = [Path(__file__).resolve().with_name(name) for name in sorted({"danq.py", script})]
    return hashlib.sha256("".join(ast.dump(ast.parse(file.read_bytes())) for file in files).encode()).hexdigest()[:16]


def surroundings(script):
    backend = keras.backend.backend()
    versions = {name: sys.modules[name].__version__ for name in ("keras", backend, "numpy", "h5py", "scipy", "sklearn")}
    return {"command": [script, *sys.argv[1:]], "started": time.strftime("%F %T %z"), "format": FORMAT,
            "device": devices(), "backend": backend, "machine": [platform.platform(), os.cpu_count()],
            "versions": {"python": sys.version} | versions}


def devices():  # the torch backend has no list
    try:
        return keras.distribution.list_devices()
    except AttributeError:
        return [keras.backend.backend()]


@contextlib.contextmanager
def all_devices(batch_size):
    """Train data-parallel over all GPUs of the machine, on JAX."""
    n = len(devices())
    if n > 1 and keras.backend.backend() != "jax":
        print(f"one of {n} devices is used; KERAS_BACKEND=jax takes all")
    elif n > 1:
        if batch_size % n:
            raise BadInput(f"--batch-size {batch_size} does not divide among {n} devices")
        print(f"training on {n} devices, {batch_size // n} sequences on each")
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)


def peak_memory():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)  # GB


def finished_settings(out_dir, script=None):
    if not (Path(out_dir) / "summary.json").is_file():
        raise BadInput(f"{out_dir} holds no finished run (no summary.json): train first")
    record = read_json(Path(out_dir) / "args.json", "settings")
    settings = record["settings"]
    if record.get("format") != FORMAT:
        raise BadInput(f"{out_dir} was made by another version of this kit: train again with --restart")
    if script not in (None, settings["script"]):
        raise BadInput(f"{out_dir} holds a run of {settings['script']}: give it to that script")
    return settings


def trained_thresholds(out_dir):
    path, n = out_dir / "metrics.csv", read_json(out_dir / "summary.json", "labels")["labels"]
    with readable(path, "train again with --restart"), open(path, newline="", encoding="utf-8") as file:
        thresholds = {row["name"]: float(row["threshold"]) for row in csv.DictReader(file)}
        if len(thresholds) != n:
            raise ValueError(f"it has {len(thresholds)} rows, not {n}")
        return thresholds


def load_model(out_dir):
    """model.keras, in Keras' safe mode: it cannot run code."""
    path = Path(out_dir) / "model.keras"
    with readable(path, "train again with --restart"):
        return keras.saving.load_model(path, compile=False, safe_mode=True)


# ---- data: .mat -> packed bits -> batches

TILE = 256 << 20  # bytes of a .mat read at a time, and the largest HDF5 chunk


@dataclasses.dataclass
class Split:
    """One split of a data set, packed into bits; its rows are sequences.

    X : (n, 500) uint8, np.packbits of the one-hot (1000, 4);  Y : (n, ceil(K / 8)) uint8; memory maps
    windows : rows to score: n, or n / 2 with `strands`, when the other half are their reverse complements
    source : state of the file it was packed from
    """
    X: np.ndarray
    Y: np.ndarray
    n_labels: int
    windows: int
    strands: bool = False
    simulated: bool = False
    source: str = ""

    def __len__(self):
        return len(self.X)

    def batch(self, rows):
        return self.X[rows], self.Y[rows]

    def labels(self, rows=slice(None)):
        return np.unpackbits(self.Y[rows], axis=1, count=self.n_labels)


def onehot(bits):
    """One-hot (n, 1000, 4) uint8 of packed (n, 500), columns A, G, C, T; an N is all zeros."""
    return np.unpackbits(bits, axis=1).reshape(-1, LENGTH, 4)


def packed(X):
    return np.packbits(X.reshape(len(X), -1), axis=1)


def reverse_complement(X):
    """Of one-hot (n, length, 4): in the order A, G, C, T it reverses both axes."""
    return X[:, ::-1, ::-1]


class Batches(keras.utils.PyDataset):
    """Split.batch of each step from `first` on, in an order that is a pure function of (seed, epoch), or the file's."""

    def __init__(self, split, batch_size, seed=None, epoch=0):
        super().__init__(workers=2)  # with one, TensorFlow may idle as an epoch ends
        self.split, self.batch_size, self.first, n = split, batch_size, 0, len(split)
        self.order = np.arange(n) if seed is None else np.random.default_rng([seed, epoch]).permutation(n)
        if shared := keras.distribution.distribution():  # every device gets as many: a few rows stay out
            self.order = self.order[:n - n % shared.num_model_replicas]

    def __len__(self):
        return -(-len(self.order) // self.batch_size) - self.first

    def __getitem__(self, step):
        start = (self.first + step) * self.batch_size
        return self.split.batch(self.order[start:start + self.batch_size])


def packed_dir(out_dir):
    """packed/ beside a run's folder (resolve() raises at a loop of links)."""
    return Path(os.path.realpath(out_dir)).parent / "packed"


def load_data(args):
    """The splits {"train", "valid", "test"} and the label table of --data-dir."""
    print(f"Keras on {keras.backend.backend()}: {', '.join(devices())}\ndata: {args.data_dir}")
    splits = {name: load_split(args.data_dir, name, packed_dir(args.out_dir), args.limit) for name in SPLITS}
    counts = {name: split.n_labels for name, split in splits.items()}
    if len(set(counts.values())) > 1:
        raise BadInput(f"{args.data_dir}: the splits differ in their number of labels: {counts}")
    simulated = any(split.simulated for split in splits.values())
    if simulated:
        print("SIMULATED data: numbers from it say nothing about real DNA")
    for name, split in splits.items():
        split.simulated = simulated
        print(f"  {name}: {len(split):,} sequences x {split.n_labels} labels, "
              + (f"{split.windows:,} windows, both strands" if split.strands else
                 "strands not averaged: its halves are NOT reverse complements"))
    return splits, load_labels(args.data_dir, counts["train"])


def load_labels(data_dir, n_labels):
    """Label table [(column, assay, name)] from labels.tsv; else DeepSEA's assays at K = 919; else one."""
    path = Path(data_dir) / "labels.tsv"
    if not path.is_file():
        assays = DEEPSEA_ASSAYS if n_labels == 919 else ["labels"] * n_labels
        return [(i, assay, f"label_{i}") for i, assay in enumerate(assays)]
    rows = [line.split("\t") for line in path.read_text("utf-8", "replace").splitlines()]
    if [row[0] for row in rows] != ["column", *map(str, range(n_labels))] or any(len(row) != 3 for row in rows):
        raise BadInput(f"{path} must have the columns column, assay, name (tabs between) and {n_labels} rows in order")
    names = [row[2] for row in rows[1:]]
    return [(int(column), assay, f"{name}|{column}" if names.count(name) > 1 else name)
            for column, assay, name in rows[1:]]


def load_split(data_dir, name, folder, limit=None):
    """The Split `name` of data_dir, its first `limit` windows, from a packed copy below `folder`.

    The copy is made where the source is new; BadInput where that is missing, broken, misshapen or not 0/1.
    """
    path, home = Path(data_dir) / f"{name}.mat", os.path.realpath(data_dir)
    copy = f"{Path(home).name}-{hashlib.sha256(home.encode()).hexdigest()[:8]}" + (f"-first{limit}" if limit else "")
    files = [Path(folder) / copy / f"{name}{end}" for end in (".json", "_X.npy", "_Y.npy")]
    if not path.is_file():
        raise BadInput(f"{path} is missing, one of train.mat, valid.mat, test.mat: --make-demo-data DIR makes some")
    source = f"{os.path.realpath(path)}, {file_state(path)}"
    if split := open_packed(files, source):
        return split
    with locked(files[0].parent, wait=True):
        return open_packed(files, source) or pack_split(path, name, files, source, limit)


def file_state(path):
    stat = os.stat(path)
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


def open_packed(files, source):
    with contextlib.suppress(Exception):
        facts, X, Y = json.loads(files[0].read_text()), *(np.load(file, mmap_mode="r") for file in files[1:])
        if facts["source"] == source and len(X) == len(Y):
            rows = facts["windows"] * (1 + facts["strands"])
            return Split(X[:rows], Y[:rows], **facts)


def pack_split(path, name, files, source, limit):
    """Pack one .mat into two .npy files, and a note that is written last."""
    keys = f"{name}xdata", f"{name}data"
    files[0].unlink(missing_ok=True)
    with open_mat(path, keys) as (X, Y, simulated), new_file(files[1]) as bases, new_file(files[2]) as labels:
        check_layout(path, keys, X, Y)
        K, n = Y.shape
        ranges = [(0, limit), (n // 2, n // 2 + limit)] if limit and limit < n // 2 else [(0, n)]
        pack_array(X, ranges, bases, f"{path}: {keys[0]}")
        pack_array(Y, ranges, labels, f"{path}: {keys[1]}")
    X, Y = (np.load(file, mmap_mode="r") for file in files[1:])
    strands = have_strands(X, Y)
    write_json(files[0], {"source": source, "n_labels": K, "windows": len(X) // 2 if strands else min(n, limit or n),
                          "strands": strands, "simulated": simulated})
    print(f"packed {path}: {len(X):,} of {n:,} sequences -> {files[0].parent}")
    return open_packed(files, source)


@contextlib.contextmanager
def open_mat(path, keys):
    """Yield the array of each key, or None, and whether they are simulated.

    MATLAB v7.3 is HDF5, with axes reversed; v5, at most 2 GB, is read at once and reversed here.
    """
    with readable(path, "it must be a complete MATLAB v5 or v7.3 file: copy it again"):
        if h5py.is_hdf5(path):
            with h5py.File(path) as mat:
                yield *map(mat.get, keys), "simulated" in mat
        else:
            mat = scipy.io.loadmat(path, variable_names=[*keys, "simulated"])
            yield *(mat[key].T if key in mat else None for key in keys), "simulated" in mat


def check_layout(path, keys, X, *Y):
    for key, array in zip(keys, (X, *Y)):
        if not hasattr(array, "shape"):
            raise BadInput(f"{path} has no variable {key}: it must hold {' and '.join(keys)}")
        N = X.shape[-1]
        if 0 in array.shape or array.shape != ((LENGTH, 4, N) if array is X else (*array.shape[:1], N)):
            raise BadInput(f"{path}: {key} has shape {array.shape} in HDF5 order, with {N} sequences; bases must be "
                           f"({LENGTH}, 4, N), labels (K, N)")
        if math.prod(getattr(array, "chunks", None) or [0]) * array.dtype.itemsize > TILE:
            raise BadInput(f"{path}: {key} has too large HDF5 chunks: "
                           f"h5repack -l CHUNK={'x'.join(map(str, array.shape[:-1]))}x256 IN OUT makes small ones")


def pack_array(source, ranges, path, where):
    """Stream ranges of sequences of source, (1000, 4, N) or (K, N), to a packed .npy (n, bytes).

    A tile holds entire HDF5 chunks, as many as fit in TILE bytes, so that each is read once.
    """
    height, bits = source.shape[0], math.prod(source.shape[1:-1])  # of a sequence in a row: 4 or 1
    chunks, cell = getattr(source, "chunks", None) or (height, 1), bits * source.dtype.itemsize
    rows = min(height, max(1, TILE // (chunks[0] * chunks[-1] * cell)) * chunks[0])
    columns = max(1, TILE // (rows * chunks[-1] * cell)) * chunks[-1]
    n = sum(last - first for first, last in ranges)
    np.lib.format.open_memmap(path, "w+", np.uint8, (n, -(-height * bits // 8)))
    claim(path, os.path.getsize(path))
    done, bar = 0, progress(n)
    for first, last in ranges:
        for column in range(first, last, columns):
            stop = min(column + columns, last)
            for row in range(0, height, rows):
                tile = source[row:row + rows, ..., column:stop]
                add_bits(path, done, row * bits, as_bits(tile, where, row, column).reshape(-1, stop - column))
            done += stop - column
            bar.update(done)


def as_bits(tile, where, row, column):
    """A tile, from (row, column) of an array on, as uint8."""
    if tile.dtype.kind not in "bu" or tile.max() > 1:
        for at in np.argwhere((tile != 0) & (tile != 1))[:1]:
            raise BadInput(f"{where} must hold 0 and 1 only, not {tile[tuple(at)]} (row {row + at[0]}, sequence "
                           f"{column + at[-1]})")
    return tile.astype(np.uint8, copy=False)


def add_bits(path, row, bit, tile, block=50_000):
    """Set a 0/1 tile (bits, n) in a packed .npy of zeros: its columns are rows, from `row` and `bit` on."""
    first = bit // 8
    packed = np.zeros((-(-(bit % 8 + len(tile)) // 8), tile.shape[1]), np.uint8)
    for i, bits in enumerate(tile, bit % 8):  # np.packbits takes four times as long
        packed[i // 8] |= bits << (7 - i % 8)
    for i in range(0, tile.shape[1], block):
        out, part = np.load(path, mmap_mode="r+"), packed[:, i:i + block].T  # mapped anew: old pages are let go
        out[row + i:row + i + len(part), first:first + len(packed)] |= part  # or: a byte may belong to two tiles


def have_strands(X, Y):
    half = len(X) // 2
    rows = even_sample(half, 1000)
    mates = rows + half
    return bool(half and len(X) % 2 == 0 and (reverse_complement(onehot(X[rows])) == onehot(X[mates])).all()
                and (Y[rows] == Y[mates]).all())


def even_sample(n, sample):
    return np.unique(np.linspace(0, n - 1, min(sample, n)).astype(int))


# ---- annotating new sequences

IUPAC = "A:A C:C G:G T:T U:T R:AG Y:CT S:CG W:AT K:GT M:AC B:CGT D:AGT H:ACT V:ACG N: -: .:"
STEP = 200  # bases between windows of a long record: DeepSEA's bin


def annotate(args, score):
    """Write score(packed (n, 500)) -> (n, K) of --predict's windows, over both strands, to --output, a TSV."""
    names = trained_thresholds(Path(args.out_dir))
    fasta, output, done, bar = args.predict, args.output or "predictions.tsv", 0, progress(None, "window")
    windows = fasta_windows(fasta)
    with new_file(output) as temporary, open(temporary, "w", encoding="utf-8") as file:
        print("record", "start", "end", "padded", *names, sep="\t", file=file)
        while batch := list(itertools.islice(windows, args.batch_size)):
            X = letters_to_onehot(batch, fasta)
            for window, P in zip(batch, (score(packed(X)) + score(packed(reverse_complement(X)))) / 2):
                print(*window[:3], int(window[3]), *(f"{p:.6g}" for p in P), sep="\t", file=file)
            done += len(batch)
            bar.update(done)
        if not done:
            raise BadInput(f"{fasta} holds no sequence")
        bar.update(done, finalize=True)
    print(f"{done:,} windows -> {output}")
    if args.plot:
        draw_tracks(output, read_json(Path(args.out_dir) / "summary.json", "simulated")["simulated"], args.plot)


def draw_tracks(predictions, simulated, path):
    """The ten highest labels along the first record of annotate's file, its first 5,000 windows."""
    with open(predictions, encoding="utf-8") as file:
        names = next(file).rstrip("\n").split("\t")[4:]
        rows = [line.split("\t", 4) for line in itertools.islice(file, 5000)]
    n = [*(row[1] for row in rows[1:]), "0"].index("0") + 1  # where the next record starts
    middle = [(int(start) + int(end)) / 2 for _, start, end, *_ in rows[:n]]
    P = np.loadtxt([row[4] for row in rows[:n]], ndmin=2)
    highest = np.argsort(-P.max(0))[:10]
    figure, axes = subplots(len(highest), figsize=(12, 1 + .6 * len(highest)), sharex=True, squeeze=False)
    for axis, label in zip(axes[:, 0], highest):
        axis.fill_between(middle, P[:, label], step="mid", alpha=.5)
        axis.plot(middle, P[:, label], ".k")
        axis.set(ylim=(0, 1))
        axis.set_ylabel(names[label], rotation=0, ha="right", va="center")
    axis.set_xlabel(f"base of {rows[0][0]}; probability of each label at the middle of each window")
    save_figure(figure, path, simulated)


def fasta_windows(path, step=STEP):
    """Yield (record, start, end, padded, 1,000 letters) over a FASTA file, plain or gzip, a record in memory.

    Long records are tiled, a last window flush with the end; short ones are centred in N and flagged as padded. start
    and end are 0-based, half-open.
    """
    name, letters = None, bytearray()
    for line in itertools.chain(fasta_lines(path), [b">"]):  # ends the last record
        if line.startswith(b">"):
            n = len(letters)
            for start in [*range(0, n - LENGTH, step), max(0, n - LENGTH)] if n else ():
                window = bytes(letters[start:start + LENGTH].center(LENGTH, b"N"))
                yield name, start, min(start + LENGTH, n), n < LENGTH, window
            name = (line[1:].split() or [b"unnamed"])[0].decode(errors="replace").replace("\0", "?")
            letters = bytearray()
        elif name is None and line.strip():
            raise BadInput(f"{path} is not FASTA: a record starts with a line that begins with >")
        else:
            letters += line.translate(None, b" \t\r\n").upper()


def fasta_lines(path):
    with readable(path, "copy it again"), open(path, "rb") as file:
        unzipped = gzip.open(file) if file.peek(2).startswith(b"\x1f\x8b") else file
        yield from iter(lambda: unzipped.readline(1 << 20), b"")


def letters_to_onehot(windows, path):
    """One-hot (n, 1000, 4) uint8 of fasta_windows: IUPAC codes set several bases, N none."""
    table = np.full((256, 4), 2, np.uint8)
    for letter, _, *bases in IUPAC.split():
        table[ord(letter)] = [base in bases for base in BASES]
    X = table[np.frombuffer(b"".join(window[-1] for window in windows), np.uint8)].reshape(-1, LENGTH, 4)
    for row, column in np.argwhere(X[..., 0] > 1)[:1]:
        name, start, end, _, letters = windows[row]
        base = start + column - (LENGTH - (end - start)) // 2 + 1
        raise BadInput(f"{path}: record {name} holds {chr(letters[column])!r} at base {base}: not DNA")
    return X


# ---- motifs and figures

LETTERS, COLOURS = "ACGT", ("#009e73", "#0072b2", "#e69f00", "#d55e00")  # told apart by the colour-blind, too


def write_motifs(folder, script, path):
    """Write a run's filters as position weight matrices, in MEME's format; draw the most informative.

    A filter's sites: its best matches in test windows where it answers more than half its highest (Quang & Xie 2016).
    """
    settings, model = finished_settings(folder, script), load_model(folder)
    if "motif_scan" not in [layer.name for layer in model.layers]:
        raise BadInput(f"{folder} has no convolution that scans for motifs: give a run that has one")
    test = load_split(settings["data_dir"], "test", packed_dir(folder), settings["limit"])
    counts, sites, background = count_sites(model.get_layer("motif_scan"), model, test, settings["batch_size"])
    P = (counts + background) / (counts.sum(-1, keepdims=True) + 1)
    bits = (P * np.log2(P / background)).sum(-1)  # (filters, width)
    order = [i for i in np.argsort(-bits.sum(1)) if sites[i]]
    with new_file(path) as temporary, open(temporary, "w") as file:
        file.write(f"MEME version 4\n\nALPHABET= {LETTERS}\n\nstrands: + -\n\nBackground letter frequencies\n")
        print(*(f"{letter} {share:.4f}" for letter, share in zip(LETTERS, background)), file=file)
        for i in order:
            print(f"\nMOTIF {'SIMULATED_' * test.simulated}filter_{i} {bits[i].sum():.1f}_bits\n"
                  f"letter-probability matrix: alength= 4 w= {len(P[i])} nsites= {sites[i]} E= 0", file=file)
            np.savetxt(file, P[i], "%.6f")
    print(f"{len(order)} motifs of {len(P)} filters -> {path}")
    best = [i for i in order if sites[i] >= 20][:20] or order[:20]
    draw_logos({f"filter {i}, {sites[i]:,} sites": P[i] * bits[i][:, None] for i in best}, test.simulated,
               Path(path).with_suffix(".png"))


def count_sites(scan, model, test, batch_size):
    """A, C, G, T at each filter's sites (filters, width, 4), numbers of sites, base shares of the windows."""
    look = keras.Model(model.inputs, [scan.input, scan.output]).predict_on_batch  # SuperQ scans both strands, as rows
    batches = [*gen_batches(test.windows, batch_size)]
    highest = np.max([look(onehot(test.X[rows]))[1].max((0, 1)) for rows in batches], 0)
    width, sites, bases = np.arange(scan.kernel_size[0]), np.zeros(len(highest), int), np.full(4, 1e-9)
    counts = np.zeros((len(highest), len(width), 4))
    for rows in batches:
        X, answers = look(onehot(test.X[rows]))
        window, which = np.nonzero(answers.max(1) > np.maximum(highest, 0) / 2)
        at = answers.argmax(1)[window, which, None] + width
        np.add.at(counts, which, X[window[:, None], at])
        sites += np.bincount(which, minlength=len(sites))
        bases += X.sum((0, 1))
    order = [BASES.index(letter) for letter in LETTERS]
    return counts[..., order], sites, bases[order] / bases.sum()


def draw_logos(logos, simulated, path):
    """Draw sequence logos {name: heights (width, 4) in bits}, the highest letter on top."""
    from matplotlib import patches, textpath, transforms
    figure, axes = subplots(max(1, -(-len(logos) // 4)), 4, figsize=(12, 8), sharey=True, squeeze=False)
    for axis, (name, heights) in zip(axes.flat, logos.items()):
        for i, column in enumerate(heights, 1):
            for base, top in zip(column.argsort(), np.sort(column).cumsum()):
                if column[base] < .15:
                    continue  # unreadable
                letter = textpath.TextPath((0, 0), LETTERS[base])
                box = letter.get_extents()
                place = transforms.Affine2D().translate(-box.x0, -box.y1)
                place.scale(.9 / box.width, column[base] / box.height).translate(i - .45, top)
                axis.add_patch(patches.PathPatch(place.transform_path(letter), color=COLOURS[base], linewidth=0))
        axis.set(xlim=(.5, len(heights) + .5), ylim=(0, 2.5), title=name)  # rare bases have over two bits
    axes[0, 0].set_ylabel("bits")
    save_figure(figure, path, simulated)


def subplots(*shape, figsize, **options):
    from matplotlib.figure import Figure
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(*shape, **options)


def save_figure(figure, path, simulated):
    """Write a figure to `path`, a .png, and to an .svg beside it."""
    import matplotlib
    figure.suptitle("SIMULATED data" * simulated)
    settings = {"svg.hashsalt": "superq", "svg.fonttype": "none"}
    for suffix in (".png", ".svg"):
        with new_file(Path(path).with_suffix(suffix)) as temporary, matplotlib.rc_context(settings):
            figure.savefig(temporary, dpi=100, metadata={"Date": None})  # reproducible
    print(f"-> {path} and .svg")


# ---- simulated data

def make_demo_data(folder, windows=4000, seed=1337):
    """Write a SIMULATED data set in DeepSEA's layouts: `windows` for training, an eighth for valid, a quarter for test.

    GC content says how open a window's chromatin is. Four factors bind a motif of their own in the middle 200 bases, on
    either strand; two bind a pair of motifs there, in their order, six bases apart. Decoys are all motifs further out,
    and halves and wrong orders of pairs. A label asks for openness and a factor, histone marks less for the factor.
    Knowing the rules scores AUROC .87, AUPRC .40.
    """
    folder = Path(folder)
    if folder.exists():
        raise BadInput(f"{folder} exists already: name a new folder for --make-demo-data")
    temporary, motifs = folder.with_name(f".{folder.name}.tmp"), random_motifs(np.random.default_rng(seed))
    temporary.mkdir(parents=True, exist_ok=True)
    sizes = windows, min(max(windows // 8, 8), 4_000), min(max(windows // 4, 8), 227_512)  # at most DeepSEA's
    for number, (split, n) in enumerate(zip(SPLITS, sizes)):
        path = temporary / f"{split}.mat"
        with h5py.File(path, "w") as file:  # MATLAB v7.3
            file["simulated"] = np.ones((1, 1), np.uint8)
            X, Y = (file.create_dataset(key, shape, "u1", chunks=(*shape[:-1], min(n, 64)), compression="gzip")
                    for key, shape in ((f"{split}xdata", (LENGTH, 4, 2 * n)), (f"{split}data", (919, 2 * n))))
            for first in range(0, n, 4096):
                last = min(first + 4096, n)
                x, y, _ = simulate(np.random.default_rng([seed, number, first]), last - first, motifs)
                X[..., first:last] = x.transpose(1, 2, 0)
                X[..., n + first:n + last] = reverse_complement(x).transpose(1, 2, 0)
                Y[:, first:last] = Y[:, n + first:n + last] = y.T
        if split != "train":  # as DeepSEA ships them: v5
            with h5py.File(path) as file:
                arrays = {key: array[()].T for key, array in file.items()}
            scipy.io.savemat(path, arrays, do_compression=True)
    names = [f"{i}\t{assay}\tSIMULATED|{assay}|cell{i // 6 % 6}|factor{i % 6}|{i}\n"
             for i, assay, _ in load_labels(folder, 919)]
    (temporary / "labels.tsv").write_text("column\tassay\tname\n" + "".join(names))
    os.replace(temporary, folder)
    print(f"SIMULATED data: {windows:,} training windows, both strands, 919 labels -> {folder}")


def random_motifs(rng, n=12, width=12):
    """Position weight matrices (n, width, 4): a fifth of the positions take one of two bases, the others mostly one."""
    best = rng.random((n, width, 4)).argsort(-1)
    either = (rng.random((n, width, 1)) < .2) & (best < 2)
    return np.where(either, .48, np.where(best, .02, .94))


def simulate(rng, n, motifs):
    """One-hot (n, 1000, 4), one in 100 with N; labels (n, 919) of make_demo_data's rules; their probabilities."""
    openness, u = rng.standard_normal((n, 1)), rng.random((n, LENGTH))
    gc = np.clip(.44 + .05 * openness, .25, .65)
    codes = (u > (1 - gc) / 2).astype(np.int8) + (u > .5) + (u > .5 + gc / 2)  # A, G, C, T
    CpG = (codes[:, :-1] == 2) & (codes[:, 1:] == 1) & (rng.random((n, LENGTH - 1)) < .8 - .15 * openness)
    codes[:, :-1][CpG] = 3  # C mutates to T
    bound = np.zeros((n, 6), bool)

    def plant(rows, first, last, motif):
        """One sequence of a motif, on either strand, somewhere in each row's bases first..last."""
        sites = (rng.random((len(rows), len(motif), 1)) > motif.cumsum(-1)[..., :-1]).sum(-1)
        minus = rng.random(len(rows)) < .5
        sites[minus] = 3 - sites[minus, ::-1]
        start = rng.integers(first, last - len(motif), len(rows))
        codes[rows[:, None], start[:, None] + np.arange(len(motif))] = sites

    for factor in range(6):
        a, b = motifs[2 * factor:2 * factor + 2]
        for decoy in (a, b)[:1 + (factor > 3)]:
            far = rng.choice(3, n, p=(.25, .25, .5))  # left, right or not at all
            plant(np.flatnonzero(far == 0), 0, 400, decoy)
            plant(np.flatnonzero(far == 1), 600, LENGTH, decoy)
        middle, gap = rng.choice(4, n, p=(.12, .05, .05, .78)), np.full((6, 4), .25)
        words = [np.r_[a, gap, b], np.r_[b, gap, a], a] if factor > 3 else [a]  # the first one binds
        for i, word in enumerate(words):
            plant(np.flatnonzero(middle == i), 400, 600, word)
        bound[:, factor] = middle == 0
    codes[rng.random(n) < .01, :200] = -1
    label = np.arange(919)
    slope, gain = np.where(label < 815, [[.7], [3.5]], 1.)  # of histone marks 1
    slope *= .7 + .12 * (label // 6 % 6)
    P = 1 / (1 + np.exp(4.2 - slope * openness - gain * bound[:, label % 6]))
    return (codes[..., None] == np.arange(4)).astype(np.uint8), (rng.random(P.shape) < P).astype(np.uint8), P


if __name__ == "__main__":
    command_line(main)
