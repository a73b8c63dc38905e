"""SuperQ: annotate DNA from the bottleneck of an autoencoder (Löverli & Gupta 2018), and make it work.

    one-hot (1000, 4) -> conv + BLSTM encoder -> 500 numbers -> decoder -> 4 probabilities a base
                                                     |-> random forest -> 919 probabilities

    python superq.py --epochs 10                     autoencoder, encodings, forest: data/ -> runs/superq/
    python superq.py --label-weight 0                the same, no label in the autoencoder's loss, as the paper meant it
    python superq.py --unlabelled genome.fa          more DNA for the autoencoder, without labels
    python superq.py --paper                         the 2018 network and recipe, which diverges -> runs/superq-paper/
    python superq.py --mend 3                        the 2018 network with the first three of the five changes that mend it
    python superq.py --features kmer                 a yardstick: 4-mer counts into the same forest -> runs/kmer/
    python superq.py --reuse-encodings --forest-trees 500       the forest alone, on the encodings of the run before
    python superq.py --predict seqs.fa --output out.tsv         annotate your own sequences with runs/superq
    python superq.py --test-data mouse               score runs/superq on another folder's test.mat -> runs/superq/test-mouse/
    python superq.py --benchmark                     speed and memory of every stage -> runs/benchmark-superq.json
    python superq.py --compare runs/danq runs/superq runs/kmer  the table and the figure -> runs/comparison.{md,png}

Writes args.json, history.csv, model.keras and autoencoder.json (stage 1), encodings.h5 (stage 2), forest.npz, metrics.csv
and summary.json (stage 3) into --out-dir. On 16,000 sequences of real DNA, two CPU cores: three epochs of 35 s, 99 % of
held-out bases rebuilt; the README's results say what the labels get.
"""
import argparse
import contextlib
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import danq                                             # before keras: it silences a backend's start-up chatter
import h5py
import keras
import numpy as np
from danq import BadInput, Batches, onehot, positive, unpack_labels
from keras import layers, ops
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor

CODE = 500                                              # numbers in the bottleneck, the paper's and ours
STEPS, DIGITS = 200, 400                                # of them, 2 for every 5 bases say what stands where
# What leads from the 2018 autoencoder to ours, one change at a time: --mend N takes the first N.
MENDS = ("a softmax over each base's four numbers, cross-entropy, unknown bases left out",
         "Adam, warmed up, then a cosine, clipped gradients, early stopping on validation data",
         "a local code, two numbers for every four bases, each read by a local decoder",
         "the decoder reads the numbers through sines of doubling frequency",
         "100 of the numbers are pooled features that rebuild 4-mer counts, two for every five bases do the rest")
LABEL_WEIGHT = 10.                                      # of the labels in the autoencoder's loss
LEAF = 60                                               # rows in a leaf: 30 windows, both strands having the same features
PATIENCE = 3                                            # epochs without a better validation loss
KMER = 4
FOREST = ("forest_trees", "forest_leaf", "forest_samples", "forest_projections")        # what --reuse-encodings may change
FOREST_FORMAT = 1                                       # version of forest.npz
PROJECTIONS, SHARE = 8, .125                            # a tree grows on 8 random sums of labels and an eighth of the rows
# The 2018 paper's own logs, DeepSEA bundle on a K80: (training loss, accuracy) of its first epochs; chance is .25.
PAPER_LOG = {"DanQ": ".0767 / .9791 after epoch 1, 17,150 s an epoch",
             "SuperQ": "1.4e8 to 4.7e9 / .2505 to .2560 over epochs 1-8, 17,000 s an epoch"}


# ---------------------------------------------------------------- the autoencoders

def build_paper(filters=320, lstm_units=320, lstm=True, softmax=False, mixed=False):
    """The 2018 autoencoder: DanQ's trunk with a linear convolution, one dense code, one dense decoder. 27,679,060 parameters.

    softmax : make the four numbers of a base probabilities, the first of MENDS
    """
    inputs = keras.Input((danq.LENGTH, 4))
    with danq.precision(mixed):
        x = danq.trunk(inputs, filters, lstm_units, conv_activation=None, lstm=lstm)        # (B, 48000)
    x = layers.Dense(CODE, name="bottleneck")(x)                                            # (B, 500)
    x = layers.Dense(danq.LENGTH * 4)(x)
    x = layers.Reshape((danq.LENGTH, 4))(x)
    return keras.Model(inputs, {"bases": layers.Softmax(name="bases")(x)} if softmax else x, name="superq_paper")


