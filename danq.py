"""DanQ: annotate the function of DNA from its sequence alone (Quang & Xie 2016).

    one-hot (1000, 4) -> conv motif scan -> max-pool -> BLSTM -> dense
                      -> 919 probabilities

    python danq.py                       train and test: data/{train,valid,test}.mat
                                         -> runs/danq/
    python danq.py --test-data mouse     score runs/danq on another test.mat
                                         -> runs/danq/test-mouse/
    python danq.py --predict seqs.fa     annotate your own sequences with runs/danq
                                         -> predictions.tsv
    python danq.py --variants in.vcf --genome genome.fa
                                         what mutations do, by runs/danq
                                         -> effects.tsv
    python danq.py --mutate seqs.fa --plot map.png
                                         every change of a sequence's middle
                                         -> mutations.tsv
    python danq.py --make-data mine --genome genome.fa --tracks tracks.tsv
                                         DeepSEA's files from your own peaks
    python danq.py --make-demo-data demo     a small SIMULATED data set, in
                                             DeepSEA's layouts

Mean test scores: the paper, DeepSEA's 919 labels: AUROC .938, AUPRC .371; 6 hours an
epoch on a GPU of 2015. 32,247 windows of real DNA at random, 177 labels, --recipe ours
--motif-start: .838, .250; under two hours on one core.

--out-dir gets history.csv (a row an epoch), model.keras, metrics.csv (a row a label),
summary.json; packed/ beside it the data as bits. After a kill the same command goes on
from checkpoint.npz, written after each epoch and every ten minutes within one, on a CPU
to the same end to the bit.
"""

import argparse
import collections
import contextlib
import csv
import dataclasses
import errno
import glob
import gzip
import hashlib
import io
import itertools
import json
import logging
import math
import os
import platform
import re
import shlex
import shutil
import signal
import struct
import sys
import time
import typing
import zlib
from pathlib import Path

try:
    # Locks, and the peak of memory: Windows has neither.
    import fcntl
    import resource
except ImportError:
    print("error: Windows: run this in WSL2 (wsl --install), as Linux", file=sys.stderr)
    sys.exit(2)

import h5py
import numpy as np
import pyfaidx
import scipy.io
import scipy.sparse
import scipy.special
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)
from sklearn.utils import gen_batches

# Keras would take settings from ~/.keras/keras.json, which another project may have
# left. /dev/null is no folder: there it finds none.
os.environ["KERAS_HOME"] = os.devnull
# TensorFlow's start-up messages would bury an error: they go nowhere.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
try:
    import keras
    from keras import layers, ops
except (ImportError, ValueError) as error:
    os.dup2(stderr, 2)
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    reason = " ".join(str(error).split())  # in one line
    print(
        f"KERAS_BACKEND {backend} cannot be used here ({reason}): "
        "install it, or choose tensorflow or jax",
        file=sys.stderr,
    )
    # There is no main() yet that could say it.
    sys.exit(2)
finally:
    os.dup2(stderr, 2)
# TensorFlow warns where it compiles a network anew for a batch of another size.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

# ---- settings

LENGTH = 1000  # bases in a sequence
BASES = "AGCT"  # DeepSEA's order: read backwards, it is the complements
SPLITS = ("train", "valid", "test")
DEEPSEA_ASSAYS = ["DNase"] * 125 + ["TF"] * 690 + ["histone"] * 104

# The paper's network.
FILTERS = 320
WIDTH = 26  # bases of a filter
POOL = 13
LSTM_UNITS = 320  # each way
DENSE = 925
BATCH = 100

# --recipe: how DanQ is trained. patience: epochs without a better validation loss;
# move: by up to so many bases training windows are moved, at random.
RECIPES = {
    # The paper's: RMSprop at a constant rate.
    "2016": {
        "optimizer": "rmsprop",
        "rate": 1e-3,
        "epochs": 60,
        "patience": 5,
        "move": 0,
    },
    # SuperQ's optimizer, at a lower rate, and its moved windows: Adam, its rate up and
    # down again. All five epochs run, as its patience is as long; the best one is kept.
    "ours": {"optimizer": "adam", "rate": 1e-3, "epochs": 5, "patience": 5, "move": 8},
}
FIRST_RATE = 2.5e-5  # of ours, at the first step
LAST_RATE = 2e-5

# With --motif-start: filters that start as known motifs, and answer in 1 place of 100.
KNOWN_FILTERS = 256
KNOWN_SCALE = 0.25  # of log-odds, as nothing behind these filters scales their answers
KNOWN_SHARE = 0.01
MOTIF_SPAN = 300  # central bases that known motifs are looked for in

# --jaspar: the paper's second network, DanQ-JASPAR.
JASPAR_FILTERS = 1024
JASPAR_WIDTH = 30
JASPAR_POOL = 15
JASPAR_UNITS = 512

STRETCHES = 50  # of the test windows; each is left out once
MEASURES = ("auroc", "auprc", "f1", "recall_at_10fdr")
# Test means over the DeepSEA bundle's labels: all, DNase, TF, histone. Of its 919 one
# (BRF1 in K562) has no positive test window. From Quang & Xie 2016.
PUBLISHED = {
    "DeepSEA (2015)": {
        "auroc": (0.9326, 0.9155, 0.9478, 0.8522),
        "auprc": (0.3425, 0.4443, 0.3203, 0.3676),
    },
    "DanQ (2016)": {
        "auroc": (0.9384, 0.9208, 0.9535, 0.8596),
        "auprc": (0.3709, 0.4636, 0.3520, 0.3850),
    },
}


# ---- the network


def trunk(x, filters, lstm_units, conv_activation, dtype=None, width=WIDTH, pool=POOL):
    """DanQ's trunk, also that of the 2018 SuperQ: (B, 1000, 4) -> (B, features).

    B is the number of sequences in a batch. With lstm_units 0 there is no BLSTM.
    """
    # Each filter is a motif of 26 bases; it answers at 1000 - 26 + 1 places.
    scan = layers.Conv1D(
        filters, width, activation=conv_activation, dtype=dtype, name="motif_scan"
    )
    x = scan(x)  # (B, 975, 320)
    # The best of 13 neighbouring places stands for them: a thirteenth of the steps
    # for the BLSTM, and a motif may move a little.
    x = layers.MaxPooling1D(pool, name="motif_pool")(x)  # (B, 75, 320)
    # Hide a fifth of the answers, so that no filter relies on another.
    x = layers.Dropout(0.2)(x)
    if lstm_units:
        x = blstm(lstm_units)(x)  # (B, 75, 640)
        x = layers.Dropout(0.5)(x)
    # 75 * 640: from here on each place has weights of its own.
    return layers.Flatten()(x)  # (B, 48000)


def blstm(units):
    """Bidirectional LSTM: (B, steps, features) -> (B, steps, 2 units)."""
    # Always in float32: cuDNN's fast kernel takes no other type under JAX.
    lstm = layers.LSTM(units, return_sequences=True, dtype="float32")
    return layers.Bidirectional(lstm, dtype="float32", name="motif_grammar")


def build_danq(
    n_labels=919,
    filters=FILTERS,
    lstm_units=LSTM_UNITS,
    conv_activation="relu",
    dtype=None,
    width=WIDTH,
    pool=POOL,
):
    """DanQ: one-hot (B, 1000, 4) -> probabilities (B, n_labels).

    46,926,479 parameters at 919 labels.
    """
    inputs = keras.Input((LENGTH, 4))
    x = trunk(inputs, filters, lstm_units, conv_activation, dtype, width, pool)
    # 44 of the 47 million parameters are here.
    x = layers.Dense(DENSE, activation="relu", dtype=dtype, name="dense")(x)
    # A window may have many labels: a sigmoid each, no softmax over all.
    labels = layers.Dense(n_labels, activation="sigmoid", name="labels")(x)
    return keras.Model(inputs, labels, name="danq")


# ---- its training


def compile_danq(args, n_labels, n_sequences):
    """The network of the arguments, fed with bits, ready for fit()."""
    # All initial weights and dropout follow from this seed.
    keras.utils.set_random_seed(args.seed)
    sizes = {"width": WIDTH, "pool": POOL}
    if args.jaspar:
        sizes = {"width": JASPAR_WIDTH, "pool": JASPAR_POOL}
    network = build_danq(
        n_labels,
        args.filters,
        args.lstm_units,
        args.conv_activation,
        args.dtype,
        **sizes,
    )
    recipe = RECIPES[args.recipe]
    optimizer = keras.optimizers.RMSprop(recipe["rate"])
    if recipe["optimizer"] == "adam":
        # The whole schedule depends on how many steps there will be.
        steps = steps_of(args.epochs, n_sequences, args.batch_size)
        optimizer = adam(steps, FIRST_RATE, recipe["rate"], LAST_RATE)
    return compile_model(
        FromBits(network, n_labels),
        optimizer,
        loss="binary_crossentropy",
        metrics=[keras.metrics.BinaryAccuracy(name="acc")],
    )


def steps_of(epochs, n_sequences, batch_size):
    """All steps of a training; the last batch of an epoch may be smaller."""
    return epochs * math.ceil(n_sequences / batch_size)


def adam(steps, first, top, last):
    """Adam, and a rate that goes up and down; gradients longer than 1 are cut to 1.

    From `first` straight up to `top` in a twentieth of all steps, then down a cosine to
    `last`.
    """
    warm_up = max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(
        first,
        decay_steps=max(1, steps - warm_up),
        alpha=last / top,
        warmup_target=top,
        warmup_steps=warm_up,
    )
    return keras.optimizers.Adam(schedule, clipnorm=1.0)


def train_danq(args, train, valid):
    model = compile_danq(args, train.n_labels, len(train))
    print(f"[2/3] DanQ: {model.count_params():,} parameters, {len(train):,} sequences")

    def prepare():
        scan = model.layers[-1].get_layer("motif_scan")
        if args.motif_start:
            motifs = read_motifs(args.motif_start)
            start_from_motifs(
                scan, motifs, train, KNOWN_FILTERS, KNOWN_SCALE, KNOWN_SHARE
            )
        if args.jaspar:
            start_as_jaspar(scan, read_motifs(args.jaspar), args.seed)

    # Few labels are 1: answering 0 to everything has a high accuracy already.
    zeros = 1 - train.labels(slice(100_000)).mean()
    chance = f" (always answering 0: acc {zeros:.4f})"
    return fit(model, train, valid, args, args.patience, chance, prepare)


def fit(model, train, valid, args, patience, chance="", prepare=None):
    """Train, print a line an epoch, keep the best model in model.keras.

    train, valid : Split; without valid, training goes to the end and keeps the last
    chance : what each epoch's line says of an answer without learning
    prepare : sets the first weights, at a start; a checkpoint brings its own
    Returns {epochs, best_epoch, seconds, seconds_to_best}. BadInput where the first
    epoch diverges.
    """
    out_dir = Path(args.out_dir)
    checkpoint = Checkpoint(out_dir / "checkpoint.npz")
    # The same list: a row appended here is in the next checkpoint, too.
    history = checkpoint.history
    network = model.layers[-1]
    if train.simulated:
        # The file itself says what it was trained on.
        network.name += "_SIMULATED"
    callbacks = [
        EachStep(args, checkpoint),
        TimeAhead(args.epochs, checkpoint),
    ]

    with checkpoint.named_when_stopped():
        # The time of prepare() counts as the first epoch's.
        if prepare and not checkpoint.values:
            with one_device():
                prepare()
        while len(history) < args.epochs:
            if reason_to_stop(history, patience, checkpoint, args.max_seconds):
                break
            logs = train_epoch(model, train, valid, args, checkpoint, callbacks)
            row = history_row(history, checkpoint, logs, model)
            history.append(row)
            keep_epoch(network, history, out_dir)
            # A step counts when the next one begins: the last one is missing.
            sequences = args.batch_size * (checkpoint.step + 1)
            print_epoch(row, args.epochs, sequences / row["seconds"], chance)
            refuse_divergence(history)
            # The next epoch begins with its first batch.
            checkpoint.step = 0
            checkpoint.save(model)

    reason = reason_to_stop(history, patience, checkpoint, args.max_seconds)
    if reason:
        print(f"stopped: {reason}; the model of epoch {best_epoch(history)} is kept")
    return training_summary(history)


def train_epoch(model, train, valid, args, checkpoint, callbacks):
    """One epoch, or what a kill left of it; its losses and accuracies.

    fit() gets one epoch at a time: the order of its batches depends on its number
    alone, and is the same where a run goes on.
    """
    epoch = len(checkpoint.history)
    batches = Batches(
        train, args.batch_size, args.seed, epoch, checkpoint.step, args.move
    )
    # Building makes the optimizer's variables, which a checkpoint fills.
    if not model.optimizer.built:
        # Under JAX, a fit() that has to build first would lose the first batch.
        x, y, *weight = batches[0]
        answers = model(x)
        model.compute_loss(x, y, answers, *weight)
        model.compute_metrics(x, y, answers, *weight)
        model.optimizer.build(model.trainable_variables)
    fitted = model.fit(
        batches,
        validation_data=valid and Batches(valid, args.batch_size),
        initial_epoch=epoch,
        epochs=epoch + 1,
        shuffle=False,  # Batches has drawn the order
        verbose=0,
        callbacks=callbacks,
    )
    # A network of several outputs names its accuracy after one of them: bases_acc.
    return {
        key.replace("bases_acc", "acc"): values[0]
        for key, values in fitted.history.items()
    }


def best_epoch(history):
    """That of the lowest validation loss, counted from 1.

    Without validation nothing can be compared: the last one whose loss is finite.
    0 where there is none yet: no epoch, or no finite loss.
    """
    best = 0
    lowest = math.inf
    for row in history:
        loss = row["val_loss"]
        if loss is None and math.isfinite(row["loss"]):
            best = row["epoch"]
        if loss is not None and loss < lowest:  # NaN is below nothing
            best = row["epoch"]
            lowest = loss
    return best


def reason_to_stop(history, patience, checkpoint, max_seconds):
    """Why training ends before --epochs, in words; None to go on."""
    if not history:
        return None
    last = history[-1]
    if not math.isfinite(last["loss"]):  # NaN never comes back
        return f"it diverged, loss {last['loss']}"
    if is_late(checkpoint, max_seconds):
        return f"--max-seconds {max_seconds:g}"
    # Example, patience 5, best epoch 3: it stops after epoch 8.
    if len(history) - best_epoch(history) >= patience:
        return f"no better validation loss in {patience} epochs"
    return None


# ---- scores


def strand_mean(score, X, windows, strands, batch_size):
    """Scores (windows, K) float32, averaged over both strands where data have them.

    score : function of rows of X -> (n, K)
    X : rows; with `strands`, row windows + i is the reverse complement of row i
    """
    scores = []
    bar = progress(windows)
    for rows in gen_batches(windows, batch_size):
        P = score(X[rows])
        # A strand's answer should not depend on which one the data give.
        if strands:
            mates = slice(windows + rows.start, windows + rows.stop)
            P = (P + score(X[mates])) / 2
        scores.append(P.astype(np.float32))
        bar.update(rows.stop)
    return np.concatenate(scores)


def best_thresholds(P, Y):
    """The threshold of the highest F1 for each column of P, Y (windows, K).

    .5 for a label without positives.
    """
    thresholds = [0.5] * Y.shape[1]
    for k in np.flatnonzero(Y.any(0)):
        precision, recall, cuts = precision_recall_curve(Y[:, k], P[:, k])
        # Precision and recall at each threshold that changes an answer.
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        # The last point of the curve, precision 1 and recall 0, has no threshold.
        thresholds[k] = float(cuts[f1[:-1].argmax()])
    return thresholds


def score_label(y, p, threshold):
    """AUROC, AUPRC (average precision), F1 at `threshold`, recall at 10 % FDR."""
    precision, recall, _ = precision_recall_curve(y, p)
    return {
        "auroc": roc_auc_score(y, p),
        "auprc": average_precision_score(y, p),
        "f1": f1_score(y, p >= threshold),
        # False discovery rate = 1 - precision.
        "recall_at_10fdr": float(recall[precision >= 0.9].max()),
    }


def evaluate(P, Y, labels, thresholds):
    """Rows of metrics.csv and their means {"all" or assay: {...}}.

    P, Y : scores and labels (windows, K)
    labels : [Label]
    thresholds : of F1, (K,)
    A label of one class only has the scores None, and counts in no mean.
    """
    rows = []
    for k, label in enumerate(labels):
        y = Y[:, k]
        row = label._asdict() | {
            "positives": int(y.sum()),
            "base_rate": float(y.mean()),
            "auroc": None,
            "auprc": None,
            "f1": None,
            "threshold": thresholds[k],
            "recall_at_10fdr": None,
        }
        # With one class only there is nothing to rank.
        if 0 < row["positives"] < len(y):
            row |= score_label(y, P[:, k], thresholds[k])
        rows.append(row)

    assays = dict.fromkeys(row["assay"] for row in rows)  # in order, each once
    # The mean over all labels, then over each assay's.
    means = {"all": mean_scores(rows)}
    for assay in assays:
        means[assay] = mean_scores([row for row in rows if row["assay"] == assay])
    return rows, means


def mean_scores(rows):
    """Means over the labels that have scores: {labels, base_rate, MEASURES}."""
    scored = [row for row in rows if row["auroc"] is not None]
    means = {"labels": len(scored)}
    for key in ("base_rate", *MEASURES):
        means[key] = None
        # Of no label there is no mean: None.
        if scored:
            means[key] = float(np.mean([row[key] for row in scored]))
    return means


# ---- all stages


def main(argv=None):
    args = parse_args(argv)
    out_dir = Path(args.out_dir)
    if args.make_demo_data:
        make_demo_data(args.make_demo_data, args.limit or 4000, args.seed)
    elif args.make_data:
        make_data(
            args.make_data,
            args.genome,
            args.tracks,
            args.valid,
            args.test,
            args.bins,
            args.min_signal,
        )
    elif args.motifs:
        # From here on: with a run that is there already.
        write_motifs(args, "danq.py")
    elif args.predict:
        annotate(args, trained_scores(out_dir))
    elif args.variants:
        write_variant_effects(args, trained_scores(out_dir))
    elif args.mutate:
        write_mutation_effects(args, trained_scores(out_dir))
    elif args.test_data:
        score_elsewhere(args, trained_scores(out_dir))
    else:
        train_and_test(args, out_dir)


def train_and_test(args, out_dir):
    # Stage 1: pack the data, or open what was packed before.
    motifs = motif_files(args)
    splits, labels = load_data(args)
    train, valid, test = splits.values()
    sources = data_files(splits, labels) | motifs
    with run_folder(args, "danq.py", train.simulated, sources) as finished:
        if finished:
            return
        # Stage 2: training.
        with all_devices(args.batch_size):
            training = train_danq(args, train, valid)

        # Stage 3: scores of the best epoch's model.
        print(f"[3/3] test: {test.windows:,} windows")
        # The best epoch's weights, which need not be the last.
        started = time.time()
        model = load_model(out_dir)
        score = FromBits(model).predict_on_batch
        P_valid = score_split(score, valid, args.batch_size)
        P_test = score_split(score, test, args.batch_size)
        seconds = {
            "training": training["seconds"],
            "prediction": round(time.time() - started, 2),
        }

        # The thresholds of F1 are chosen on validation, never on test.
        thresholds = best_thresholds(P_valid, valid.window_labels())
        summary = describe(args, train, test) | {
            "model": run_name(args),
            "training": training,
            "seconds": seconds,
            # What DanQ cost: epochs after the best one brought nothing.
            "training_seconds": training["seconds_to_best"],
            "parameters": model.count_params(),
        }
        finish_run(out_dir, P_test, test.window_labels(), labels, thresholds, summary)


def finish_run(out_dir, P, Y, labels, thresholds, summary):
    """Score; write metrics.csv, without.npz (for --compare) and, last, summary.json.

    P, Y : scores and labels of the test windows (windows, K)
    """
    rows, means = evaluate(P, Y, labels, thresholds)
    write_csv(out_dir / "metrics.csv", rows)
    with new_file(out_dir / "without.npz") as temporary:
        np.savez(temporary, scores=scores_without(P, Y))
    summary |= {
        "labels": len(rows),
        "labels_scored": means["all"]["labels"],
        "means": means,
        "peak_memory_gb": peak_memory(),
    }
    # Last, so that a kill before it leaves an unfinished run.
    write_json(out_dir / "summary.json", summary)
    print_scores(summary)


def score_split(score, split, batch_size, strand_blind=False):
    """Scores (windows, K) of a Split; score : packed (n, 500) -> (n, K)."""
    # Where one strand says it all, the other need not be asked.
    strands = split.strands and not strand_blind
    return strand_mean(score, split.X, split.windows, strands, batch_size)


def trained_scores(out_dir):
    """A finished run as a function, packed (n, 500) -> (n, K)."""
    finished_settings(out_dir, "danq.py")
    return FromBits(load_model(out_dir)).predict_on_batch


# ==== The machinery: not needed to understand DanQ.
# ---- flags, and what a run is called


def run_name(args):
    """What tables and figures call a run: "DanQ", and what differs from the paper's."""
    name = "DanQ-JASPAR" if args.jaspar else "DanQ"
    if args.motif_start:
        name += " from known motifs"
    if args.recipe == "ours":
        name += ", our recipe"
    if args.move != RECIPES[args.recipe]["move"]:
        name += f", windows moved by {args.move}"
    return name


def describe(args, train, test):
    """What a summary says of the data."""
    return {
        "data": args.data_dir,
        "simulated": train.simulated,
        "limit": args.limit,
        "train_sequences": len(train),
        "train_windows": train.windows,
        "test_windows": test.windows,
        "strands": test.strands,
    }


