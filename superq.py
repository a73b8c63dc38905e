"""SuperQ: annotate DNA from the bottleneck of an autoencoder (Löverli & Gupta 2018), made to work.

    one-hot (1000, 4) -> convolution ----------> 250 digits ----------> decoder -> 4 probabilities a base
                      -> conv + BLSTM, counts -> 250 pooled features -> random forest -> 919 probabilities

    python superq.py                                autoencoder, encodings, forest: data/ -> runs/superq/
    python superq.py --label-weight 0               no labels in its loss (default 10), as in 2018; more k-mer counts
    python superq.py --unlabelled genome.fa         more DNA for the autoencoder, without labels
    python superq.py --paper                        the 2018 network and recipe, which diverges -> runs/superq-paper/
    python superq.py --ablation 3                   the 2018 network with the first three of five CHANGES
    python superq.py --features kmer                a yardstick: k-mer counts into the same forest -> runs/kmer/
    python superq.py --compare runs/danq runs/superq runs/kmer      table and figures -> runs/comparison.{md,png}
    (each variant with its own --out-dir; --predict and others as in danq.py)

On 8,000 windows of real DNA, 2 CPU cores: all held-out bases rebuilt (chance .25, the paper .2526), AUROC .757, AUPRC
.164 in 66 seconds; DanQ .691, .108 in 15 minutes. --out-dir gets model.keras (stage 1), encodings.h5 (2), forest.npz
and metrics.csv (3). After a kill the same command goes on: stage 1 from its last checkpoint, 2 from its last batch, 3
from its start; on a CPU the end is the same to the bit.
"""
import contextlib
import csv
import dataclasses
import json
import os
import time
from hashlib import sha256
from itertools import islice
from pathlib import Path

import danq  # before keras: it silences start-up chatter
import h5py
import keras
import numpy as np
from danq import LENGTH, SPLITS, BadInput, new_file, number, onehot, positive
from keras import layers, ops
from scipy import sparse
from scipy.stats import bootstrap
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.utils import gen_batches

# ---- settings

CODE, DIGITS = 500, 250  # numbers in the bottleneck, the paper's and ours; of ours 250 digits, one for every four bases
MIDDLE, CORE = 300, 210  # central bases that convolution and BLSTM look at; DeepSEA's labels speak of 200
FILTERS, WIDTH, POOL, LSTM_UNITS = 96, 16, 15, 16
INPUT_KMERS = (3, 1000), (3, 600), (4, MIDDLE)  # (k, central bases) whose counts the pooled features see
YARDSTICK = (2, 1000), (4, MIDDLE)  # the strongest set of counts on validation: 146 numbers
LEARNING_RATE = 1e-4, 4e-3, 8e-5  # Adam's at the first step, after a twentieth of them, and, down a cosine, at the last
PAPER_RATE = .015  # Nadam's in 2018 (--ablation 0 and 1), where Keras advised .002: it diverges
LABEL_WEIGHT, EPOCHS, BATCH, PATIENCE = 10., 3, 50, 3
TREES, LEAF = 200, 60  # rows in a leaf: 30 windows, whose strands have the same pooled features
SAMPLES, PROJECTIONS, SHARE, GROUP = 100_000, 8, .125, 100  # see fit_forest
# What the paper's training printed, epoch by epoch; its Figs. 2 and 3.
PAPER_LOG = {
    "danq.py": {"loss": [.0767], "val_loss": [.0684, .0666], "acc": [.9791], "val_acc": [.9815]},
    "superq.py": {"lowest loss": [1.4e8] * 8, "highest loss": [4.7e9] * 8,
                  "acc": [.2526, .2511, .2526, .2525, .2560, .2505, .2511, .2505]}}
# What leads from the 2018 autoencoder to ours: --ablation N takes the first N. softmax: cross-entropy of known bases;
# adam: its schedule, clipping, the best epoch on validation; local, sines: the code; pooled: features, labels.
CHANGES = "softmax", "adam", "local", "sines", "pooled"


# ---- the autoencoders