def convolution(filters, width, layout, stride=None, **options):
    """A layer (B, 1000, 4) -> (B, steps, filters), scanning positions, or tiling them where `stride` is given.

    layout : "1d", kernels over all four bases; "2d", kernels two bases wide that move over position x base, their columns
    laid side by side as channels
    """
    if layout == "1d":
        return layers.Conv1D(filters, width, strides=stride or 1, **options)
    columns = 2 if stride else 3
    return keras.Sequential([
        layers.Reshape((danq.LENGTH, 4, 1)),
        layers.Conv2D(filters // columns, (width, 2), strides=(stride, 2) if stride else 1, **options),
        layers.Reshape((-1, filters // columns * columns))])


def build_autoencoder(filters=128, lstm_units=32, lstm=True, n_labels=0, layout="1d", sines=True, pooled=True, mixed=False):
    """An autoencoder that learns: (B, 1000, 4) -> 400 digits + 100 pooled features -> bases (B, 1000, 4), composition (B, 256).

    The digits say what stands where: a linear convolution writes five bases, 10 bits, into two numbers, and the decoder
    reads them through sines of doubling frequency, as a dial is read by ever finer hands. The pooled features say what the
    sequence is made of, wherever it stands and on either strand: mean motif scans, and the BLSTM's mean over them. They
    are asked to rebuild the counts of all 4-mers and, where n_labels is given, to predict labels (B, n_labels).
    sines, pooled : False for a decoder, a code without (MENDS); then 500 digits, two for every four bases
    """
    inputs = keras.Input((danq.LENGTH, 4))
    steps, digits = (STEPS, DIGITS) if pooled else (CODE // 2, CODE)
    stride = danq.LENGTH // steps
    spread = keras.initializers.RandomNormal(stddev=1.)                 # a code that starts narrow learns to open up first
    code = layers.Flatten()(convolution(digits // steps, stride, layout, stride, kernel_initializer=spread)(inputs))
    if pooled:
        code = layers.Concatenate()([code, pooled_features(inputs, filters, lstm_units, lstm, layout, mixed)])
    code = layers.Identity(name="bottleneck")(code)                                         # (B, 500)

    x = layers.Reshape((steps, digits // steps))(code[:, :digits])                          # (B, 200, 2)
    if sines:
        x = layers.Concatenate()([x] + [wave(x * (np.pi / 4 * 2 ** i)) for i in range(7) for wave in (ops.sin, ops.cos)])
    for _ in range(2):
        x = layers.Conv1D(128, 1, activation="relu")(x)
    x = layers.Conv1D(4 * stride, 1)(x)                                                     # (B, 200, 20): five bases
    outputs = {"bases": layers.Softmax(name="bases")(layers.Reshape((danq.LENGTH, 4))(x))}
    if pooled:
        outputs["composition"] = layers.Dense(4 ** KMER, name="composition")(code[:, digits:])
    if n_labels:
        x = layers.Dropout(.5)(code[:, digits:])
        outputs["labels"] = layers.Dense(n_labels, activation="sigmoid", name="labels")(x)
    return keras.Model(inputs, outputs, name="superq")


def pooled_features(inputs, filters, lstm_units, lstm, layout, mixed=False):
    """What the sequence is made of, on either strand: (B, 1000, 4) -> (B, 100), the same for its reverse complement."""
    with danq.precision(mixed):
        motif_scan = convolution(filters, 8, layout, activation="relu", name="motif_scan")
        grammar = danq.blstm(lstm_units) if lstm else None
    scans = [motif_scan(strand) for strand in (inputs, ops.flip(inputs, (1, 2)))]           # both (B, 993, filters)
    x = [ops.log(1 + 100 * ops.add(*(layers.GlobalAveragePooling1D()(scan) for scan in scans)))]
    if lstm:
        steps = [grammar(layers.MaxPooling1D(20)(scan)) for scan in scans]                  # both (B, 49, 2 * lstm_units)
        x.append(ops.add(*(layers.GlobalAveragePooling1D()(step) for step in steps)))
    x = layers.BatchNormalization(momentum=.9)(layers.Concatenate()(x) if lstm else x[0])
    return layers.Dense(CODE - DIGITS, activation="relu", name="pooled")(layers.Dropout(.5)(x))


def build(args, n_labels=0):
    """The autoencoder that the arguments ask for; sizes None for its own default, n_labels 0 for none that predicts labels."""
    sizes = {key: getattr(args, key) for key in ("filters", "lstm_units") if getattr(args, key)}
    sizes |= {"lstm": not args.no_lstm, "mixed": args.mixed_precision}
    if args.mend < 3:
        return build_paper(**sizes, softmax=args.mend > 0)
    return build_autoencoder(**sizes, n_labels=n_labels, layout=args.layout, sines=args.mend > 3, pooled=args.mend > 4)


def encoder_of(autoencoder):
    """The encoder (B, 1000, 4) -> (B, 500), sharing the autoencoder's weights."""
    return keras.Model(autoencoder.inputs, autoencoder.get_layer("bottleneck").output, name="encoder")


@keras.saving.register_keras_serializable("superq")
class Nadam2018(keras.optimizers.Nadam):
    """Nadam as Keras had it in 2018: momentum warms up with .96^(.004 t) where Keras 3 has .96^t."""

    def momentum(self, step):
        return self.beta_1 * (1 - .5 * ops.power(.96, .004 * ops.cast(step, "float32")))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        self.assign(self._u_product, self._u_product * self.momentum(self.iterations + 1))
        keras.optimizers.Optimizer._backend_update_step(self, grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        now, later = self.momentum(self.iterations + 1), self.momentum(self.iterations + 2)
        m, v = (slot[self._get_variable_index(variable)] for slot in (self._momentums, self._velocities))
        self.assign(m, self.beta_1 * m + (1 - self.beta_1) * gradient)
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * ops.square(gradient))
        ahead = later * m / (1 - self._u_product * later) + (1 - now) * gradient / (1 - self._u_product)
        spread = v / (1 - ops.power(self.beta_2, ops.cast(self.iterations + 1, "float32")))
        self.assign_sub(variable, learning_rate * ahead / (ops.sqrt(spread) + self.epsilon))


def compile_autoencoder(model, mend, steps, label_weight=0.):
    """Loss and optimiser with the first `mend` of MENDS.

    2018: squared error and Nadam at .015, ten times what Keras advised: this is what diverges. Ours: cross-entropy of known
    bases + squared error of 4-mer composition + label_weight x cross-entropy of the labels; Adam warmed up to 5e-3, then a
    cosine, over `steps`.
    """
    optimizer = Nadam2018(.015, beta_1=.9, beta_2=.999, epsilon=1e-8)
    if mend > 1:
        warmup = max(1, steps // 20)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(
            1e-4, max(1, steps - warmup), alpha=.02, warmup_target=5e-3, warmup_steps=warmup), clipnorm=1.)
    accuracy = [keras.metrics.CategoricalAccuracy(name="acc")]
    if not mend:
        return danq.compile_model(model, optimizer, "mean_squared_error", accuracy)
    mean = {"reduction": "mean_with_sample_weight"}     # of what has a weight: known bases, labelled sequences
    losses = {"bases": keras.losses.CategoricalCrossentropy(**mean), "composition": "mean_squared_error",
              "labels": keras.losses.BinaryCrossentropy(**mean)}
    danq.compile_model(model, optimizer, {key: losses[key] for key in model.output}, {"bases": accuracy},
                       {key: label_weight if key == "labels" else 1. for key in model.output})


def known_bases(X):
    """Bool (n, 1000): columns that hold exactly one base. N (none) and IUPAC-degenerate columns (several) are not scored."""
    return sum(X[..., base] for base in range(4)) == 1  # several times faster than X.sum(-1)


def rebuild(model, split):
    """What a model is asked for: a function (X, rows) -> targets and weights of its outputs, for Batches.

    bases : the sequence, unknown bases weighted 0;  composition : square roots of both strands' 4-mer counts
    labels : the split's; rows beyond its own are unlabelled and weighted 0
    A model without named outputs is 2018's: it is asked for the sequence itself, an N for four zeros.
    """
    def composition(X, rows):
        counts = kmer_counts(X)
        return np.sqrt(counts + counts[:, COMPLEMENTS]), np.ones(len(X), np.float32)

    def labels(X, rows):
        own = np.minimum(rows, len(split.Y) - 1)
        return unpack_labels(split, own), (own == rows).astype(np.float32)

    parts = {"bases": lambda X, rows: (X, known_bases(X)), "composition": composition, "labels": labels}

    def target(X, rows):                                # only what this model is asked for is worked out
        pairs = {key: parts[key](X, rows) for key in model.output}
        return tuple({key: pair[i] for key, pair in pairs.items()} for i in (0, 1))
    return target if isinstance(model.output, dict) else lambda X, rows: (X,)


# ---------------------------------------------------------------- how well is DNA rebuilt?

def base_codes(X):
    """Base of each column (n, 1000) int8: index into A, G, C, T, or -1 where it is not known."""
    return np.where(known_bases(X), X[..., 1] + 2 * X[..., 2] + 3 * X[..., 3], np.uint8(255)).view(np.int8)


def words(codes, k):
    """Base-4 number of the k-mer that ends at each position, (n, 1000 - k + 1), or -1 where it holds an unknown base."""
    n = codes.shape[1] - k + 1
    number, known = np.zeros((len(codes), n), np.min_scalar_type(-4 ** k)), np.ones((len(codes), n), bool)
    for i in range(k):
        number *= 4
        number += codes[:, i:i + n]
        known &= codes[:, i:i + n] >= 0
    number[~known] = -1
    return number


def markov_model(split, order, sample=20_000):
    """Probability of each base after each context of `order` bases (4^order, 4), from an even sample of training rows."""
    rows = danq.even_sample(len(split.X), sample)
    counts = np.ones(4 ** (order + 1))
    for block in np.array_split(rows, -(-len(rows) // 1000)):
        word = words(base_codes(onehot(split.X[block])), order + 1)
        counts += np.bincount(word[word >= 0], minlength=len(counts))
    counts = counts.reshape(-1, 4)
    return counts / counts.sum(1, keepdims=True)


def reconstruction(model, train, test, batch_size, dtype, probabilities=True, sample=10_000):
    """Base accuracy and bits per base on held-out rows, beside the commonest base and Markov models of the training split.

    dtype : precision in which the encodings are kept, and through which they are decoded here
    probabilities : False for the paper's linear output, which has no bits per base
    Returns {"sequences", "bases", "base_accuracy", "bits_per_base", "mse", "commonest_base", "markov_0": {...}, "markov_2": {...}}.
    """
    bases = model.output["bases"] if isinstance(model.output, dict) else model.output
    encoder, decoder = encoder_of(model), keras.Model(model.get_layer("bottleneck").output, bases)
    rows = danq.even_sample(len(test.X), sample)
    tables = {order: markov_model(train, order) for order in (0, 2)}
    sums = {name: np.zeros(3) for name in ("model", *tables)}                               # bases, right ones, bits
    squares, commonest = 0., tables[0][0].argmax()
    for block in np.array_split(rows, -(-len(rows) // batch_size)):
        X = onehot(test.X[block])
        P = decoder.predict_on_batch(encoder.predict_on_batch(X).astype(dtype))
        known, codes = known_bases(X), base_codes(X)
        true = np.take_along_axis(P, np.maximum(codes, 0)[..., None], 2)[..., 0][known]
        sums["model"] += known.sum(), (P.argmax(-1) == codes)[known].sum(), -np.log2(np.clip(true, 1e-7, 1)).sum(dtype=float)
        squares += np.square(P - X, dtype=float).mean((1, 2)).sum()
        for order, table in tables.items():
            word = words(codes, order + 1)
            context, base = np.divmod(word[word >= 0], 4)
            sums[order] += len(word[word >= 0]), (table.argmax(1)[context] == base).sum(), -np.log2(table[context, base]).sum()
    score = {name: {"base_accuracy": right / total, "bits_per_base": bits / total} for name, (total, right, bits) in sums.items()}
    if not probabilities:
        score["model"]["bits_per_base"] = None
    return {"sequences": len(rows), "bases": int(sums["model"][0]), **score["model"], "mse": squares / len(rows),
            "commonest_base": danq.BASES[commonest], "markov_0": score[0], "markov_2": score[2]}


def tell_reconstruction(report):
    """Print held-out reconstruction beside its yardsticks."""
    bits = report["bits_per_base"]
    print(f"held-out DNA ({report['sequences']:,} test sequences): base accuracy {report['base_accuracy']:.4f}"
          + (f", {bits:.3f} bits per base" if bits is not None else f", MSE {report['mse']:.4g} (always answering .25: 0.1875)"))
    print(f"  chance: 0.2500, 2 bits;  commonest base ({report['commonest_base']}, a Markov model of order 0): "
          f"{report['markov_0']['base_accuracy']:.4f}, {report['markov_0']['bits_per_base']:.3f} bits;  order 2: "
          f"{report['markov_2']['base_accuracy']:.4f}, {report['markov_2']['bits_per_base']:.3f} bits;  the paper: 0.2526",
          flush=True)


# ---------------------------------------------------------------- encodings

def complement_words(k=KMER):
    """Number of the reverse complement of each k-mer number: complements 3 - base, read backwards."""
    number, flipped = np.arange(4 ** k), np.zeros(4 ** k, np.int64)
    for _ in range(k):
        flipped = flipped * 4 + 3 - number % 4
        number //= 4
    return flipped


COMPLEMENTS = complement_words()


def kmer_counts(X, k=KMER):
    """Counts of the 4^k k-mers of one-hot (n, 1000, 4): (n, 256) float32, k-mers with an unknown base left out."""
    bins = 4 ** k + 1                                   # the first is for those left out
    word = words(base_codes(X), k) + np.arange(1, len(X) * bins, bins)[:, None]
    return np.bincount(word.ravel(), minlength=len(X) * bins).reshape(len(X), bins)[:, 1:].astype(np.float32)


def code_dtype(mend):
    """Precision in which encodings are kept: our code stays within a few units; the paper's optimiser leaves it no scale."""
    return np.float16 if mend > 1 else np.float32


def load_encoder(out_dir, features, mend):
    """What the forest sees: a function one-hot (n, 1000, 4) -> (n, width), and the dtype to keep it in."""
    if features == "kmer":
        return kmer_counts, np.float16                  # counts to 997: exact in float16
    encoder = encoder_of(danq.load_model(out_dir))
    return lambda X: np.nan_to_num(encoder.predict_on_batch(X)), code_dtype(mend)


def encode_rows(part, encode, splits, dtype, batch_size):
    """Append the encodings of every row of every split to the raw file `part`, after the batches that it holds already.

    Returns their width and the seconds that all of them take; of those found there, at the rate of the others.
    """
    started, bar = time.time(), danq.progress(sum(len(split.X) for split in splits.values()))
    width = encode(onehot(next(iter(splits.values())).X[:1])).shape[1]
    held, end, made = part.stat().st_size if part.is_file() else 0, 0, 0
    with danq.naming(part), open(part, "ab") as file:
        for split in splits.values():
            for i in range(0, len(split.X), batch_size):
                rows = slice(i, min(i + batch_size, len(split.X)))
                begin, end = end, end + (rows.stop - i) * width * np.dtype(dtype).itemsize
                if end > held:                          # numpy rounds right; HDF5's own float16 may halve
                    if begin < held:
                        file.truncate(begin)            # a batch that a kill cut through
                        held = 0
                    Z = encode(onehot(split.X[rows])).astype(dtype)
                    file.write(Z.tobytes())
                    made += Z.nbytes
                bar.add(rows.stop - i)
    return width, (time.time() - started) * end / max(made, 1)


def write_encodings(path, encode, splits, labels, about, dtype, batch_size):
    """Encode every row of every split into `path`, in the rows' own order; returns seconds.

    /train/Z (N, width) of `dtype`, /train/Y (N, K) uint8, attributes windows and strands; the same for /valid and /test;
    /labels (K, 2) assay and name; attribute `about`: JSON that names model and data; attribute `seconds`.
    """
    part = path.with_suffix(".part")
    width, seconds = encode_rows(part, encode, splits, dtype, batch_size)
    size = part.stat().st_size + sum(len(split.X) * split.n_labels // 4 for split in splits.values())
    with danq.replacing(path) as beside, danq.new_hdf5(beside, size + (1 << 20)) as file:
        started = time.time()
        file.attrs["about"] = json.dumps(about)
        file["labels"] = np.array([label[1:] for label in labels], h5py.string_dtype())
        fill_encodings(file, part, width, splits, dtype)
        file.attrs["seconds"] = seconds = round(seconds + time.time() - started, 2)
    part.unlink()
    return seconds


def fill_encodings(file, part, width, splits, dtype, block=8192):
    """Copy the raw encodings in `part`, and the labels, into the HDF5 file of write_encodings."""
    at = 0
    for name, split in splits.items():
        group, n = file.create_group(name), len(split.X)
        group.attrs.update(windows=split.windows, strands=split.strands)
        group.create_dataset("Z", (n, width), dtype, chunks=(min(n, 256), width), fletcher32=True)
        group.create_dataset("Y", (n, split.n_labels), "u1", chunks=(min(n, 1024), split.n_labels), compression="gzip")
        for i in range(0, n, block):
            rows = slice(i, min(i + block, n))
            group["Z"][rows] = np.fromfile(part, dtype, (rows.stop - i) * width, offset=at).reshape(-1, width)
            group["Y"][rows] = unpack_labels(split, rows)
            at += (rows.stop - i) * width * np.dtype(dtype).itemsize


# ---------------------------------------------------------------- a random forest for many labels

def read_rows(array, rows, block=20_000):
    """Rows (sorted indices) of an HDF5 dataset or array, read in whole blocks: many times faster than h5py's indexing."""
    parts = []
    for i in range(0, len(array), block):
        lo, hi = np.searchsorted(rows, (i, i + block))
        if hi > lo:
            parts.append(array[i:i + block][rows[lo:hi] - i])
    return np.concatenate(parts)


def fit_forest(Z, Y, trees=200, leaf=LEAF, samples=100_000, projections=PROJECTIONS, seed=1337, bootstrap=True, group=100,
               folder=None):
    """Grow a random forest of many outputs; a dict of plain arrays.

    Z : (N, width);  Y : (N, K) 0/1, arrays or HDF5 datasets;  leaf : rows in a leaf at least
    samples : rows drawn for each group of trees where there are more, so memory does not grow with N
    projections : labels are projected to this many Gaussian dimensions while trees grow, each group of trees to its own
    (Joly et al. 2014); 0 for none, plain scikit-learn
    folder : where groups that are grown are kept for a run that is killed, until the caller removes forest-part*.npz
    A regression tree on 0/1 labels splits by variance p (1 - p), half of Gini: the classifier's own splits. With
    projections a tree is grown on a bootstrap of an eighth of the rows, down to an eighth of `leaf`. Leaf means are then
    taken over the true labels of all N rows. Memory: samples x (4 width + 5 K) bytes while growing, and leaves x K x 4
    bytes, leaves at most trees x samples / leaf, and as much for one tree more on each core.
    """
    bar, parts = danq.progress(trees, "tree"), []
    for grown in range(0, trees, group):
        settings = [min(group, trees - grown), leaf, samples, projections, seed + grown, bootstrap]
        path, part = folder and folder / f"forest-part{grown}.npz", None
        if path and path.is_file():
            part = load_forest(path)
            part = part if str(part.pop("settings", None)) == json.dumps(settings) else None
        if part is None:
            part = grow_trees(Z, Y, *settings)
            if path:
                save_forest(path, part | {"settings": np.array(json.dumps(settings))})
        parts.append(part)
        bar.update(min(grown + group, trees))
    return join_forests(parts)


def grow_trees(Z, Y, trees, leaf, samples, projections, seed, bootstrap):
    """One group of trees, whose rows and projection are drawn together: fit_forest's dict."""
    n, K, share = len(Z), Y.shape[1], SHARE if projections and bootstrap else 1.
    rng = np.random.default_rng(seed)
    rows = np.arange(n) if n <= samples else np.sort(rng.choice(n, samples, replace=False))
    X, T = read_rows(Z, rows).astype(np.float32), read_rows(Y, rows).astype(np.float32)
    if not np.isfinite(X).all():
        raise BadInput("the encodings hold NaN or infinite numbers: train again with --restart")
    if projections:
        T = T @ (rng.standard_normal((K, projections), np.float32) / np.sqrt(projections))
    forest = RandomForestRegressor(trees, min_samples_leaf=max(1, round(leaf * share)), max_features="sqrt", bootstrap=bootstrap,
                                   max_samples=share if bootstrap else None, n_jobs=-1, random_state=seed % 2 ** 32)
    forest.fit(X, T[:, 0] if T.shape[1] == 1 else T)
    trees = [tree.tree_ for tree in forest.estimators_]
    return flatten_trees(trees) | {"means": leaf_means(trees, Z, Y)}


def join_forests(parts):
    """Groups of trees as one forest: nodes and leaves are numbered through."""
    nodes, leaves, joined = 0, 0, []
    for part in parts:
        joined.append(part | {key: part[key] + np.int32(nodes) for key in ("left", "right", "root")}
                      | {"leaf": np.where(part["leaf"] < 0, -1, part["leaf"] + leaves).astype(np.int32)})
        nodes, leaves = nodes + len(part["feature"]), leaves + len(part["means"])
    return {key: np.concatenate([part[key] for part in joined]) if parts[0][key].ndim else
            max(part[key] for part in joined) for key in parts[0]}


def flatten_trees(trees):
    """scikit-learn trees as plain arrays over all nodes: feature, threshold, left, right, leaf (-1 in inner nodes), root."""
    first = np.cumsum([0] + [tree.node_count for tree in trees])
    join = lambda name: np.concatenate([getattr(tree, name) for tree in trees])
    own, is_leaf = np.arange(first[-1]), join("children_left") < 0
    shift = np.repeat(first[:-1], np.diff(first))
    left, right = (np.where(is_leaf, own, join(name) + shift) for name in ("children_left", "children_right"))
    return {"format": np.array(FOREST_FORMAT), "feature": np.where(is_leaf, 0, join("feature")).astype(np.int32),
            "threshold": join("threshold"), "left": left.astype(np.int32), "right": right.astype(np.int32),
            "leaf": np.where(is_leaf, is_leaf.cumsum() - 1, -1).astype(np.int32), "root": first[:-1].astype(np.int32),
            "depth": np.array(max(tree.max_depth for tree in trees))}


def leaves_of(forest, Z):
    """The leaf that each row of Z (n, width) reaches in each tree, as a sparse 0/1 matrix (n, leaves)."""
    node = np.tile(forest["root"], (len(Z), 1))
    row = np.arange(len(Z))[:, None]
    for _ in range(int(forest["depth"])):               # a leaf is its own child
        below = Z[row, forest["feature"][node]] <= forest["threshold"][node]
        node = np.where(below, forest["left"][node], forest["right"][node])
    leaf, trees = forest["leaf"][node].ravel(), len(forest["root"])
    return sparse.csr_matrix((np.ones(len(leaf), np.float32), leaf, np.arange(0, len(leaf) + 1, trees)),
                             (len(Z), int(forest["leaf"].max()) + 1))


def leaf_means(trees, Z, Y, block=20_000):
    """Mean of each label over the rows of (Z, Y) in each leaf of scikit-learn trees, (leaves, K) float32, in one streaming pass."""
    rank = [(tree.children_left < 0).cumsum() - 1 for tree in trees]                        # of a leaf among its tree's
    first = np.cumsum([0] + [tree.n_leaves for tree in trees])
    total, sizes = np.zeros((first[-1], Y.shape[1]), np.float32), np.zeros((first[-1], 1), np.float32)

    def add(t):
        leaf, own = rank[t][trees[t].apply(X)], slice(first[t], first[t + 1])
        reached = sparse.csr_matrix((np.ones(len(X), np.float32), (leaf, np.arange(len(X)))), (trees[t].n_leaves, len(X)))
        total[own] += (reached @ labels).toarray()
        sizes[own] += reached.sum(1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:    # counts of rows, exact in float32 in any order
        for i in range(0, len(Z), block):
            X, labels = Z[i:i + block].astype(np.float32), sparse.csr_matrix(Y[i:i + block], dtype=np.float32)
            for _ in pool.map(add, range(len(trees))):
                pass
    total /= np.maximum(sizes, 1)
    return total


def predict_forest(forest, Z):
    """Scores (n, K) float32 of encodings Z (n, width): the mean of the leaves that each row reaches."""
    return leaves_of(forest, np.asarray(Z, np.float32)) @ forest["means"] / np.float32(len(forest["root"]))


def save_forest(path, forest):
    with danq.replacing(path) as beside:
        np.savez(beside, **forest)


def load_forest(path):
    """Load plain arrays; a file that holds Python objects is refused, never run."""
    with danq.reading(path, "it must be a forest of plain arrays: fit it again"), np.load(path, allow_pickle=False) as file:
        if int(file["format"]) != FOREST_FORMAT:
            raise ValueError(f"format {file['format']}")
        return {name: file[name] for name in file.files}


# ---------------------------------------------------------------- the three stages

def train_autoencoder(args, splits, out_dir):
    """Stage 1: train, report reconstruction of held-out DNA, write model.keras and, last, autoencoder.json."""
    train, valid, paper, watched = splits["train"], splits["valid"], not args.mend, args.mend > 1
    pool = train
    if args.unlabelled:
        more = danq.load_unlabelled(args.unlabelled, danq.packed_beside(out_dir))
        pool = train._replace(X=danq.Joined(train.X, more, args.unlabelled_limit))
    yardstick = f" ({'always .25: loss 0.1875; ' * paper}commonest base: acc {markov_model(train, 0).max():.4f})"
    with danq.all_devices(args.batch_size):
        model = compiled_autoencoder(args, train.n_labels, len(pool.X))
        tell_autoencoder(args, model, train.n_labels, len(pool.X))
        training = danq.fit(
            model, lambda epoch: Batches(pool, args.batch_size, rebuild(model, train), args.seed, epoch),
            Batches(valid, args.batch_size, rebuild(model, valid)) if watched else None, out_dir, args.epochs,
            PATIENCE if watched else args.epochs, train.simulated, yardstick, minutes=args.checkpoint_minutes)
    report = reconstruction(danq.load_model(out_dir), train, splits["test"], args.batch_size, code_dtype(args.mend), not paper)
    tell_reconstruction(report)
    if paper:
        print("the 2018 recipe, which failed in the paper's Fig. 3: loss 1.4e8 to 4.7e9, accuracy .2505 to .2560", flush=True)
    danq.write_json(out_dir / "autoencoder.json", {
        "simulated": train.simulated, "training": training, "reconstruction": report, "sequences": len(pool.X),
        "parameters": model.count_params(), "peak_memory_gb": danq.peak_memory()})


def compiled_autoencoder(args, n_labels, sequences):
    """The autoencoder that the arguments ask for, ready to be trained on so many sequences."""
    keras.utils.set_random_seed(args.seed)
    model = build(args, n_labels if args.label_weight else 0)
    compile_autoencoder(model, args.mend, args.epochs * -(-sequences // args.batch_size), args.label_weight)
    return model


def tell_autoencoder(args, model, n_labels, sequences):
    paper = not args.mend
    print(f"[1/3] autoencoder{' of the paper' * paper}: {model.count_params():,} parameters, {CODE} numbers a sequence, "
          f"{sequences:,} sequences{f', {n_labels} labels at weight {args.label_weight:g}' if args.label_weight else ''}, "
          f"{'' if paper else 'at most '}{args.epochs} epochs", flush=True)
    if 0 < args.mend < len(MENDS):
        print("".join(f"  mend {i + 1}: {mend}\n" for i, mend in enumerate(MENDS[:args.mend])), end="", flush=True)


def make_yardstick(args, splits, out_dir, sample=20_000):
    """Stage 1 of the yardsticks: model.keras with an untrained encoder, PCA's, or DanQ's 925 features in place of ours."""
    train, started = splits["train"], time.time()
    if args.features == "danq":
        danq.finished_settings(args.danq, "danq.py")
        model = danq.load_model(args.danq)
        inputs, code = model.inputs, layers.Identity(name="bottleneck")(model.get_layer("dense").output)
    elif args.features == "pca":
        rows = danq.even_sample(len(train.X), sample)
        X = onehot(train.X[rows]).reshape(len(rows), -1)
        pca = PCA(min(CODE, len(rows)), svd_solver="covariance_eigh").fit(X.astype(np.float32))
        inputs, project = keras.Input((danq.LENGTH, 4)), layers.Dense(pca.n_components_, name="bottleneck")
        code = project(layers.Flatten()(inputs))
        project.set_weights([pca.components_.T, -pca.components_ @ pca.mean_])
    else:
        keras.utils.set_random_seed(args.seed)
        model = build(args)
        inputs, code = model.inputs, model.get_layer("bottleneck").output
    model = keras.Model(inputs, code, name=f"{args.features}{'_SIMULATED' * train.simulated}")
    with danq.replacing(out_dir / "model.keras") as beside:
        model.save(beside)
    seconds = round(time.time() - started, 2)
    if args.features == "danq":
        seconds += danq.read_json(Path(args.danq) / "summary.json", "training")["training"]["seconds_to_best"]
    print(f"[1/3] {args.features}: {model.output.shape[1]} numbers a sequence ({seconds:.0f} s)", flush=True)
    danq.write_json(out_dir / "autoencoder.json", {
        "simulated": train.simulated, "training": {"epochs": 0, "best_epoch": 0, "seconds": seconds},
        "parameters": model.count_params(), "peak_memory_gb": danq.peak_memory()})


def run_name(args):
    """What a run is called in tables: the features and every argument that makes them what they are."""
    name = {"kmer": f"{KMER}-mers -> forest", "untrained": "untrained encoder -> forest", "pca": f"PCA-{CODE} -> forest",
            "danq": "DanQ's 925 features -> forest", "autoencoder": "SuperQ (paper)" if args.paper else "SuperQ"}[args.features]
    ours, more = args.features == "autoencoder" and args.mend == len(MENDS), args.unlabelled_limit or "all"
    return ", ".join(filter(None, [
        name, args.mend < len(MENDS) and not args.paper and f"mend {args.mend}",
        ours and args.label_weight != LABEL_WEIGHT and (f"label weight {args.label_weight:g}" if args.label_weight else "no labels"),
        args.layout != "1d" and args.layout, args.no_lstm and "no BLSTM", args.unlabelled and f"+ {more} unlabelled",
        not args.forest_projections and "direct forest"]))


def encode_splits(args, splits, labels, out_dir):
    """Stage 2: write encodings.h5."""
    stage1 = {}
    if (out_dir / "autoencoder.json").is_file():
        stage1 = danq.read_json(out_dir / "autoencoder.json", "training")
    encode, dtype = load_encoder(out_dir, args.features, args.mend)
    about = {"features": args.features, "data": args.data_dir, "limit": args.limit,
             "simulated": splits["train"].simulated, **stage1}
    path = out_dir / "encodings.h5"
    seconds = write_encodings(path, encode, splits, labels, about, dtype, args.batch_size)
    with h5py.File(path) as file:
        n, width = file["train/Z"].shape
    print(f"[2/3] encodings: {sum(len(split.X) for split in splits.values()):,} x {width} -> {path} "
          f"({path.stat().st_size / 1e9:.2f} GB, {seconds:.0f} s)", flush=True)


@contextlib.contextmanager
def open_encodings(out_dir):
    """Yield encodings.h5 of out_dir and what it says of itself. Raises BadInput where it is missing or damaged."""
    path = out_dir / "encodings.h5"
    if not path.is_file():
        raise BadInput(f"{path} is missing: run once without --reuse-encodings")
    advice = "remove it and give the same command again, without --reuse-encodings"
    with contextlib.ExitStack() as stack:
        with danq.reading(path, advice):
            file = stack.enter_context(h5py.File(path))
            about = json.loads(file.attrs["about"])
            for name in danq.SPLITS:
                if len(file[f"{name}/Z"]) != len(file[f"{name}/Y"]):
                    raise ValueError(f"{name} has not as many labels as encodings")
        with danq.reading(path, advice, OSError):       # HDF5 finds a damaged chunk when it is read
            yield file, about


def fit_and_score(args, out_dir):
    """Stage 3: forest on the training encodings, thresholds on validation, scores on test."""
    with open_encodings(out_dir) as (file, about):
        (n, width), K = file["train/Z"].shape, file["train/Y"].shape[1]
        rows = min(n, args.forest_samples)
        print(f"[3/3] forest: {args.forest_trees} trees on {rows:,} of {n:,} encodings x {K} labels, at least {args.forest_leaf} "
              f"rows a leaf; memory about {rows * (4 * width + 5 * K) / 1e9:.2f} GB for rows and at most "
              f"{args.forest_trees * max(1, rows // args.forest_leaf) * K * 4 / 1e9:.2f} GB for leaf means", flush=True)
        started = time.time()
        forest = fit_forest(file["train/Z"], file["train/Y"], args.forest_trees, args.forest_leaf, args.forest_samples,
                            args.forest_projections, args.seed, folder=out_dir)
        save_forest(out_dir / "forest.npz", forest | {"data": np.array("SIMULATED " * about["simulated"] + about["data"])})
        for path in out_dir.glob("forest-part*.npz"):
            path.unlink()
        seconds = {"autoencoder": about.get("training", {}).get("seconds", 0), "encodings": float(file.attrs["seconds"]),
                   "forest": round(time.time() - started, 2)}
        started, scores = time.time(), []
        for name in ("valid", "test"):
            group = file[name]
            split = danq.Split(None, None, K, int(group.attrs["windows"]), bool(group.attrs["strands"]), None, None)
            scores += [danq.strand_mean(lambda rows: predict_forest(forest, group["Z"][rows]), split, 500, K),
                       group["Y"][:split.windows]]
        seconds["prediction"] = round(time.time() - started, 2)
        labels = [(i, *(text.decode() for text in label)) for i, label in enumerate(file["labels"][:])]
    P_valid, Y_valid, P, Y = scores
    seconds["all"] = round(sum(seconds.values()), 2)
    training = about.get("training", {"epochs": 0, "best_epoch": 0})
    danq.finish_run(out_dir, *danq.evaluate(P, Y, labels, danq.best_thresholds(P_valid, Y_valid)), {
        "model": run_name(args), "seed": args.seed, "data": about["data"], "simulated": about["simulated"], "limit": about["limit"],
        "train_sequences": n, "test_windows": len(P), "strands": split.strands,
        "training": training, "autoencoder_sequences": about.get("sequences"), "reconstruction": about.get("reconstruction"),
        "training_seconds": round(sum(seconds[stage] for stage in STAGES), 2), "seconds": seconds,
        "peak_memory_stage1_gb": about.get("peak_memory_gb"), "parameters": about.get("parameters"),
        "subset_accuracy": float(((P >= .5) == Y).all(1).mean()), "subset_accuracy_all_zero": float((Y == 0).all(1).mean())})


def trained_scores(out_dir):
    """The finished run in out_dir as a function: one-hot (n, 1000, 4) -> label scores (n, K)."""
    settings = danq.finished_settings(out_dir, "superq.py")
    encode, dtype = load_encoder(out_dir, settings["features"], settings["mend"])
    forest = load_forest(out_dir / "forest.npz")
    return lambda X: predict_forest(forest, encode(X).astype(dtype))


def score_elsewhere(args, out_dir):
    """Score the finished run in out_dir, labels and reconstruction, on the test split of --test-data."""
    score, settings = trained_scores(out_dir), danq.finished_settings(out_dir)

    def rebuilt(test):
        if settings["features"] != "autoencoder":
            return {}
        train = danq.load_split(settings["data_dir"], "train", danq.packed_beside(out_dir), settings["limit"])
        report = reconstruction(danq.load_model(out_dir), train, test, args.batch_size,
                                code_dtype(settings["mend"]), settings["mend"] > 0)
        tell_reconstruction(report)
        return {"reconstruction": report}

    danq.score_elsewhere(args, out_dir, score, rebuilt)


# ---------------------------------------------------------------- how fast, and in how much memory?

class Part:
    """The first rows and columns of an HDF5 dataset, read as they are asked for."""

    def __init__(self, array, rows, columns):
        self.array, self.shape = array, (rows, columns)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return self.array[slice(*rows.indices(len(self)))][:, :self.shape[1]]


def benchmark_encoding(encoder, work, split, path, batch_size, sample=20_000):
    """Encode a sample, `work` operations each; then write encodings of all rows, random ones: two rows of the table."""
    rng = np.random.default_rng(0)
    few = split._replace(X=split.X[:sample], Y=split.Y[:sample])
    rows = {}
    for name, encode, part, flop in (("encoding", encoder.predict_on_batch, few, {"flop": work}),
                                     ("writing encodings", lambda X: rng.standard_normal((len(X), CODE), np.float32), split, {})):
        encode(onehot(split.X[:batch_size]))
        with danq.Measured() as it:
            write_encodings(path, encode, {"train": part}, [(i, "", "") for i in range(split.n_labels)], {}, np.float16, batch_size)
        rows[name] = {"n": len(part.X), "rate": len(part.X) / it.seconds, "gb": it.gb, **flop}
    rows["writing encodings"]["beside"] = f"float16, {path.stat().st_size / 1e9:.2f} GB with labels, every row unpacked"
    return rows


def benchmark_forest(path, args):
    """Forests of a quarter, half and all of the rows, half and all of the labels and trees: rows of the table.

    Growing stops at --forest-samples rows. From twice as many on, the time for 4.4 million is told from the last two sizes.
    """
    rows, seconds = {}, {}
    with h5py.File(path) as file:
        Z, Y, (n, K), T = file["train/Z"], file["train/Y"], file["train/Y"].shape, args.forest_trees
        for size in ((-(-n // 4), K, T), (-(-n // 2), K, T), (n, -(-K // 2), T), (n, K, -(-T // 2)), (n, K, T)):
            with danq.Measured() as it:
                forest = fit_forest(Part(Z, size[0], CODE), Part(Y, *size[:2]), size[2], args.forest_leaf, args.forest_samples,
                                    args.forest_projections, args.seed)
            seconds[size] = it.seconds
            rows[f"forest, {size[2]} trees x {size[1]} labels, {size[0]:,} rows"] = {
                "n": size[0], "rate": size[0] / it.seconds, "gb": it.gb, "seconds": it.seconds, "full_seconds": None,
                "beside": f"{it.seconds:,.0f} s, {len(forest['means']):,} leaves"}
    half = -(-n // 2)
    if half >= args.forest_samples:                     # from here on only the leaf means' pass grows
        rows[f"forest, {T} trees x {K} labels, {n:,} rows"]["full_seconds"] = \
            it.seconds + (danq.FULL - n) * (it.seconds - seconds[half, K, T]) / (n - half)
    return rows


def benchmark(args):
    """Measure feeding, the autoencoder, encoding and the forest; the table -> benchmark-superq.json beside --out-dir."""
    home = danq.packed_beside(args.out_dir).parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark", dir=home) as folder:
        folder = Path(folder)
        if (Path(args.data_dir) / "train.mat").is_file():
            split = danq.load_split(args.data_dir, "train", folder)
        else:
            split = danq.random_split(folder, 2 * (args.limit or 10_000), 919)
        with danq.all_devices(args.batch_size):
            model = compiled_autoencoder(args, split.n_labels, len(split.X))
            batches = Batches(split, args.batch_size, rebuild(model, split), args.seed)
            rows = danq.benchmark_feeding(batches) | danq.benchmark_network(model, batches)
        model.save(folder / "model.keras")              # to go on with one device
        rows |= benchmark_encoding(encoder_of(danq.load_model(folder)), danq.flops(encoder_of(model)), split,
                                   folder / "encodings.h5", args.batch_size)
        danq.release(split)
        rows |= benchmark_forest(folder / "encodings.h5", args)
    danq.tell_benchmark(rows, home / "benchmark-superq.json", "superq.py", args.epochs)


# ---------------------------------------------------------------- side by side

def compare(folders, output):
    """Set finished runs side by side: print the table, write it to `output`.md and the figure to `output`.png.

    folders : --out-dir of finished runs, DanQ's first: its time is the unit of time. Runs of one model that differ in
    their seed alone are one row; those that differ in more go by their folders.
    """
    runs, settings = [], []
    for folder in map(Path, folders):
        settings.append({key: value for key, value in danq.finished_settings(folder).items() if key not in ("seed", "code")})
        runs.append(danq.read_json(folder / "summary.json", "means", "training", "training_seconds", "seconds"))
    for folder, run in zip(folders, runs):
        for key in ("simulated", "limit", "labels", "train_sequences", "test_windows", "strands"):
            if run.get(key) != runs[0].get(key):
                raise BadInput(f"{folder} cannot stand beside {folders[0]}: {key} is {run.get(key)}, not {runs[0].get(key)}")
    groups, name = {}, str(output).removesuffix(".md").removesuffix(".png")
    for folder, run, own in zip(folders, runs, settings):
        alike = all(other == own for model, other in zip((run["model"] for run in runs), settings) if model == run["model"])
        groups.setdefault(run["model"] if alike else f"{run['model']} [{Path(folder).name}]", []).append(run)
    table = comparison_table(groups)
    with danq.replacing(f"{name}.md") as beside:
        beside.write_text(table, encoding="utf-8")
    with danq.replacing(f"{name}.png") as beside:
        draw_comparison(groups, beside)
    print(f"{table}-> {name}.md and {name}.png")


STAGES = ("autoencoder", "encodings", "forest")


def over_seeds(values, spread=True):
    """Mean of a score over runs, and its standard deviation where there are several; "-" where a run has none."""
    if None in values:
        return "-"
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if spread and len(values) > 1 else "")


def in_brackets(values):
    """First score, and the others in brackets."""
    first, *others = values
    return f"{first} ({' '.join(others)})" if others else first


def comparison_table(groups):
    """Markdown: scores (all labels, then an assay each) and costs, a row for each model, yardsticks below.

    groups : {model: [summaries of its runs, which differ in their seed]}
    """
    base = next(iter(groups.values()))[0]
    unit = np.mean([run["training_seconds"] for run in next(iter(groups.values()))])
    assays = list(base["means"])
    rows = [["model", *(f"{name} ({', '.join(assays[1:])})" for name in ("AUROC", "AUPRC", "F1")),
             f"training time ({', '.join(STAGES)})", f"of {base['model']}'s", "epochs (best)", "peak memory", "bases rebuilt"]]
    for model, runs in groups.items():
        seconds, training = np.mean([run["training_seconds"] for run in runs]), runs[0]["training"]
        rebuilt = [run["reconstruction"]["base_accuracy"] for run in runs if run.get("reconstruction")]
        scores = lambda key: in_brackets([over_seeds([run["means"][assay][key] for run in runs], assay == assays[0])
                                          for assay in assays])
        spent = [f"{np.mean([run['seconds'][stage] for run in runs]):,.0f}" for stage in STAGES if "forest" in runs[0]["seconds"]]
        memory = max(max(run["peak_memory_gb"], run.get("peak_memory_stage1_gb") or 0) for run in runs)
        rows.append([model + (f" ({len(runs)} seeds)" if len(runs) > 1 else ""), *map(scores, ("auroc", "auprc", "f1")),
                     in_brackets([f"{seconds:,.0f} s", *spent]), f"{seconds / unit:.3f}", f"{training['epochs']} ({training['best_epoch']})",
                     f"{memory:.2f} GB", over_seeds(rebuilt) if rebuilt else "-"])
    rates = [over_seeds([mean["base_rate"]]) for mean in base["means"].values()]
    rows.append(["chance", "0.5", in_brackets(rates), *[""] * 5, "0.25"])
    if danq.is_deepsea(base):
        rows += [["published: " + name, *(in_brackets([f"{value:.4f}" for value in scores[key]]) for key in ("auroc", "auprc")),
                  *[""] * 6] for name, scores in danq.PUBLISHED.items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    table = "".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |\n" for row in rows)
    return (f"# {'SIMULATED data: ' * base['simulated']}{', '.join(groups)}\n\n"
            f"Data {base['data']}: {base['train_sequences']:,} training sequences, {base['test_windows']:,} test windows, strands "
            f"{'averaged' if base['strands'] else 'not averaged'}, {base['labels_scored']} of {base['labels']} labels scored. "
            f"Time: DanQ to its best epoch; SuperQ autoencoder + encodings + forest.\n\n{table}\n"
            + "".join(reconstruction_line(runs[0]) for runs in groups.values())
            + "".join(f"The 2018 paper logged for {name}: loss / accuracy {log}.\n"
                      for name, log in PAPER_LOG.items() if danq.is_deepsea(base)))


def reconstruction_line(run):
    """One line on how well a run rebuilds held-out DNA, with yardsticks; nothing for a run without an autoencoder."""
    report = run.get("reconstruction")
    if not report:
        return ""
    scores = lambda part: f"{part['base_accuracy']:.4f}" + (f" at {part['bits_per_base']:.3f} bits a base"
                                                            if part["bits_per_base"] is not None else "")
    return (f"{run['model']} rebuilds {scores(report)} of held-out bases; commonest base of the training split "
            f"{scores(report['markov_0'])}, order-2 Markov model {scores(report['markov_2'])}, the 2018 paper 0.2526.\n")


def draw_comparison(groups, path):
    """Bars: AUROC and AUPRC an assay with chance marked, and training time; lines span the seeds."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    base, width = next(iter(groups.values()))[0], .8 / len(groups)
    assays, colours = list(base["means"]), plt.get_cmap("tab20").colors
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.5 + .2 * (len(groups) // 3)), width_ratios=(2, 2, 1), layout="constrained")
    for axis, key in zip(axes, ("auroc", "auprc")):
        for i, (model, runs) in enumerate(groups.items()):
            scores = np.array([[run["means"][assay][key] or 0 for assay in assays] for run in runs])
            spread = abs(np.stack([scores.min(0), scores.max(0)]) - scores.mean(0)) if len(runs) > 1 else None
            axis.bar(np.arange(len(assays)) + (i - (len(groups) - 1) / 2) * width, scores.mean(0), width, label=model,
                     color=colours[i % 20], yerr=spread)
        chance = [.5 if key == "auroc" else base["means"][assay]["base_rate"] or 0 for assay in assays]
        axis.hlines(chance, np.arange(len(assays)) - .45, np.arange(len(assays)) + .45, "k", "dashed", label="chance")
        axis.set(xticks=range(len(assays)), xticklabels=assays, ylabel=f"mean test {key.upper()}")
    axes[0].set_ylim(.45, 1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    seconds = [np.mean([run["training_seconds"] for run in runs]) for runs in groups.values()]
    bars = axes[2].barh(range(len(groups)), seconds, color=[colours[i % 20] for i in range(len(groups))])
    axes[2].bar_label(bars, fmt="{:,.0f} s")
    axes[2].invert_yaxis()
    axes[2].set(yticks=[], xlabel="training time (s)", xlim=(0, 1.25 * max(seconds)))
    figure.suptitle(f"{'SIMULATED data: ' * base['simulated']}{base['data']}, {base['train_sequences']:,} training sequences")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def natural(text):
    """argparse type: a whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, is {text}")
    return number


def parse_args(argv=None):
    parser = danq.Parser(description=__doc__.splitlines()[0])
    danq.shared_arguments(parser, None, 10)
    add = parser.add_argument
    add("--paper", action="store_true", help="the 2018 network, recipe and forest (10 trees, leaf 1); diverges by design")
    add("--no-lstm", action="store_true", help="leave the BLSTM out, as the paper's authors did in the version they presented")
    add("--filters", type=positive, help="motif detectors of the first convolution (default: 128; --paper 320)")
    add("--lstm-units", type=positive, help="units of the BLSTM in each direction (default: 32; --paper 320)")
    add("--mend", type=int, choices=range(len(MENDS) + 1), metavar="N", default=len(MENDS),
        help=f"take the first N of the {len(MENDS)} changes that lead from the 2018 autoencoder to ours (default: all)")
    add("--label-weight", type=danq.amount, metavar="W",
        help=f"weight of the labels in the autoencoder's loss; 0 trains it without labels, as in 2018 (default: {LABEL_WEIGHT:g})")
    add("--layout", default="1d", choices=("1d", "2d"),
        help="convolve over positions, or over position x base (default: %(default)s)")
    add("--unlabelled", metavar="FILE", help="FASTA or .mat whose sequences join the autoencoder's training, without labels")
    add("--unlabelled-limit", type=positive, metavar="N", help="take N sequences of --unlabelled, evenly spread")
    add("--features", default="autoencoder", choices=("autoencoder", "untrained", "pca", "kmer", "danq"),
        help="what the forest sees: the bottleneck, or a yardstick (default: %(default)s)")
    add("--danq", metavar="DIR",
        help="the finished DanQ run whose 925 features --features danq takes (default: danq beside --out-dir)")
    add("--forest-trees", type=positive, help="trees (default: 200; --paper 10)")
    add("--forest-leaf", type=positive, help=f"encodings in a leaf at least (default: {LEAF}; --paper 1)")
    add("--forest-samples", type=positive, default=100_000,
        help="encodings that a tree is grown on at most (default: %(default)s)")
    add("--forest-projections", type=natural, default=PROJECTIONS, metavar="D",
        help="random dimensions that stand for the labels while trees grow; 0 for the labels themselves (default: %(default)s)")
    add("--reuse-encodings", action="store_true", help="fit and score the forest alone, on encodings.h5 of --out-dir")
    add("--compare", nargs="+", metavar="DIR",
        help="set finished runs side by side, DanQ's first, and exit; the table goes to --output (comparison.md beside the runs)")
    args = parser.parse_args(argv)
    args.mend = 0 if args.paper else args.mend
    learns = args.features == "autoencoder"
    if args.label_weight is None:
        args.label_weight = LABEL_WEIGHT if learns and args.mend == len(MENDS) else 0.
    for wrong, why in (
            (args.paper and not learns, "--paper and --features exclude each other: a yardstick is not trained"),
            (args.label_weight and not learns, "--label-weight and --features exclude each other: a yardstick is not trained"),
            (args.label_weight and args.mend < len(MENDS), "--label-weight needs the pooled features: leave out --paper and --mend"),
            (args.layout != "1d" and args.mend < 3, "--layout 2d is not for the 2018 network: leave out --paper, or --mend 3 or more"),
            (args.unlabelled and not learns, "--unlabelled and --features exclude each other: a yardstick is not trained"),
            (args.unlabelled_limit and not args.unlabelled, "--unlabelled-limit needs --unlabelled FILE")):
        if wrong:
            raise BadInput(why)
    if args.reuse_encodings and args.restart:
        raise BadInput("--reuse-encodings and --restart exclude each other: --restart discards the encodings")
    args.forest_trees = args.forest_trees or (10 if args.paper else 200)
    args.forest_leaf = args.forest_leaf or (1 if args.paper else LEAF)
    folder = {"autoencoder": "superq-paper" if args.paper else "superq", "danq": "danq-forest"}
    args.out_dir = args.out_dir or f"runs/{folder.get(args.features, args.features)}"
    args.danq = (args.danq or str(Path(args.out_dir).parent / "danq")) if args.features == "danq" else None
    return args


def main(argv=None):
    args = parse_args(argv)
    if args.benchmark:
        return benchmark(args)
    if args.compare:
        return compare(args.compare, Path(args.output or danq.packed_beside(args.compare[0]).parent / "comparison.md"))
    out_dir = Path(args.out_dir)
    if args.predict:
        return danq.annotate(trained_scores(out_dir), args.predict, args.output or "predictions.tsv", out_dir, args.batch_size)
    if args.test_data:
        return score_elsewhere(args, out_dir)
    if args.reuse_encodings:                            # everything but the forest's arguments is as it was
        with open_encodings(out_dir) as (_, about):
            simulated, before = about["simulated"], danq.read_json(out_dir / "args.json", "settings")["settings"]
        sources = before["data_files"]
        vars(args).update({key: before[key] for key in vars(args).keys() & before.keys() if key not in FOREST})
    else:
        print(f"data: {args.data_dir}", flush=True)
        splits, labels = danq.load_data(args)
        simulated, sources = splits["train"].simulated, [split.source for split in splits.values()]
        for path in (args.unlabelled, args.danq and Path(args.danq) / "model.keras"):
            if path:
                sources.append(danq.state_of(path))
    outputs = ("history.csv", "model.keras", "checkpoint.npz", "autoencoder.json", "encodings.part", "encodings.h5", "forest.npz",
               "metrics.csv", *(path.name for path in out_dir.glob("forest-part*.npz")))
    if danq.start_run(args, "superq.py", outputs, simulated, sources, (*FOREST, "code") if args.reuse_encodings else ()):
        return
    if not args.reuse_encodings:
        if args.features != "kmer" and not (out_dir / "autoencoder.json").is_file():
            (train_autoencoder if args.features == "autoencoder" else make_yardstick)(args, splits, out_dir)
        (out_dir / "checkpoint.npz").unlink(missing_ok=True)
        if not (out_dir / "encodings.h5").is_file():
            encode_splits(args, splits, labels, out_dir)
    fit_and_score(args, out_dir)


if __name__ == "__main__":
    danq.command_line(main)