def parse_args(argv=None):
    # None stands for: as the recipe, or the network, has it.
    paper = RECIPES["2016"]
    ours = RECIPES["ours"]
    epochs = f"{paper['epochs']}; --recipe ours: {ours['epochs']}"
    moves = f" ({paper['move']}; --recipe ours: {ours['move']})"
    parser, groups = shared_arguments(__doc__, "runs/danq", epochs, BATCH, moves)
    # The network's sizes, by default the paper's.
    network = groups["network"].add_argument
    network(
        "--filters",
        type=positive,
        help=f"motif detectors of the convolution ({FILTERS})",
    )
    network(
        "--lstm-units",
        type=number(int, 0),
        help=f"of the BLSTM, each way; 0: none ({LSTM_UNITS})",
    )
    network(
        "--jaspar",
        metavar="FILE.meme",
        help=f"DanQ-JASPAR, the paper's second network: {JASPAR_FILTERS} filters, each "
        "known motif the start of one",
    )
    network(
        "--conv-activation",
        default="relu",
        choices=("relu", "linear"),
        help="linear is what the 2018 Keras port did",
    )
    training = groups["training"].add_argument
    training(
        "--recipe",
        choices=RECIPES,
        default="2016",
        help="the paper's training, or that of SuperQ for the same network; they set "
        "--epochs, --patience and --move, too (%(default)s)",
    )
    training(
        "--patience",
        type=positive,
        help=f"epochs without a better validation loss ({paper['patience']})",
    )
    data = groups["data"].add_argument
    # Data that are made in place of a training.
    data(
        "--make-demo-data",
        metavar="DIR",
        help="write SIMULATED data, --limit windows (4,000), and exit",
    )
    data(
        "--make-data",
        metavar="DIR",
        help="write DeepSEA's files from --genome and --tracks, and exit",
    )
    # For --make-data alone; it takes --genome, too.
    data(
        "--tracks",
        metavar="TSV",
        help="for --make-data: columns assay, name, file (tabs); a file is a BED, "
        "narrowPeak or broadPeak, plain or gzip, its path relative to the table",
    )
    data(
        "--bins",
        choices=RULES,
        help="keep bins with a TF label (tf, the default where there is one), with any "
        "label (any), or every bin (all)",
    )
    data(
        "--min-signal",
        type=float,
        metavar="S",
        help="leave out peaks with less than S in column 7",
    )
    data(
        "--valid",
        nargs="+",
        metavar="REGION",
        help="for validation (DeepSEA's chr7:30508751-35296850), counted as browsers "
        "do: chr7:1-1000 is the first 1,000 bases, chr7:1001- all after them, chr7 "
        "all; rounded to bins of 200",
    )
    data("--test", nargs="+", metavar="REGION", help="for testing (chr8 chr9)")
    args = parser.parse_args(argv)
    complete(args)
    # Flags that make no sense alone are refused, not ignored.
    if args.make_data and not (args.genome and args.tracks):
        raise BadInput("--make-data needs --genome FASTA and --tracks TSV")
    return args


def complete(args):
    """Defaults that depend on other arguments; BadInput where these contradict."""
    if args.jaspar and args.motif_start:
        raise BadInput("--jaspar has a start of its own: not with --motif-start")
    defaults = RECIPES[args.recipe] | {"filters": FILTERS, "lstm_units": LSTM_UNITS}
    if args.jaspar:
        defaults |= {"filters": JASPAR_FILTERS, "lstm_units": JASPAR_UNITS}
    for name in ("filters", "lstm_units", "epochs", "patience", "move"):
        if getattr(args, name) is None:  # not given on the command line
            setattr(args, name, defaults[name])


def shared_arguments(doc, out_dir, epochs, batch_size, move):
    """A parser of the arguments that both scripts take, and its groups by name.

    epochs : what is usual, as --help says it;  move : what --help adds of --move
    """
    parser = Parser(
        usage="%(prog)s [options]",
        description=doc.splitlines()[0],
        allow_abbrev=False,  # --test is no --test-data
    )
    parser.set_defaults(given=())
    groups = {}
    # The order in which --help shows them.
    for name in ("data", "network", "training", "forest", "after training"):
        groups[name] = parser.add_argument_group(name)

    data = groups["data"].add_argument
    data(
        "--data-dir",
        default="data",
        action=Given,
        help="folder of train.mat, valid.mat, test.mat (%(default)s)",
    )
    data(
        "--out-dir",
        default=out_dir,
        help=f"folder of this run ({out_dir or 'runs/superq; a yardstick: runs/kmer'})",
    )
    data(
        "--limit",
        type=positive,
        metavar="N",
        help="take N windows of each split, at random, always the same",
    )
    # The only flag that removes something.
    data("--restart", action="store_true", help="discard the run in --out-dir")

    # Half the bits for products; weights and answers stay in float32.
    groups["network"].add_argument(
        "--mixed-precision",
        dest="dtype",
        action="store_const",
        const="mixed_bfloat16",
        help="convolution (and DanQ's dense layer) in bfloat16",
    )

    groups["network"].add_argument(
        "--motif-start",
        metavar="FILE.meme",
        help=f"start {KNOWN_FILTERS} filters as known motifs, of MEME's text format or "
        "JASPAR's",
    )

    training = groups["training"].add_argument
    training("--epochs", type=positive, help=f"at most ({epochs})")
    training(
        "--batch-size",
        type=positive,
        default=batch_size,
        help="sequences a training step (%(default)s)",
    )
    training(
        "--move",
        type=number(int, 0, 100),
        metavar="N",
        help="move each training window at random by up to N bases, an even number"
        + move,
    )
    training(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        default=1337,
        help="of all that is drawn at random (%(default)s)",
    )
    # 0: after every step.
    training(
        "--checkpoint-minutes",
        type=number(float, 0),
        default=10.0,
        metavar="M",
        help="between checkpoints (%(default)g)",
    )
    training(
        "--max-seconds",
        type=number(float, 0),
        metavar="S",
        help="stop training then, even mid-epoch",
    )

    after = groups["after training"].add_argument
    after(
        "--predict",
        metavar="FASTA",
        help="annotate its bins of 200 bases with the run in --out-dir, and exit; "
        "padded is 1 where the record ends less than 400 bases beside a bin: N there",
    )
    after(
        "--variants",
        metavar="FILE.vcf",
        help="write what its variants change, by the run in --out-dir, and exit; "
        "plain, gzip or bgzip; needs --genome",
    )
    after(
        "--genome",
        metavar="FASTA",
        help="of --variants: plain or bgzip, its index is made beside it; of danq.py "
        "--make-data: plain or gzip",
    )
    after(
        "--mutate",
        metavar="FASTA",
        help="change every base of each record's middle to each other one, and exit; "
        "around a record of fewer than 1,000 bases stand N",
    )
    after(
        "--span",
        type=number(int, 1, LENGTH),
        metavar="N",
        help=f"of --mutate: bases that are changed ({BIN})",
    )
    after(
        "--effect",
        choices=EFFECTS,
        help="of --variants, --mutate: probability with the other allele minus that "
        "with the reference (diff, the default), difference of log-odds (logit), or "
        "both probabilities (both)",
    )
    after(
        "--output",
        metavar="FILE",
        help="where --predict, --variants, --mutate write (and superq.py's --compare, "
        "--curve); default: predictions.tsv, effects.tsv, mutations.tsv here, "
        "comparison.md and curve.md beside the runs (what is there is replaced); a "
        "table whose name ends in .h5 is HDF5, float16",
    )
    # Figures are vector graphics, too: .svg beside each .png.
    after(
        "--plot",
        metavar="FILE.png",
        help="draw the first record: --predict's highest labels along it, or the "
        "three that --mutate changes most",
    )
    after(
        "--labels",
        metavar="REGEX",
        help="of --predict, --variants, --mutate: only labels whose name (as in "
        "metrics.csv) is this or matches it: . is any character, | means or",
    )
    after(
        "--top",
        type=positive,
        metavar="N",
        help="of --predict, --variants, --mutate: in place of a column a label, a row "
        "for each of the N highest or most changed ones",
    )
    after(
        "--motifs",
        metavar="FILE.meme",
        help="write and draw the filters' motifs, and exit",
    )
    after(
        "--test-data",
        metavar="DIR",
        help="score the run in --out-dir on its test.mat, and exit",
    )
    return parser, groups


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument is a BadInput: one line, as any bad input."""

    def error(self, message):
        raise BadInput(f"{message} (see --help)")

    def parse_args(self, argv=None):
        args = super().parse_args(argv)
        for name, value in vars(args).items():
            # As of "$FILE", where FILE is not set.
            if value == "" or (isinstance(value, list) and "" in value):
                raise BadInput(f"{flag_of(name)}: is empty")
        if args.plot and not args.plot.endswith(".png"):
            raise BadInput(f"--plot: must end in .png, is {args.plot}")
        if args.motifs and not args.motifs.endswith(".meme"):
            raise BadInput(f"--motifs: must end in .meme, is {args.motifs}")
        if args.move and args.move % 2:
            raise BadInput("--move must be an even number: two bases share a byte")
        # What would be ignored is refused.
        refuse_alone(args)
        for name in commands_of(args):
            if args.limit and name not in ("test_data", "make_demo_data"):
                raise BadInput(f"--limit is of data files: not with {flag_of(name)}")
        return args


# What a script does in place of a training.
COMMANDS = (
    "predict",
    "variants",
    "mutate",
    "motifs",
    "test_data",
    "compare",
    "curve",
    "make_data",
    "make_demo_data",
)


def commands_of(args):
    """Those of COMMANDS that the arguments hold; some are of one script alone."""
    return [name for name in COMMANDS if getattr(args, name, None)]


def flag_of(name):
    """make_data -> --make-data"""
    return "--" + name.replace("_", "-")


def refuse_alone(args):
    """BadInput where a flag lacks the one that it belongs to, or of two commands."""
    needs = {
        "plot": ("predict", "mutate"),
        "labels": ("predict", "variants", "mutate"),
        "top": ("predict", "variants", "mutate"),
        "effect": ("variants", "mutate"),
        "span": ("mutate",),
        "genome": ("variants", "make_data"),
        "variants": ("genome",),
        "output": ("predict", "variants", "mutate", "test_data", "compare", "curve"),
    }
    needs |= dict.fromkeys(
        ("tracks", "bins", "min_signal", "valid", "test"), ("make_data",)
    )
    for flag, others in needs.items():
        # Some are one script's alone.
        given = [other for other in others if getattr(args, other, None)]
        if getattr(args, flag, None) is not None and not given:
            names = " or ".join(map(flag_of, others))
            raise BadInput(f"{flag_of(flag)} needs {names}")
    commands = [flag_of(name) for name in commands_of(args)]
    if len(commands) > 1:
        raise BadInput(f"{commands[0]} and {commands[1]}: give one of them")
    if args.top and (args.output or "").endswith(".h5"):
        raise BadInput("--top writes rows of text: not with an --output in .h5")


class Given(argparse.Action):
    """Keep a value, and that it was given: --motifs looks where the run's data were."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        namespace.given = {*namespace.given, self.dest}


def number(kind, least, most=10**9):
    """argparse type: an int or float from least to most."""

    def numeric(text):
        value = kind(text)
        if not least <= value <= most:  # NaN is in no range
            raise argparse.ArgumentTypeError(
                f"must be at least {least} and at most {most:,}, is {text}"
            )
        return value

    return numeric


positive = number(int, 1)
# ---- feeding bits
# Data travel to the device as bits, 8 numbers of 0 or 1 in a byte, as np.packbits
# packs them. A network is wrapped so that the device unpacks them itself.