def build_autoencoder(filters=FILTERS, lstm_units=LSTM_UNITS, n_labels=0, sines=True, pooled=True, dtype=None):
    """(B, 1000, 4) -> 250 digits + 250 pooled features -> bases (B, 1000, 4) and more.

    Digits: a linear convolution, at first a base-4 numeral, writes four bases into a number; the decoder reads it
    through sines of doubling frequency. Pooled features answer with the middle's composition (B, 136), roots of
    4-mer counts, and labels (B, n_labels). Without them there are 500 digits, two for every four bases.
    """
    inputs = keras.Input((LENGTH, 4))
    n = 1 if pooled else 2  # digits of a step
    write = layers.Conv1D(n, 4, strides=4, kernel_initializer=keras.initializers.RandomNormal(stddev=1.))
    code = digits = layers.Flatten()(write(inputs))
    if pooled:
        write.set_weights([np.outer(4. ** np.arange(4) / 64, np.arange(4) - 1.5)[..., None], np.zeros(1)])
        features = pooled_features(inputs, filters, lstm_units, not n_labels, dtype)
        code = layers.Concatenate()([digits, features])
    code = layers.Identity(name="bottleneck")(code)  # (B, 500)

    x = layers.Reshape((LENGTH // 4, n))(code[:, :n * DIGITS])  # (B, 250, n)
    if sines:
        angles = np.pi / 4 * 2. ** np.arange(8)
        x = layers.Concatenate()([x] + [wave(x * float(angle)) for angle in angles for wave in (ops.sin, ops.cos)])
    x = layers.Conv1D(32, 1, activation="relu")(x)
    x = layers.Conv1D(16, 1)(x)  # (B, 250, 16): four bases a step
    outputs = {"bases": layers.Softmax(name="bases")(layers.Reshape((LENGTH, 4))(x))}
    if pooled:
        outputs["composition"] = layers.Dense(136, name="composition")(code[:, DIGITS:])
    if n_labels:
        x = layers.Dropout(.5)(code[:, DIGITS:])
        outputs["labels"] = layers.Dense(n_labels, activation="sigmoid", name="labels")(x)
    return keras.Model(inputs, outputs, name="superq")


def pooled_features(inputs, filters, lstm_units, with_counts, dtype):
    """Motifs of the middle, counts around it: (B, 1000, 4) -> (B, 250), the same for its reverse complement.

    with_counts : 146 of them are the yardstick's counts, for a network that no label teaches
    """
    middle = central(inputs, MIDDLE)
    both = ops.concatenate([middle, ops.flip(middle, (1, 2))], 0)  # the other strand as more rows of the batch
    scan = layers.Conv1D(filters, WIDTH, activation="relu", dtype=dtype, name="motif_scan")(both)  # (2 B, 285, filters)
    mean, best = layers.AveragePooling1D(POOL)(scan), layers.MaxPooling1D(POOL)(scan)  # (2 B, 19, filters)
    grammar = danq.blstm(lstm_units)(best) if lstm_units else None  # (2 B, 19, 2 units)
    x = [KmerCounts(k, span)(inputs) for k, span in INPUT_KMERS]
    for span in (MIDDLE, CORE):
        n = (span - WIDTH + 1) // POOL
        x.append(ops.log(1 + 100 * ops.sum(strands(ops.mean(central(mean, n), 1)), 0)))  # how much of a motif
        x.append(ops.max(strands(ops.max(central(best, n), 1)), 0))  # its best site
        if lstm_units:
            x.append(ops.sum(strands(ops.mean(central(grammar, n), 1)), 0))
    x = layers.Dropout(.4)(layers.BatchNormalization(momentum=.9)(layers.Concatenate()(x)))
    counts = [KmerCounts(k, span)(inputs) for k, span in YARDSTICK] if with_counts else []
    width = CODE - DIGITS - sum(count.shape[1] for count in counts)
    x = layers.Dense(width, activation="relu", name="pooled")(x)
    return layers.Concatenate()([*counts, x]) if counts else x


def strands(x):
    """(2 B, features) -> (2, B, features)."""
    return ops.reshape(x, (2, -1, x.shape[-1]))


def central(x, n):
    """The middle n of (B, steps, features)."""
    first = (x.shape[1] - n) // 2
    return x[:, first:first + n]


@keras.saving.register_keras_serializable("superq")
class KmerCounts(layers.Layer):
    """Square roots of the counts of k-mers, on either strand, in the central `span` bases: (B, 1000, 4) -> (B, n)."""

    def __init__(self, k, span, **options):
        super().__init__(**options)
        self.k, self.span = k, span

    def call(self, X):
        X, n, words = central(X, self.span), self.span - self.k + 1, 4 ** self.k
        mates = np.arange(words)[::-1].reshape([4] * self.k).T.ravel()  # their reverse complements
        base, known = ops.argmax(X, -1), known_bases(X)
        rows = ops.shape(X)[0]
        word, whole = ops.arange(rows, dtype=base.dtype)[:, None], 1.  # each row has bins of its own
        for i in range(self.k):
            word, whole = 4 * word + base[:, i:i + n], whole * known[:, i:i + n]
        counts = ops.segment_sum(ops.reshape(whole, (-1,)), ops.reshape(word, (-1,)), rows * words)
        counts = ops.reshape(counts, (-1, words))
        one = np.unique(np.minimum(np.arange(words), mates))  # of both strands' names
        return ops.sqrt(ops.take(counts, one, 1) + ops.take(counts, mates[one], 1))

    def get_config(self):
        return super().get_config() | {"k": self.k, "span": self.span}


def known_bases(X):
    """1 where a column of one-hot (B, length, 4) holds one base, else 0: (B, length) float32."""
    return ops.cast(ops.equal(ops.sum(X, -1), 1), "float32")


def build_paper(filters=danq.FILTERS, lstm_units=danq.LSTM_UNITS, softmax=False, dtype=None):
    """The 2018 autoencoder: DanQ's trunk without rectifier, a dense code, a dense decoder. 27,679,060 parameters."""
    inputs = keras.Input((LENGTH, 4))
    x = danq.trunk(inputs, filters, lstm_units, conv_activation=None, dtype=dtype)  # (B, 48000)
    x = layers.Dense(CODE, name="bottleneck")(x)  # (B, 500)
    x = layers.Reshape((LENGTH, 4))(layers.Dense(LENGTH * 4)(x))
    answer = layers.Softmax if softmax else layers.Identity
    return keras.Model(inputs, {"bases": answer(name="bases")(x)}, name="superq_paper")


def build(args, n_labels=0):
    sizes = {key: getattr(args, key) for key in ("filters", "lstm_units") if getattr(args, key) is not None}
    changes = CHANGES[:args.ablation]
    if "local" not in changes:
        return build_paper(**sizes, softmax="softmax" in changes, dtype=args.dtype)
    return build_autoencoder(**sizes, n_labels=n_labels, sines="sines" in changes, pooled="pooled" in changes,
                             dtype=args.dtype)


def encoder_of(autoencoder):
    """(B, 1000, 4) -> (B, 500), sharing the autoencoder's weights."""
    return keras.Model(autoencoder.inputs, autoencoder.get_layer("bottleneck").output, name="encoder")


# ---- their training

def compiled_autoencoder(args, n_labels, sequences):
    """2018: squared error, Nadam. Ours, with all CHANGES: cross-entropy of known bases + squared error of composition +
    label_weight x cross-entropy of labels; Adam."""
    keras.utils.set_random_seed(args.seed)
    network, changes = build(args, n_labels if args.label_weight else 0), CHANGES[:args.ablation]
    optimizer = keras.optimizers.Nadam(PAPER_RATE, epsilon=1e-8)
    if "adam" in changes:
        steps = args.epochs * -(-sequences // args.batch_size)
        (first, top, last), warmup = LEARNING_RATE, max(1, steps // 20)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(
            first, max(1, steps - warmup), alpha=last / top, warmup_target=top, warmup_steps=warmup), clipnorm=1.)
    mean = {"reduction": "mean_with_sample_weight"}  # of what has a weight: known bases, labelled sequences
    bases = keras.losses.CategoricalCrossentropy(**mean) if "softmax" in changes else "mean_squared_error"
    losses = {"bases": (bases, 1.), "composition": ("mean_squared_error", 1.),
              "labels": (keras.losses.BinaryCrossentropy(**mean), args.label_weight)}
    losses, weights = ({key: losses[key][i] for key in network.output} for i in (0, 1))
    accuracy = {"bases": [keras.metrics.CategoricalAccuracy(name="acc")]}
    return danq.compiled(AutoencoderFromBits(network, n_labels, changes), optimizer, losses, accuracy, weights)


class AutoencoderFromBits(danq.FromBits):
    """An autoencoder fed with bits. Unknown bases and unlabelled rows weigh 0, but not in the 2018 model."""

    def __init__(self, network, n_labels, changes):
        super().__init__(network, n_labels)
        self.outputs_asked, self.changes, self.counts = tuple(network.output), changes, KmerCounts(4, MIDDLE)

    def targets(self, x, y, weight):
        X, (labels, weight) = self.onehot(x), super().targets(x, y, weight)
        known = known_bases(X) if "softmax" in self.changes else ops.ones_like(X[..., 0])
        ones = ops.ones_like(known[:, 0])
        targets = {"bases": (X, known), "composition": (self.counts(X), ones),
                   "labels": (labels, ones if weight is None else weight)}
        return tuple({key: targets[key][i] for key in self.outputs_asked} for i in (0, 1))


def train_autoencoder(args, splits, out_dir):
    """Stage 1: write model.keras and, last, autoencoder.json."""
    train, changes = splits["train"], CHANGES[:args.ablation]
    if args.unlabelled:
        more = load_unlabelled(args.unlabelled, danq.packed_dir(out_dir), args.unlabelled_limit)
        train = MixedSplit(**vars(train), unlabelled=more)
    with danq.all_devices(args.batch_size):
        model = compiled_autoencoder(args, train.n_labels, len(train))
        print(f"[1/3] autoencoder: {model.count_params():,} parameters, {CODE} numbers a sequence, {len(train):,} "
              f"sequences, labels at weight {args.label_weight:g}, {args.epochs} epochs")
        always = "" if changes else "always .25: loss 0.1875; "
        training = danq.fit(model, train, splits["valid"] if "adam" in changes else None, args, PATIENCE,
                            f" ({always}commonest base: acc {base_shares(train).max():.4f})")
    report = reconstruction(args.ablation, danq.load_model(out_dir), train, splits["test"], args.batch_size)
    danq.write_json(out_dir / "autoencoder.json", {
        "training": training, "reconstruction": report, "sequences": len(train), "parameters": model.count_params(),
        "peak_memory_stage1_gb": danq.peak_memory()})


# ---- how well is DNA rebuilt?

def reconstruction(ablation, model, train, test, batch_size):
    """Base accuracy and bits per base of held-out rows, decoded from encodings as they are kept."""
    encoder, decoder = encoder_of(model), keras.Model(model.get_layer("bottleneck").output, model.output["bases"])
    rows, commonest, sums = danq.even_sample(len(test.X), 10_000), base_shares(train).argmax(), np.zeros(4)
    for block in gen_batches(len(rows), batch_size):
        X = onehot(test.X[rows[block]])
        P = decoder.predict_on_batch(encoder.predict_on_batch(X).astype(code_dtype(ablation)))
        known = X.sum(-1) == 1
        X, P = X[known], P[known]  # (bases, 4)
        bits = -np.log2(np.clip(P[X > 0], 1e-7, 1))
        sums += len(X), (P.argmax(-1) == X.argmax(-1)).sum(), X[:, commonest].sum(), bits.sum(dtype=float)
    accuracy, commonest, bits = sums[1:] / max(sums[0], 1)
    print(f"held-out DNA, {len(rows):,} test sequences: bases rebuilt {accuracy:.4f} ({bits:.3f} bits); commonest base "
          f"{commonest:.4f}; the 2018 paper .2526")
    return {"base_accuracy": accuracy, "bits_per_base": bits, "commonest_base": commonest}


def base_shares(split):
    """Shares of A, G, C, T in an even sample of rows."""
    counts = 1 + onehot(split.X[danq.even_sample(len(split.X), 5000)]).sum((0, 1))
    return counts / counts.sum()


# ---- encodings

def load_encoder(out_dir, ablation):
    """A function packed (n, 500) -> what the forest sees (n, width)."""
    encode = danq.FromBits(encoder_of(danq.load_model(out_dir))).predict_on_batch
    return lambda bits: encode(bits).astype(code_dtype(ablation))


def code_dtype(ablation):  # ours stays within a few units; the paper's has no scale
    return np.float16 if "adam" in CHANGES[:ablation] else np.float32


def write_encodings(path, encode, splits, labels, about, batch_size):
    """Stage 2: encode all splits into `path`, after the batches that a kill left in path.part.

    /train/Z (N, width), /train/Y (N, K), attributes windows, strands; /valid, /test; /labels (K, 2) assay, name
    """
    started, part, K = time.time(), path.with_suffix(".part"), len(labels)
    Z = encode(splits["train"].X[:1])
    width, dtype = Z.shape[1], Z.dtype
    blocks = [(split, rows) for split in splits.values() for rows in gen_batches(len(split.X), batch_size)]
    ends = [0, *np.cumsum([rows.stop - rows.start for _, rows in blocks]) * Z.nbytes]
    bar = danq.progress(len(blocks))
    with danq.readable(part, damage=()), open(part, "ab") as file:
        done = int(np.searchsorted(ends, file.tell(), "right")) - 1
        file.truncate(ends[done])  # a kill may have cut through a batch
        for i, (split, rows) in enumerate(blocks[done:], done + 1):
            file.write(encode(split.X[rows]).tobytes())
            bar.update(i)
    size = ends[-1] + sum(len(split.X) for split in splits.values()) * (K // 4 + 4) + (1 << 20)
    with open(part, "rb") as made, new_file(path) as temporary, new_hdf5(temporary, size) as file:
        file["labels"] = np.array([label[1:] for label in labels], h5py.string_dtype())
        for name, split in splits.items():
            group, n = file.create_group(name), len(split.X)
            group.attrs.update(windows=split.windows, strands=split.strands)
            group.create_dataset("Z", (n, width), dtype, chunks=(min(n, 256), width), fletcher32=True)
            group.create_dataset("Y", (n, K), "u1", chunks=(min(n, 1024), K), compression="gzip")
            for rows in gen_batches(n, 8192):
                Z = np.fromfile(made, dtype, (rows.stop - rows.start) * width)
                group["Z"][rows], group["Y"][rows] = Z.reshape(-1, width), split.labels(rows)
        seconds = (time.time() - started) * len(blocks) / (len(blocks) - done or len(blocks))  # with those made before
        file.attrs["about"] = json.dumps(about | {"encoding_seconds": round(seconds, 2)})
    part.unlink()
    print(f"[2/3] encodings: {width} numbers a sequence -> {path} ({seconds:.0f} s)")


@contextlib.contextmanager
def new_hdf5(path, size):
    """A new HDF5 file with `size` bytes of disk claimed; at the end it is cut to what it holds."""
    danq.claim(path, size)  # a full disk ends it here, before HDF5 is open
    with h5py.File(path, "w") as file:
        danq.claim(path, size)
        yield file
        file.flush()
        end = file.id.get_filesize()
    os.truncate(path, end)


@contextlib.contextmanager
def open_encodings(out_dir):
    path, advice = out_dir / "encodings.h5", "remove it and give the command again without --reuse-encodings"
    if not path.is_file():
        raise BadInput(f"{path} is missing: run once without --reuse-encodings")
    with danq.readable(path, advice):
        file = h5py.File(path)
        about = json.loads(file.attrs["about"])
        for name in SPLITS:
            file[f"{name}/Z"], file[f"{name}/Y"]
    with file, danq.readable(path, advice, OSError):  # HDF5 finds a damaged chunk when it is read
        yield file, about


# ---- a random forest for many labels
# For logistic regression write two functions of these names and give --reuse-encodings: fit_forest with these
# arguments -> a dict of arrays (forest.npz); predict_forest(dict, Z, from column 0 on) -> scores (n, K).

def fit_forest(Z, Y, trees=TREES, leaf=LEAF, samples=SAMPLES, projections=PROJECTIONS, seed=1337, first=0):
    """Grow a random forest of many outputs.

    Z : (N, width), used from column `first` on;  Y : (N, K) 0/1, arrays or HDF5 datasets
    samples : rows drawn for each GROUP of trees where there are more: memory does not grow with N
    projections : random sums of labels that stand for them as trees grow (Joly et al. 2014), each on a bootstrap of
    SHARE of the rows and of `leaf`; 0 for the labels. Leaf means are then taken over the labels of all N rows.
    """
    parts, bar, share = [], danq.progress(trees), SHARE if projections else 1.
    for n in range(0, trees, GROUP):
        rng = np.random.default_rng(seed + n)
        rows = slice(None) if len(Z) <= samples else rng.choice(len(Z), samples, replace=False)
        X, T = read_rows(Z, rows)[:, first:].astype(np.float32), read_rows(Y, rows).astype(np.float32)
        if not np.isfinite(X).all():
            raise BadInput("the encodings hold NaN or infinite numbers: train again with --restart")
        if projections:
            T = T @ (rng.standard_normal((T.shape[1], projections), np.float32) / np.sqrt(projections))
        forest = RandomForestRegressor(
            min(GROUP, trees - n), min_samples_leaf=max(1, round(leaf * share)), max_features="sqrt", n_jobs=-1,
            max_samples=max(1, int(share * len(X))), random_state=(seed + n) % 2 ** 32)
        forest.fit(X, T[:, 0] if T.shape[1] == 1 else T)
        parts.append(forest)
        bar.update(n + forest.n_estimators)
    forest = flatten_trees([tree.tree_ for part in parts for tree in part.estimators_], first)
    return forest | {"means": leaf_means(forest, parts, Z, Y, first)}


def predict_forest(forest, Z):
    """Scores (n, K) float32 of encodings Z (n, width): the mean of the leaves that a row reaches."""
    return leaves_of(forest, Z) @ forest["means"] / np.float32(len(forest["root"]))


def read_rows(array, rows, block=20_000):
    """Rows of an HDF5 dataset, in its order, in blocks: much faster than h5py's indexing."""
    wanted = np.zeros(len(array), bool)
    wanted[rows] = True
    return np.concatenate([array[i:i + block][wanted[i:i + block]] for i in range(0, len(array), block)])


def flatten_trees(trees, column):
    """scikit-learn trees as arrays over all nodes: feature, threshold, left, right, leaf (number or -1); and root."""
    first = np.cumsum([0] + [tree.node_count for tree in trees])
    left, right, feature, threshold = (np.concatenate([getattr(tree, name) for tree in trees])
                                       for name in ("children_left", "children_right", "feature", "threshold"))
    own, shift, is_leaf = np.arange(first[-1]), np.repeat(first[:-1], np.diff(first)), left < 0
    arrays = {"feature": np.where(is_leaf, 0, feature + column), "left": np.where(is_leaf, own, left + shift),
              "right": np.where(is_leaf, own, right + shift), "leaf": np.where(is_leaf, is_leaf.cumsum() - 1, -1),
              "root": first[:-1]}
    return {"threshold": threshold} | {key: array.astype(np.int32) for key, array in arrays.items()}


def leaves_of(forest, Z):
    """Leaves that rows of Z (n, width) reach, sparse 0/1 (n, leaves)."""
    Z, node, below = np.asarray(Z, np.float32), None, np.tile(forest["root"], (len(Z), 1))
    row = np.arange(0, Z.size, Z.shape[1])[:, None]
    while not np.array_equal(node, below):  # a leaf is its own child
        node = below
        is_left = Z.take(row + forest["feature"].take(node)) <= forest["threshold"].take(node)
        below = np.where(is_left, forest["left"].take(node), forest["right"].take(node))
    return leaf_matrix(forest["leaf"].take(node), len(forest["means"]))


def leaf_matrix(leaf, n):
    """Leaf numbers (rows, trees) -> sparse 0/1 (rows, n)."""
    ends = np.arange(0, leaf.size + 1, leaf.shape[1])
    return sparse.csr_matrix((np.ones(leaf.size, np.float32), leaf.ravel(), ends), (len(leaf), n))


def leaf_means(forest, parts, Z, Y, first, block=20_000):
    """Mean labels of the rows of (Z, Y) in each leaf, (leaves, K) float32."""
    n = forest["leaf"].max() + 1
    total, sizes = np.zeros((n, Y.shape[1]), np.float32), np.zeros((n, 1), np.float32)
    for i in range(0, len(Z), block):  # counts: exact in float32
        X = Z[i:i + block][:, first:].astype(np.float32)
        node = forest["root"] + np.hstack([part.apply(X) for part in parts])
        reached = leaf_matrix(forest["leaf"].take(node), n).T
        sums = (reached @ sparse.csr_matrix(Y[i:i + block], dtype=np.float32)).tocoo()
        total[sums.row, sums.col] += sums.data
        sizes += reached.sum(1)
    return total / np.maximum(sizes, 1)


def load_forest(path):
    """Plain arrays; a file with Python objects is refused, not run."""
    with danq.readable(path, "fit it again"):
        return dict(np.load(path, allow_pickle=False))


def fit_and_score(args, out_dir):
    """Stage 3: forest on the training encodings, thresholds on validation, scores on test."""
    started, scores = time.time(), []
    with open_encodings(out_dir) as (file, about):
        Z, Y, labels = file["train/Z"], file["train/Y"], [(i, *row) for i, row in enumerate(file["labels"].asstr()[:])]
        print(f"[3/3] forest: {args.forest_trees} trees, {len(Z):,} x {Z.shape[1]} encodings, {Y.shape[1]} labels")
        pooled = args.features in ("autoencoder", "untrained") and "pooled" in CHANGES[:args.ablation]
        forest = fit_forest(Z, Y, args.forest_trees, args.forest_leaf, args.forest_samples, args.forest_projections,
                            args.seed, first=DIGITS * pooled)  # digits are noise to it
        with new_file(out_dir / "forest.npz") as temporary:
            np.savez(temporary, **forest, data="SIMULATED " * about["simulated"] + about["data"])
        seconds = {"autoencoder": about["training"]["seconds"], "encodings": about["encoding_seconds"],
                   "forest": round(time.time() - started, 2)}
        for group in (file["valid"], file["test"]):
            windows, strands = int(group.attrs["windows"]), bool(group.attrs["strands"])
            P = danq.strand_mean(lambda Z: predict_forest(forest, Z), group["Z"], windows, strands, 500)
            scores += [P, group["Y"][:windows]]
        if args.label_weight:  # what the autoencoder itself answers
            answer = danq.load_model(out_dir).get_layer("labels")
            P = danq.strand_mean(lambda Z: ops.convert_to_numpy(answer(Z[:, DIGITS:])), group["Z"], windows, strands,
                                 500)
            _, means = danq.evaluate(P, scores[-1], labels, [.5] * len(labels))
            about["label_output"] = {key: means["all"][key] for key in ("auroc", "auprc")}
            print("the autoencoder's own label output:", about["label_output"])
        n = len(Z)
    P_valid, Y_valid, P, Y = scores
    danq.finish_run(out_dir, *danq.evaluate(P, Y, labels, danq.best_thresholds(P_valid, Y_valid)), about | {
        "model": run_name(args), "train_sequences": n, "test_windows": len(P),
        "strands": strands, "seconds": seconds, "training_seconds": round(sum(seconds.values()), 2),
        "subset_accuracy": float(((P >= .5) == Y).all(1).mean())})


# ---- the command line

def parse_args(argv=None):
    parser, data, network, training, forest, after = danq.shared_arguments(__doc__, None, EPOCHS, BATCH)
    data("--unlabelled", metavar="FILE", help="FASTA or .mat for the autoencoder alone")
    data("--unlabelled-limit", type=positive, metavar="N", help="take N, every k-th of the file")
    network("--paper", action="store_true",
            help="the 2018 network, recipe (10 epochs, batches of 100) and size of forest (10 trees, leaf 1)")
    network("--filters", type=positive, help=f"of the first convolution ({FILTERS}; --paper 320)")
    network("--lstm-units", type=number(int, 0), help=f"of the BLSTM, each way; 0: none ({LSTM_UNITS}; --paper 320)")
    network("--no-lstm", dest="lstm_units", action="store_const", const=0, help="as the paper's authors presented it")
    network("--ablation", type=int, choices=range(len(CHANGES) + 1), metavar="N", default=len(CHANGES),
            help="take the first N changes from the 2018 autoencoder to ours")
    training("--label-weight", type=number(float, 0), metavar="W",
             help=f"of the labels in the autoencoder's loss; 0: none, as in 2018 ({LABEL_WEIGHT:g})")
    forest("--features", default="autoencoder", choices=("autoencoder", "untrained", "pca", "kmer"),
           help="what the forest sees: the bottleneck, or a yardstick")
    forest("--forest-trees", type=positive, default=TREES, help="%(default)s")
    forest("--forest-leaf", type=positive, default=LEAF, help="encodings in a leaf at least (%(default)s)")
    forest("--forest-samples", type=positive, default=SAMPLES, help="rows that trees grow on at most (%(default)s)")
    forest("--forest-projections", type=number(int, 0), default=PROJECTIONS, metavar="D",
           help="random sums of labels that trees grow on; 0 for the labels (%(default)s)")
    forest("--reuse-encodings", action="store_true", help="the forest alone, on encodings.h5 of --out-dir")
    after("--compare", nargs="+", metavar="DIR", help="set finished runs side by side, DanQ's first, and exit")
    after("--curve", nargs="+", metavar="DIR", help="set finished runs of several sizes side by side, and exit")
    args = parser.parse_args(argv)
    if args.paper:
        parser.set_defaults(epochs=10, batch_size=danq.BATCH, forest_trees=10, forest_leaf=1)
        args = parser.parse_args(argv)
        if args.ablation < len(CHANGES):
            raise BadInput("--paper takes none of the CHANGES: not with --ablation")
        args.ablation = 0
    learns, ours = args.features == "autoencoder", "pooled" in CHANGES[:args.ablation]
    if args.label_weight is None:
        args.label_weight = LABEL_WEIGHT if learns and ours else 0.
    for wrong, why in (
            (not learns and (args.paper or args.label_weight or args.unlabelled),
             "--features is for yardsticks, which are not trained: not with --paper, --label-weight, --unlabelled"),
            (args.label_weight and not ours, "--label-weight needs the pooled features: not with --paper, --ablation"),
            (args.unlabelled_limit and not args.unlabelled, "--unlabelled-limit needs --unlabelled FILE"),
            (args.reuse_encodings and args.restart, "--restart discards the encodings that --reuse-encodings needs")):
        if wrong:
            raise BadInput(why)
    args.out_dir = args.out_dir or f"runs/{('superq-paper' if args.paper else 'superq') if learns else args.features}"
    return args


def main(argv=None):
    args = parse_args(argv)
    out_dir, changeable = Path(args.out_dir), ()
    if folders := args.compare or args.curve:
        draw, name = (compare, "comparison.md") if args.compare else (learning_curve, "curve.md")
        return draw(folders, args.output or danq.packed_dir(folders[0]).with_name(name))
    if args.motifs:
        return danq.write_motifs(out_dir, "superq.py", args.motifs)
    if args.predict or args.test_data:
        return (danq.annotate if args.predict else danq.score_elsewhere)(args, trained_scores(out_dir))
    if args.reuse_encodings:  # everything but the forest's arguments is as it was
        changeable = "forest_trees", "forest_leaf", "forest_samples", "forest_projections", "code"
        with open_encodings(out_dir) as (_, about):
            simulated, before = about["simulated"], danq.read_json(out_dir / "args.json", "settings")["settings"]
        sources = before["data_files"]
        vars(args).update({key: before[key] for key in vars(args).keys() & before.keys() if key not in changeable})
    else:
        splits, labels = danq.load_data(args)
        simulated, sources = splits["train"].simulated, [split.source for split in splits.values()]
        sources += [danq.file_state(args.unlabelled)] if args.unlabelled else []
    with danq.run_folder(args, "superq.py", simulated, sources, changeable) as finished:
        if finished:
            return
        if not args.reuse_encodings:
            encode_splits(args, splits, labels, out_dir)
        fit_and_score(args, out_dir)


def encode_splits(args, splits, labels, out_dir):
    """Stages 1 and 2, what is not done of them."""
    record, path = out_dir / "autoencoder.json", out_dir / "encodings.h5"
    if not record.is_file():
        (train_autoencoder if args.features == "autoencoder" else make_yardstick)(args, splits, out_dir)
    if not path.is_file():
        about = {"features": args.features, "data": args.data_dir, "limit": args.limit,
                 "simulated": splits["train"].simulated} | danq.read_json(record, "training")
        write_encodings(path, load_encoder(out_dir, args.ablation), splits, labels, about, args.batch_size)


def run_name(args):
    names = {"kmer": "k-mers -> forest", "untrained": "untrained encoder -> forest", "pca": "PCA -> forest",
             "autoencoder": "SuperQ" + " (paper)" * args.paper}
    learns, weight = args.features == "autoencoder" and "pooled" in CHANGES[:args.ablation], args.label_weight
    return ", ".join(filter(None, [
        names[args.features], args.ablation < len(CHANGES) and not args.paper and f"ablation {args.ablation}",
        learns and weight != LABEL_WEIGHT and (f"label weight {weight:g}" if weight else "no labels"),
        args.lstm_units == 0 and "no BLSTM", args.unlabelled and f"+ {args.unlabelled_limit or 'all'} unlabelled",
        not args.forest_projections and "direct forest"]))


def trained_scores(out_dir):
    """A finished run as a function, packed (n, 500) -> (n, K)."""
    encode = load_encoder(out_dir, danq.finished_settings(out_dir, "superq.py")["ablation"])
    forest = load_forest(out_dir / "forest.npz")
    return lambda X: predict_forest(forest, encode(X))


# ==== The machinery: not needed to understand SuperQ.
# ---- yardsticks and unlabelled DNA

def make_yardstick(args, splits, out_dir):
    """Stage 1 of yardsticks, as networks: k-mer counts, PCA, an untrained encoder."""
    train, started, inputs = splits["train"], time.time(), keras.Input((LENGTH, 4))
    if args.features == "kmer":
        counts = [KmerCounts(k, span)(inputs) for k, span in YARDSTICK]
        model = keras.Model(inputs, layers.Concatenate(name="bottleneck")(counts))
    elif args.features == "pca":
        X = onehot(train.X[danq.even_sample(len(train.X), 20_000)])
        pca = PCA(min(CODE, len(X)), random_state=args.seed).fit(X.reshape(len(X), -1).astype(np.float32))
        project = layers.Dense(pca.n_components_, name="bottleneck")
        model = keras.Model(inputs, project(layers.Flatten()(inputs)))
        project.set_weights([pca.components_.T, -pca.components_ @ pca.mean_])
    else:
        keras.utils.set_random_seed(args.seed)
        model = encoder_of(build(args, train.n_labels))
    model.name = f"{args.features}{'_SIMULATED' * train.simulated}"
    with new_file(out_dir / "model.keras") as temporary:
        model.save(temporary)
    seconds = round(time.time() - started, 2)
    danq.write_json(out_dir / "autoencoder.json", {
        "training": {"epochs": 0, "best_epoch": 0, "seconds": seconds}, "parameters": model.count_params()})


@dataclasses.dataclass
class MixedSplit(danq.Split):
    """A Split and, as its rows n..n + m, sequences without labels: (m, 500) uint8."""
    unlabelled: np.ndarray | None = None

    def __len__(self):
        return len(self.X) + len(self.unlabelled)

    def batch(self, rows):
        """X, Y and weights of some rows: 1, or 0 without labels."""
        own, X = rows < len(self.X), np.empty((len(rows), self.X.shape[1]), np.uint8)
        X[own], X[~own] = self.X[rows[own]], self.unlabelled[rows[~own] - len(self.X)]
        return X, self.Y[np.where(own, rows, 0)], own.astype(np.float32)


def load_unlabelled(path, folder, limit=None):
    """Packed sequences (n, 500) of a file without labels, a memory map; limit : so many, every k-th.

    path : FASTA, cut into windows side by side, those of more N than bases left out; or a .mat with trainxdata or xdata
    """
    path = Path(path)
    mark = sha256(f"{os.path.realpath(path)} {danq.file_state(path)}".encode()).hexdigest()[:8]
    packed = folder / f"{path.name}-{mark}.npy"
    if not packed.is_file():
        is_mat = h5py.is_hdf5(path) or path.open("rb").read(6) == b"MATLAB"
        with danq.locked(folder, wait=True), new_file(packed) as temporary:
            (pack_mat if is_mat else pack_fasta)(path, temporary)
    with danq.readable(packed, "remove it: it is made again"):
        X = np.load(packed, mmap_mode="r")
    return X[::max(1, len(X) // (limit or len(X)))][:limit]


def pack_mat(path, packed):
    keys = [*(f"{split}xdata" for split in SPLITS), "xdata"]
    with danq.open_mat(path, keys) as (*arrays, _):
        key, X = next(((key, X) for key, X in zip(keys, arrays) if X is not None), (" or ".join(keys), None))
        danq.check_layout(path, [key], X)
        danq.pack_array(X, [(0, X.shape[-1])], packed, f"{path}: {key}")


def pack_fasta(path, packed):
    def windows():
        return (window for window in danq.fasta_windows(path, LENGTH)
                if len(window[-1].translate(None, b"ACGT")) <= LENGTH // 2)

    n, rest = sum(1 for _ in windows()), windows()
    if not n:
        raise BadInput(f"{path} holds no window of {LENGTH} bases with half of them known")
    out = np.lib.format.open_memmap(packed, "w+", np.uint8, (n, LENGTH // 2))
    danq.claim(packed, os.path.getsize(packed))
    for i in range(0, n, 1000):
        X = danq.letters_to_onehot(list(islice(rest, 1000)), path)
        out[i:i + len(X)] = danq.packed(X)


# ---- side by side

def read_runs(folders):
    """The summaries of finished runs, with their folders, settings and means over all labels as keys of their own."""
    runs, names = [], [Path(os.path.realpath(folder)).name for folder in folders]
    for folder, name in zip(map(Path, folders), names):
        settings, run = danq.finished_settings(folder), danq.read_json(folder / "summary.json", "means", "labels")
        if not run["means"]["all"]["labels"]:
            raise BadInput(f"{folder} has no scores: no label has both classes in its test split")
        runs.append(run["means"]["all"] | run | {
            "folder": folder, "name": name if names.count(name) == 1 else str(folder),
            "settings": settings | {"seed": None}})
    return runs


def compare(folders, output):
    """Set finished runs, DanQ's first, side by side in `output`.md and `output`.png.

    Runs of a model that differ in their seed alone are one row, those that differ in more rows by their folders.
    """
    runs, groups = read_runs(folders), {}
    base = runs[0]
    for run in runs:
        for key in ("simulated", "limit", "labels", "train_sequences", "test_windows", "strands", "base_rate"):
            if run[key] != base[key]:
                raise BadInput(f"{run['folder']} does not match {base['folder']}: {key} is {run[key]}, not {base[key]}")
        alike = all(other["settings"] == run["settings"] for other in runs if other["model"] == run["model"])
        model = run["model"] if alike else f"{run['model']} [{run['name']}]"
        groups.setdefault(model, []).append(run)
    scores = {model: np.mean([label_scores(run) for run in own], 0) for model, own in groups.items()}
    figures = {"": draw_comparison(groups, scores), "-training": draw_training(runs)}
    if len(groups) > 1:
        assays = read_columns(base["folder"] / "metrics.csv", "assay", kind=str)
        figures["-labels"] = draw_labels(scores, assays[:, 0])
    save_side_by_side(comparison_table(groups) + differences(scores), figures, output, base["simulated"])


def save_side_by_side(table, figures, output, simulated):
    """Print a table, write it to `output`.md and each {end: figure} to `output`END.png and .svg."""
    name = str(output).removesuffix(".md").removesuffix(".png")
    if os.path.basename(name) in ("", ".", ".."):
        raise BadInput(f"--output {output} is a folder: name a file")
    with new_file(f"{name}.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    print(f"{table}-> {name}.md")
    for end, figure in figures.items():
        danq.save_figure(figure, f"{name}{end}.png", simulated)


def comparison_table(groups):
    """Markdown: scores (all labels, then an assay each), costs of {model: [summaries of its runs]}."""
    first = next(iter(groups.values()))
    base, unit = first[0], np.mean([run["training_seconds"] for run in first])
    _, *assays = base["means"]
    rows = [["model", *(f"{name} ({' '.join(assays)})" for name in ("AUROC", "AUPRC", "F1")), "training",
             f"of {base['model']}'s", "best epoch", "bases rebuilt"]]
    for model, runs in groups.items():
        rows.append([model + f" ({len(runs)} seeds)" * (len(runs) > 1)])
        for key in ("auroc", "auprc", "f1"):
            means = [f"{np.mean([run['means'][assay][key] or 0 for run in runs]):.4f}" for assay in assays]
            rows[-1].append(in_brackets(mean_and_spread([run[key] for run in runs]), means))
        spent = [f"{key} {np.mean([run['seconds'][key] for run in runs]):,.0f}"
                 for key in ("autoencoder", "encodings", "forest") if key in runs[0]["seconds"]]
        seconds, training = np.mean([run["training_seconds"] for run in runs]), runs[0]["training"]
        rows[-1] += [in_brackets(f"{seconds:,.0f} s", spent), f"{seconds / unit:.3f}", f"{training['best_epoch']}",
                     mean_and_spread([run["reconstruction"]["base_accuracy"] for run in runs
                                      if "reconstruction" in run])]
    rates = [f"{mean['base_rate'] or 0:.4f}" for mean in base["means"].values()]
    rows.append(["chance", "0.5", in_brackets(rates[0], rates[1:]), *[""] * 4, "0.25"])
    for name, scores in danq.published(base).items():
        scores = [in_brackets(f"{score[0]:.4f}", [f"{x:.4f}" for x in score[1:]]) for score in scores.values()]
        rows.append([f"published: {name}", *scores, *[""] * 5])
    return (f"# {'SIMULATED data: ' * base['simulated']}{', '.join(groups)}\n\nData {base['data']}: "
            f"{base['train_sequences']:,} training sequences, {base['test_windows']:,} test windows, "
            f"{'both strands averaged, ' * base['strands']}{base['labels_scored']} of {base['labels']} labels scored. "
            f"Time: DanQ to its best epoch; SuperQ all three stages.\n\n{markdown(*rows)}")


def markdown(head, *rows):
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def label_scores(run):
    """AUROC and AUPRC of each label (K, 2), NaN where it has one class only."""
    return read_columns(run["folder"] / "metrics.csv", "auroc", "auprc", n=run["labels"])


def read_columns(path, *names, kind=float, n=None):
    """Columns of a .csv (n rows, names), NaN where a number is missing."""
    with danq.readable(path, "train again with --restart"), open(path, newline="", encoding="utf-8") as file:
        rows = [[kind(row[name] or "nan") for name in names] for row in csv.DictReader(file)]
        if n not in (None, len(rows)):
            raise ValueError(f"it has {len(rows)} rows, not {n}")
        return np.array(rows).reshape(-1, len(names))


def interval(scores):
    """Mean over labels of scores (K,) and its 95 % bootstrap interval."""
    scores = np.resize(scores[np.isfinite(scores)], max(2, np.isfinite(scores).sum()))
    spread = bootstrap((scores,), np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
    return scores.mean(), spread.low, spread.high


def differences(scores):
    """Markdown: mean differences over labels from DanQ and k-mer counts, with intervals.  scores : {model: (K, 2)}"""
    rows = []
    for other in {next(iter(scores)), "k-mers -> forest"} & scores.keys():
        for model in scores.keys() - {other}:
            cells = ("{:+.4f} ({:+.4f} to {:+.4f})".format(*interval(d)) for d in (scores[model] - scores[other]).T)
            rows.append([model, other, *cells])
    return "\n" + markdown(["model", "against", "AUROC", "AUPRC"], *sorted(rows)) if rows else ""


def mean_and_spread(values):
    if not values:
        return "-"
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def in_brackets(first, others):
    return f"{first} ({' '.join(others)})" if others else first


def learning_curve(folders, output):
    """Scores of finished runs of several sizes, all on one test set, as `output`.md and `output`.png."""
    models, tests = {}, {}
    for run in read_runs(folders):
        tests[run["test_windows"], run["labels_scored"], run["base_rate"]] = run["folder"]
        windows = run["train_sequences"] // (1 + run["strands"])
        models.setdefault(run["model"], {}).setdefault(windows, []).append(run)
    if len(tests) > 1:
        raise BadInput(f"{' and '.join(map(str, tests.values()))} have different test sets: score on one --test-data")
    sizes = sorted({windows for runs in models.values() for windows in runs})
    rows = [["AUROC / AUPRC", *(f"{windows:,} windows" for windows in sizes)]]
    for model, runs in models.items():
        cells = (" / ".join(mean_and_spread([run[key] for run in runs.get(windows, ())]) for key in ("auroc", "auprc"))
                 for windows in sizes)
        rows.append([model, *cells])
    figure, axes = danq.subplots(1, 2, figsize=(13, 4.5))
    for axis, key in zip(axes, ("auroc", "auprc")):
        draw_lines(axis, {model: [(n, np.mean([run[key] for run in runs[n]])) for n in sorted(runs)]
                          for model, runs in models.items()})
        axis.set(xscale="log", xlabel="training windows", ylabel=key.upper(), xticks=sizes, xticklabels=sizes)
        axis.minorticks_off()
    save_side_by_side(markdown(*rows), {"": figure}, output, run["simulated"])


def draw_lines(axis, lines):
    """Draw {name: [(x, y), ...]}, names at the right, sorted by their ends."""
    names = sorted(lines, key=lambda name: lines[name][-1][1])
    for i, (name, points) in enumerate(lines.items()):
        axis.plot(*zip(*points), marker="osD^v<>"[i % 7], linestyle="--" if "val_" in name else "-")
        axis.annotate(name, points[-1], (1.08, (names.index(name) + .5) / len(names)), va="center",
                      textcoords="axes fraction", arrowprops={"arrowstyle": "-"}, annotation_clip=False)


def draw_comparison(groups, scores):
    """A row for each model, the best on top: mean over labels with its interval, a dot for each run."""
    base, models = next(iter(groups.values()))[0], sorted(groups, key=lambda model: np.nanmean(scores[model][:, 0]))
    figure, axes = danq.subplots(1, 3, figsize=(13, 2 + .4 * len(groups)), sharey=True)
    marks = {"chance": {"auroc": [.5], "auprc": [base["base_rate"]]}} | danq.published(base)
    for axis, key, label in zip(axes, ("auroc", "auprc", "training_seconds"), ("AUROC", "AUPRC", "training (s)")):
        for row, model in enumerate(models):
            values = [run[key] for run in groups[model]]
            axis.plot(values, [row] * len(values), "ok", alpha=.6)
            if key in danq.MEASURES:
                axis.plot(interval(scores[model][:, int(key == "auprc")])[1:], [row, row], color=".5")
        for side, (name, published) in zip(("center", "right", "left"), marks.items()):
            if key in published:
                axis.axvline(published[key][0], color="k", linestyle="dotted")
                axis.text(published[key][0], 1.02, name, ha=side, transform=axis.get_xaxis_transform())
        axis.set_xlabel(label)
        axis.grid(axis="y", alpha=.4)
    axes[0].set(yticks=range(len(models)), yticklabels=models, ylim=(-.5, len(models) - .5))
    axes[2].set_xscale("log")
    axes[2].xaxis.set_minor_formatter("")  # they overlap
    return figure


def draw_training(runs):
    """Loss and accuracy of every run, epoch by epoch, and the paper's."""
    figure, axes = danq.subplots(4, 1, figsize=(10, 16))
    panels = [(script, key) for script in PAPER_LOG for key in ("loss", "acc")]
    for axis, (script, key) in zip(axes, panels):
        lines = {f"2018 paper: {column}": [*enumerate(values, 1)] for column, values in PAPER_LOG[script].items()}
        for run in runs:
            path, own = run["folder"] / "history.csv", run["settings"]["script"] == script
            for column in (key, f"val_{key}") if own and path.is_file() else ():
                points = read_columns(path, "epoch", column)
                lines[f"{run['name']}: {column}"] = points[np.isfinite(points[:, 1])].tolist()
        draw_lines(axis, {name: line for name, line in lines.items() if line and name.endswith(key)})
        axis.set(xlabel="epoch", ylabel=key, title=script, yscale="log" if key == "loss" else "linear")
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def draw_labels(scores, assays):
    """AUROC label by label, the second model against the first, a panel for each assay.  scores : {model: (K, 2)}"""
    (first, x), (second, y), *_ = scores.items()
    names, x, y = list(dict.fromkeys(assays))[:12], x[:, 0], y[:, 0]
    figure, axes = danq.subplots(1, len(names), figsize=(4 * len(names) + 1, 4.5), squeeze=False)
    for axis, name, colour in zip(axes[0], names, 3 * danq.COLOURS):
        own = (assays == name) & np.isfinite(x + y)
        axis.plot(x[own], y[own], "o", color=colour, alpha=.6)
        axis.axline((.5, .5), slope=1, color="k", linestyle="dashed")
        axis.set(title=f"{name}: higher in {(y > x)[own].sum()} of {own.sum()} labels", xlabel=f"AUROC, {first}",
                 ylabel=f"AUROC, {second}")
    return figure


if __name__ == "__main__":
    danq.command_line(main)
