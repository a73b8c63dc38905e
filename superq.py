"""SuperQ: annotate DNA from the bottleneck of an autoencoder (Löverli & Gupta 2018), and make it work.

    one-hot (1000, 4) -> conv + BLSTM encoder -> 500 numbers -> decoder -> 4 probabilities a base
                                                     |-> random forest -> 919 probabilities

    python superq.py --epochs 10                     autoencoder, encodings, forest: data/ -> runs/superq/
    python superq.py --paper                         the 2018 network and recipe, which diverges -> runs/superq-paper/
    python superq.py --reuse-encodings --forest-trees 500       the forest alone, on the encodings of the run before
    python superq.py --features kmer                 the yardstick: 4-mer counts into the same forest -> runs/kmer/
    python superq.py --predict seqs.fa --output out.tsv         annotate your own sequences with runs/superq
    python superq.py --compare runs/danq runs/superq runs/kmer  the table and the figure -> runs/comparison.{md,png}

Writes args.json, history.csv, model.keras and autoencoder.json (stage 1), encodings.h5 (stage 2), forest.npz, metrics.csv
and summary.json (stage 3) into --out-dir. Reconstruction of held-out DNA: README, Results.
"""
import json
import time
import zipfile
from pathlib import Path

import danq                                             # before keras: it silences a backend's start-up chatter
import h5py
import keras
import numpy as np
from danq import BadInput, Batches, onehot, positive, unpack_labels
from keras import layers, ops
from scipy import sparse
from sklearn.ensemble import RandomForestRegressor

CODE = 500                                              # numbers in the bottleneck, the paper's and ours
STEPS, DIGITS = 200, 400                                # of them, 2 for every 5 bases say what stands where
PATIENCE = 3                                            # epochs without a better validation loss
KMER = 4
FOREST = ("forest_trees", "forest_leaf", "forest_samples")              # arguments that --reuse-encodings may change
FOREST_FORMAT = 1                                       # version of forest.npz
PROJECTIONS = 32                                        # random dimensions that stand for the labels while trees grow
# The 2018 paper's own logs, DeepSEA bundle on a K80: (training loss, accuracy) of its first epochs; chance is .25.
PAPER_LOG = {"DanQ": ".0767 / .9791 after epoch 1, 17,150 s an epoch",
             "SuperQ": "1.4e8 to 4.7e9 / .2505 to .2560 over epochs 1-8, 17,000 s an epoch"}


# ---------------------------------------------------------------- the autoencoders

def build_paper(filters=320, lstm_units=320, lstm=True):
    """The 2018 autoencoder: DanQ's trunk with a linear convolution, one dense code, one dense decoder. 27,679,060 parameters."""
    inputs = keras.Input((danq.LENGTH, 4))
    x = danq.trunk(inputs, filters, lstm_units, conv_activation=None, lstm=lstm)            # (B, 48000)
    x = layers.Dense(CODE, name="bottleneck")(x)                                            # (B, 500)
    x = layers.Dense(danq.LENGTH * 4)(x)
    return keras.Model(inputs, layers.Reshape((danq.LENGTH, 4))(x), name="superq_paper")