class FromBits(keras.Model):
    """A network fed with packed sequences (B, 500) and labels (B, ceil(K / 8))."""

    def __init__(self, network, n_labels=1):
        # 4 bits a base, two bases a byte: 500 bytes for 1,000 bases.
        bits = keras.Input((LENGTH // 2,), dtype="uint8")
        super().__init__(bits, network(self.onehot(bits)), name=network.name)
        self.n_labels = n_labels

    def onehot(self, bits):
        return ops.reshape(unpack(bits, 4 * LENGTH), (-1, LENGTH, 4))

    def targets(self, x, y, weight):
        """Targets and weights of the network's outputs, from what was fed."""
        return unpack(y, self.n_labels), weight

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        targets, weights = self.targets(x, y, sample_weight)
        return super().compute_loss(x, targets, y_pred, weights, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        targets, weights = self.targets(x, y, sample_weight)
        return super().compute_metrics(x, targets, y_pred, weights)


def unpack(bits, n):
    """Bytes (B, ceil(n / 8)) -> their first n bits, (B, n) float32, on the device.

    Example, n = 3: the byte 10100000 -> 1, 0, 1.
    """
    # Shifted right by 7, 6, ..., 0, each of a byte's bits becomes the lowest one.
    shifts = np.arange(7, -1, -1, dtype=np.uint8)
    shifted = ops.right_shift(bits[..., None], shifts)  # (B, bytes, 8)
    ones = ops.bitwise_and(shifted, np.uint8(1))
    # The last byte may have bits to spare: only n are taken.
    ones = ops.reshape(ones, (-1, 8 * bits.shape[-1]))
    return ops.cast(ones[:, :n], "float32")


def compile_model(model, optimizer, loss, metrics, loss_weights=None):
    # XLA costs TensorFlow on a CPU three quarters of its speed.
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(
        optimizer=optimizer,
        loss=loss,
        weighted_metrics=metrics,
        loss_weights=loss_weights,
        jit_compile=jit,
    )
    return model


class Batches(keras.utils.PyDataset):
    """The batches of an epoch from step `first` on.

    Their order is a pure function of (seed, epoch); without seed, the file's.
    move : each sequence is moved at random by up to so many bases, an even number
    """

    def __init__(self, split, batch_size, seed=None, epoch=0, first=0, move=0):
        # With one worker TensorFlow may stand idle as an epoch ends.
        super().__init__(workers=2)
        self.split = split
        self.batch_size = batch_size
        self.first = first
        self.seed = seed
        self.epoch = epoch
        self.move = move
        # Row numbers; shuffling these is cheap, shuffling 3 GB of bits is not.
        self.order = np.arange(len(split))
        if seed is not None:
            self.order = np.random.default_rng([seed, epoch]).permutation(len(split))
        shared = keras.distribution.distribution()
        if shared:  # each device gets as many rows: a few stay out
            rest = len(split) % shared.num_model_replicas
            self.order = self.order[: len(split) - rest]

    def __len__(self):
        return math.ceil(len(self.order) / self.batch_size) - self.first

    def __getitem__(self, step):
        step += self.first
        start = step * self.batch_size
        X, *answers = self.split.batch(self.order[start : start + self.batch_size])
        if self.move:
            # Drawn anew for each step, and again the same where a run goes on from it.
            rng = np.random.default_rng([self.seed, self.epoch, step])
            most = self.move // 2  # two bases a byte
            X = moved(X, 2 * rng.integers(-most, most + 1, len(X)))
        return X, *answers


# ---- known motifs


def read_motifs(path):
    """Known motifs of a file: {name: P (width, 4)}.

    path : MEME's text format, or JASPAR's
    P : probabilities of A, G, C, T at each position, none of them 0: as if one more
        site had been seen for each root of their number, equally often of each base
    BadInput names the line that is no motif of DNA.
    """
    lines = []
    for number, line in text_lines(path):
        if line.strip():
            lines.append((number, line.split()))
    read = read_meme
    # JASPAR's begin like FASTA: >MA0139.2 CTCF
    if lines and lines[0][1][0].startswith(">"):
        read = read_jaspar
    motifs = {}
    for name, P, n_sites in read(path, lines):
        # A name that stands twice: both motifs count.
        while name in motifs:
            name += "'"
        motifs[name] = with_pseudocounts(P, n_sites)
    if not motifs:
        raise BadInput(f"{path} holds no motif in MEME's text format or JASPAR's")
    return motifs


def read_meme(path, lines):
    """Yield name, P (width, 4), number of sites of each motif.

    lines : [(number, words)], none empty
    """
    name = "unnamed"
    rows_left = 0
    for line_number, words in lines:
        where = f"{path}, line {line_number}"
        if words[0].startswith("ALPHABET") and words[-1] != LETTERS:
            raise BadInput(f"{where}: the alphabet must be {LETTERS}: not DNA?")
        if words[0] == "MOTIF":
            if rows_left:
                break
            name = " ".join(words[1:]) or f"line {line_number}"
        elif words[0] == "letter-probability":
            # The next rows are this motif's, a position each.
            rows_left, n_sites = matrix_size(" ".join(words), where)
            rows = []
        elif rows_left:
            rows.append(probabilities(words, where))
            rows_left -= 1
            if not rows_left:
                yield name, np.array(rows), n_sites
    if rows_left:
        raise BadInput(f"{where}: the motif {name} ends before its last row")


def read_jaspar(path, lines):
    """Yield name, P (width, 4), number of sites of each motif.

    A motif is five lines, a name and how often each base was seen at each position:

        >MA0139.2 CTCF
        A [ 281 56  8 744 ]
        C [ 49 800 903 13 ]     and so on for G, T
    """
    for first in range(0, len(lines), 5):
        line_number, words = lines[first]
        where = f"{path}, line {line_number}"
        if not words[0].startswith(">"):
            raise BadInput(f"{where}: must be a motif's name after >")
        name = " ".join(words).removeprefix(">").strip() or f"line {line_number}"
        rows = {}
        for letter, numbered in zip(
            LETTERS, lines[first + 1 : first + 5], strict=False
        ):
            rows[letter] = counts_of(letter, *numbered, path)
        widths = {len(row) for row in rows.values()}
        if len(rows) < 4 or len(widths) > 1:
            raise BadInput(f"{where}: {name} must have four rows of the same length")
        counts = np.array([rows[base] for base in BASES]).T  # (width, 4)
        if not counts.sum(1).all():
            raise BadInput(f"{where}: {name} has a position without any count")
        yield name, counts / counts.sum(1, keepdims=True), counts.sum(1).max()


def counts_of(letter, line_number, words, path):
    """Numbers of "A [ 281 56 8 744 ]"."""
    text = " ".join(words).replace("[", " ").replace("]", " ")
    found, *numbers = text.split() or [""]
    try:
        counts = [float(number) for number in numbers]
    except ValueError:
        counts = []
    # A NaN makes the sum one, which is not below infinity either.
    fits = bool(counts) and min(counts) >= 0 and sum(counts) < math.inf
    if found != letter or not fits:
        raise BadInput(
            f"{path}, line {line_number}: must be {letter} [ and its counts ]"
        )
    return counts


def matrix_size(line, where):
    """w and nsites of "letter-probability matrix: alength= 4 w= 9 nsites= 20 E= 0"."""
    # Key and value may stand together or apart: w= 9, w=9; nsites= 1e+03 is a number.
    found = dict(re.findall(r"(\w+)= *(\d[\d.]*(?:e[+-]?\d+)?)", line, re.IGNORECASE))
    try:
        width = int(found["w"])
        n_sites = float(found.get("nsites", 20))
    except (KeyError, ValueError):
        width = 0
    if found.get("alength", "4") != "4" or not width:
        raise BadInput(f"{where}: must say alength= 4 and w= the number of rows")
    # Some programs write 0 where they do not know.
    return width, n_sites or 20.0


def probabilities(words, where):
    """A row of a matrix, A, C, G, T in the file, in the order of BASES."""
    try:
        row = [float(word) for word in words]
    except ValueError:
        row = []
    # Files round to a few digits, so that a sum may be a little off. That of a NaN is
    # nowhere near.
    fits = len(row) == 4 and min(row) >= 0 and abs(sum(row) - 1) <= 0.02
    if not fits:
        raise BadInput(f"{where}: must be four probabilities whose sum is 1")
    return [row[LETTERS.index(base)] for base in BASES]


def with_pseudocounts(P, n_sites):
    # Example, 16 sites, a base never seen: (0 * 16 + 4 / 4) / (16 + 4) = .05
    extra = np.sqrt(n_sites)
    P = P / P.sum(1, keepdims=True)
    return (P * n_sites + extra / 4) / (n_sites + extra)


MOTIF_FLAGS = ("motif_start", "motif_file", "jaspar")  # that name a file


def motif_files(args):
    """{name: a hash of its content} of the motif files that the arguments name.

    Another file of the same name would be another run. To be called before data are
    packed, which may take long: BadInput where a file is missing, or holds no motifs.
    """
    files = {}
    for key in MOTIF_FLAGS:
        path = getattr(args, key, None)
        if path:
            if not Path(path).exists():
                raise BadInput(
                    f"{flag_of(key)} {path} is missing: bash run_all.sh "
                    "--real fetches JASPAR's as jaspar.meme, or see jaspar.elixir.no"
                )
            read_motifs(path)
            content = Path(path).read_bytes()
            files[Path(path).name] = hashlib.sha256(content).hexdigest()[:16]
    return files


def start_from_motifs(scan, motifs, train, n, scale, share):
    """Set the first n filters of a convolution to known motifs; the others stay.

    A filter is a motif's log-odds times `scale`, and answers above 0 at its best
    `share` of all places. Which motifs, is chosen without labels, on training windows.
    """
    width, _, n_filters = scan.kernel.shape
    matrices = list(motifs.values())
    wanted = min(n, n_filters, len(matrices))
    chosen = most_telling(occupancies(matrices, train), wanted)
    n = len(chosen)
    if not n:
        raise BadInput(
            f"no motif varies in {train.windows:,} training windows: none can be "
            "chosen to start from: more windows, or motifs of more information"
        )
    kernel, bias = scan.get_weights()
    # The first n filters; those after them keep their random weights.
    for i, column in enumerate(chosen):
        kernel[..., i] = scale * as_filter(matrices[column], width)
    windows = onehot(train.X[even_sample(train.windows, 200)])
    middle = central(windows, MOTIF_SPAN).astype(np.float32)
    scores = ops.convert_to_numpy(ops.conv(middle, kernel[..., :n])).reshape(-1, n)
    # So that a rectified filter is silent in most places, as a bound motif is rare.
    bias[:n] = -np.quantile(scores, 1 - share, axis=0)
    scan.set_weights([kernel, bias])
    report_start(n, n_filters, matrices, width)
    if n < wanted:
        print(f"no more of them: {train.windows:,} windows tell so few motifs apart")


def report_start(n, n_filters, matrices, width):
    cut = sum(len(P) > width for P in matrices)
    print(
        f"{n:,} of {n_filters:,} filters start as known motifs, of {len(matrices):,}; "
        f"{cut} wider than {width} bases are cut to their most informative part"
    )


def start_as_jaspar(scan, motifs, seed):
    """The filters of DanQ-JASPAR (Quang & Xie 2016): a motif is the start of each.

    Its probabilities less .25, somewhere in the filter; biases of -1 to 0.
    """
    kernel, bias = scan.get_weights()
    width, _, n_filters = kernel.shape
    if len(motifs) > n_filters:
        raise BadInput(f"{len(motifs):,} motifs do not fit into {n_filters:,} filters")
    rng = np.random.default_rng(seed)
    for i, P in enumerate(motifs.values()):
        P = P[most_informative(P, width)]
        start = rng.integers(width - len(P) + 1)
        kernel[start : start + len(P), :, i] = P - 0.25
    scan.set_weights([kernel, rng.uniform(-1, 0, len(bias))])
    report_start(len(motifs), n_filters, motifs.values(), width)


def most_telling(columns, n, scaled=True):
    """At most n of columns (windows, motifs), chosen one after the other.

    The next one is that which explains most of what is left of all columns' variance:
    of many motifs that are alike, one is enough.
    scaled : each motif counts the same; else as much as it varies, long ones the most
    """
    columns = columns.astype(float)
    left = columns - columns.mean(0)
    if scaled:
        left /= np.maximum(columns.std(0), 1e-9)
    # Products of all pairs of columns; those of a column with itself are variances.
    products = left.T @ left
    chosen = []
    while len(chosen) < n:
        variance = np.diag(products)
        # A chosen one has nothing left, nor has what the chosen ones explain.
        candidates = variance > 1e-6 * len(columns)
        if not candidates.any():
            break
        explained = np.full(len(products), -1.0)
        squares = (products[:, candidates] ** 2).sum(0)
        explained[candidates] = squares / variance[candidates]
        best = int(explained.argmax())
        chosen.append(best)
        # What the chosen one explains is taken out of all columns.
        own = products[best].copy()
        products -= np.outer(own, own) / variance[best]
    return chosen


def as_filter(P, width):
    """Log-odds (width, 4) of a motif (any width, 4), in the middle of zeros."""
    log_odds = np.log(P / 0.25)[most_informative(P, width)]
    kernel = np.zeros((width, 4))
    first = (width - len(log_odds)) // 2
    kernel[first : first + len(log_odds)] = log_odds
    return kernel


def most_informative(P, width):
    """The part of a motif (any width, 4) with most information, as a slice."""
    if len(P) <= width:
        return slice(None)
    # Of each position, in nats: 0 where all bases are as frequent.
    information = (P * np.log(P / 0.25)).sum(1)
    # Sums over all stretches of this width.
    sums = np.convolve(information, np.ones(width), "valid")
    start = int(sums.argmax())
    return slice(start, start + width)


def occupancies(matrices, train):
    """MotifOccupancy of (windows, motifs), in training windows without their labels."""
    # Enough to tell motifs apart, and a few seconds.
    windows = onehot(train.X[even_sample(train.windows, 2000)])
    inputs = keras.Input((LENGTH, 4))
    network = keras.Model(inputs, occupancy_layer(matrices)(inputs))
    return network.predict(windows, batch_size=50, verbose=0)


def occupancy_layer(matrices, span=MOTIF_SPAN):
    width = max(len(P) for P in matrices)
    layer = MotifOccupancy(len(matrices), width, span)
    layer.build((None, LENGTH, 4))
    layer.set_motifs(matrices)
    return layer


@keras.saving.register_keras_serializable("danq")
class MotifOccupancy(layers.Layer):
    """How much each of n motifs could bind the central `span` bases, on either strand.

    (B, 1000, 4) -> (B, n): the logarithm of the sum, over all places and both strands,
    of P(these bases | motif) / P(these bases | any DNA), each base at .25.
    """

    def __init__(self, n, width, span, **options):
        super().__init__(**options)
        self.n = n
        self.width = width
        self.span = span

    def build(self, shape):
        # One kernel a strand: log-odds of each base at each position.
        self.kernels = self.add_weight(
            shape=(2, self.width, 4, self.n), trainable=False, name="log_odds"
        )
        # 0 where a motif has room from a place on, else so little that it counts 0.
        self.room = self.add_weight(
            shape=(self.span, self.n), trainable=False, name="room"
        )

    def set_motifs(self, motifs):
        """motifs : matrices (width, 4), narrower ones at the kernel's left."""
        kernels = np.zeros(self.kernels.shape, np.float32)
        room = np.zeros(self.room.shape, np.float32)
        for i, P in enumerate(motifs):
            log_odds = np.log(P / 0.25)
            kernels[0, : len(P), :, i] = log_odds
            # In the order A, G, C, T backwards is the complement, too.
            kernels[1, : len(P), :, i] = log_odds[::-1, ::-1]
            # Example, width 3 of 300 places: the last two have no room.
            room[self.span - len(P) + 1 :, i] = -1e9
        self.set_weights([kernels, room])

    def call(self, X):
        X = central(X, self.span)
        # N behind the end: then every place is a place, also for the widest motif.
        X = ops.pad(X, ((0, 0), (0, self.width - 1), (0, 0)))
        strands = []
        for kernel in (self.kernels[0], self.kernels[1]):
            scores = ops.conv(X, kernel, padding="valid")  # (B, span, n)
            # logsumexp: a good site's e to the power of its score is very large.
            strands.append(ops.logsumexp(scores + self.room, 1))
        return ops.logaddexp(*strands)

    def get_config(self):
        own = {"n": self.n, "width": self.width, "span": self.span}
        return super().get_config() | own


def central(x, n):
    """The middle n of (B, length, ...); BadInput where there is no exact middle."""
    # Example, 13 of 27: 7 on each side.
    first, rest = divmod(x.shape[1] - n, 2)
    if rest or first < 0:
        raise BadInput(
            f"the middle {n} of {x.shape[1]} cannot be cut out with as many on each "
            "side: take one more or one less (MIDDLE_STEPS and CORE_STEPS are odd)"
        )
    return x[:, first : first + n]


# ---- history: what each epoch leaves


# A history is a list of rows, one for each epoch:
# {"epoch": 1, "seconds": 9.5, "loss": .2, "acc": .9, "val_loss": .3, "val_acc": .9}.
# Without validation data the last two are None.


def history_row(history, checkpoint, logs, model):
    """The row of an epoch that has just ended.

    An epoch whose last step broke the weights has diverged, too, though the mean of its
    losses may be finite. Without validation this is looked for here; with it val_loss
    shows it.
    """
    if "val_loss" not in logs:
        # All weights are copied for this: only where it is needed.
        finite = [np.isfinite(weight).all() for weight in model.get_weights()]
        if not all(finite):
            logs["loss"] = math.nan
    row = {
        "epoch": len(history) + 1,
        "seconds": round(checkpoint.seconds() - sum_seconds(history), 2),
    }
    for key in ("loss", "acc", "val_loss", "val_acc"):
        row[key] = logs.get(key)
    return row


def sum_seconds(history):
    return round(sum(row["seconds"] for row in history), 2)


def keep_epoch(network, history, out_dir):
    """Write history.csv and, where the last epoch is the best so far, model.keras."""
    if best_epoch(history) == len(history):
        with new_file(out_dir / "model.keras") as temporary:
            network.save(temporary)
    write_csv(out_dir / "history.csv", history)


def refuse_divergence(history):
    """BadInput where no loss was finite yet: there is no model to keep."""
    if not best_epoch(history):
        raise BadInput(
            f"diverged in its first epoch: loss {history[-1]['loss']:.4g}: "
            "lower the learning rate, --restart"
        )


def training_summary(history):
    best = best_epoch(history)
    return {
        "epochs": len(history),
        "best_epoch": best,
        "seconds": sum_seconds(history),
        "seconds_to_best": sum_seconds(history[:best]),
    }


def print_epoch(row, epochs, rate, chance):
    scores = ""
    for key in ("loss", "acc", "val_loss", "val_acc"):
        # Without validation two of them are missing.
        if row[key] is not None:
            scores += f" - {key}: {row[key]:.4g}"
    print(
        f"Epoch {row['epoch']}/{epochs} - {row['seconds']:.0f}s{scores}"
        f" - {rate:,.0f} samples/s{chance}"
    )


def is_late(checkpoint, max_seconds):
    return max_seconds is not None and checkpoint.seconds() > max_seconds


# ---- checkpoints and what else happens while fit() runs


def state_of(model):
    """Keras' variables: weights, optimizer, dropout seeds, metrics."""
    return model.variables + model.optimizer.variables + model.metrics_variables


class Checkpoint:
    """All that training consists of, kept in one file.

    step : steps that are done of the epoch that runs
    history : a row for each epoch that is done
    """

    def __init__(self, path):
        self.path = path
        self.step = 0
        self.history = []
        self.values = []  # of state_of(model), until they are restored
        seconds = 0.0  # that training took before this process
        if path.is_file():
            advice = "remove it to train from the start"
            with file_faults(path, advice), np.load(path) as file:
                state = json.loads(str(file["state"]))
                self.step = state["step"]
                self.history = state["history"]
                seconds = state["seconds"]
                # v0, v1, ... in the order of state_of(model).
                self.values = [file[f"v{i}"] for i in range(len(file.files) - 1)]
            self.remember_kept()
            print(f"going on after step {self.step} of epoch {self.kept_epoch}")
        # As if training had begun that much earlier.
        self.started = time.time() - seconds

    def seconds(self):
        """Since training began, without the time between a kill and going on."""
        return time.time() - self.started

    def restore(self, model):
        """Put the values that were read into a model, once."""
        if self.values:
            # strict: another network would have another number of variables.
            with file_faults(self.path, "--restart, if other code made it"):
                for variable, value in zip(state_of(model), self.values, strict=True):
                    variable.assign(value)
        self.values = []

    @contextlib.contextmanager
    def named_when_stopped(self):
        """Ctrl-C in training says what is kept of it."""
        try:
            yield
        except Stopped as stop:
            place = "from the start: no checkpoint was written yet"
            if self.path.is_file():
                place = f"after step {self.kept_step} of epoch {self.kept_epoch}"
            stop.args = (f"the same command goes on {place}",)
            raise

    def save(self, model):
        arrays = {}
        for i, variable in enumerate(state_of(model)):
            arrays[f"v{i}"] = ops.convert_to_numpy(variable.value)
        state = {
            "step": self.step,
            "seconds": self.seconds(),
            "history": self.history,
        }
        with new_file(self.path) as temporary:
            np.savez(temporary, state=json.dumps(state), **arrays)
        self.remember_kept()

    def remember_kept(self):
        self.kept_step = self.step
        self.kept_epoch = len(self.history) + 1


class EachStep(keras.callbacks.Callback):
    """Go on from a checkpoint, count steps, show and keep them, stop when it is time.

    A step counts when the next one begins: at its end, JAX would have to wait for its
    loss.
    """

    def __init__(self, args, checkpoint):
        super().__init__()
        self.args = args
        self.checkpoint = checkpoint
        self.saved = time.time()

    def on_epoch_begin(self, epoch, logs=None):
        self.checkpoint.restore(self.model)
        self.first = self.checkpoint.step
        if not self.first:
            # After a whole epoch the metrics kept are those of its validation.
            self.model.reset_metrics()
        # Keras counts what a kill left of the epoch.
        steps = self.first + self.params["steps"]
        self.bar = progress(steps, f"step of epoch {epoch + 1}/{self.args.epochs}")

    def on_train_batch_begin(self, step, logs=None):
        if Stopped.received:
            raise Stopped(Stopped.received)
        self.checkpoint.step = self.first + step
        self.bar.update(self.checkpoint.step)
        # Not before the first batch: that would keep what is kept already.
        minutes = (time.time() - self.saved) / 60
        if step and minutes > self.args.checkpoint_minutes:
            self.checkpoint.save(self.model)
            self.saved = time.time()
        if is_late(self.checkpoint, self.args.max_seconds):
            # fit() looks at it after the batch that begins now.
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        # The last batch has no next one that would count it.
        self.bar.update(self.checkpoint.step + 1, finalize=True)


class TimeAhead(keras.callbacks.Callback):
    """Say once, from 100 steps, how long all epochs take together."""

    WARM_UP = 5  # steps that compile
    STEPS = 100

    def __init__(self, epochs, checkpoint):
        super().__init__()
        self.epochs = epochs
        self.checkpoint = checkpoint
        self.steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        # Also of an epoch of which a kill left a part.
        self.steps_an_epoch = self.checkpoint.step + self.params["steps"]

    def on_train_batch_begin(self, step, logs=None):
        # The device may lag behind: it is waited for at both ends of the measurement.
        if self.steps == self.WARM_UP:
            self.wait_for_device()
            self.mark = time.time()
        if self.steps == self.WARM_UP + self.STEPS:
            self.wait_for_device()
            seconds = (time.time() - self.mark) / self.STEPS
            whole = seconds * self.steps_an_epoch * self.epochs
            if sys.stdout.isatty():
                print()  # below the bar
            print(f"at this rate training takes {duration(whole)}")
        self.steps += 1

    def wait_for_device(self):
        ops.convert_to_numpy(self.model.trainable_variables[-1].value)


def duration(seconds):
    """45 -> "45 seconds", 90 -> "1.5 minutes", 9000 -> "2.5 hours"."""
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:,.1f} hours"


# ---- scores without a stretch of the windows


def scores_without(P, Y, n=STRETCHES):
    """AUROC and AUPRC of each label with one of n stretches of the windows left out.

    Windows stand along the genome, and neighbours share most of their bases: these
    leave together.
    P, Y : scores and labels (windows, K)
    Returns (n, K, 2), NaN where one class only is left; n at most the windows.
    """
    windows, n_labels = P.shape
    n = min(n, windows)
    # Example, 7 windows, 3 stretches: 0 0 0 1 1 2 2
    stretch = np.arange(windows) * n // windows
    scores = np.empty((n, n_labels, 2))
    for k in range(n_labels):
        # Sorted once: scikit-learn would sort again for each stretch.
        order = np.argsort(-P[:, k], kind="stable")
        p = P[order, k]
        # Windows of one score have one rank: where such a group ends.
        ends = np.flatnonzero(np.append(np.diff(p) != 0, True))
        for i in range(n):
            kept = stretch[order] != i
            scores[i, k] = ranked_scores(Y[order, k], kept, ends)
    return scores


def ranked_scores(y, kept, ends):
    """AUROC and AUPRC of labels y (windows,) in falling order of their scores.

    kept : which windows count;  ends : where a group of equal scores ends
    """
    called = kept.cumsum()[ends]  # windows above a threshold
    right = (y & kept).cumsum()[ends]  # of them with the label
    wrong = called - right
    positives = right[-1]
    negatives = wrong[-1]
    if not positives or not negatives:
        return np.nan, np.nan
    # The area below the curve of right over wrong.
    area = np.trapezoid(np.append(0, right), np.append(0, wrong))
    # Average precision: each step in recall at the precision that it reaches.
    precision = right / np.maximum(called, 1)
    steps = np.diff(right, prepend=0)
    return area / positives / negatives, (steps * precision).sum() / positives


# ---- scores in a terminal


def print_scores(summary):
    """Means of all labels and of each assay, chance and the papers beside them."""
    note = " (SIMULATED data)" if summary["simulated"] else ""
    print(
        f"{summary['labels_scored']} of {summary['labels']} labels have both classes "
        f"in the test split{note}"
    )
    print(
        f"  {'':20} labels   AUROC   AUPRC      F1  recall at 10 % FDR"
        "   chance: AUROC .5, AUPRC"
    )
    for name, mean in summary["means"].items():
        if mean["labels"]:
            scores = "".join(f"{mean[key]:8.4f}" for key in MEASURES)
            print(f"  {name:20}{mean['labels']:7}{scores}{mean['base_rate']:35.4f}")
    # Beside it the papers' numbers, where the labels are the papers'.
    for name, paper in published(summary).items():
        auroc = paper["auroc"][0]
        auprc = paper["auprc"][0]
        print(f"  {'published ' + name:27}{auroc:8.4f}{auprc:8.4f}")


def published(summary):
    """The papers' scores where they may stand beside a run's, else {}."""
    # Only DeepSEA's labels are the papers' labels.
    if summary["labels"] == 919 and not summary["simulated"]:
        return PUBLISHED
    return {}


# ---- scores on other data


def score_elsewhere(args, score, strand_blind=False):
    """Score the run in --out-dir on --test-data's test.mat.

    -> out_dir/test-NAME/, or --output. Labels are matched by name.
    score : packed (n, 500) -> (n, K)
    strand_blind : it answers the same for a sequence and its reverse complement
    """
    out_dir = Path(args.out_dir)
    folder = Path(args.test_data)
    home = Path(os.path.realpath(folder))
    # By default within the run; with --output a run of somebody else stays as it is.
    target = Path(args.output or out_dir / f"test-{home.name}")
    # Packed copies lie beside what is written, where writing is allowed.
    packing = packed_dir(target if args.output else out_dir)
    with locked(target):  # the place is tried before an hour is spent on the scores
        refuse_other_scores(target, home)
        test = load_split(folder, "test", packing, args.limit)
        warn_of_base_order(folder, test)
        score_and_write(args, score, strand_blind, test, target, home)


def refuse_other_scores(target, home):
    """BadInput where a folder holds more than scores on the data of `home`."""
    for name in ("checkpoint.npz", "history.csv", "model.keras"):
        if (target / name).exists():
            raise BadInput(f"{target} holds a run: name a new folder with --output")
    path = target / "summary.json"
    if path.is_file() and read_json(path).get("tested_on") != str(home):
        raise BadInput(
            f"{target} holds the scores of another run or other data: "
            "name a new folder with --output"
        )


def score_and_write(args, score, strand_blind, test, target, home):
    out_dir = Path(args.out_dir)
    trained = read_metrics(out_dir)
    labels, outputs = match_labels(load_labels(home, test.n_labels), trained)
    columns = [label.column for label in labels]
    print(
        f"test: {args.test_data}, {test.windows:,} windows; "
        f"{len(labels)} of {len(trained)} labels are there"
    )
    # Thresholds are the run's own: nothing is chosen on other data.
    P = score_split(score, test, args.batch_size, strand_blind)
    thresholds = [float(trained[output]["threshold"]) for output in outputs]
    Y = test.window_labels()[:, columns]
    summary = read_json(out_dir / "summary.json")
    for key in ("reconstruction", "subset_accuracy", "answers"):
        summary.pop(key, None)  # of the run's own test split
    summary |= {
        "data": args.test_data,
        "tested_on": str(home),
        "limit": args.limit,
        "test_windows": test.windows,
        "strands": test.strands,
        "simulated": summary["simulated"] or test.simulated,
    }
    # An older score in this folder is outdated from here on.
    (target / "summary.json").unlink(missing_ok=True)
    write_json(target / "args.json", read_json(out_dir / "args.json"))
    finish_run(target, P[:, outputs], Y, labels, thresholds, summary)
    print(f"-> {target}")


def match_labels(labels, trained):
    """Those of `labels` that a run has learned, and which of its outputs they are.

    labels : [Label]
    trained : rows of the run's metrics.csv, one for each output
    """
    names = [row["name"] for row in trained]
    known = [label for label in labels if label.name in names]
    # As many unnamed labels may be the same ones; more or fewer are not.
    if len(labels) != len(trained):
        # label_3 of other data is another label, where nobody has named it.
        known = [label for label in known if not re.fullmatch(r"label_\d+", label.name)]
    if not known:
        raise BadInput(
            f"none of its {len(labels)} labels ({labels[0].name}, ...) is among the "
            f"run's {len(names)} ({names[0]}, ...): name them as its metrics.csv does, "
            "in labels.tsv beside the data"
        )
    return known, [names.index(label.name) for label in known]


# ---- errors and files


class BadInput(Exception):
    """A fault of the input, in one line: what is wrong, where, what to do."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM; BaseException, so that nothing takes it for a fault.

    code : what the process exits with, 128 and the signal's number
    """

    # The last signal that came: Python drops an exception that is raised while it
    # clears an object away, and nobody would stop.
    received = None

    def __init__(self, number):
        # Said where nothing better is known; training knows its step.
        super().__init__("the same command goes on after what is finished")
        self.code = 128 + number


def stop_by_signal(number, frame):
    Stopped.received = number
    raise Stopped(number)


def drop_stopped(dropped):
    """Python reports what it dropped: not a Stopped, as training raises it again."""
    if not isinstance(dropped.exc_value, Stopped):
        sys.__unraisablehook__(dropped)


# What TensorFlow, Keras, JAX and CUDA's libraries say where a device's memory is full;
# the last three where another program has taken it.
MEMORY_IS_FULL = (
    "RESOURCE_EXHAUSTED",
    "OOM when",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "Failed to initialize BLASLT",
)


def memory_is_full(error):
    """Each backend has exceptions of its own: only their words are alike."""
    return any(sign in str(error) for sign in MEMORY_IS_FULL)


def command_line(main):
    """Run main(); a fault gives one line on stderr and exit code 2."""
    sys.stdout.reconfigure(line_buffering=True)  # a log gets lines at once
    Stopped.received = None
    sys.unraisablehook = drop_stopped
    # Both end the process through every "finally": temporary files are removed.
    signal.signal(signal.SIGINT, stop_by_signal)
    signal.signal(signal.SIGTERM, stop_by_signal)
    code = 2
    try:
        return main()
    except Stopped as stop:
        message = f"interrupted; {stop}"
        code = stop.code
    except BadInput as error:
        message = str(error)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except MemoryError as error:
        message = f"not enough memory: {error or 'close other programs'}"
    except OSError as error:
        # The system's own words: disk full, permission denied, file too large.
        message = f"{error.filename or 'a file'}: {error.strerror or error}"
        # A name that was misspelt has not stopped anything.
        if error.errno != errno.ENOENT:
            message += " (what was finished is kept)"
    except Exception as error:
        if not memory_is_full(error):
            raise
        reason = " ".join(str(error).split())[:100]  # in one line
        message = (
            f"the device has too little memory for such a batch ({reason}): close what "
            "else uses the GPU, or try half of --batch-size, in training with --restart"
        )
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def file_faults(path, advice="", damage=Exception):
    """Name the file in what goes wrong as it is read or written.

    A system's error (disk full, permission denied) gets the file's name; an exception
    of the kinds `damage` becomes a BadInput that calls the file damaged: stand around a
    library that reads it, so that a fault of ours is not taken for one of the file's.
    """
    try:
        yield
    except BadInput:
        raise
    except MemoryError as error:
        raise BadInput(f"{path}: not enough memory to read it ({error})") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = error.filename or str(path)
            raise
        # A fault of ours, or a full GPU, shall not look like one of the file's.
        if not isinstance(error, damage) or memory_is_full(error):
            raise
        # Libraries' messages may have many lines.
        reason = " ".join(str(error).split())  # in one line
        raise BadInput(f"{path} is damaged ({reason}): {advice}") from error


@contextlib.contextmanager
def new_file(path):
    """Yield a temporary path, which becomes `path` when all went well.

    When not, it is removed, and what `path` held before stays. A link stays, too: the
    file that it leads to is the one that is replaced.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} is a folder or a device: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a kill left of the same file, which nobody else would remove.
    # A * in a name is a letter.
    stem = glob.escape(path.stem)
    remove_leftovers(path.parent, f".{stem}.tmp-*{glob.escape(path.suffix)}")
    # .p.tmp-host-1234.tsv for p.tsv: np.savez and Keras ask for the right ending.
    owner = f"{platform.node()}-{os.getpid()}"
    temporary = path.with_name(f".{path.stem}.tmp-{owner}{path.suffix}")
    try:
        # What the caller does with it is no damage of this file.
        with file_faults(path, damage=()):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # on the disk before it takes the name
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder, pattern=".*.tmp-*"):
    """Remove temporary files whose process was killed: on this machine, and gone."""
    for path in folder.glob(pattern):
        # Another machine's process cannot be asked for; its file stays.
        found = re.search(r"\.tmp-(.*)-(\d+)(\.|$)", path.name)
        if found and found[1] == platform.node() and not is_running(int(found[2])):
            path.unlink(missing_ok=True)


def is_running(process):
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def new_text(path):
    """Yield a text file to write: new_file, gzipped if `path` ends so, or "-".

    "-", and any name of standard output (/dev/stdout), is written to as it is.
    """
    if is_stdout(path):
        yield sys.stdout
        sys.stdout.flush()
        return
    with new_file(path) as temporary, open(temporary, "wb") as file:
        # A name is a promise: x.tsv.gz is gzipped. Without a name and a time inside,
        # equal tables are equal files.
        if str(path).endswith(".gz"):
            file = gzip.GzipFile("", "wb", fileobj=file, mtime=0)
        with io.TextIOWrapper(file, encoding="utf-8") as text:
            yield text


def is_stdout(path):
    if str(path) == "-":
        return True
    try:
        # /dev/stdout, /dev/fd/1 and links to them are all this one.
        return os.path.samestat(os.stat(path), os.fstat(1))
    except OSError:  # there is no such file yet
        return False


def refuse_to_overwrite(output, *inputs):
    """BadInput where a command would write over what it reads."""
    for path in inputs:
        if os.path.exists(output) and os.path.exists(path):
            # Whatever the names: a link or ./x is the same file.
            if os.path.samefile(output, path):
                raise BadInput(
                    f"{output} would overwrite {path}, which is read: name another file"
                )


def claim(path, size):
    """Make a file `size` bytes long, of zeros, before something else writes into them.

    On a full disk memory maps and HDF5 would crash the process.
    """
    piece = 1 << 16
    with file_faults(path, damage=()), open(path, "ab") as file:
        for start in range(file.tell(), size, piece):
            file.write(bytes(min(piece, size - start)))


@contextlib.contextmanager
def new_hdf5(path, **options):
    """A new HDF5 file, cut to what it holds: claim() takes more than is needed."""
    with h5py.File(path, "w", **options) as file:
        yield file
        file.flush()  # then nothing of it is in memory only
        kept = file.id.get_filesize()
    os.truncate(path, kept)


def read_json(path, *keys):
    """The record in a file; BadInput if it lacks a key."""
    with file_faults(path, "give --restart to start anew"):
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        for key in keys:
            record[key]  # KeyError: damaged
        return record


def write_json(path, record):
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def read_csv(path):
    """Rows of a .csv file as dicts of texts."""
    with (
        file_faults(path, "train again with --restart"),
        open(path, newline="", encoding="utf-8") as file,
    ):
        return list(csv.DictReader(file))


def write_csv(path, rows):
    with (
        new_file(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def progress(total, unit="step"):
    """A progress bar on a terminal, else nothing."""
    return keras.utils.Progbar(total, verbose=int(sys.stdout.isatty()), unit_name=unit)


# ---- the folder of a run, and the machine

# All that a run writes into --out-dir, and --restart removes.
OUTPUTS = (
    "summary.json",
    "args.json",
    "history.csv",
    "model.keras",
    "checkpoint.npz",
    "autoencoder.json",
    "encodings.part",
    "encodings.h5",
    "forest.npz",
    "network.keras",
    "metrics.csv",
    "without.npz",
)
FORMAT = 5  # of these files
# Arguments that leave results alone: they may differ when a run goes on.
NO_SETTINGS = (
    "out_dir",
    "output",
    "restart",
    "reuse_encodings",
    "checkpoint_minutes",
    "given",
)


@contextlib.contextmanager
def run_folder(args, script, simulated, sources, changeable=()):
    """Hold --out-dir and record the run in args.json; yields True if it is finished.

    sources : {data file: a hash of its content}
    changeable : settings that may differ from those of a run that is there
    """
    out_dir = Path(args.out_dir)
    settings = settings_of(args, script, sources)
    with locked(out_dir):
        if args.restart:
            for name in OUTPUTS:
                (out_dir / name).unlink(missing_ok=True)
        # A run goes on only as it began.
        recorded = recorded_settings(out_dir, script)
        before = recorded or settings
        refuse_other_settings(out_dir, before, settings, changeable)
        same = without_places(before) == without_places(settings)
        finished = same and (out_dir / "summary.json").is_file()
        if finished:
            print(f"{out_dir} is finished already (--restart trains again)")
        # One that goes on keeps its record: which code began it, and when.
        elif recorded != settings:
            begin_run(args, out_dir, script, settings, simulated)
        try:
            yield finished
        except BaseException:
            forget_if_nothing_was_made(out_dir)
            raise
        # All is well from here on: a finished run needs no checkpoint.
        (out_dir / "checkpoint.npz").unlink(missing_ok=True)
        print_made(out_dir)


def settings_of(args, script, sources):
    """All that decides a run's result, as it is kept in args.json."""
    settings = {
        "script": script,
        "backend": keras.backend.backend(),
        "data_files": sources,
    }
    for key, value in vars(args).items():
        # All others, so that a new argument is compared without being listed.
        if key not in NO_SETTINGS:
            settings[key] = value
    settings["data_dir"] = os.path.realpath(args.data_dir)
    return settings


def without_places(settings):
    """Settings but for where the data lay: their content decides, not their folder."""
    return {key: settings[key] for key in settings if key != "data_dir"}


def recorded_settings(out_dir, script):
    """Those of the run that is there, or None; warns where other code began it."""
    path = out_dir / "args.json"
    if not path.is_file():
        return None
    # What began it, and with which code.
    record = read_json(path, "settings")
    refuse_other_format(out_dir, record)
    if record.get("code") != code_hash(script):
        print(
            f"warning: {out_dir} was begun by another version of the code; "
            "--restart makes all of it anew"
        )
    return record["settings"]


def refuse_other_settings(out_dir, before, settings, changeable):
    """BadInput where a run that is there differs from the command, by name."""
    advice = "use another --out-dir or --restart"
    for key in sorted(settings.keys() | before.keys()):
        old = before.get(key)
        new = settings.get(key)
        # The same data may lie in another folder.
        if old == new or key in changeable or key == "data_dir":
            continue
        if key == "data_files":
            # One word, in place of two tables of hashes.
            for file in old.keys() | new.keys():
                if old.get(file) != new.get(file):
                    raise BadInput(
                        f"{out_dir}: {file} is not what it began with: {advice}"
                    )
        name = key.replace("_", "-")
        # None stands for a flag that is not given.
        was = "not given" if old is None else old
        now = "not given" if new is None else new
        raise BadInput(f"{out_dir}: its {name} was {was}, now {now}: {advice}")


def begin_run(args, out_dir, script, settings, simulated):
    """Record a run; scores of an earlier one in this folder are outdated."""
    (out_dir / "summary.json").unlink(missing_ok=True)
    # What --test-data scored was the earlier run.
    for path in out_dir.glob("test-*/summary.json"):
        path.unlink()
    record = {
        "settings": settings,
        "data": "SIMULATED" if simulated else args.data_dir,
        "code": code_hash(script),
    }
    write_json(out_dir / "args.json", record | surroundings(script))


def forget_if_nothing_was_made(out_dir):
    """A command that failed before its first result shall not bind the next one."""
    # Nothing to go on with: the record would only refuse what is mended.
    made = [name for name in OUTPUTS if (out_dir / name).is_file()]
    if made == ["args.json"]:
        (out_dir / "args.json").unlink()


def print_made(out_dir):
    """The last lines of a run: its files, and what to do with them."""
    made = [name for name in OUTPUTS if (out_dir / name).is_file()]
    print(f"+-- {out_dir}: {', '.join(made)}")
    command = shlex.join(["python", sys.argv[0], "--out-dir", str(out_dir)])
    print(f"+-- next: {command} --predict seqs.fa --plot tracks.png")


@contextlib.contextmanager
def locked(folder, wait=False):
    """Hold a folder; if another process has it, wait or BadInput."""
    folder.mkdir(parents=True, exist_ok=True)
    how = fcntl.LOCK_EX
    if not wait:
        how |= fcntl.LOCK_NB
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.lockf(file, how)
        except OSError as error:
            # These two mean that somebody has it; others, that there are no locks.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise BadInput(
                    f"{folder} is in use by {file.read()}: "
                    "wait, or use another --out-dir"
                ) from error
            # Some network file systems have no locks.
            print(
                f"warning: {folder} cannot be locked ({error.strerror}): "
                "run one command on it at a time"
            )
        # From here on it is ours. Whoever comes next reads who holds it.
        file.truncate(0)
        holder = f"process {os.getpid()} on {platform.node()}"
        print(holder, end="", file=file, flush=True)
        remove_leftovers(folder)
        yield


def code_hash(script):
    """Of both scripts' bytes, or of danq.py alone: which code made a run?"""
    # Of the files' bytes, so that every Python gives the same hash.
    code = hashlib.sha256()
    for name in sorted({"danq.py", script}):
        code.update(Path(__file__).with_name(name).read_bytes())
    return code.hexdigest()[:16]


def surroundings(script):
    """Command, time, machine and versions, for args.json."""
    backend = keras.backend.backend()
    versions = {"python": sys.version}
    # All that may change a number.
    for name in ("keras", backend, "numpy", "h5py", "scipy", "sklearn"):
        versions[name] = sys.modules[name].__version__
    return {
        "command": [script, *sys.argv[1:]],
        "started": time.strftime("%F %T %z"),
        "format": FORMAT,
        "device": devices(),
        "backend": backend,
        "machine": [platform.platform(), os.cpu_count()],
        "versions": versions,
    }


def devices():
    try:
        return keras.distribution.list_devices()
    except AttributeError:  # Keras on PyTorch has no list
        return [keras.backend.backend()]


@contextlib.contextmanager
def all_devices(batch_size):
    """Train data-parallel over all GPUs of the machine, on JAX."""
    n = len(devices())
    # Only JAX shares a batch among devices without more code.
    if n > 1 and keras.backend.backend() != "jax":
        print(f"one of {n} devices is used; KERAS_BACKEND=jax takes all")
    elif n > 1:
        if batch_size % n:
            raise BadInput(
                f"--batch-size {batch_size} does not divide among {n} devices"
            )
        print(f"training on {n} devices, {batch_size // n} sequences on each")
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)


@contextlib.contextmanager
def one_device():
    """Within all_devices, what is done in batches that need not divide among them."""
    shared = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(shared)


def peak_memory():
    """Of this process, in GB."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":  # a Mac counts bytes
        kilobytes /= 1024
    return round(kilobytes / 1e6, 2)


def finished_settings(out_dir, script=None):
    """Settings of a finished run; BadInput where it is none, or another script's."""
    out_dir = Path(out_dir)
    if not (out_dir / "summary.json").is_file():
        raise BadInput(
            f"{out_dir} holds no finished run (no summary.json): train first"
        )
    # It was written before training, so it is there.
    record = read_json(out_dir / "args.json", "settings")
    settings = record["settings"]
    refuse_other_format(out_dir, record)
    own = settings.get("script")
    if script not in (None, own):
        raise BadInput(f"{out_dir} holds a run of {own}: give it to that script")
    return settings


def refuse_other_format(out_dir, record):
    # An older kit's files may mean something else under the same names.
    if record.get("format") != FORMAT:
        raise BadInput(
            f"{out_dir} was made by another version of this kit: "
            "train again with --restart"
        )


def read_metrics(out_dir):
    """Rows of a finished run's metrics.csv, as texts; BadInput where some are gone."""
    path = Path(out_dir) / "metrics.csv"
    n = read_json(Path(out_dir) / "summary.json", "labels")["labels"]
    rows = read_csv(path)
    with file_faults(path, "train again with --restart"):
        for row in rows:
            float(row["threshold"])  # a ValueError: damaged
        # A cut file has fewer labels than the summary says.
        if len({row["name"] for row in rows}) != n:
            raise ValueError(f"it has {len(rows)} rows, not {n}")
    return rows


def load_model(out_dir, name="model.keras"):
    """A model of a run, in Keras' safe mode: it cannot run code."""
    path = Path(out_dir) / name
    with file_faults(path, "train again with --restart"):
        return keras.saving.load_model(path, compile=False, safe_mode=True)


# ---- data: .mat -> packed bits

TILE = 256 << 20  # bytes of a .mat read at a time, and the largest HDF5 chunk
PACKED_FORMAT = 1  # of the packed copies: another one is packed again


@dataclasses.dataclass
class Split:
    """One split of a data set, packed into bits; its rows are sequences.

    X : (n, 500) uint8, np.packbits of the one-hot (1000, 4); a memory map
    Y : (n, ceil(K / 8)) uint8, np.packbits of the labels; a memory map
    windows : rows to score: n, or n / 2 with `strands`
    strands : row windows + i is the reverse complement of row i
    content : a hash of X and Y
    """

    X: np.ndarray
    Y: np.ndarray
    n_labels: int
    windows: int
    strands: bool = False
    simulated: bool = False
    content: str = ""

    def __len__(self):
        return len(self.X)

    def batch(self, rows):
        return self.X[rows], self.Y[rows]

    def labels(self, rows=slice(None)):
        """(rows, K) uint8, 0 and 1."""
        return np.unpackbits(self.Y[rows], axis=1, count=self.n_labels)

    def window_labels(self):
        """Those of the rows to score, (windows, K)."""
        return self.labels(slice(self.windows))


def onehot(bits):
    """Packed (n, 500) -> one-hot (n, 1000, 4) uint8, columns A, G, C, T.

    An unknown base, N, is all zeros.
    """
    return np.unpackbits(bits, axis=1).reshape(-1, LENGTH, 4)


def packed(X):
    """One-hot (n, 1000, 4) -> packed (n, 500): two bases a byte."""
    return np.packbits(X.reshape(len(X), -1), axis=1)


def moved(X, by):
    """Packed sequences (n, 500), each moved to the right by `by` (n,) bases.

    What leaves at one end comes in at the other. Example, by 2: GATTACA -> CAGATTA
    by : even numbers, as two bases are a byte; one for all, or one for each
    """
    # From which byte each one comes; % 500 leads from -1 to the last.
    columns = np.arange(X.shape[1]) - np.reshape(by, (-1, 1)) // 2
    columns = np.broadcast_to(columns % X.shape[1], X.shape)
    return np.take_along_axis(X, columns, 1)


def reverse_complement(X):
    """Of one-hot (n, length, 4).

    In the order A, G, C, T the complement of column i is column 3 - i, so reading both
    axes backwards does it: GATT -> AATC.
    """
    return X[:, ::-1, ::-1]


def packed_dir(out_dir):
    """packed/ beside a run's folder."""
    # realpath, as Path.resolve() raises at a loop of links
    return Path(os.path.realpath(out_dir)).parent / "packed"


def load_data(args):
    """The splits {"train", "valid", "test"} and the label table of --data-dir."""
    print(f"Keras on {keras.backend.backend()}: {', '.join(devices())}")
    print(f"data: {args.data_dir}")
    splits = {}
    counts = {}
    for name in SPLITS:
        splits[name] = load_split(
            args.data_dir, name, packed_dir(args.out_dir), args.limit
        )
        counts[name] = splits[name].n_labels
    # The network has one output for each label, whatever the split.
    if len(set(counts.values())) > 1:
        raise BadInput(
            f"{args.data_dir}: the splits differ in their number of labels: {counts}"
        )
    simulated = any(split.simulated for split in splits.values())
    if simulated:
        print("SIMULATED data: numbers from it say nothing about real DNA")
    for name, split in splits.items():
        # One simulated file makes all of it simulated.
        split.simulated = simulated
        print_split(name, split)
    warn_of_base_order(args.data_dir, splits["train"])
    return splits, load_labels(args.data_dir, counts["train"])


def warn_of_base_order(data_dir, split):
    """CpG is rare in vertebrate DNA; in rows A, C, G, T read as A, G, C, T, GpC is."""
    X = onehot(split.X[even_sample(len(split.X), 1000)])
    # (windows, 1000), 1 where the base is C
    C = X[..., BASES.index("C")]
    G = X[..., BASES.index("G")]
    CpG = int(np.sum(C[:, :-1] & G[:, 1:]))
    GpC = int(np.sum(G[:, :-1] & C[:, 1:]))
    # Where both are as common, as in random letters, the sign of the difference is
    # chance: five of its standard deviations are not.
    if CpG - GpC > 5 * np.sqrt(CpG + GpC):
        print(
            f"warning: {data_dir}: CG is commoner than GC ({CpG:,} to {GpC:,}), which "
            "no vertebrate's DNA is: are its rows A, C, G, T in place of A, G, C, T?"
        )


def data_files(splits, labels):
    """{data file: a hash of its content}, which a run goes on with or not at all."""
    # A hash of the bits as they are packed: the same for v5, v7.3 and any date.
    contents = {f"{name}.mat": split.content for name, split in splits.items()}
    contents["labels.tsv"] = hashlib.sha256(repr(labels).encode()).hexdigest()[:16]
    return contents


def print_split(name, split):
    windows = "strands not averaged: its halves are NOT reverse complements"
    if split.strands:
        windows = f"{split.windows:,} windows, both strands"
    print(f"  {name}: {len(split):,} sequences x {split.n_labels} labels, {windows}")


class Label(typing.NamedTuple):
    """A row of labels.tsv.

    factor : what is bound or marked, the same in every cell: CTCF, H3K4me3
    """

    column: int
    assay: str
    name: str
    factor: str


def load_labels(data_dir, n_labels):
    """The label table, [Label], from labels.tsv.

    Without that file 919 labels have DeepSEA's assays, others one assay, "labels".
    """
    path = Path(data_dir) / "labels.tsv"
    if not path.is_file():
        assays = DEEPSEA_ASSAYS if n_labels == 919 else ["labels"] * n_labels
        names = [f"label_{i}" for i in range(n_labels)]
        return [
            Label(i, assay, name, name)
            for i, (assay, name) in enumerate(zip(assays, names, strict=True))
        ]
    table = [(n, line.split("\t")) for n, line in text_lines(path) if line.strip()]
    header = table[0][1] if table else []
    # The factor's column may be missing.
    columns = ["column", "assay", "name", "factor"][: max(3, len(header))]
    if header != columns:
        raise BadInput(f"{path}, line 1: must be {' '.join(columns)}, tabs between")
    for i, (number, row) in enumerate(table[1:]):
        # The factor alone may be empty.
        if len(row) != len(header) or row[0] != str(i) or not all(row[:3]):
            columns[0] = str(i)
            raise BadInput(
                f"{path}, line {number}: must be {' '.join(columns)}, tabs between"
            )
        if row[1] == "all":
            raise BadInput(f"{path}, line {number}: {ASSAY_ALL}")
    if len(table) - 1 != n_labels:
        raise BadInput(f"{path} has {len(table) - 1} labels, the data {n_labels}")
    return unique_labels([row for _, row in table[1:]])


def factor_of(name):
    """The factor of a label whose name is assay|factor|cell, or more; else its name.

    Example: TF|CTCF|A549 and TF|CTCF|K562 -> TF|CTCF.
    """
    parts = name.split("|")
    # UniPk is no factor, but how ENCODE's uniform peaks are named.
    if len(parts) < 3 or parts[1] == "UniPk":
        return name
    return "|".join(parts[:2])


def unique_labels(rows):
    """[Label] of rows of texts; names that stand twice get a number.

    Results are matched by name.
    Example: CTCF, CTCF, CTCF|0 -> CTCF|0|0, CTCF|1, CTCF|0.
    """
    names = [row[2] for row in rows]
    # A name that stands once stays as it is.
    taken = {name for name in names if names.count(name) == 1}
    labels = []
    for column, assay, name, *factor in rows:
        # Without that column, or where it is empty: by the name.
        own = factor_of(name)
        if factor and factor[0]:
            own = factor[0]
        if names.count(name) > 1:
            name += f"|{column}"
            while name in taken:
                name += f"|{column}"
            taken.add(name)
        labels.append(Label(int(column), assay, name, own))
    return labels


def load_split(data_dir, name, folder, limit=None):
    """The Split `name` of data_dir, or `limit` of its windows at random.

    It is a packed copy below `folder`, made where the source is new. BadInput where
    that is missing, broken, misshapen or not 0/1.
    """
    path = Path(data_dir) / f"{name}.mat"
    if not path.is_file():
        raise BadInput(
            f"{path} is missing, one of train.mat, valid.mat, test.mat: "
            "name their folder in --data-dir; bash run_all.sh --real makes real ones "
            "in real/data, python danq.py --make-demo-data demo simulated ones in demo"
        )
    # Copies of data folders of the same name must not meet.
    home = os.path.realpath(data_dir)
    copy = f"{Path(home).name}-{hashlib.sha256(home.encode()).hexdigest()[:8]}"
    target = Path(folder) / copy
    files = [target / f"{name}{end}" for end in (".json", "_X.npy", "_Y.npy")]
    source = f"{os.path.realpath(path)}, {file_state(path)}"
    # The usual case, and it needs no lock: the copy is there.
    split = open_packed(files, source)
    if split is None:
        with locked(target, wait=True):
            split = open_packed(files, source)  # another process may have made it
            if split is None:
                split = pack_split(path, name, files, source)
    return some_windows(split, limit)