def build_autoencoder(filters=128, lstm_units=32, lstm=True):
    """An autoencoder that learns: (B, 1000, 4) -> 400 digits + 100 pooled features -> bases (B, 1000, 4), composition (B, 256).

    The digits say what stands where: a linear convolution writes five bases, 10 bits, into two numbers, and the decoder
    reads them through sines of doubling frequency, as a dial is read by ever finer hands. The pooled features say what the
    sequence is made of, wherever it stands and on either strand: mean motif scans, and the BLSTM's mean over them. They
    are asked to rebuild the counts of all 4-mers.
    """
    inputs = keras.Input((danq.LENGTH, 4))
    stride = danq.LENGTH // STEPS
    digits = layers.Conv1D(DIGITS // STEPS, stride, strides=stride, name="digits")(inputs)  # (B, 200, 2)
    motif_scan = layers.Conv1D(filters, 8, activation="relu", name="motif_scan")
    scans = [motif_scan(strand) for strand in (inputs, ops.flip(inputs, (1, 2)))]           # both (B, 993, filters)
    pooled = [ops.log(1 + 100 * ops.add(*(layers.GlobalAveragePooling1D()(scan) for scan in scans)))]
    if lstm:
        grammar = layers.Bidirectional(layers.LSTM(lstm_units, return_sequences=True), name="motif_grammar")
        steps = [grammar(layers.MaxPooling1D(20)(scan)) for scan in scans]                  # both (B, 49, 2 * lstm_units)
        pooled.append(ops.add(*(layers.GlobalAveragePooling1D()(step) for step in steps)))
    pooled = layers.BatchNormalization(momentum=.9)(layers.Concatenate()(pooled))
    pooled = layers.Dense(CODE - DIGITS, name="pooled")(pooled)                             # (B, 100)
    code = layers.Concatenate(name="bottleneck")([layers.Flatten()(digits), pooled])        # (B, 500)

    x = layers.Reshape(digits.shape[1:])(code[:, :DIGITS])
    x = layers.Concatenate()([x] + [wave(x * (np.pi / 4 * 2 ** i)) for i in range(7) for wave in (ops.sin, ops.cos)])
    for _ in range(2):
        x = layers.Conv1D(128, 1, activation="relu")(x)
    x = layers.Conv1D(4 * stride, 1)(x)                                                     # (B, 200, 20): five bases
    x = layers.Softmax(name="bases")(layers.Reshape((danq.LENGTH, 4))(x))
    composition = layers.Dense(4 ** KMER, name="composition")(code[:, DIGITS:])
    return keras.Model(inputs, {"bases": x, "composition": composition}, name="superq")


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


def compile_paper(model):
    """Mean squared error and Nadam at .015, ten times what Keras advised: this is what diverges."""
    danq.compile_model(model, Nadam2018(.015, beta_1=.9, beta_2=.999, epsilon=1e-8), "mean_squared_error",
                       [keras.metrics.CategoricalAccuracy(name="acc")])


def compile_autoencoder(model, steps):
    """Cross-entropy of known bases + squared error of 4-mer composition; Adam warmed up to 5e-3, then a cosine, over `steps`."""
    warmup = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(1e-4, max(1, steps - warmup), alpha=.02, warmup_target=5e-3,
                                                    warmup_steps=warmup)
    danq.compile_model(model, keras.optimizers.Adam(rate, clipnorm=1.), {
        "bases": keras.losses.CategoricalCrossentropy(reduction="mean_with_sample_weight"), "composition": "mean_squared_error",
    }, {"bases": [keras.metrics.CategoricalAccuracy(name="acc")]})


def known_bases(X):
    """Bool (n, 1000): columns that hold exactly one base. N (none) and IUPAC-degenerate columns (several) are not scored."""
    return X.sum(-1) == 1


def rebuild(X, rows):
    """Targets and weights of the autoencoder: the bases, unknown ones weighted 0; square roots of both strands' 4-mer counts."""
    counts = kmer_counts(X)
    composition = np.sqrt(counts + counts[:, COMPLEMENTS])
    return {"bases": X, "composition": composition}, {"bases": known_bases(X), "composition": np.ones(len(X), np.float32)}


def rebuild_all(X, rows):
    """Targets of 2018: the sequence itself, an N asking for four zeros."""
    return (X,)


# ---------------------------------------------------------------- how well is DNA rebuilt?

def base_codes(X):
    """Base of each column (n, 1000) int64: index into A, G, C, T, or -1 where it is not known."""
    return np.where(known_bases(X), X.argmax(-1), -1)


def words(codes, k):
    """Base-4 number of the k-mer that ends at each position, (n, 1000 - k + 1), or -1 where it holds an unknown base."""
    n = codes.shape[1] - k + 1
    number, known = np.zeros((len(codes), n), np.int64), np.ones((len(codes), n), bool)
    for i in range(k):
        number = number * 4 + codes[:, i:i + n]
        known &= codes[:, i:i + n] >= 0
    return np.where(known, number, -1)


def markov_model(split, order, sample=20_000):
    """Probability of each base after each context of `order` bases (4^order, 4), from an even sample of training rows."""
    rows = np.unique(np.linspace(0, len(split.X) - 1, min(sample, len(split.X))).astype(int))
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
    Returns {"bases", "base_accuracy", "bits_per_base", "mse", "commonest_base", "markov_0": {...}, "markov_2": {...}}.
    """
    bases = model.output["bases"] if isinstance(model.output, dict) else model.output
    encoder, decoder = encoder_of(model), keras.Model(model.get_layer("bottleneck").output, bases)
    rows = np.unique(np.linspace(0, len(test.X) - 1, min(sample, len(test.X))).astype(int))
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
    word = words(base_codes(X), k)
    row = np.broadcast_to(np.arange(len(X))[:, None], word.shape)[word >= 0]
    return np.bincount(row * 4 ** k + word[word >= 0], minlength=len(X) * 4 ** k).reshape(len(X), -1).astype(np.float32)


def load_encoder(out_dir, features, paper=False):
    """What the forest sees: a function one-hot (n, 1000, 4) -> (n, width), and the dtype to keep it in."""
    if features == "kmer":
        return kmer_counts, np.float16                  # counts to 997: exact in float16
    encoder = encoder_of(danq.load_model(out_dir))
    # Our code stays within a few units; the paper's has no scale to rely on.
    return lambda X: np.nan_to_num(encoder.predict_on_batch(X)), np.float32 if paper else np.float16


def write_encodings(path, encode, splits, labels, about, dtype, batch_size):
    """Encode every row of every split into `path`, in the rows' own order; returns seconds.

    /train/Z (N, width) of `dtype`, /train/Y (N, K) uint8, attributes windows and strands; the same for /valid and /test;
    /labels (K, 2) assay and name; attribute `about`: JSON that names model and data; attribute `seconds`.
    """
    started = time.time()
    with danq.replacing(path) as beside, h5py.File(beside, "w") as file:
        file.attrs["about"] = json.dumps(about)
        file["labels"] = np.array([label[1:] for label in labels], h5py.string_dtype())
        bar = danq.progress(sum(len(split.X) for split in splits.values()))
        for name, split in splits.items():
            group, n = file.create_group(name), len(split.X)
            group.attrs.update(windows=split.windows, strands=split.strands)
            for i in range(0, n, batch_size):
                rows = slice(i, min(i + batch_size, n))
                Z = encode(onehot(split.X[rows])).astype(dtype)         # numpy rounds right; HDF5's own float16 may halve
                if not i:
                    group.create_dataset("Z", (n, Z.shape[1]), dtype, chunks=(min(n, 256), Z.shape[1]))
                    group.create_dataset("Y", (n, split.n_labels), "u1", chunks=(min(n, 1024), split.n_labels),
                                         compression="gzip")
                group["Z"][rows], group["Y"][rows] = Z, unpack_labels(split, rows)
                bar.add(rows.stop - i)
        file.attrs["seconds"] = seconds = round(time.time() - started, 2)
    return seconds


# ---------------------------------------------------------------- a random forest for many labels

def read_rows(array, rows, block=20_000):
    """Rows (sorted indices) of an HDF5 dataset or array, read in whole blocks: many times faster than h5py's indexing."""
    parts = []
    for i in range(0, len(array), block):
        lo, hi = np.searchsorted(rows, (i, i + block))
        if hi > lo:
            parts.append(array[i:i + block][rows[lo:hi] - i])
    return np.concatenate(parts)


def fit_forest(Z, Y, trees=200, leaf=20, samples=100_000, projections=PROJECTIONS, seed=1337, bootstrap=True, group=20):
    """Grow a random forest of many outputs; a dict of plain arrays.

    Z : (N, width);  Y : (N, K) 0/1, arrays or HDF5 datasets;  leaf : rows in a leaf at least
    samples : rows drawn for each group of trees where there are more, so memory does not grow with N
    projections : labels are projected to this many Gaussian dimensions while trees grow (Joly et al. 2014); 0 for none
    A regression tree on 0/1 labels splits by variance p (1 - p), half of Gini: the classifier's own splits. Leaf means
    are then taken over the true labels of all N rows. Memory: samples x (4 width + 12 projections + 5 K) bytes while
    growing, and leaves x K x 4 bytes, leaves at most trees x samples / leaf.
    """
    n, K, bar = len(Z), Y.shape[1], danq.progress(trees, "tree")
    R = np.random.default_rng([seed, 0]).standard_normal((K, projections)).astype(np.float32) / np.sqrt(projections or 1)
    forest = RandomForestRegressor(0, min_samples_leaf=leaf, max_features="sqrt", bootstrap=bootstrap, n_jobs=-1,
                                   warm_start=True, random_state=seed)
    for grown in range(0, trees, group):
        if not grown or n > samples:                    # else every group sees all rows: plain scikit-learn
            rows = np.arange(n) if n <= samples else \
                np.sort(np.random.default_rng([seed, 1, grown]).choice(n, samples, replace=False))
            X, T = read_rows(Z, rows).astype(np.float32), read_rows(Y, rows).astype(np.float32)
            T = T @ R if projections else T
        forest.set_params(n_estimators=min(grown + group, trees)).fit(X, T[:, 0] if T.shape[1] == 1 else T)
        bar.update(min(grown + group, trees))
    arrays = flatten_trees([tree.tree_ for tree in forest.estimators_])
    return arrays | {"means": leaf_means(arrays, Z, Y)}


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


def leaf_means(forest, Z, Y, block=2048):
    """Mean of each label over the rows of (Z, Y) in each leaf, (leaves, K) float32, in one streaming pass."""
    total = np.zeros((int(forest["leaf"].max()) + 1, Y.shape[1]), np.float32)
    sizes = np.zeros(len(total))
    for i in range(0, len(Z), block):
        reached = leaves_of(forest, Z[i:i + block].astype(np.float32))
        sums = (reached.T @ sparse.csr_matrix(Y[i:i + block], dtype=np.float32)).tocoo()
        total[sums.row, sums.col] += sums.data
        sizes += np.asarray(reached.sum(0)).ravel()
    total /= np.maximum(sizes, 1)[:, None]
    return total


def predict_forest(forest, Z):
    """Scores (n, K) float32 of encodings Z (n, width): the mean of the leaves that each row reaches."""
    return leaves_of(forest, np.asarray(Z, np.float32)) @ forest["means"] / np.float32(len(forest["root"]))


def save_forest(path, forest):
    with danq.replacing(path) as beside:
        np.savez(beside, **forest)


def load_forest(path):
    """Load plain arrays; a file that holds Python objects is refused, never run."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FOREST_FORMAT:
                raise ValueError(f"format {file['format']}")
            return {name: file[name] for name in file.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is not a forest of plain arrays ({danq.first_line(error)}): fit it again") from error


# ---------------------------------------------------------------- the three stages

def train_autoencoder(args, splits, out_dir):
    """Stage 1: train, report reconstruction of held-out DNA, write model.keras and, last, autoencoder.json."""
    train, valid = splits["train"], splits["valid"]
    keras.utils.set_random_seed(args.seed)
    build = build_paper if args.paper else build_autoencoder
    sizes = {key: value for key, value in (("filters", args.filters), ("lstm_units", args.lstm_units)) if value}
    model = build(**sizes, lstm=not args.no_lstm)
    print(f"[1/3] autoencoder{' of the paper' * args.paper}: {model.count_params():,} parameters, {CODE} numbers a sequence, "
          f"{len(train.X):,} sequences, {'' if args.paper else 'at most '}{args.epochs} epochs", flush=True)
    common = markov_model(train, 0).max()
    if args.paper:
        compile_paper(model)
    else:
        compile_autoencoder(model, args.epochs * -(-len(train.X) // args.batch_size))
    target = rebuild_all if args.paper else rebuild
    yardstick = f" ({'always .25: loss 0.1875; ' * args.paper}commonest base: acc {common:.4f})"
    training = danq.fit(
        model, lambda epoch: Batches(train, args.batch_size, target, args.seed, epoch),
        None if args.paper else Batches(valid, args.batch_size, target), out_dir, args.epochs,
        args.epochs if args.paper else PATIENCE, train.simulated, yardstick)
    report = reconstruction(model, train, splits["test"], args.batch_size, np.float32 if args.paper else np.float16, not args.paper)
    tell_reconstruction(report)
    if args.paper:
        print("the 2018 recipe, which failed in the paper's Fig. 3: loss 1.4e8 to 4.7e9, accuracy .2505 to .2560", flush=True)
    danq.write_json(out_dir / "autoencoder.json", {
        "simulated": train.simulated, "training": training, "reconstruction": report,
        "parameters": model.count_params(), "peak_memory_gb": danq.peak_memory()})


def encode_splits(args, splits, labels, out_dir):
    """Stage 2: write encodings.h5."""
    stage1 = {}
    if (out_dir / "autoencoder.json").is_file():
        stage1 = json.loads((out_dir / "autoencoder.json").read_text())
    encode, dtype = load_encoder(out_dir, args.features, args.paper)
    about = {"features": args.features, "paper": args.paper, "data": args.data_dir, "limit": args.limit,
             "simulated": splits["train"].simulated, **stage1}
    path = out_dir / "encodings.h5"
    seconds = write_encodings(path, encode, splits, labels, about, dtype, args.batch_size)
    with h5py.File(path) as file:
        n, width = file["train/Z"].shape
    print(f"[2/3] encodings: {sum(len(split.X) for split in splits.values()):,} x {width} -> {path} "
          f"({path.stat().st_size / 1e9:.2f} GB, {seconds:.0f} s)", flush=True)


def reusable(out_dir):
    """Whether out_dir's encodings are of simulated data, and the settings of the run that made them."""
    if not (out_dir / "encodings.h5").is_file():
        raise BadInput(f"{out_dir / 'encodings.h5'} is missing: run once without --reuse-encodings")
    with h5py.File(out_dir / "encodings.h5") as file:
        return json.loads(file.attrs["about"])["simulated"], json.loads((out_dir / "args.json").read_text())["settings"]


def fit_and_score(args, out_dir):
    """Stage 3: forest on the training encodings, thresholds on validation, scores on test."""
    path = out_dir / "encodings.h5"
    with h5py.File(path) as file:
        about, (n, width), K = json.loads(file.attrs["about"]), file["train/Z"].shape, file["train/Y"].shape[1]
        rows = min(n, args.forest_samples)
        print(f"[3/3] forest: {args.forest_trees} trees on {rows:,} of {n:,} encodings x {K} labels, at least {args.forest_leaf} "
              f"rows a leaf; memory about {rows * (4 * width + 12 * PROJECTIONS + 5 * K) / 1e9:.2f} GB for rows and at most "
              f"{args.forest_trees * max(1, rows // args.forest_leaf) * K * 4 / 1e9:.2f} GB for leaf means", flush=True)
        started = time.time()
        forest = fit_forest(file["train/Z"], file["train/Y"], args.forest_trees, args.forest_leaf, args.forest_samples,
                            seed=args.seed)
        save_forest(out_dir / "forest.npz", forest | {"data": np.array("SIMULATED " * about["simulated"] + about["data"])})
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
    P, Y = scores[2:]
    seconds["all"] = round(sum(seconds.values()), 2)
    training = about.get("training", {"epochs": 0, "best_epoch": 0})
    name = f"{KMER}-mers -> forest" if args.features == "kmer" else "SuperQ" + " (paper)" * args.paper
    danq.finish_run(out_dir, *danq.evaluate(*scores, labels), {
        "model": name, "data": about["data"], "simulated": about["simulated"], "limit": about["limit"],
        "train_sequences": n, "test_windows": len(P), "strands": split.strands, "training": training, "reconstruction": about.get("reconstruction"),
        "seconds": seconds, "peak_memory_stage1_gb": about.get("peak_memory_gb"), "parameters": about.get("parameters"),
        "subset_accuracy": float(((P >= .5) == Y).all(1).mean()), "subset_accuracy_all_zero": float((Y == 0).all(1).mean())})


def trained_scores(out_dir):
    """The finished run in out_dir as a function: one-hot (n, 1000, 4) -> label scores (n, K)."""
    settings = danq.finished_settings(out_dir, "superq.py")
    encode, dtype = load_encoder(out_dir, settings["features"], settings["paper"])
    forest = load_forest(out_dir / "forest.npz")
    return lambda X: predict_forest(forest, encode(X).astype(dtype))


# ---------------------------------------------------------------- side by side

def compare(folders, out_dir):
    """Set finished runs side by side: print the table, write comparison.md and comparison.png into out_dir.

    folders : --out-dir of finished runs, DanQ's first: its time to the best epoch is the unit of time
    """
    runs = []
    for folder in map(Path, folders):
        danq.finished_settings(folder)
        runs.append(json.loads((folder / "summary.json").read_text()))
    for folder, run in zip(folders, runs):
        for key in ("simulated", "limit", "labels", "train_sequences", "test_windows", "strands"):
            if run[key] != runs[0][key]:
                raise BadInput(f"{folder} cannot stand beside {folders[0]}: {key} is {run[key]}, not {runs[0][key]}")
    table = comparison_table(runs)
    with danq.replacing(Path(out_dir) / "comparison.md") as beside:
        beside.write_text(table, encoding="utf-8")
    with danq.replacing(Path(out_dir) / "comparison.png") as beside:
        draw_comparison(runs, beside)
    print(table + f"-> {Path(out_dir) / 'comparison.md'} and comparison.png")


def training_seconds(run):
    """What a run's training cost: DanQ to its best epoch; SuperQ autoencoder, encodings and forest together."""
    if run["model"] == "DanQ":
        return run["training"]["seconds_to_best"]
    return sum(run["seconds"][stage] for stage in ("autoencoder", "encodings", "forest"))


def four(values):
    """First score, and the others in brackets; "-" for None."""
    first, *others = ["-" if value is None else f"{value:.4f}" for value in values]
    return f"{first} ({' '.join(others)})" if others else first


def comparison_table(runs):
    """Markdown: scores (all labels, then an assay each) and costs, a row a run, yardsticks below."""
    base, unit = runs[0], training_seconds(runs[0])
    assays = ", ".join(list(base["means"])[1:])
    rows = [["model", *(f"{name} ({assays})" for name in ("AUROC", "AUPRC", "F1")), "training time", f"of {base['model']}'s",
             "epochs (best)", "peak memory", "bases rebuilt"]]
    for run in runs:
        seconds, training, rebuilt = training_seconds(run), run["training"], run.get("reconstruction")
        rows.append([run["model"], *(four([mean[key] for mean in run["means"].values()]) for key in ("auroc", "auprc", "f1")),
                     f"{seconds:,.0f} s", f"{seconds / unit:.3f}", f"{training['epochs']} ({training['best_epoch']})",
                     f"{max(run['peak_memory_gb'], run.get('peak_memory_stage1_gb') or 0):.2f} GB",
                     four([rebuilt["base_accuracy"]]) if rebuilt else "-"])
    rows.append(["chance", "0.5", four([mean["base_rate"] for mean in base["means"].values()]), *[""] * 5, "0.25"])
    if danq.is_deepsea(base):
        rows += [["published: " + name, *(four(scores[key]) for key in ("auroc", "auprc")), *[""] * 6]
                 for name, scores in danq.PUBLISHED.items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    table = "".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |\n" for row in rows)
    return (f"# {'SIMULATED data: ' * base['simulated']}{', '.join(run['model'] for run in runs)}\n\n"
            f"Data {base['data']}: {base['train_sequences']:,} training sequences, {base['test_windows']:,} test windows, strands "
            f"{'averaged' if base['strands'] else 'not averaged'}, {base['labels_scored']} of {base['labels']} labels scored. Time: DanQ to its best epoch; SuperQ "
            f"autoencoder + encodings + forest.\n\n{table}\n{''.join(map(reconstruction_line, runs))}"
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


def draw_comparison(runs, path):
    """Bars: AUROC and AUPRC an assay with chance marked, and training time."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    assays, width = list(runs[0]["means"]), .8 / len(runs)
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.5), width_ratios=(2, 2, 1), layout="constrained")
    for axis, key in zip(axes, ("auroc", "auprc")):
        for i, run in enumerate(runs):
            axis.bar(np.arange(len(assays)) + (i - (len(runs) - 1) / 2) * width,
                     [run["means"][assay][key] or 0 for assay in assays], width, label=run["model"])
        chance = [.5 if key == "auroc" else runs[0]["means"][assay]["base_rate"] or 0 for assay in assays]
        axis.hlines(chance, np.arange(len(assays)) - .45, np.arange(len(assays)) + .45, "k", "dashed", label="chance")
        axis.set(xticks=range(len(assays)), xticklabels=assays, ylabel=f"mean test {key.upper()}")
    axes[0].set_ylim(.45, 1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=len(runs) + 1, frameon=False)
    bars = axes[2].bar(range(len(runs)), [training_seconds(run) for run in runs], color=[f"C{i}" for i in range(len(runs))])
    axes[2].bar_label(bars, fmt="{:,.0f} s")
    axes[2].set(xticks=[], ylabel="training time (s)")
    figure.suptitle(f"{'SIMULATED data: ' * runs[0]['simulated']}{runs[0]['data']}, "
                    f"{runs[0]['train_sequences']:,} training sequences")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse_args(argv=None):
    parser = danq.Parser(description=__doc__.splitlines()[0])
    danq.shared_arguments(parser, None, 10)
    add = parser.add_argument
    add("--paper", action="store_true", help="the 2018 network, recipe and forest (10 trees, leaf 1); diverges by design")
    add("--no-lstm", action="store_true", help="leave the BLSTM out, as the paper's authors did in the version they presented")
    add("--filters", type=positive, help="motif detectors of the first convolution (default: 128; --paper 320)")
    add("--lstm-units", type=positive, help="units of the BLSTM in each direction (default: 32; --paper 320)")
    add("--features", default="autoencoder", choices=("autoencoder", "kmer"),
        help="what the forest sees: the bottleneck, or 4-mer counts as a yardstick (default: %(default)s)")
    add("--forest-trees", type=positive, help="trees (default: 200; --paper 10)")
    add("--forest-leaf", type=positive, help="encodings in a leaf at least (default: 20; --paper 1)")
    add("--forest-samples", type=positive, default=100_000,
        help="encodings that a tree is grown on at most (default: %(default)s)")
    add("--reuse-encodings", action="store_true", help="fit and score the forest alone, on encodings.h5 of --out-dir")
    add("--compare", nargs="+", metavar="DIR", help="set finished runs side by side, DanQ's first, and exit")
    args = parser.parse_args(argv)
    if args.paper and args.features == "kmer":
        raise BadInput("--paper and --features kmer exclude each other: the yardstick has no autoencoder")
    if args.reuse_encodings and args.restart:
        raise BadInput("--reuse-encodings and --restart exclude each other: --restart discards the encodings")
    args.forest_trees = args.forest_trees or (10 if args.paper else 200)
    args.forest_leaf = args.forest_leaf or (1 if args.paper else 20)
    args.out_dir = args.out_dir or "runs/" + ("superq-paper" if args.paper else "kmer" if args.features == "kmer" else "superq")
    return args


def main(argv=None):
    args = parse_args(argv)
    if args.compare:
        return compare(args.compare, Path(args.compare[0]).resolve().parent)
    out_dir = Path(args.out_dir)
    if args.predict:
        return danq.annotate(trained_scores(out_dir), args.predict, args.output, out_dir, args.batch_size)
    if args.reuse_encodings:                            # everything but the forest's arguments is as it was
        simulated, before = reusable(out_dir)
        sources = before["data_files"]
        vars(args).update({key: before[key] for key in vars(args).keys() & before.keys() if key not in FOREST})
    else:
        print(f"data: {args.data_dir}", flush=True)
        splits, labels = danq.load_data(args)
        simulated, sources = splits["train"].simulated, [split.source for split in splits.values()]
    outputs = ("history.csv", "model.keras", "autoencoder.json", "encodings.h5", "forest.npz", "metrics.csv")
    if danq.start_run(args, "superq.py", outputs, simulated, sources, (*FOREST, "code") if args.reuse_encodings else ()):
        return
    if not args.reuse_encodings:
        if args.features == "autoencoder" and not (out_dir / "autoencoder.json").is_file():
            train_autoencoder(args, splits, out_dir)
        if not (out_dir / "encodings.h5").is_file():
            encode_splits(args, splits, labels, out_dir)
    fit_and_score(args, out_dir)


if __name__ == "__main__":
    danq.command_line(main)