def some_windows(split, limit):
    """A Split of `limit` windows at random, with their other strands.

    The same ones for every script and seed, and those of a smaller limit among those
    of a larger one: the first of one permutation. They stay in the file's order.
    """
    if not limit or limit >= split.windows:
        return split
    # Not --seed: other seeds shall train on the same windows.
    shuffled = np.random.default_rng(0).permutation(split.windows)
    rows = np.sort(shuffled[:limit])
    # First all forward strands, then their mates, as in a whole split.
    if split.strands:
        rows = np.concatenate([rows, split.windows + rows])
    return dataclasses.replace(
        split, X=Rows(split.X, rows), Y=Rows(split.Y, rows), windows=limit
    )


class Rows:
    """Some rows of an array, which are read when they are asked for.

    Example: Rows(X, [2, 5, 7])[1:] is X[[5, 7]].
    """

    def __init__(self, array, rows):
        self.array = array
        self.rows = rows
        self.shape = (len(rows), *array.shape[1:])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.array[self.rows[index]]


def content_hash(*paths):
    """Of files, read in blocks: pages of a memory map would count as our memory."""
    content = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 16):
                content.update(block)
    return content.hexdigest()[:16]


def file_state(path):
    # Size and time of change: the content of 18 GB is not read for this.
    stat = os.stat(path)
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


def open_packed(files, source):
    """The Split in three files, or None where they are not an intact copy of source."""
    # Anything wrong with a copy means: make it anew.
    note, bases, labels = files
    with contextlib.suppress(Exception):
        facts = json.loads(note.read_text())
        is_current = facts.pop("source") == source
        is_current &= facts.pop("format") == PACKED_FORMAT
        # Memory maps: the system reads only the pages that are asked for.
        X = np.load(bases, mmap_mode="r")
        Y = np.load(labels, mmap_mode="r")
        if is_current and len(X) == len(Y):
            return Split(X, Y, **facts)
    return None


def pack_split(path, name, files, source):
    """Pack one .mat into two .npy files, and a note that is written last."""
    note, bases, labels = files
    # Without its note the old copy counts as not made.
    note.unlink(missing_ok=True)
    # DeepSEA's names: trainxdata holds the bases, traindata the labels.
    keys = (f"{name}xdata", f"{name}data")
    with (
        open_mat(path, keys) as (X, Y, simulated),
        new_file(bases) as new_bases,
        new_file(labels) as new_labels,
    ):
        check_layout(path, keys, X, Y)
        n_labels, n = Y.shape
        pack_array(X, new_bases, f"{path}: {keys[0]}")
        pack_array(Y, new_labels, f"{path}: {keys[1]}")
    X = np.load(bases, mmap_mode="r")
    Y = np.load(labels, mmap_mode="r")
    # DeepSEA's files hold both strands, but nothing in them says so.
    strands = have_strands(X, Y)
    windows = n // 2 if strands else n
    facts = {
        "source": source,
        "format": PACKED_FORMAT,
        "content": content_hash(bases, labels),
        "n_labels": n_labels,
        "windows": windows,
        "strands": strands,
        "simulated": simulated,
    }
    write_json(note, facts)
    print(f"packed {path}: {n:,} sequences -> {note.parent}")
    return open_packed(files, source)


COPY_AGAIN = "it must be a complete MATLAB v5 or v7.3 file: copy it again"


@contextlib.contextmanager
def open_mat(path, keys):
    """Yield the array of each key, or None, and whether they are simulated.

    MATLAB v7.3 is HDF5, with axes reversed: (1000, 4, N) and (K, N). MATLAB v5, at most
    2 GB, is read at once and reversed here.
    """
    if h5py.is_hdf5(path):
        with file_faults(path, COPY_AGAIN):
            mat = h5py.File(path)
            arrays = [mat.get(key) for key in keys]
        with mat:
            yield *arrays, "simulated" in mat
        return
    with file_faults(path, COPY_AGAIN):
        mat = scipy.io.loadmat(path, variable_names=[*keys, "simulated"])
    arrays = []
    for key in keys:
        array = mat.get(key)
        if scipy.sparse.issparse(array):  # as MATLAB users save labels
            # Before there are zeros: with them, doubles are eight times as large. Other
            # numbers stay as they are, to be found and named.
            if np.isin(array.data, (0, 1)).all():
                array = array.astype(np.uint8)
            array = array.toarray()
        arrays.append(None if array is None else array.T)
    yield *arrays, "simulated" in mat


def check_layout(path, keys, X, Y=None):
    """BadInput unless X is (1000, 4, N) and Y (K, N), in chunks of at most TILE bytes.

    keys : names of the variables, of X and, where there is one, of Y
    """
    # strict=False: without a second key Y is not looked at.
    for key, array in zip(keys, (X, Y), strict=False):
        # None where the variable is missing; a group in HDF5 has no shape either.
        if isinstance(array, h5py.Group) and "MATLAB_sparse" in array.attrs:
            raise BadInput(
                f"{path}: {key} is sparse in MATLAB v7.3: save full({key}) in its place"
            )
        if not hasattr(array, "shape"):
            raise BadInput(
                f"{path} has no variable {key}: it must hold {' and '.join(keys)}"
            )
        N = (0, *X.shape)[-1]  # a single number has no shape
        fits = X.shape == (LENGTH, 4, N)
        if array is Y:
            fits = len(Y.shape) == 2 and Y.shape[1] == N
        if not fits or 0 in array.shape:
            raise BadInput(
                f"{path}: {key} has shape {array.shape} in HDF5 order, with {N} "
                f"sequences; bases must be ({LENGTH}, 4, N), labels (K, N)"
            )
        # HDF5 reads a chunk whole, however little of it is asked for.
        chunk = getattr(array, "chunks", None) or [0]  # not every array has chunks
        if math.prod(chunk) * array.dtype.itemsize > TILE:
            small = "x".join(map(str, array.shape[:-1]))
            raise BadInput(
                f"{path}: {key} has too large HDF5 chunks: "
                f"h5repack -l CHUNK={small}x256 IN OUT makes small ones"
            )


def pack_array(source, path, where):
    """Stream the sequences of source, (1000, 4, N) or (K, N), to a .npy (N, bytes).

    where : what an error calls the source
    A tile is read at a time: whole HDF5 chunks, so that each is decompressed once, and
    as many as fit in TILE bytes.
    """
    height = source.shape[0]  # 1000 or K
    bits = math.prod(source.shape[1:-1])  # of a sequence in each of these: 4 or 1
    n = source.shape[-1]
    width = math.ceil(height * bits / 8)
    # Zeros, to which add_bits adds ones.
    with new_npy(path, n, width) as file:
        size = file.tell() + n * width
    claim(path, size)

    # Tile by tile, down a column of tiles and then to the next one.
    rows, columns = tile_shape(source, height, bits)
    bar = progress(n)
    for column in range(0, n, columns):
        stop = min(column + columns, n)
        for row in range(0, height, rows):
            with file_faults(where, COPY_AGAIN, (OSError, RuntimeError)):
                tile = source[row : row + rows, ..., column:stop]
            tile = as_bits(tile, where, row, column)
            add_bits(path, column, row * bits, tile.reshape(-1, stop - column))
        bar.update(stop)


@contextlib.contextmanager
def new_npy(path, n, width):
    """Yield an .npy of bytes (n, width), its header written, to write row after row."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, width)}
    with file_faults(path, damage=()), open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def tile_shape(source, height, bits):
    """Rows and sequences of a tile.

    Example: labels (919, 4_400_000) of a byte in chunks of (100, 10_000), TILE 256 MB.
    268 chunks of 1 MB fit. One below the other, 919 rows need 10 of them; so a tile
    has all 919 rows, and 26 such columns side by side: 260_000 sequences.
    """
    chunks = getattr(source, "chunks", None) or (height, 1)
    cell = bits * source.dtype.itemsize  # bytes
    below = max(1, TILE // (chunks[0] * chunks[-1] * cell))
    rows = min(height, below * chunks[0])
    beside = max(1, TILE // (rows * chunks[-1] * cell))
    return rows, beside * chunks[-1]


def as_bits(tile, where, row, column):
    """A tile as uint8; BadInput where it holds more than 0 and 1.

    row, column : where the tile begins in its array
    """
    # Most files hold bytes: then one look at the maximum is enough.
    if tile.dtype.kind not in "bu" or tile.max() > 1:
        # Floats are fine as long as they are 0 and 1, as MATLAB saves them.
        wrong = np.argwhere((tile != 0) & (tile != 1))
        if len(wrong):
            at = wrong[0]
            raise BadInput(
                f"{where} must hold 0 and 1 only, not {tile[tuple(at)]} "
                f"(row {row + at[0]}, sequence {column + at[-1]})"
            )
    return tile.astype(np.uint8, copy=False)


def add_bits(path, row, bit, tile, block=50_000):
    """Set a 0/1 tile (bits, n) in a packed .npy of zeros.

    The tile's column j becomes bits bit, bit + 1, ... of row `row + j`.
    Example, bit 6 and a column 1, 0, 1: the row's bits 6, 7, 8, which are the bytes
    00000010 and 10000000.
    """
    first_byte = bit // 8
    before = bit % 8  # bits of the first byte that belong to the tile above
    # Bytes of a row that the tile touches.
    n_bytes = math.ceil((before + len(tile)) / 8)
    packed = np.zeros((n_bytes, tile.shape[1]), np.uint8)
    for i, ones in enumerate(tile, before):
        packed[i // 8] |= ones << (7 - i % 8)  # np.packbits takes four times as long
    # A transposed block is small; transposed at once, all would be in memory twice.
    for start in range(0, tile.shape[1], block):
        part = packed[:, start : start + block].T
        first = row + start
        # Mapped anew for each block: the pages written before are let go.
        out = np.load(path, mmap_mode="r+")
        # "or", as a byte may belong to two tiles
        out[first : first + len(part), first_byte : first_byte + n_bytes] |= part


def have_strands(X, Y):
    """Is the second half the reverse complements of the first, on 1,000 rows?"""
    half = len(X) // 2
    # Of an odd number of rows there are no halves.
    if not half or len(X) % 2:
        return False
    rows = even_sample(half, 1000)
    # The other strand of row i is row half + i, if it is there.
    mates = rows + half
    same_bases = reverse_complement(onehot(X[rows])) == onehot(X[mates])
    same_labels = Y[rows] == Y[mates]
    return bool(same_bases.all() and same_labels.all())


def even_sample(n, sample):
    """At most `sample` of the numbers 0..n-1, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(sample, n)).astype(int))


# ---- annotating new sequences

# Each letter and the bases that it stands for.
IUPAC = (
    "A:A C:C G:G T:T U:T R:AG Y:CT S:CG W:AT K:GT M:AC B:CGT D:AGT H:ACT V:ACG N: -: .:"
)
BIN = 200  # bases that a label speaks of, in the middle of a window


# What stands before the scores of a bin, and its type.
PLACE = {
    "record": str,
    "start": int,
    "end": int,
    "window_start": int,
    "window_end": int,
    "padded": int,
}
DRAWN = 5000  # bins of the first record


def annotate(args, score, strand_blind=False):
    """Write the scores of --predict's bins to --output, a TSV or HDF5 table.

    A row for each bin of 200 bases, as the labels speak of these: start and end of the
    bin, then of the 1,000 bases around it that the scores were read from, 0-based and
    half-open. padded is 1 where some of those lie outside the record: they are N.
    score : packed (n, 500) -> (n, K); both strands are scored and averaged
    strand_blind : it answers the same for both: one is enough
    """
    fasta = args.predict
    output = args.output or "predictions.tsv"
    out_dir = Path(args.out_dir)
    refuse_to_overwrite(output, fasta, *run_files(out_dir))
    names, columns = choose_labels(out_dir, args.labels)
    # For --plot, kept as they pass: the table may be standard output, or zipped.
    drawn = []  # bins and their scores
    done = 0
    padded = 0
    bar = progress_beside(output, "bin")
    with new_table(output, PLACE, names, ["probability"], args.top) as add:
        for batch, P in scored_bins(fasta, score, strand_blind, args.batch_size):
            P = P[:, columns]
            places = [window[:-1] for window in batch]  # without their letters
            add(places, {"probability": P})
            padded += sum(place[-1] for place in places)
            if done < DRAWN:
                drawn += zip(places, P, strict=True)
            done += len(batch)
            bar.update(done)
        # An empty table would look like a result.
        if not done:
            raise BadInput(f"{fasta} holds no sequence")
    bar.update(done, finalize=True)
    # And so would a message.
    to = messages(output)
    near_an_end = f" ({padded:,} padded with N)" if padded else ""
    print(f"{done:,} bins{near_an_end}, {len(names)} labels -> {output}", file=to)
    if args.plot:
        # Of a factor in many cells one panel, unless labels were asked for.
        factors = names if args.labels else [factor_of(name) for name in names]
        figure = draw_tracks(first_record(drawn[:DRAWN]), names, factors)
        save_figure(figure, args.plot, is_simulated(out_dir), to)


def run_files(out_dir):
    """The files of a run, which no output may overwrite."""
    return [Path(out_dir) / name for name in OUTPUTS]


def is_simulated(out_dir):
    """Was a finished run trained on SIMULATED data?"""
    return read_json(Path(out_dir) / "summary.json", "simulated")["simulated"]


def messages(output):
    """Where messages go: a table on standard output shall hold nothing else."""
    return sys.stderr if output and is_stdout(output) else sys.stdout


def progress_beside(output, unit):
    """A progress bar, unless it would be part of the table."""
    bar = progress(None, unit)
    if is_stdout(output):
        bar.verbose = 0
    return bar


def choose_labels(out_dir, pattern=None):
    """Names of a run's labels that match a regular expression, and their columns.

    Returns a list of n names, and numbers (n,) of the run's outputs: without a pattern
    all. BadInput where none matches.
    """
    names = [row["name"] for row in read_metrics(out_dir)]
    if pattern is None:
        return names, np.arange(len(names))
    # A whole name is itself: as an expression TF|CTCF is "TF or CTCF".
    if pattern in names:
        return [pattern], np.array([names.index(pattern)])
    try:
        # Anywhere in a name: CTCF finds GM12878|CTCF, too.
        columns = [i for i, name in enumerate(names) if re.search(pattern, name)]
    except re.error as error:
        raise BadInput(
            f"--labels {pattern} is no regular expression: {error}"
        ) from error
    if not columns:
        raise BadInput(
            f"--labels {pattern} matches none of the run's {len(names)} labels, such "
            f"as {shortened(names, 3)} (all are in {Path(out_dir) / 'metrics.csv'})"
        )
    return [names[i] for i in columns], np.array(columns)


def scored_bins(fasta, score, strand_blind, batch_size):
    """Yield batches of fasta_windows and their scores (n, K), over both strands."""
    # A generator: a genome is never in memory at once.
    windows = fasta_windows(fasta)
    while batch := list(itertools.islice(windows, batch_size)):
        X = letters_to_onehot(batch, fasta)
        yield batch, both_strands(score, X, strand_blind)


def both_strands(score, X, strand_blind):
    """Scores (n, K) of one-hot X (n, 1000, 4), the mean over both strands.

    strand_blind : both have the same scores: one is enough
    """
    P = score(packed(X))
    # Which strand a sequence was written down from says nothing.
    if not strand_blind:
        P = (P + score(packed(reverse_complement(X)))) / 2
    return P


def first_record(drawn):
    """Those of [(columns of PLACE, scores)] before the next record starts at 0."""
    others = itertools.takewhile(lambda one: one[0][1] > 0, drawn[1:])
    return [drawn[0], *others]


def draw_tracks(drawn, names, factors):
    """A figure: the ten highest labels along a record, one of each factor.

    drawn : [(columns of PLACE, scores (K,))], a record's bins
    """
    places, scores = zip(*drawn, strict=True)
    P = np.array(scores)  # (bins, K)
    record, *_ = places[0]
    starts = [place[1] for place in places]
    ends = [place[2] for place in places]
    middles = np.add(starts, ends) / 2
    # Where each bar begins, and the last one ends. Bins lie side by side; the last, at
    # the record's end, may cover a part of the one before, and is drawn over it.
    edges = [*starts, ends[-1]]
    # Of each label its best bin, of each factor its best label; of these the ten best.
    best_of = {}
    for label in np.argsort(-P.max(0)):
        best_of.setdefault(factors[label], label)
    highest = list(best_of.values())[:10]
    size = (12, 1 + 0.6 * len(highest))
    figure, axes = subplots(len(highest), figsize=size, sharex=True, squeeze=False)
    # One narrow panel a label, all on one scale.
    for axis, label in zip(axes[:, 0], highest, strict=True):
        axis.stairs(P[:, label], edges, fill=True, alpha=0.5)
        axis.plot(middles, P[:, label], ".k")
        axis.set(ylim=(0, 1))
        axis.set_ylabel(names[label], rotation=0, ha="right", va="center")
    axis.set_xlabel(
        f"base of {record}; probability of each label at the middle of each bin"
    )
    return figure


def fasta_windows(path, width=BIN):
    """Yield a FASTA file's windows: the columns of PLACE, then 1,000 letters.

    One record is in memory at a time. Its bins, of `width` bases, lie side by side, the
    last one flush with its end; a record shorter than a bin is one bin. Each bin stands
    in the middle of its window.
    """
    for name, letters in fasta_records(path):
        n = len(letters)
        for start in starts(n, width):
            end = min(start + width, n)
            # Example, a bin 200..400 of a record of 500: window -200..800, so 200 N,
            # 500 letters, 300 N.
            window_start = (start + end) // 2 - LENGTH // 2
            window_end = window_start + LENGTH
            padded = int(window_start < 0 or window_end > n)
            # What the scores are read from, whatever the bin.
            window = cut(letters, window_start)
            yield name, start, end, window_start, window_end, padded, window


def cut(letters, start):
    """The 1,000 letters from `start` on, N where there are none."""
    # Example, start -400: 400 N, then the first 600 letters.
    before = b"N" * max(0, -start)
    inside = letters[max(0, start) : max(0, start + LENGTH)]
    return (before + inside).ljust(LENGTH, b"N")


def starts(n, width):
    """Of bins that lie side by side over n letters, the last one flush with the end.

    Example, n = 1,450 and width 200: 0, 200, ... 1,200 and 1,250.
    """
    # A record without letters has no bin.
    if not n:
        return []
    # range() ends before n - width, which the last bin takes in any case.
    return [*range(0, n - width, width), max(0, n - width)]


def text_lines(path):
    """Yield (number, line) of a text file, plain or gzip, from line 1 on."""
    damage = (EOFError, OSError, zlib.error)
    with file_faults(path, "copy it again", damage), open(path, "rb") as file:
        # Whatever its name.
        is_gzip = file.peek(2).startswith(b"\x1f\x8b")
        content = gzip.open(file) if is_gzip else file
        # It takes \n, \r\n and \r for the end of a line, and drops a byte-order mark.
        text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text, 1):
            yield number, line.rstrip("\n")


def fasta_records(path):
    """Yield (name, letters) of a FASTA file, plain or gzip, one record in memory.

    letters : bytearray, upper case, without white space
    """
    name = None
    letters = bytearray()
    for _, line in text_lines(path):
        if line.startswith(">"):
            # A new record begins: the one before it is whole.
            if name is not None:
                yield name, letters
            # A record's name is the header's first word.
            name = [*line[1:].split(), "unnamed"][0].replace("\0", "?")
            letters = bytearray()
        elif name is not None:
            letters += line.encode("ascii", "replace").upper().translate(None, b" \t")
        elif line.strip():
            raise BadInput(
                f"{path} is not FASTA: a record starts with a line that begins with >"
            )
    if name is not None:
        yield name, letters


def letters_to_onehot(windows, path):
    """One-hot (n, 1000, 4) uint8 of fasta_windows.

    An IUPAC code sets several bases, N none.
    """
    unknown = 2
    # A row for each byte that a letter may be.
    table = np.full((256, 4), unknown, np.uint8)
    for entry in IUPAC.split():
        letter, bases = entry.split(":")
        table[ord(letter)] = [base in bases for base in BASES]
    # All windows in one string: one look-up for all of them.
    letters = b"".join(window[-1] for window in windows)
    X = table[np.frombuffer(letters, np.uint8)].reshape(-1, LENGTH, 4)
    wrong = np.argwhere(X[..., 0] == unknown)
    if len(wrong):
        row, column = wrong[0]
        name, *_, window_start, _, _, letters = windows[row]
        base = window_start + column + 1  # counted from 1
        raise BadInput(
            f"{path}: record {name} holds {chr(letters[column])!r} at base {base}: "
            "not DNA"
        )
    return X


# ---- tables of scores

CHUNK = 256  # rows of a table that HDF5 keeps together


@contextlib.contextmanager
def new_table(path, place, labels, keys, top=None):
    """Yield a function add(rows, scores) that appends to a new table.

    path : a TSV (gzip if it ends in .gz, "-" for standard output), or HDF5 (.h5)
    place : {column: type}, what stands before the scores
    keys : what is told of each label; a TSV has a column for each label and key
    top : in place of all labels a row for each of the `top` largest of the last key
    rows : list of tuples, the values of `place`;  scores : {key: (rows, labels)}
    """
    if str(path).endswith(".h5"):
        with new_hdf5_table(path, place, labels, keys) as add:
            yield add
        return
    # With one key the label alone is the column's name.
    columns = labels
    if len(keys) > 1:
        columns = [f"{label}|{key}" for label in labels for key in keys]
    if top:
        columns = ["label", *keys]
    with new_text(path) as file:
        print(*place, *columns, sep="\t", file=file)

        def add(rows, scores):
            if top:
                rows, numbers = largest(rows, scores, labels, top)
            else:
                # A label's keys side by side: (rows, labels, keys) laid flat.
                numbers = np.stack(list(scores.values()), -1)
                numbers = numbers.reshape(len(rows), -1)
            write_rows_of_text(file, rows, numbers)

        yield add


def write_rows_of_text(file, rows, numbers):
    """Lines of a TSV.  rows : list of tuples;  numbers : (rows, columns)"""
    # A whole row by one %: number by number takes three times as long, which at 919
    # labels is more than a third of what their scores take.
    row_format = "\t".join(["%.6g"] * numbers.shape[1])
    for row, values in zip(rows, numbers.tolist(), strict=True):
        print(*row, row_format % tuple(values), sep="\t", file=file)


def largest(rows, scores, labels, top):
    """A row for each of the `top` labels whose last key is largest, whatever its sign.

    scores : {key: (rows, labels)}
    Returns rows with the label behind them, and numbers (rows * top, keys).
    Example, top 1, labels A and B, differences .1 and -.3: (place..., "B"), -.3.
    """
    last = list(scores.values())[-1]
    # stable: of equals the first label comes first, whatever the machine
    order = np.argsort(-np.abs(last), axis=1, kind="stable")[:, :top]
    # What says where a row is stands before each of its labels again.
    with_label = []
    for row, columns in zip(rows, order, strict=True):
        for column in columns:
            with_label.append((*row, labels[column]))
    picked = [np.take_along_axis(P, order, 1) for P in scores.values()]
    return with_label, np.stack(picked, -1).reshape(len(with_label), -1)


@contextlib.contextmanager
def new_hdf5_table(path, place, labels, keys):
    """new_table in HDF5: a dataset for each of `place`, `keys`, and labels (K,).

    Scores are float16, (rows, K), in chunks of CHUNK rows.
    """
    text = h5py.string_dtype()
    with new_file(path) as temporary, new_hdf5(temporary) as file:
        file["labels"] = np.array(labels, text)
        # Empty, and as long as they become: nobody knows the rows beforehand.
        for name, kind in place.items():
            kind = text if kind is str else kind
            file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(4096,))
        for key in keys:
            shape = (0, len(labels))
            most = (None, len(labels))
            chunks = (CHUNK, len(labels))
            file.create_dataset(key, shape, "f2", maxshape=most, chunks=chunks)

        def add(rows, scores):
            append_to_hdf5(file, place, rows, scores)

        yield add


def append_to_hdf5(file, place, rows, scores):
    """Append rows (a list of tuples) and scores {key: (rows, K)} to a table."""
    columns = dict(zip(place, zip(*rows, strict=True), strict=True))
    # Twice what the scores take, and more than all else.
    size = sum(P.nbytes for P in scores.values()) + (16 << 20)
    claim(file.filename, file.id.get_filesize() + size)
    # Rounded here: float16 has three digits, and half the bytes of float32.
    for name, values in (columns | scores).items():
        array = file[name]
        n = len(array)
        array.resize(n + len(rows), axis=0)
        array[n:] = values


# ---- what a mutation does

EFFECTS = ("diff", "logit", "both")
CLIPPED = 1e-6  # probabilities nearer to 0 or 1 count as this near, in log-odds
CHANGES = 600  # scored at a time: those of a --mutate record of 200 bases
CHECKED = 1000  # variants after which a VCF of another assembly is refused
# What stands before the effects of a variant, as Selene has it; pos counts from 1.
VARIANT_PLACE = {
    "chrom": str,
    "pos": int,
    "name": str,
    "ref": str,
    "alt": str,
    "strand": str,
    "ref_match": bool,
    "contains_unk": bool,
}
MUTATION_PLACE = {"record": str, "position": int, "ref": str, "alt": str}


@dataclasses.dataclass
class Change:
    """One allele in place of another.

    place : its row's values of VARIANT_PLACE or MUTATION_PLACE
    before, after : windows as fasta_windows yields them, their letters last: the
        sequence with the reference allele, and with the alternative one
    """

    place: tuple
    before: tuple
    after: tuple


def write_variant_effects(args, score, strand_blind=False):
    """Write what the variants of a VCF change, a row for each alternative allele.

    -> --output, a TSV or HDF5 table, and OUTPUT.skipped.tsv: alleles without a row, if
    any, and why.
    score : packed (n, 500) -> (n, K); both strands are scored and averaged
    strand_blind : it answers the same for both: one is enough
    """
    output = args.output or "effects.tsv"
    # Standard output has no name: then it is that of the default.
    beside = "effects.tsv" if is_stdout(output) else output
    skipped = f"{beside}.skipped.tsv"
    # Before an hour of scoring: nothing that is read may be written over.
    read = [args.variants, args.genome, f"{args.genome}.fai", *run_files(args.out_dir)]
    refuse_to_overwrite(output, *read)
    refuse_to_overwrite(skipped, *read)
    names, columns = choose_labels(args.out_dir, args.labels)
    keys = effect_keys(args.effect, args.top)
    done = 0
    with (
        open_genome(args.genome, messages(output)) as genome,
        new_table(output, VARIANT_PLACE, names, keys, args.top) as add,
        new_text(skipped) as file,
    ):
        tally = Tally(args.variants, args.genome, file)
        changes = variant_changes(genome, tally)
        bar = progress_beside(output, "allele")
        for batch, P, P_alt in scored_changes(
            changes, score, strand_blind, columns, args.batch_size, args.genome
        ):
            # Written as they pass: the table may be larger than memory.
            add([change.place for change in batch], effects(P, P_alt, keys))
            done += len(batch)
            bar.update(done)
        # A table of another assembly shall not get its name.
        tally.refuse_other_assembly()
    bar.update(done, finalize=True)
    tally.report(done, len(names), output, skipped)
    if not tally.reasons:
        Path(skipped).unlink()  # it holds a header alone


def effect_keys(effect, top=None):
    """What is told of each label, by --effect and --top: names of effects()."""
    if top:
        # By the last of them the rows are chosen.
        return ["p_ref", "p_alt", "logit" if effect == "logit" else "diff"]
    if effect == "both":
        return ["p_ref", "p_alt"]
    return [effect or "diff"]


def effects(P, P_alt, keys):
    """{key: (n, K)} of probabilities (n, K) with the reference allele and another.

    diff : probability with the alternative allele minus that with the reference
    logit : the same of log-odds, natural; .5 to .8 is log(.8 / .2) - log(1) = 1.386
    """
    found = {"p_ref": P, "p_alt": P_alt, "diff": P_alt - P}
    if "logit" in keys:
        found["logit"] = log_odds(P_alt) - log_odds(P)
    return {key: found[key] for key in keys}


def log_odds(P):
    # A probability of 0 would have infinite log-odds.
    return scipy.special.logit(np.clip(P.astype(float), CLIPPED, 1 - CLIPPED))


def scored_changes(changes, score, strand_blind, columns, batch_size, path):
    """Yield batches of Changes, and their probabilities of some labels, (n, K) each.

    score, strand_blind : as both_strands takes them
    columns : numbers of the labels among the outputs of `score`
    path : the file that the windows are of, for errors
    """
    changes = iter(changes)
    while batch := list(itertools.islice(changes, CHANGES)):
        # The window of a reference allele is that of all its alternatives: each window
        # is scored once.
        row_of = {}
        for change in batch:
            row_of.setdefault(change.before, len(row_of))
            row_of.setdefault(change.after, len(row_of))
        P = score_windows(list(row_of), score, strand_blind, batch_size, path)
        P = P[:, columns]
        before = [row_of[change.before] for change in batch]
        after = [row_of[change.after] for change in batch]
        yield batch, P[before], P[after]


def score_windows(windows, score, strand_blind, batch_size, path):
    """Scores (n, K) of windows as fasta_windows yields them."""
    X = letters_to_onehot(windows, path)
    # Example, 13 windows in batches of 5: 2 are missing.
    # The last batch is filled up with N: one of another size would be compiled anew.
    missing = -len(X) % batch_size
    X = np.concatenate([X, np.zeros((missing, LENGTH, 4), np.uint8)])
    scores = []
    for rows in gen_batches(len(X), batch_size):
        scores.append(both_strands(score, X[rows], strand_blind))
    return np.concatenate(scores)[: len(windows)]


# Where an allele stands: half a window of genome, the allele, half a window of genome,
# and of all that the middle 1,000 bases. So every allele is in the middle of its own
# window, whatever its length. With windows of 10 in place of 1,000, REF GAT in the
# genome ...ACGTA GAT CCTTG...:
#
#     REF GAT    CGTA GAT CCT
#     ALT G      ACGTA G CCTT    a shorter one takes more genome, here a base a side
#     ALT GAATT  GTA GAATT CC    a longer one trims both ends
#
# An allele of one base has 500 bases to its left and 499 to its right.


def flanks(n):
    """Bases of genome to the left and right of an allele of n bases.

    n = 1: 500, 499; n = 2: 499, 499; n = 3: 499, 498; from 1,000 on none.
    """
    left = max(0, LENGTH // 2 - n // 2)
    right = max(0, LENGTH - left - n)
    return left, right


def allele_window(chrom, start, allele, left, right):
    """The window around an allele, or None where the genome ends before it does.

    start : of the allele, from 0
    left, right : letters of the genome on both sides, up to 500
    """
    n_left, n_right = flanks(len(allele))
    # N in their place would be another sequence than the genome's.
    if len(left) < n_left or len(right) < n_right:
        return None
    # Of an allele longer than a window its own middle.
    first = max(0, (len(allele) - LENGTH) // 2)
    letters = left[len(left) - n_left :] + allele[first : first + LENGTH]
    return named_window(chrom, start - n_left, letters + right[:n_right])


def named_window(name, start, letters):
    """A window of a record as fasta_windows has it."""
    return name, start, start + LENGTH, 0, letters


def has_unknown(window):
    """Does a window hold a letter that is not A, C, G or T?"""
    return bool(window[-1].translate(None, LETTERS.encode()))


# ---- variants of a VCF


@dataclasses.dataclass
class Variant:
    """A line of a VCF.  pos : of REF's first base, from 1;  alts : its alleles"""

    line: int
    chrom: str
    pos: int
    name: str
    ref: str
    alts: list


class Tally:
    """What became of a VCF's variants, and the file of those that have no row."""

    def __init__(self, vcf, genome, file):
        self.vcf = vcf
        self.genome = genome
        self.file = file
        self.found = 0  # variants whose chromosome is in the genome
        self.compared = 0  # variants whose REF was compared with the genome
        self.differing = 0  # of those
        self.first_differing = None  # as chr1:1000
        self.reasons = collections.Counter()
        self.missing = collections.Counter()  # chromosomes
        columns = ("line", "chrom", "pos", "name", "ref", "alt", "reason")
        print(*columns, sep="\t", file=file)

    def skip(self, variant, alt, reason):
        self.reasons[reason] += 1
        place = (variant.chrom, variant.pos, variant.name, variant.ref)
        print(variant.line, *place, alt, reason, sep="\t", file=self.file)

    def compare(self, variant, matches):
        self.compared += 1
        if not matches:
            if not self.differing:
                self.first_differing = f"{variant.chrom}:{variant.pos}"
            self.differing += 1
        # A genome's worth of variants shall not be scored in vain.
        if self.compared == CHECKED:
            self.refuse_other_assembly()

    def refuse_other_assembly(self):
        """BadInput where more than half of the reference alleles are other bases."""
        if self.differing > self.compared / 2:
            raise BadInput(
                f"{self.vcf}: {self.differing:,} of {self.compared:,} reference "
                f"alleles are not what {self.genome} has there: another assembly?"
            )
        # Some may be missing, as chrM or decoys are; all are another genome.
        if self.missing and not self.found:
            raise BadInput(
                f"{self.vcf}: none of its chromosomes ({shortened(self.missing)}) is a "
                f"record of {self.genome}: another assembly?"
            )

    def report(self, done, n_labels, output, skipped):
        to = messages(output)
        if not done and not self.reasons:
            print(f"{self.vcf} holds no variant", file=to)
        print(f"{done:,} alleles, {n_labels} labels -> {output}", file=to)
        if self.differing:
            print(
                f"{self.differing:,} of {self.compared:,} reference alleles differ "
                f"from the genome, the first at {self.first_differing} (ref_match "
                "False): the VCF's was scored; another assembly or strand?",
                file=to,
            )
        for reason, n in self.reasons.most_common():
            print(f"left out: {n:,} alleles: {reason} -> {skipped}", file=to)


def variant_changes(genome, tally):
    """Yield the Changes of a VCF's variants, a line in memory at a time.

    genome : of open_genome()
    """
    for variant in read_variants(tally.vcf):
        key = plain_name(variant.chrom)
        if key not in genome:
            tally.missing[variant.chrom] += 1
            for alt in variant.alts:
                tally.skip(variant, alt, "its chromosome is not in the genome")
            continue
        tally.found += 1
        yield from changes_of(variant, genome, key, tally)


def changes_of(variant, genome, key, tally):
    """The Changes of one variant.  key : the name of its record in the genome"""
    # Lower case marks repeats: the same bases.
    ref = variant.ref.upper()
    start = variant.pos - 1  # from 0
    end = start + len(ref)
    n = len(genome[key])
    # The VCF format calls the ends of a chromosome 0 and n + 1.
    if variant.pos > n + 1:
        raise BadInput(
            f"{tally.vcf}:{variant.line}: position {variant.pos:,} is past the last "
            f"base of {variant.chrom} ({n:,}): another assembly?"
        )
    matches = letters_between(genome, key, start, end) == ref.encode()
    # No allele takes more than half a window on either side.
    left = letters_between(genome, key, start - LENGTH // 2, start)
    right = letters_between(genome, key, end, end + LENGTH // 2)
    before = allele_window(variant.chrom, start, ref.encode(), left, right)
    found = []
    for alt in variant.alts:
        reason = why_no_sequence(alt)
        if not reason:
            letters = alt.upper().encode()
            after = allele_window(variant.chrom, start, letters, left, right)
            if before is None or after is None:
                reason = "its window reaches over an end of the chromosome"
        if reason:
            tally.skip(variant, alt, reason)
            continue
        unknown = has_unknown(before) or has_unknown(after)
        place = (variant.chrom, variant.pos, variant.name, variant.ref, alt)
        found.append(Change((*place, "+", matches, unknown), before, after))
    # Once for a line, however many alleles it has.
    if found:
        tally.compare(variant, matches)
    return found


def letters_between(genome, key, start, end):
    """Upper-case letters start..end of a record, from 0; fewer past its ends."""
    start = max(0, start)
    end = min(end, len(genome[key]))
    if start >= end:
        return b""
    # pyfaidx reads these letters only, whatever the genome.
    with file_faults(genome.filename, GENOME_ADVICE, GENOME_DAMAGE):
        return genome[key][start:end].encode()


def why_no_sequence(alt):
    """Why an ALT of a VCF stands for no letters, or None where it is letters."""
    if alt == ".":
        return "no alternative allele (.)"
    if alt == "*":
        return "missing because of another deletion (*)"
    if alt.startswith("<"):
        return "symbolic allele (<...>)"
    # G]17:198982], and .TGCA for one end that lies nowhere
    if set(alt) & set("[]."):
        return "breakend"
    return None


ALLELE = re.compile("[ACGTNRYSWKMBDHV]+", re.IGNORECASE)


def read_variants(path):
    """Yield the Variants of a VCF, plain, gzip or bgzip.

    BadInput names the line that is none.
    """
    has_header = False
    for number, line in text_lines(path):
        # The format has no comments, but tools leave empty lines.
        if line.startswith("##") or not line.strip():
            continue
        if line.startswith("#"):
            has_header = line.split("\t")[:5] == ["#CHROM", "POS", "ID", "REF", "ALT"]
            if not has_header:
                raise BadInput(
                    f"{path}:{number}: must be the header #CHROM POS ID REF ALT, with "
                    f"tabs between, is {line[:60]!r}"
                )
            continue
        if not has_header:
            raise BadInput(
                f"{path}:{number}: not a VCF: a line that begins with #CHROM must "
                "stand before the variants"
            )
        columns = line.split("\t")
        fault = fault_of_variant(columns)
        if fault:
            raise BadInput(f"{path}:{number}: {fault}")
        # What else a line says, of quality and samples, changes no window.
        chrom, pos, name, ref, alts = columns[:5]
        yield Variant(number, chrom, int(pos), name, ref, alts.split(","))
    if not has_header:
        raise BadInput(f"{path} is not a VCF: it has no line that begins with #CHROM")


def fault_of_variant(columns):
    """What is wrong with a line of a VCF, or None."""
    if len(columns) < 5 or not all(columns[:5]):
        return "must hold CHROM, POS, ID, REF and ALT, with tabs between"
    pos, _, ref, alts = columns[1:5]
    # isdecimal is False for a minus, a point, an exponent and for nothing at all
    if not pos.isdecimal():
        return f"POS must be a whole number, is {pos!r}"
    if not ALLELE.fullmatch(ref):
        return f"REF must be bases, is {ref[:60]!r}"
    # Each must be letters, or one of the forms that stand for none.
    for alt in alts.split(","):
        if not why_no_sequence(alt) and not ALLELE.fullmatch(alt):
            return f"ALT must be bases, is {alt[:60]!r}"
    return None


GENOME_ADVICE = (
    "a genome must be FASTA, all lines of a record as long but the last; remove its "
    ".fai and .gzi where they are of another file"
)
# What pyfaidx raises at files that are no FASTA, or not what their index says.
GENOME_DAMAGE = (
    pyfaidx.FastaIndexingError,
    ValueError,
    IndexError,
    struct.error,
    zlib.error,
)


@contextlib.contextmanager
def open_genome(path, to=None):
    """Yield a FASTA by random access: {plain record name: record}.

    record[start:end] are letters in upper case, from 0, end excluded; len(record) their
    number. What is read are these letters and the index beside it, path.fai, which is
    made where it is missing or older; of a bgzip file path.gzi, too.
    to : the file that this is said to
    """
    packed_so = how_packed(path)
    if packed_so == "gzip" or (packed_so and not str(path).endswith((".gz", ".bgz"))):
        raise BadInput(
            f"{path} is {packed_so}: random access needs it unpacked: "
            f"gunzip -c {path} > genome.fa"
        )
    with file_faults(path, GENOME_ADVICE, GENOME_DAMAGE):
        make_index(path, packed_so, to)
        refuse_equal_names(path)
        genome = pyfaidx.Fasta(
            str(path),
            key_function=plain_name,
            as_raw=True,
            sequence_always_upper=True,
            rebuild=False,
            build_index=False,
        )
    with genome:
        # Line ends of old Macs make all of a file one header.
        if not any(len(record) for record in genome):
            raise BadInput(f"{path} holds no sequence")
        yield genome


def refuse_equal_names(path):
    """BadInput where an indexed FASTA has two records of one chromosome."""
    first_of = {}
    # The index: a line for each record, its name first.
    for line in Path(f"{path}.fai").read_text().splitlines():
        name = line.split("\t")[0]
        key = plain_name(name)
        if key in first_of:
            raise BadInput(one_chromosome(path, first_of[key], name))
        first_of[key] = name


def one_chromosome(path, first, name):
    return (
        f"{path}: records {first} and {name} are one chromosome: leave one out "
        "(faidx genome.fa chr1 chr2 ... > less.fa)"
    )


def how_packed(path):
    """How a file is compressed: "gzip", "bgzip", or None."""
    with file_faults(path, damage=()), open(path, "rb") as file:
        start = file.read(14)
    if not start:
        raise BadInput(f"{path} is empty")
    if not start.startswith(b"\x1f\x8b"):
        return None
    # bgzip writes gzip in small pieces, each of which begins with a field called BC.
    return "bgzip" if start[12:] == b"BC" else "gzip"


def make_index(path, packed_so, to):
    """Make a genome's index beside it where it is missing or older."""
    indices = [f"{path}.fai"]
    if packed_so:
        indices.append(f"{path}.gzi")
    # A genome that changed since has its letters in other places.
    changed = os.stat(path).st_mtime
    if all(os.path.exists(x) and os.stat(x).st_mtime >= changed for x in indices):
        return
    if not os.access(Path(path).absolute().parent, os.W_OK):
        raise BadInput(
            f"{indices[0]} is missing or older, and its folder may not be written: "
            "link the genome into a folder of yours"
        )
    print(f"index of {path} -> {' and '.join(indices)} (once)", file=to)
    with contextlib.ExitStack() as stack:
        # Beside it and renamed: another process shall not read half an index.
        new = [stack.enter_context(new_file(index)) for index in indices]
        # A plain file has no .gzi.
        pyfaidx.Faidx(str(path), new[0], gzi_indexname=new[-1]).close()


# ---- every change of a sequence, and its picture

DRAWN_LABELS = 3  # of --mutate's picture; of --labels at most ten


def write_mutation_effects(args, score, strand_blind=False):
    """Change every base of each record's middle to each other base.

    In-silico saturation mutagenesis (Zhou & Troyanskaya 2015) -> --output, a TSV or
    HDF5 table: a row for each change; with --plot a picture of the first record.
    score : packed (n, 500) -> (n, K); both strands are scored and averaged
    strand_blind : it answers the same for both: one is enough
    """
    output = args.output or "mutations.tsv"
    out_dir = Path(args.out_dir)
    refuse_to_overwrite(output, args.mutate, *run_files(out_dir))
    names, columns = choose_labels(out_dir, args.labels)
    keys = effect_keys(args.effect, args.top)
    span = args.span or BIN
    first = FirstMutations()  # for --plot
    drawn = effect_keys(args.effect, top=1)[-1]  # one number for each change
    unknown = collections.Counter()
    done = 0
    bar = progress_beside(output, "change")
    # One record is in memory at a time, and a batch of its changes.
    with new_table(output, MUTATION_PLACE, names, keys, args.top) as add:
        changes = mutations(args.mutate, span, unknown)
        for batch, P, P_alt in scored_changes(
            changes, score, strand_blind, columns, args.batch_size, args.mutate
        ):
            places = [change.place for change in batch]
            add(places, effects(P, P_alt, keys))
            if args.plot:
                first.add(batch, effects(P, P_alt, [drawn])[drawn])
            done += len(batch)
            bar.update(done)
        if not done:
            raise BadInput(f"{args.mutate} holds no A, C, G or T to change")
    bar.update(done, finalize=True)
    to = messages(output)
    print(f"{done:,} changes, {len(names)} labels -> {output}", file=to)
    for name, n in unknown.items():
        print(f"left out: {n:,} letters of {name}: not A, C, G or T", file=to)
    if args.plot:
        most = 10 if args.labels else DRAWN_LABELS
        figure = draw_mutations(first, names, drawn, most)
        save_figure(figure, args.plot, is_simulated(out_dir), to)


def mutations(path, span, unknown):
    """Yield the Changes of the middle `span` bases of each record of a FASTA.

    position counts the record's bases from 1. The window is the record's middle; a
    record shorter than that is centred in N.
    unknown : Counter, of letters in the middle that are no base, by record
    """
    for name, letters in fasta_records(path):
        # Example, 5 letters: window -498..502, so the middle one, 2, is its base 500;
        # a span of 3 is the letters 1, 2, 3.
        window_start = len(letters) // 2 - LENGTH // 2
        window = cut(letters, window_start)
        before = named_window(name, window_start, window)
        first = len(letters) // 2 - span // 2
        last = min(first + span, len(letters))
        for i in range(max(0, first), last):
            base = chr(letters[i])
            # An N has no effect to lose.
            if base not in LETTERS:
                unknown[name] += 1
                continue
            for other in LETTERS.replace(base, ""):
                place = (name, i + 1, base, other)
                changed = bytearray(window)
                changed[i - window_start] = ord(other)
                after = named_window(name, window_start, bytes(changed))
                yield Change(place, before, after)


class FirstMutations:
    """Bases and effects of the first record's changes.

    bases : {position: letter};  effects : {(position, other letter): (K,)}
    """

    def __init__(self):
        self.before = None  # the first record's window
        self.bases = {}
        self.effects = {}

    def add(self, changes, effects):
        """changes : list of Change;  effects : (n, K)"""
        self.before = self.before or changes[0].before
        for change, effect in zip(changes, effects, strict=True):
            # All changes of a record share its window.
            if change.before is self.before:
                _, position, base, other = change.place
                self.bases[position] = base
                self.effects[position, other] = effect

    def heat(self, label):
        """Effects (4, positions) of a label, rows A, C, G, T; 0 where nothing changes.

        Positions go from the first to the last; NaN where a letter is no base.
        """
        first = min(self.bases)
        heat = np.full((len(LETTERS), max(self.bases) - first + 1), np.nan)
        for position, base in self.bases.items():
            for row, letter in enumerate(LETTERS):
                effect = 0.0
                if letter != base:
                    effect = self.effects[position, letter][label]
                heat[row, position - first] = effect
        return heat


def draw_mutations(first, names, key, most):
    """A figure: heat maps of FirstMutations, a letter below each column.

    A letter is as high as the label falls, on the mean of its base's three changes; one
    whose changes would raise the label hangs below the line.
    names : of the labels;  key : "diff" or "logit";  most : labels to draw
    """
    change = np.abs(list(first.effects.values())).max(0)  # (K,), the largest
    labels = np.argsort(-change, kind="stable")[:most]
    # For each label two panels: a heat map, and half as high the letters.
    heights = [2, 1] * len(labels)
    figure, axes = subplots(
        len(heights),
        figsize=(18, 0.8 + 2.6 * len(labels)),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
    )
    for i, label in enumerate(labels):
        heat_axis, letter_axis = axes[2 * i : 2 * i + 2, 0]
        image = draw_heat(heat_axis, first, label)
        heat_axis.set_title(names[label])
        # Beside both, so that a column stands above its letter.
        bar = figure.colorbar(image, ax=[heat_axis, letter_axis], pad=0.01)
        bar.set_label("change of " + {"diff": "probability", "logit": "log-odds"}[key])
        draw_losses(letter_axis, first, label)
    axes[-1, 0].set_xlabel(f"base of {first.before[0]}, from 1")
    return figure


def draw_heat(axis, first, label):
    heat = first.heat(label)
    most = np.nanmax(np.abs(heat)) or 1.0  # nothing may change
    left = min(first.bases) - 0.5
    # White is no change, red more of the label, blue less; row 0, A, is on top.
    image = axis.imshow(
        heat,
        cmap="RdBu_r",
        vmin=-most,
        vmax=most,
        aspect="auto",
        interpolation="nearest",
        extent=(left, left + heat.shape[1], len(LETTERS) - 0.5, -0.5),
    )
    axis.set(yticks=range(len(LETTERS)), yticklabels=LETTERS)
    # A dot where the base is the sequence's own.
    rows = [LETTERS.index(base) for base in first.bases.values()]
    axis.plot(list(first.bases), rows, ".k", markersize=2)
    return image


def draw_losses(axis, first, label):
    heat = first.heat(label)
    # The base's own row is 0: the sum is that of its three changes.
    costs = -heat.sum(0) / (len(LETTERS) - 1)
    highest = np.nanmax(np.abs(costs)) or 1.0
    start = min(first.bases)
    # The highest letter fills the panel; what is less than 3 % of it is no letter.
    for position, base in first.bases.items():
        height = costs[position - start] / highest
        draw_letter(axis, LETTERS.index(base), position, 0.0, height, least=0.03)
    axis.axhline(0, color="k", linewidth=0.5)
    axis.set(ylim=(min(0, np.nanmin(costs) / highest) - 0.05, 1.05), yticks=[])
    axis.set_ylabel("mean fall")


# ---- data from peaks and a genome

FLANK = (LENGTH // BIN - 1) // 2  # bins of a window on each side of its own: 2
# --bins: which bins are kept.
RULES = {
    "tf": "those with a TF label",
    "any": "those with any label",
    "all": "every one without an N around it",
}
DEEPSEA_REGIONS = {"valid": ["chr7:30508751-35296850"], "test": ["chr8", "chr9"]}
UNKNOWN = 4  # code of N and all letters that mean several bases
NOT_DNA = 255
WINDOWS = 4096  # written at a time: 16 MB as one-hot
# An array's size is written in 31 bits, with its name and shape.
V5_BYTES = 2**31 - 1024
V5_SLAB = 128 << 20  # bytes written at a time
# Types of MATLAB's v5 format, by its documentation.
MI_INT8 = 1
MI_UINT8 = 2
MI_INT32 = 5
MI_UINT32 = 6
MI_MATRIX = 14
MI_COMPRESSED = 15
MX_UINT8_CLASS = 9


@dataclasses.dataclass
class Chromosome:
    """A record of the genome, on the grid of its whole 200-bp bins, n of them.

    has_n : (n,) bool, the bin holds a letter other than A, C, G, T
    owner : (n,) int8, the split of the bin, as a number in SPLITS: train, valid, test
    kept : the bins that become windows, in their order
    peaks : [(label, its peaks (n, 2): start, end)], labels in their order
    """

    name: str
    length: int
    has_n: np.ndarray
    owner: np.ndarray
    kept: np.ndarray = None
    peaks: list = dataclasses.field(default_factory=list)

    def kept_for(self, split):
        owners = self.owner[self.kept]
        return self.kept[owners == SPLITS.index(split)]


def make_data(
    folder, genome, tracks, valid=None, test=None, bins=None, min_signal=None
):
    """Write data in DeepSEA's layouts to a new folder.

    A 200-bp bin has a label where more than 100 of its bases lie in the union of the
    label's peaks. A window is a bin and 400 bases on each side, without an N.

    genome : FASTA;  tracks : table of assay, name, file;  min_signal : of column 7
    valid, test : lists of regions, as chr7:30508751-35296850; all else trains
    bins : those to keep: "tf", with a TF label (Zhou & Troyanskaya 2015), "any", "all"
    """
    started = time.time()
    folder = Path(folder)
    labels = read_tracks(Path(tracks))
    rule = choose_rule(bins, labels)
    # The folder gets its name when all of it is written: a stopped command leaves none.
    with new_folder(folder) as temporary:
        print(f"[1/3] genome: {genome}")
        chromosomes = read_genome(genome)
        given = {"valid": valid, "test": test}
        regions = assign_regions(chromosomes, given, genome)
        print(f"[2/3] peaks: {len(labels)} labels of {tracks}")
        left_out = sort_peaks(labels, chromosomes, min_signal)
        for chromosome in chromosomes.values():
            keep_bins(chromosome, labels, rule)
        # Now that it is known which bins are kept: no split may be empty.
        check_regions(regions, chromosomes)
        total = sum(len(chromosome.kept) for chromosome in chromosomes.values())
        print(
            f"[3/3] windows: {total:,} x {len(labels)} labels, both strands; bins: "
            f"{RULES[rule]} (--bins {rule})"
        )
        write_labels(temporary, labels)
        write_beds(temporary, chromosomes)
        positives = write_windows(temporary, genome, chromosomes, len(labels))
    print_kept(chromosomes, labels, positives)
    for reason, n in left_out.most_common(10):
        print(f"left out: {n:,} peaks {reason}")
    print(f"-> {folder} ({time.time() - started:.0f} s)")


@contextlib.contextmanager
def new_folder(folder):
    """Yield a hidden folder, which becomes `folder` when all went well."""
    if os.path.lexists(folder):
        raise BadInput(f"{folder} exists already: name a new one")
    temporary = folder.with_name(f".{folder.name}.tmp")
    # A run that was killed may have left it: then it is taken over. One that still
    # goes on holds its lock.
    with locked(temporary):
        try:
            yield temporary
            (temporary / ".lock").unlink()
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def choose_rule(rule, labels):
    """The rule that keeps bins; by default DeepSEA's, where there is a TF label."""
    has_tf = any(is_tf(label) for label in labels)
    if rule is None:
        return "tf" if has_tf else "any"
    if rule == "tf" and not has_tf:
        raise BadInput("--bins tf: no label has the assay TF: give --bins any")
    return rule


def is_tf(label):
    return label[0].upper() == "TF"


def read_tracks(path):
    """The labels [(assay, name, peak file)] of a table; files relative to it."""
    labels = []
    line_of = {}  # of a name
    header = None
    for number, line in text_lines(path):
        if not line.strip():
            continue
        columns = line.split("\t")
        if header is None:
            header = columns
            if header != ["assay", "name", "file"]:
                raise BadInput(
                    f"{path}:{number}: the header must be assay, name, file, "
                    "with tabs between"
                )
            continue
        fault = fault_of_track(columns, line_of, path.parent)
        if fault:
            raise BadInput(f"{path}:{number}: {fault}")
        assay, name, file = columns
        line_of[name] = number
        labels.append((assay, name, path.parent / file))
    if not labels:
        raise BadInput(f"{path} names no track: give assay, name, file in a line")
    return labels


ASSAY_ALL = "no assay can be called all: that is the mean over all labels"


def fault_of_track(columns, line_of, folder):
    """What is wrong with a line of the table of tracks, or None."""
    if len(columns) != 3 or not all(columns):
        return "must hold assay, name and file, with tabs between"
    assay, name, file = columns
    if assay == "all":
        return ASSAY_ALL
    if name in line_of:
        return f"the name {name} stands in line {line_of[name]}, too: rename one"
    if not (folder / file).is_file():
        return f"there is no file {folder / file}"
    return None


def plain_name(name):
    """One name for what UCSC calls chr1, chrM and Ensembl 1, MT: 1, MT."""
    if name[:3].lower() == "chr":
        name = name[3:]
    return "MT" if name == "M" else name


def code_table():
    """For bytes.translate: upper-case letters -> index in BASES, or UNKNOWN."""
    table = bytearray([NOT_DNA]) * 256
    for entry in IUPAC.split():
        letter, _, bases = entry.partition(":")
        code = UNKNOWN
        if len(bases) == 1:
            code = BASES.index(bases)
        table[ord(letter)] = code
    return bytes(table)


def genome_records(path):
    """Yield (name, codes) of each record of a genome, one in memory at a time.

    codes : (length,) uint8, 0 to 3 for A, G, C, T, UNKNOWN for N and its like
    """
    table = code_table()
    name = None
    for name, letters in fasta_records(path):
        codes = letters.translate(table)
        at = codes.find(NOT_DNA)
        if at >= 0:
            raise BadInput(
                f"{path}: record {name} holds {chr(letters[at])!r} at base {at + 1}: "
                "not DNA: a protein FASTA?"
            )
        letters.clear()  # or a record would be in memory twice from here on
        yield name, np.frombuffer(codes, np.uint8)
        # The loop binds them anew only when the next record has been read: without
        # this, two are in memory.
        del letters, codes
    if name is None:
        raise BadInput(f"{path} holds no sequence")


def read_genome(path):
    """The chromosomes {plain name: Chromosome} of a FASTA file, in its order."""
    chromosomes = {}
    bar = progress(None, "record")
    for name, codes in genome_records(path):
        key = plain_name(name)
        if key in chromosomes:
            raise BadInput(one_chromosome(path, chromosomes[key].name, name))
        n = len(codes) // BIN  # a last, shorter bin is in no window
        has_n = codes[: n * BIN].reshape(n, BIN).max(axis=1) >= UNKNOWN
        owner = np.zeros(n, np.int8)
        chromosomes[key] = Chromosome(name, len(codes), has_n, owner)
        bar.update(len(chromosomes))
        # The loop binds `codes` anew only when the next record has been read: without
        # this, two are in memory.
        del codes
    bar.update(len(chromosomes), finalize=True)
    return chromosomes


def assign_regions(chromosomes, given, genome):
    """Give the bins of valid's and test's regions to them.

    given : {split: list of regions, or None for DeepSEA's}
    Returns [(split, region, Chromosome, first bin, last bin + 1)].
    """
    found = []
    for split, regions in given.items():
        number = SPLITS.index(split)
        for region in regions or DEEPSEA_REGIONS[split]:
            where = f"--{split} {region}"
            if not regions:
                where += " (the default)"
            chromosome, first, last = find_region(region, chromosomes, where, genome)
            owner = chromosome.owner[first:last]
            if not np.isin(owner, (0, number)).all():
                raise BadInput(f"{where} overlaps --valid: give a base to one split")
            owner[:] = number
            found.append((split, region, chromosome, first, last))
    return found


def find_region(region, chromosomes, where, genome):
    """The Chromosome and bins first..last - 1 of a region: NAME, NAME:START-END.

    Browsers count from 1, END included. The borders go to the nearest bin border, so
    that they mean the same to those who count from 0:
        chr7:50000-54000 -> 49,999 to 54,000 from 0, end excluded
        49,999 / 200 = 249.995 -> 250; 54,000 / 200 = 270 -> bins 250 to 269
    """
    name, start, end = region, "", ""
    # Browsers write chr7:30,508,751-35,296,850, and a name may hold a colon itself.
    match = re.fullmatch(r"(.+):([\d,]+)-([\d,]*)", region)
    if match and plain_name(region) not in chromosomes:
        name, start, end = match.groups()
    chromosome = chromosomes.get(plain_name(name))
    if chromosome is None:
        has = shortened([chromosome.name for chromosome in chromosomes.values()])
        raise BadInput(
            f"{where}: {genome} has no {name}, but {has}: give --valid and --test "
            "parts of it, such as chr7:30508751-35296850, chr7:30508751- or chr7"
        )
    start = int(start.replace(",", "") or 1)
    end = int(end.replace(",", "") or chromosome.length)
    end = min(end, chromosome.length)
    first = (start - 1 + BIN // 2) // BIN
    last = (end + BIN // 2) // BIN
    if first >= min(last, len(chromosome.owner)):
        raise BadInput(
            f"{where} matches nothing: {chromosome.name} has {chromosome.length:,} "
            f"bases, in bins of {BIN}"
        )
    return chromosome, first, last


def check_regions(regions, chromosomes):
    """BadInput where a region, or the rest for training, holds no window."""
    for split, region, chromosome, first, last in regions:
        kept = chromosome.kept
        if not ((kept >= first) & (kept < last)).any():
            raise BadInput(f"--{split} {region} matches nothing: no bin in it is kept")
    if not split_size(chromosomes, "train"):
        raise BadInput("no bin is left to train: take less for --valid and --test")


def split_size(chromosomes, split):
    """Windows of a split, on one strand."""
    total = 0
    for chromosome in chromosomes.values():
        total += len(chromosome.kept_for(split))
    return total


def sort_peaks(labels, chromosomes, min_signal):
    """Give each chromosome its peaks of all labels.

    919 labels of 50,000 peaks take 370 MB.
    Returns how many peaks were left out, {why: count}.
    """
    left_out = collections.Counter()
    bar = progress(len(labels), "label")
    for label, (_, _, path) in enumerate(labels):
        peaks = read_peaks(path, chromosomes, min_signal, left_out)
        for key, pairs in peaks.items():
            chromosomes[key].peaks.append((label, np.array(pairs, np.uint32)))
        bar.update(label + 1)
    return left_out


def read_peaks(path, chromosomes, min_signal, left_out):
    """The peaks of a file, {plain chromosome name: [(start, end), ...]}.

    Adds to left_out, {why: count}; BadInput where no peak is left.
    """
    peaks = collections.defaultdict(list)
    why = collections.Counter()
    for number, line in text_lines(path):
        if not line.strip() or line.startswith(("#", "track", "browser")):
            continue
        columns = line.split("\t")
        if len(columns) == 1:
            columns = line.split()  # BED allows blanks
        fault = fault_of_peak(columns, min_signal)
        if fault:
            raise BadInput(f"{path}:{number}: {fault}")
        end = int(columns[2])
        key = plain_name(columns[0])
        chromosome = chromosomes.get(key)
        if chromosome is None:
            why[f"on {columns[0]}, which the genome lacks"] += 1
        elif end > chromosome.length:
            raise BadInput(
                f"{path}:{number}: the peak ends at {end:,}, past the last base of "
                f"{chromosome.name} ({chromosome.length:,}): another assembly?"
            )
        # not >=: "nan" is below, too
        elif min_signal is not None and not float(columns[6]) >= min_signal:
            why[f"below --min-signal {min_signal:g}"] += 1
        else:
            peaks[key].append((int(columns[1]), end))
    if not peaks:
        reasons = [f"{n:,} are {reason}" for reason, n in why.most_common(3)]
        raise BadInput(
            f"{path}: no peak is left: {'; '.join(reasons) or 'it has none'}"
        )
    left_out.update(why)
    return peaks


def fault_of_peak(columns, min_signal):
    """What is wrong with a line of a peak file, or None."""
    if len(columns) < 3:
        return "not BED: a line has a chromosome, a start, an end, and tabs between"
    start, end = columns[1:3]
    # isdecimal is False for a minus, a point, an exponent and for nothing at all
    if not (start.isdecimal() and end.isdecimal()):
        return f"not BED: start {start!r}, end {end!r}: must be whole numbers from 0 on"
    if int(start) > int(end):
        return f"not BED: the peak starts at {start}, after its end, {end}"
    if min_signal is None:
        return None
    if len(columns) < 7:
        return f"has {len(columns)} columns: --min-signal reads the signal in column 7"
    try:
        float(columns[6])
    except ValueError:
        return f"column 7 must be a number for --min-signal, is {columns[6]!r}"
    return None


def shortened(names, most=5):
    """The first few of many names, in a line."""
    names = list(names)
    text = ", ".join(names[:most])
    if len(names) > most:
        text += f" and {len(names) - most:,} more"
    return text


def positive_bins(peaks):
    """The bins that have more than 100 bases in the union of peaks (n, 2), in order.

    Bases are counted from 0, ends are excluded.
    """
    covered = collections.Counter()  # bases of each bin
    done = 0  # all bases before this one are counted
    for start, end in sorted(peaks.tolist()):
        start = max(start, done)
        done = max(end, done)
        # Example, 150 to 450: 50 bases of bin 0, 200 of bin 1, 50 of bin 2.
        while start < end:
            number = start // BIN
            border = min(end, (number + 1) * BIN)
            covered[number] += border - start
            start = border
    return np.array(sorted(i for i, n in covered.items() if n > BIN // 2), int)


def labels_of_bins(chromosome):
    """Yield (label, its bins) for each label that has a peak on a chromosome."""
    for label, peaks in chromosome.peaks:
        bins = positive_bins(peaks)
        yield label, bins[bins < len(chromosome.owner)]


def keep_bins(chromosome, labels, rule):
    """Note the bins of a chromosome that become windows."""
    n = len(chromosome.owner)
    wanted = np.full(n, rule == "all")
    if rule != "all":
        for label, bins in labels_of_bins(chromosome):
            if rule == "any" or is_tf(labels[label]):
                wanted[bins] = True
    width = 2 * FLANK + 1
    if n < width:
        chromosome.kept = np.zeros(0, int)
        return
    # Row i holds the five bins i..i + 4: the window in whose middle bin i + 2 lies.
    windows = np.lib.stride_tricks.sliding_window_view
    # No window reaches into another split: one owner for all five.
    owners = windows(chromosome.owner, width)
    one_split = owners.min(axis=1) == owners.max(axis=1)
    has_n = windows(chromosome.has_n, width).any(axis=1)
    middles = wanted[FLANK : n - FLANK]
    chromosome.kept = FLANK + np.flatnonzero(one_split & ~has_n & middles)


def label_table(chromosome, n_labels):
    """The labels of a chromosome's kept bins, (kept, K) uint8."""
    table = np.zeros((len(chromosome.kept), n_labels), np.uint8)
    for label, bins in labels_of_bins(chromosome):
        table[:, label] = np.isin(chromosome.kept, bins)
    return table


def write_labels(folder, labels):
    with new_text(folder / "labels.tsv") as file:
        print("column", "assay", "name", sep="\t", file=file)
        for column, (assay, name, _) in enumerate(labels):
            print(column, assay, name, sep="\t", file=file)


def write_beds(folder, chromosomes):
    """train.bed, valid.bed, test.bed: the bin of each forward row, in its order."""
    for split in SPLITS:
        with new_text(folder / f"{split}.bed") as file:
            for chromosome in chromosomes.values():
                for start in chromosome.kept_for(split) * BIN:
                    print(chromosome.name, start, start + BIN, sep="\t", file=file)


def write_windows(folder, genome, chromosomes, n_labels):
    """Write train.mat, valid.mat, test.mat; positives (split, label) on one strand."""
    sizes = [split_size(chromosomes, split) for split in SPLITS]
    positives = np.zeros((len(SPLITS), n_labels), int)
    done = dict.fromkeys(SPLITS, 0)
    bar = progress(sum(sizes), "window")
    with contextlib.ExitStack() as stack:
        files = {}
        for split, n in zip(SPLITS, sizes, strict=True):
            mat = new_mat(folder / f"{split}.mat", n, n_labels)
            files[split] = stack.enter_context(mat)
        for name, codes in genome_records(genome):
            chromosome = chromosomes[plain_name(name)]
            for split, bases, Y in window_blocks(chromosome, codes, n_labels):
                write_rows(files[split], split, done[split], bases, Y)
                positives[SPLITS.index(split)] += Y.sum(axis=0, dtype=int)
                done[split] += len(Y)
                bar.update(sum(done.values()))
            del codes  # as in read_genome
    # Only now: v5 cannot grow.
    for split, n in zip(SPLITS, sizes, strict=True):
        width = max(4 * LENGTH, n_labels)
        if split != "train" and 2 * n * width <= V5_BYTES:
            rewrite_as_v5(folder / f"{split}.mat")
    return positives


def window_blocks(chromosome, codes, n_labels):
    """Yield (split, codes (n, 1000), labels (n, K)) of windows, WINDOWS at a time."""
    if not len(chromosome.kept):
        return
    Y = label_table(chromosome, n_labels)
    n = len(chromosome.owner)
    grid = codes[: n * BIN].reshape(n, BIN)
    around = np.arange(-FLANK, FLANK + 1)  # -2 -1 0 1 2
    owners = chromosome.owner[chromosome.kept]
    for number, split in enumerate(SPLITS):
        rows = np.flatnonzero(owners == number)
        for first in range(0, len(rows), WINDOWS):
            block = rows[first : first + WINDOWS]
            bins = chromosome.kept[block]
            # neighbours share 800 bases: they are copied here, a block at a time
            bases = grid[bins[:, None] + around]  # (n, 5, 200)
            yield split, bases.reshape(-1, LENGTH), Y[block]


@contextlib.contextmanager
def new_mat(path, n, n_labels):
    """Yield the open HDF5 file (MATLAB v7.3) of a split, for both strands of n windows.

    MATLAB's v7.3 leaves 512 bytes free before HDF5 begins.
    """
    split = path.stem
    # Chunks of 64 sequences: a batch in any order reads few more than it needs.
    # Level 1: at 4, DeepSEA's size takes twice the time for a quarter less disk.
    options = {"dtype": "u1", "compression": "gzip", "compression_opts": 1}
    chunk = min(2 * n, 64)
    shapes = {f"{split}xdata": (LENGTH, 4), f"{split}data": (n_labels,)}
    with new_file(path) as temporary, new_hdf5(temporary, userblock_size=512) as file:
        for key, shape in shapes.items():
            chunks = (*shape, chunk)
            file.create_dataset(key, (*shape, 2 * n), chunks=chunks, **options)
        yield file


def write_rows(file, split, first, codes, Y):
    """Write windows from row `first` on, and their reverse complements in the 2nd half.

    codes : (n, 1000), indices in BASES;  Y : (n, K)
    """
    X_out = file[f"{split}xdata"]  # (1000, 4, 2 x windows)
    Y_out = file[f"{split}data"]  # (K, 2 x windows)
    last = first + len(Y)
    half = X_out.shape[-1] // 2

    # (1000, 1, n) == (4, 1) -> (1000, 4, n), the order of the file
    columns = np.ascontiguousarray(codes.T)[:, None]
    letters = np.arange(4, dtype=np.uint8)[:, None]
    X = (columns == letters).view(np.uint8)

    # For both strands at their full size, and for chunks in HDF5's cache.
    size = file.id.get_filesize() + 2 * (X.nbytes + Y.nbytes) + (4 << 20)
    claim(file.filename, size)

    X_out[..., first:last] = X
    other_strand = reverse_complement(X.transpose(2, 0, 1))
    X_out[..., half + first : half + last] = other_strand.transpose(1, 2, 0)
    Y_out[:, first:last] = Y.T
    Y_out[:, half + first : half + last] = Y.T


def rewrite_as_v5(path):
    """As DeepSEA ships valid.mat and test.mat: MATLAB v5, (N, 4, 1000) and (N, K).

    scipy.io.savemat needs whole arrays in memory, several times. But MATLAB counts the
    first index fastest: its bytes of (N, 4, 1000) stand in the order of HDF5's
    (1000, 4, N), so that a slab after the other can be copied.
    """
    with (
        h5py.File(path) as source,
        new_file(path) as temporary,
        open(temporary, "wb") as file,
    ):
        text = b"MATLAB 5.0 MAT-file, DeepSEA's layout"
        # 124 bytes of text and zeros, the version, and "MI" the wrong way round, which
        # says in which order bytes stand.
        file.write(text.ljust(116) + bytes(8) + struct.pack("<HH", 0x0100, 0x4D49))
        for name, array in source.items():
            write_v5_array(file, name, array)


def write_v5_array(file, name, array):
    """Append an HDF5 dataset of bytes as a compressed variable, its axes reversed."""
    shape = array.shape[::-1]
    about = v5_element(MI_UINT32, struct.pack("<II", MX_UINT8_CLASS, 0))
    about += v5_element(MI_INT32, struct.pack(f"<{len(shape)}i", *shape))
    about += v5_element(MI_INT8, name.encode())
    about += struct.pack("<II", MI_UINT8, array.size)
    padding = bytes(-array.size % 8)
    size = len(about) + array.size + len(padding)

    # The size of what is compressed stands before it, and is known after it.
    file.write(struct.pack("<II", MI_COMPRESSED, 0))
    start = file.tell()
    packer = zlib.compressobj(1)
    file.write(packer.compress(struct.pack("<II", MI_MATRIX, size) + about))
    rows = max(1, V5_SLAB // (array.size // len(array)))
    for first in range(0, len(array), rows):
        file.write(packer.compress(array[first : first + rows].tobytes()))
    file.write(packer.compress(padding) + packer.flush())
    end = file.tell()
    file.seek(start - 4)
    file.write(struct.pack("<I", end - start))
    file.seek(end)


def v5_element(kind, content):
    """Type, size and content, in steps of 8 bytes: 5 bytes are followed by 3 zeros."""
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def print_kept(chromosomes, labels, positives):
    """Windows by chromosome and split, then positives of labels in each split.

    positives : (split, label), on one strand
    """
    rows = []
    for chromosome in chromosomes.values():
        if len(chromosome.kept):
            sizes = [len(chromosome.kept_for(split)) for split in SPLITS]
            rows.append((chromosome.name, sizes))
    rows.append(("all", [split_size(chromosomes, split) for split in SPLITS]))
    rows.append(("positives of a label: least", positives.min(axis=1)))
    rows.append(("  median", np.median(positives, axis=1)))
    rows.append(("  most", positives.max(axis=1)))
    rows.append(("labels without a positive", (positives == 0).sum(axis=1)))
    # As where one TF label alone says which bins are kept.
    sizes = np.array([split_size(chromosomes, split) for split in SPLITS])
    rows.append(("labels without a negative", (positives.T == sizes).sum(axis=0)))
    print(f"{'bins kept':<28}" + "".join(f"{split:>12}" for split in SPLITS))
    for name, numbers in rows:
        print(f"{name:<28}" + "".join(f"{number:>12,.0f}" for number in numbers))
    for split, counts in zip(SPLITS, positives, strict=True):
        # Their AUROC cannot be told: they are left out of the means.
        absent = [labels[i][1] for i in np.flatnonzero(counts == 0)]
        if absent:
            print(f"without a positive in {split}: {shortened(absent)}")


# ---- motifs and figures

LETTERS = "ACGT"  # the order of motif files
COLOURS = ("#009e73", "#0072b2", "#e69f00", "#d55e00")  # told apart by the colour-blind


def write_motifs(args, script):
    """Write a run's filters as position weight matrices, in MEME's format.

    A filter's sites: its best matches in test windows where it answers more than half
    its highest (Quang & Xie 2016). The most informative are drawn as logos, too.
    """
    folder = Path(args.out_dir)
    path = args.motifs
    settings = finished_settings(folder, script)
    # --motifs in place of --motif-start: the known motifs would be lost.
    for flag in MOTIF_FLAGS:
        if settings.get(flag):
            refuse_to_overwrite(path, settings[flag])
    model = load_model(folder)
    if "motif_scan" not in [layer.name for layer in model.layers]:
        raise BadInput(
            f"{folder} has no convolution that scans for motifs: "
            "give a run that has one"
        )
    scan = model.get_layer("motif_scan")
    # By default the data that the run was trained on.
    data_dir = settings["data_dir"]
    if "data_dir" in args.given:  # the data may have moved since
        data_dir = args.data_dir
    test = load_split(data_dir, "test", packed_dir(folder), settings["limit"])
    counts, sites, background = count_sites(scan, model, test, settings["batch_size"])
    # One more site, of the background's shares, so that no probability is 0.
    P = (counts + background) / (counts.sum(-1, keepdims=True) + 1)
    # Information of each position: 0 bits where the bases are as everywhere.
    bits = (P * np.log2(P / background)).sum(-1)  # (filters, width)
    order = [i for i in np.argsort(-bits.sum(1)) if sites[i]]
    prefix = "SIMULATED_" if test.simulated else ""
    motifs = []
    # Most information first.
    for i in order:
        name = f"{prefix}filter_{i} {bits[i].sum():.1f}_bits"
        motifs.append((name, P[i], sites[i]))
    write_meme(path, background, motifs)
    print(f"{len(order)} motifs of {len(P)} filters -> {path}")

    picture = Path(path).with_suffix(".png")
    draw_logos(best_logos(P, bits, sites, order), test.simulated, picture)


def best_logos(P, bits, sites, order):
    """{title: heights (width, 4)} of the first 20 filters of an order."""
    often = [i for i in order if sites[i] >= 20]  # a motif of few sites is no finding
    logos = {}
    for i in (often or order)[:20]:
        # A letter's height is its share of the position's bits.
        logos[f"filter {i}, {sites[i]:,} sites"] = P[i] * bits[i][:, None]
    return logos


def write_meme(path, background, motifs):
    """Motifs in MEME's text format.

    background : shares of A, C, G, T
    motifs : [(name, P (width, 4) of A, C, G, T, number of sites)]
    """
    shares = zip(LETTERS, background, strict=True)
    frequencies = " ".join(f"{letter} {share:.4f}" for letter, share in shares)
    with new_text(path) as file:
        print(
            f"MEME version 4\n\nALPHABET= {LETTERS}\n\nstrands: + -\n\n"
            f"Background letter frequencies\n{frequencies}",
            file=file,
        )
        for name, P, n_sites in motifs:
            print(f"\nMOTIF {name}", file=file)
            shape = f"alength= 4 w= {len(P)} nsites= {n_sites} E= 0"
            print(f"letter-probability matrix: {shape}", file=file)
            np.savetxt(file, P, "%.6f")


def count_sites(scan, model, test, batch_size):
    """What stands at the sites of each filter.

    scan : the convolution of `model`
    Returns counts of A, C, G, T (filters, width, 4), numbers of sites (filters,), and
    the bases' shares (4,) in the windows.
    """
    # What the convolution sees, and answers. SuperQ's sees both strands, as more rows.
    scanning = keras.Model(model.inputs, [scan.input, scan.output])
    # Two passes: the threshold needs each filter's highest answer.
    batches = list(gen_batches(test.windows, batch_size))
    highest = []
    for rows in batches:
        _, answers = scanning.predict_on_batch(onehot(test.X[rows]))
        highest.append(answers.max((0, 1)))  # of each filter
    # A linear convolution may answer below 0 everywhere: then it has no site.
    least = np.maximum(np.max(highest, 0), 0) / 2

    n_filters = len(least)
    width = scan.kernel_size[0]
    counts = np.zeros((n_filters, width, 4))
    sites = np.zeros(n_filters, int)
    bases = np.full(4, 1e-9)
    for rows in batches:
        X, answers = scanning.predict_on_batch(onehot(test.X[rows]))
        # At most one site a window: the place of the filter's best answer.
        window, which = np.nonzero(answers.max(1) > least)
        place = answers.argmax(1)[window, which]
        covered = place[:, None] + np.arange(width)  # (sites, width)
        # add.at, unlike +=, adds again for a filter that stands there twice.
        np.add.at(counts, which, X[window[:, None], covered])
        sites += np.bincount(which, minlength=n_filters)
        bases += X.sum((0, 1))
    # From A, G, C, T to A, C, G, T.
    order = [BASES.index(letter) for letter in LETTERS]
    return counts[..., order], sites, bases[order] / bases.sum()


def draw_logos(logos, simulated, path):
    """Draw sequence logos {name: heights (width, 4) in bits}."""
    rows = max(1, math.ceil(len(logos) / 4))
    figure, axes = subplots(rows, 4, figsize=(12, 8), sharey=True, squeeze=False)
    for axis, (name, heights) in zip(axes.flat, logos.items(), strict=False):
        for place, column in enumerate(heights, 1):
            bottom = 0.0
            for base in column.argsort():  # the highest letter on top
                draw_letter(axis, base, place, bottom, column[base])
                bottom += column[base]
        # A rare base may have more than two bits.
        axis.set(xlim=(0.5, len(heights) + 0.5), ylim=(0, 2.5), title=name)
    axes[0, 0].set_ylabel("bits")
    save_figure(figure, path, simulated)


def draw_letter(axis, base, place, bottom, height, least=0.15):
    """One letter of a logo, stretched to its height, unless that is too low to read.

    One of a height below 0 hangs from `bottom`, turned over.
    """
    from matplotlib import patches, textpath, transforms

    if abs(height) < least:
        return
    # The letter's outline, moved to 0, stretched, moved to its place.
    letter = textpath.TextPath((0, 0), LETTERS[base])
    box = letter.get_extents()
    fit = transforms.Affine2D().translate(-box.x0, -box.y0)
    fit.scale(0.9 / box.width, height / box.height)
    fit.translate(place - 0.45, bottom)
    shape = patches.PathPatch(
        fit.transform_path(letter), color=COLOURS[base], linewidth=0
    )
    axis.add_patch(shape)


def subplots(*shape, figsize, **options):
    """A figure and its axes, as pyplot makes them, but without a window."""
    import matplotlib
    from matplotlib.figure import Figure

    # Names are text: a record called g$x^$y is no formula.
    matplotlib.rcParams["text.parse_math"] = False
    # Constrained: nothing overlaps, whatever the labels' lengths.
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(*shape, **options)


def save_figure(figure, path, simulated, to=None):
    """Write a figure to `path`, a .png, and to an .svg beside it.

    to : the file that this is said to
    """
    import matplotlib

    if simulated:
        figure.suptitle("SIMULATED data")
    # No date and no random names: the same figure is the same file.
    settings = {"svg.hashsalt": "superq", "svg.fonttype": "none"}
    for suffix in (".png", ".svg"):
        with (
            new_file(Path(path).with_suffix(suffix)) as temporary,
            matplotlib.rc_context(settings),
        ):
            figure.savefig(temporary, dpi=100, metadata={"Date": None})
    print(f"-> {path} and .svg", file=to)


# ---- simulated data

FACTORS = 6  # of the demo's transcription factors the last two bind pairs of motifs
PAIRED = (4, 5)


def make_demo_data(folder, windows, seed):
    """Write a SIMULATED data set in DeepSEA's layouts, both strands.

    windows : for training; an eighth as many for valid, a quarter for test

    GC content says how open a window's chromatin is. Four factors bind a motif of their
    own in the middle 200 bases, on either strand; two bind a pair of motifs there, in
    their order, six bases apart. Decoys are all motifs further out, and halves and
    wrong orders of pairs. A label asks for openness and a factor, histone marks less
    for the factor. Knowing the rules scores AUROC .87, AUPRC .40.

    motifs.meme holds half of the motifs that are planted, among a hundred that are not.
    """
    folder = Path(folder)
    # All splits share these motifs, or nothing could be learned.
    motifs = random_motifs(np.random.default_rng(seed))
    sizes = {  # at most DeepSEA's
        "train": windows,
        "valid": min(max(windows // 8, 8), 4_000),
        "test": min(max(windows // 4, 8), 227_512),
    }
    with new_folder(folder) as temporary:
        for split, n in sizes.items():
            path = temporary / f"{split}.mat"
            write_demo_split(path, split, n, motifs, seed)
            if split != "train":
                rewrite_as_v5(path)  # as DeepSEA ships them
        write_demo_labels(temporary)
        write_demo_motifs(temporary / "motifs.meme", motifs, seed)
    print(
        f"SIMULATED data: {windows:,} training windows, both strands, 919 labels "
        f"-> {folder}"
    )


def write_demo_split(path, split, n, motifs, seed):
    """One MATLAB v7.3 file of n windows, then their reverse complements."""
    number = SPLITS.index(split)
    with new_mat(path, n, 919) as file:
        file["simulated"] = np.ones((1, 1), np.uint8)
        # In blocks, so that any number of windows fits in memory.
        for first in range(0, n, WINDOWS):
            rng = np.random.default_rng([seed, number, first])
            X, Y, _ = simulate(rng, min(WINDOWS, n - first), motifs)
            # An N, all zeros, is 4.
            codes = np.where(X.any(-1), X.argmax(-1), UNKNOWN).astype(np.uint8)
            write_rows(file, split, first, codes, Y)


def write_demo_labels(folder):
    text = "column\tassay\tname\tfactor\n"
    for i, label in enumerate(load_labels(folder, 919)):
        # Openness and one factor make a label: an assay of another cell is another.
        factor = f"{label.assay}|factor{i % FACTORS}"
        name = f"SIMULATED|{factor}|cell{cell_of(i)}|{i}"
        text += f"{i}\t{label.assay}\t{name}\t{factor}\n"
    (folder / "labels.tsv").write_text(text)


def write_demo_motifs(path, motifs, seed):
    """The motifs of every other factor, hidden among a hundred others."""
    known = []
    for factor in range(0, FACTORS, 2):
        known.extend(factor_motifs(motifs, factor))
    rng = np.random.default_rng([seed, len(SPLITS)])  # not one of the splits'
    known.extend(random_motifs(rng, 100))
    order = [BASES.index(letter) for letter in LETTERS]
    shuffled = rng.permutation(len(known))
    written = [
        (f"SIMULATED_{number}", known[i][:, order], 500)
        for number, i in enumerate(shuffled, 1)
    ]
    write_meme(path, [0.25] * 4, written)


def factor_motifs(motifs, factor):
    """The one motif that a factor binds, or the two of a pair."""
    n = 2 if factor in PAIRED else 1
    return motifs[2 * factor : 2 * factor + n]


def cell_of(label):
    """Labels go through the factors, then through six cell types."""
    return label // FACTORS % 6


def random_motifs(rng, n=2 * FACTORS, width=12):
    """Position weight matrices (n, width, 4).

    A fifth of the positions take one of two bases, the others mostly one.
    """
    rank = rng.random((n, width, 4)).argsort(-1)  # of each base, 0 the favourite
    loose = rng.random((n, width, 1)) < 0.2
    motifs = np.where(rank == 0, 0.94, 0.02)
    # At a loose position the two favourites share: .48, .48, .02, .02.
    motifs[loose & (rank < 2)] = 0.48
    return motifs


def simulate(rng, n, motifs, sites=None):
    """Windows and labels of make_demo_data's rules.

    sites : zeros (n, 1000, factors), to be told which bases a factor binds by
    Returns one-hot (n, 1000, 4), one in 100 with N; labels (n, 919); and the
    probabilities that these were drawn from.
    """
    # The order of the draws is part of the data: keep it.
    openness = rng.standard_normal((n, 1))
    codes = random_bases(rng, openness)
    bound = np.zeros((n, FACTORS), bool)
    for factor in range(FACTORS):
        bound[:, factor] = plant_factor(rng, codes, factor, motifs, sites)
    codes[rng.random(n) < 0.01, :200] = -1  # N

    label = np.arange(919)
    # Labels as DeepSEA has them: 125 DNase, 690 TF, 104 histone.
    is_histone = label >= 815
    slope = np.where(is_histone, 1.0, 0.7) * (0.7 + 0.12 * cell_of(label))
    gain = np.where(is_histone, 1.0, 3.5)
    # -4.2: about one window in 70 has a label without a reason.
    logit = slope * openness + gain * bound[:, label % FACTORS] - 4.2
    # (n, 919)
    P = 1 / (1 + np.exp(-logit))
    X = codes[..., None] == np.arange(4)
    Y = rng.random(P.shape) < P
    return X.astype(np.uint8), Y.astype(np.uint8), P


def random_bases(rng, openness):
    """Codes 0..3 for A, G, C, T (n, 1000); the more open, the more G and C."""
    n = len(openness)
    u = rng.random((n, LENGTH))
    # 44 % G and C on average, as around human binding sites.
    gc = np.clip(0.44 + 0.05 * openness, 0.25, 0.65)
    # Example, gc .4: A below .3, G to .5, C to .7, T above.
    codes = (u > (1 - gc) / 2).astype(np.int8)
    codes += u > 0.5
    codes += u > 0.5 + gc / 2
    # In vertebrates most C before G have mutated to T, in open chromatin fewer.
    is_CpG = (codes[:, :-1] == 2) & (codes[:, 1:] == 1)
    mutated = rng.random((n, LENGTH - 1)) < 0.8 - 0.15 * openness
    codes[:, :-1][is_CpG & mutated] = 3
    return codes


def plant_factor(rng, codes, factor, motifs, sites=None):
    """Plant a factor's sites and decoys into codes (n, 1000); where it binds (n,).

    sites : see simulate()
    """
    n = len(codes)
    decoys = factor_motifs(motifs, factor)
    gap = np.full((6, 4), 0.25)
    # What may stand in the middle; the first of these words binds. A word is one motif,
    # or two with a gap of any bases between.
    if factor in PAIRED:
        first, second = decoys
        words = [np.r_[first, gap, second], np.r_[second, gap, first], first]
    else:
        words = [decoys[0]]
    # Outside the middle a motif means nothing: a model must learn where to look.
    for decoy in decoys:
        side = rng.choice(3, n, p=(0.25, 0.25, 0.5))  # left, right or none
        plant(rng, codes, np.flatnonzero(side == 0), 0, 400, decoy)
        plant(rng, codes, np.flatnonzero(side == 1), 600, LENGTH, decoy)
    middle = rng.choice(4, n, p=(0.12, 0.05, 0.05, 0.78))  # a word's number, 3: none
    for i, word in enumerate(words):
        rows = np.flatnonzero(middle == i)
        places = plant(rng, codes, rows, 400, 600, word)
        if sites is not None and i == 0:
            # In a pair's gap any base will do; read backwards, it is the same places.
            matters = word.max(-1) > 0.25
            sites[rows[:, None], places[:, matters], factor] = 1
    return middle == 0


def plant(rng, codes, rows, first, last, motif):
    """A sequence of a motif, on either strand, somewhere in bases first..last.

    Returns the bases that it covers, (rows, width).
    """
    # Drawn by the cumulated probabilities of A, G, C: how many of them lie below?
    cumulated = motif.cumsum(-1)[..., :-1]
    u = rng.random((len(rows), len(motif), 1))
    sites = (u > cumulated).sum(-1)
    on_minus = rng.random(len(rows)) < 0.5
    sites[on_minus] = 3 - sites[on_minus, ::-1]  # the complement of code i is 3 - i
    start = rng.integers(first, last - len(motif), len(rows))
    # (rows, width): the bases that the site covers.
    places = start[:, None] + np.arange(len(motif))
    codes[rows[:, None], places] = sites
    return places


if __name__ == "__main__":
    command_line(main)
