"""SuperQ: annotate DNA from an autoencoder's bottleneck (Löverli & Gupta 2018).

    one-hot (1000, 4) -> convolution -> 250 digits -> decoder -> 4 probabilities a base
                      -> conv + BLSTM, k-mer counts -> 250 pooled features
                         -> random forest -> 919 probabilities

    python superq.py                         autoencoder, encodings, forest:
                                             data/ -> runs/superq/
    python superq.py --label-weight 0        no labels in its loss (default 10), as in
                                             2018
    python superq.py --unlabelled genome.fa  more DNA for the autoencoder alone
    python superq.py --paper                 the 2018 network and recipe, which
                                             diverges -> runs/superq-paper/
    python superq.py --ablation 3            after three of the five steps that lead
                                             from the 2018 autoencoder to ours
                                             (ABLATIONS)
    python superq.py --motif-start jaspar.meme
                                             filters start as known motifs
    python superq.py --features kmer         a yardstick: k-mer counts into the same
                                             forest -> runs/kmer/
    python superq.py --compare runs/danq runs/superq runs/kmer
                                             table and figures -> runs/comparison.md
    (each variant with its own --out-dir; --predict and others as in danq.py)

Read first: build_autoencoder and pooled_features, the network; train_autoencoder, how
it learns; fit_forest; and fit_and_score, which of them answers.

8,000 windows of real DNA at random, --motif-start: AUROC .819, AUPRC .226, 7 minutes on
one core; known motifs and k-mer counts into a forest .788, .190, and a network .813,
.211; k-mer counts alone .726, .131.
--out-dir gets model.keras (stage 1), encodings.h5 (2), forest.npz and metrics.csv (3);
of --features motifs network.keras (3), too.
After a kill the same command goes on: stage 1 from its last checkpoint, 2 from its last
batch, 3 from its start; on a CPU the end is the same to the bit.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import time
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import danq  # before keras: it silences start-up messages

# isort: split
import h5py
import keras
import numpy as np
from keras import layers, ops
from scipy import sparse
from scipy.stats import bootstrap
from scipy.stats import t as t_distribution
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.utils import gen_batches

from danq import (
    LENGTH,
    SPLITS,
    BadInput,
    central,
    new_file,
    number,
    onehot,
    positive,
)

# ---- settings

CODE = 500  # numbers in the bottleneck, as in the paper
DIGITS = 250  # of these 500: one for every four bases
POOLED = CODE - DIGITS  # the others: pooled features, which say what DNA does

# Where the pooled features look: DeepSEA's labels speak of the central 200 bases. A
# filter of WIDTH bases answers at each place, and POOL places make a step.
WIDTH = 16
POOL = 15
MIDDLE_STEPS = 27
CORE_STEPS = 13  # the central ones of these steps
FILTERS = 96
LSTM_UNITS = 16  # each way
# With --motif-start: filters that start as known motifs, those that start at random.
KNOWN_FILTERS = danq.KNOWN_FILTERS
FREE_FILTERS = 32
KNOWN_WIDTH = 20
KNOWN_SHARE = 0.002  # before training each answers at its best places, 2 of 1,000
HEAD_EPOCHS = 12  # first, of the layers behind filters and BLSTM alone: teach_head
HEAD_WINDOWS = 50_000  # for these at most: memory holds what was found in them

# Pairs (k, central bases): k-mers of so many bases are counted.
INPUT_KMERS = ((3, 1000), (3, 600), (4, 300))  # what the pooled features see, too
COMPOSITION_KMERS = (4, 300)  # what they answer with
YARDSTICK_KMERS = ((2, 1000), (4, 300))  # the strongest set on validation: 146 numbers
# So, too: central bases that known motifs are looked for in.
YARDSTICK_SPANS = (200, 400)

# Adam's learning rate: at the first step, after a twentieth of the steps, at the last.
FIRST_RATE = 1e-4
TOP_RATE = 4e-3
LAST_RATE = 8e-5
PAPER_RATE = 0.015  # Nadam's in 2018, where Keras advised .002: it diverges
LABEL_WEIGHT = 10.0  # of the labels in the autoencoder's loss
EPOCHS = 6
# After the head's own epochs, below MANY_WINDOWS: EPOCHS, up to HEADED_RATE. From there
# on: HEADED_EPOCHS, up to TOP_RATE.
HEADED_RATE = 2e-3
MANY_WINDOWS = 20_000
HEADED_EPOCHS = 3
BATCH = 50
PATIENCE = 3
MOVE = 8  # bases, even: windows are moved by up to 8 in training, by 8 after it

TREES = 200
LEAF = 30  # rows that a leaf stands for at least, of those that a GROUP grows on
MOTIFS_LEAF = 15  # with --features motifs: so chosen on validation
SAMPLES = 50_000  # windows that a GROUP of trees grows on at most
PROJECTIONS = 8  # random sums of labels that trees grow on
SHARE = 0.25  # of a GROUP's rows, drawn with replacement for each tree
GROUP = 100  # trees


# ---- from the 2018 autoencoder to ours


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an autoencoder is built and trained; the defaults are the 2018 script's."""

    loss: str = "squared error"  # of the bases, or "cross-entropy"
    optimizer: str = "nadam"  # at a constant rate, or "adam": see optimizer_of
    keep: str = "last epoch"  # or "best epoch", by the loss on validation
    code: str = "dense"  # each number sees all bases, or "local": four bases
    digits: str = "random"  # or start as "base-4" numerals; "none": no digits
    sines: bool = False  # the decoder reads a number through sines
    pooled: bool = False  # half of the numbers are pooled features
    encodings: str = "float32"  # as they are kept: the paper's have no scale


# --ablation N takes ABLATIONS[N]: each is the one before and one step more.
ABLATIONS = [Recipe()]
# 1: a softmax over each base's four numbers; unknown bases are left out.
ABLATIONS += [replace(ABLATIONS[-1], loss="cross-entropy")]
# 2: a rate that warms up and goes down again, clipped gradients, the best epoch. What
# is learned so stays within a few units: float16, half of the bits, is enough.
ABLATIONS += [
    replace(ABLATIONS[-1], optimizer="adam", keep="best epoch", encodings="float16")
]
# 3: no trunk, nothing dense: two numbers for every four bases, and one small decoder
# that turns each such pair into its four bases.
ABLATIONS += [replace(ABLATIONS[-1], code="local")]
# 4: sines of doubling frequency before the decoder.
ABLATIONS += [replace(ABLATIONS[-1], sines=True)]
# 5: one number for every four bases, a numeral; the other half learn what DNA does.
ABLATIONS += [replace(ABLATIONS[-1], digits="base-4", pooled=True)]
PAPER = ABLATIONS[0]
OURS = ABLATIONS[-1]


# ---- the autoencoder


def build_autoencoder(
    filters=FILTERS,
    lstm_units=LSTM_UNITS,
    n_labels=0,
    recipe=OURS,
    dtype=None,
    width=WIDTH,
):
    """(B, 1000, 4) -> 500 numbers -> bases (B, 1000, 4), and what these must answer.

    The 500 are 250 digits, from which the bases are rebuilt, and 250 pooled features,
    which answer with the composition of the middle (B, 136), square roots of how often
    each word of four bases stands there, and with the labels (B, n_labels), if any.
    Without pooled features: 500 digits.
    B is the number of sequences in a batch.
    """
    inputs = keras.Input((LENGTH, 4))
    outputs = {}
    # What the bottleneck is put together from, the digits first.
    parts = []
    if recipe.digits != "none":
        parts.append(write_digits(inputs, recipe))  # (B, 250) or (B, 500)
    if recipe.pooled:
        parts.append(pooled_features(inputs, filters, lstm_units, dtype, width))
    code = parts[0]
    if len(parts) == 2:
        code = layers.Concatenate()(parts)
    # It does nothing: its name is where the network is cut into encoder and decoder.
    code = layers.Identity(name="bottleneck")(code)  # (B, 500)

    # All that the decoder sees are the digits: the bases must come from them.
    if recipe.digits != "none":
        n_digits = parts[0].shape[1]
        outputs["bases"] = read_digits(code[:, :n_digits], recipe)
    # What teaches the pooled features: they must answer questions about function.
    if recipe.pooled:
        features = code[:, -POOLED:]
        # 136: of 256 4-mers, those that are each other's reverse complement are one.
        outputs["composition"] = layers.Dense(136, name="composition")(features)
        if n_labels:
            # Half are hidden at each step, so that no label leans on a single one.
            features = layers.Dropout(0.5, name="hide_features")(features)
            labels = layers.Dense(n_labels, activation="sigmoid", name="labels")
            outputs["labels"] = labels(features)
    return keras.Model(inputs, outputs, name="superq")


def write_digits(inputs, recipe):
    """Each four bases become one number, or two: (B, 1000, 4) -> (B, 250 or 500).

    One linear convolution, four bases wide, that moves on by four.
    """
    per_step = 1 if recipe.pooled else 2
    random = keras.initializers.RandomNormal(stddev=1.0)
    convolution = layers.Conv1D(per_step, 4, strides=4, kernel_initializer=random)
    numbers = convolution(inputs)  # (B, 250, per_step)
    if recipe.digits == "base-4":
        # In place of the random weights.
        convolution.set_weights([base_4_numeral(), np.zeros(1)])
    return layers.Flatten()(numbers)


def base_4_numeral():
    """Weights (4, 4, 1) with which a convolution writes four bases into one number.

    Here it is decided that all bases can be rebuilt. Training starts from these
    weights; it may change them, but little in the loss asks for that. Let A, G, C, T be
    0, 1, 2, 3; then four bases are a number written in base 4, the first base counting
    least:

        GATT -> 1, 0, 3, 3 -> 1 * 1 + 0 * 4 + 3 * 16 + 3 * 64 = 241, of 0 to 255

    1.5 is taken from each base's value, so that the mean is 0 and an N, which adds 0,
    is like no base; the sum is divided by 64, so that it lies between -2 and 2:

        (-.5 * 1 - 1.5 * 4 + 1.5 * 16 + 1.5 * 64) / 64 = 1.7734

    No two words of four bases share a number, and neighbours are 1/64 apart, which
    float16 keeps exactly: nothing is lost before training begins.
    """
    place = 4.0 ** np.arange(4) / 64  # what each of the four bases counts
    value = np.arange(4) - 1.5  # of A, G, C, T
    return np.outer(place, value)[..., None]


def read_digits(digits, recipe):
    """The decoder: digits (B, 250 or 500) -> probabilities of the bases (B, 1000, 4).

    It turns the digits of each step into four bases, the same way at each step.
    """
    x = layers.Reshape((LENGTH // 4, -1))(digits)  # (B, 250, 1 or 2)
    if recipe.sines:
        x = sines_and_cosines(x)  # (B, 250, 17 times as many)
    # Width 1: each step is decoded by itself, from its own digits.
    x = layers.Conv1D(32, 1, activation="relu")(x)
    x = layers.Conv1D(16, 1)(x)  # (B, 250, 16): four numbers for each of four bases
    # 16 numbers of a step are 4 of each base, in the order of the bases.
    x = layers.Reshape((LENGTH, 4))(x)
    return layers.Softmax(name="bases")(x)


def sines_and_cosines(x):
    """x and its sines and cosines of eight frequencies, each double the one before.

    base_4_numeral keeps four bases in a number, as a time of day keeps hours, minutes
    and seconds. A clock has a hand for each; sine and cosine say where a hand points.
    The hand of period 4 shows the fourth base: a quarter of its turn is one of A, G, C,
    T. That of period 1 shows the third: what the fourth base adds are whole turns, and
    what the first two add moves the hand within its quarter. In the same way 1/4 shows
    the second, 1/16 the first. A few rectified units can read a hand. (The periods
    between help them.)
    """
    parts = [x]
    for doublings in range(8):
        # angle * period = 2 pi: periods 8, 4, 2, ... 1/16
        angle = float(np.pi / 4 * 2.0**doublings)
        parts.append(ops.sin(x * angle))
        parts.append(ops.cos(x * angle))
    return layers.Concatenate()(parts)


def pooled_features(inputs, filters, lstm_units, dtype, width=WIDTH):
    """What motifs and k-mer counts of the middle say: (B, 1000, 4) -> (B, 250).

    The same for a sequence and its reverse complement.
    width : bases of a filter
    """
    scan, grammar = scan_middle(inputs, filters, lstm_units, dtype, width)
    seen = []
    # Composition around the motifs: GC content, CpG and other short words.
    for k, span in INPUT_KMERS:
        seen.append(KmerCounts(k, span)(inputs))
    seen += summaries(scan, grammar, MIDDLE_STEPS)
    seen += summaries(scan, grammar, CORE_STEPS)
    # teach_head takes what follows by its names.
    x = layers.Concatenate(name="summaries")(seen)
    # Counts and motif scores have different sizes: each gets mean 0, variance 1.
    # momentum: a run of few steps forgets the first ones' averages in time.
    x = layers.BatchNormalization(momentum=0.9, name="scale")(x)
    x = layers.Dropout(0.4, name="hide_summaries")(x)
    return layers.Dense(POOLED, activation="relu", name="pooled")(x)


def scan_middle(inputs, filters, lstm_units, dtype, width):
    """Scan the middle of both strands for motifs.

    A filter answers at each place; 15 places are a step. Returns the mean and the best
    answer of each filter in each step, a pair of (2 B, 27, filters), and what a BLSTM
    makes of the best, (2 B, 27, 2 units) or None.
    """
    middle = central(inputs, middle_of(width))  # (B, 420, 4); 424 with --motif-start
    # Read backwards along both axes, A, G, C, T gives the reverse complement. The other
    # strands are more rows of the batch: the same filters scan them.
    other = ops.flip(middle, (1, 2))
    both = ops.concatenate([middle, other], 0)  # (2 B, 420, 4)
    convolution = layers.Conv1D(
        filters, width, activation="relu", dtype=dtype, name="motif_scan"
    )
    answers = convolution(both)  # (2 B, 405, filters)
    # 405 places in steps of 15.
    mean = layers.AveragePooling1D(POOL)(answers)  # (2 B, 27, filters)
    best = layers.MaxPooling1D(POOL)(answers)
    grammar = None
    if lstm_units:
        # Which motif follows which, and how far apart.
        grammar = danq.blstm(lstm_units)(best)
    return (mean, best), grammar


def summaries(scan, grammar, steps):
    """What the central steps say, both strands together: a list of (B, features)."""
    mean, best = scan
    # Over all bases a motif's place would be forgotten; over few it may be missed:
    # so this is called for the middle and for its core.
    amount = ops.mean(central(mean, steps), 1)  # (2 B, filters)
    site = ops.max(central(best, steps), 1)
    summary = [
        # How much of each motif there is, both strands added; the logarithm, as one
        # site says more than the tenth. A mean over so many places is small: times 100.
        ops.log(1 + 100 * ops.sum(by_strand(amount), 0)),
        # Its best site on either strand.
        ops.max(by_strand(site), 0),
    ]
    if grammar is not None:
        order = ops.mean(central(grammar, steps), 1)
        summary.append(ops.sum(by_strand(order), 0))
    return summary


def middle_of(width):
    """Bases that a filter of some width sees in all steps together.

    27 steps of 15 places, and the bases that the last place covers: 405 + 15 = 420 (of
    filters that start as known motifs 424).
    """
    return MIDDLE_STEPS * POOL + width - 1


def by_strand(x):
    """(2 B, features) -> (2, B, features)."""
    return ops.reshape(x, (2, -1, x.shape[-1]))


@keras.saving.register_keras_serializable("superq")
class KmerCounts(layers.Layer):
    """Square roots of the counts of k-mers in the central `span` bases.

    (B, 1000, 4) -> (B, n): a k-mer and its reverse complement are counted together, so
    that n is 10 for k = 2, 32 for k = 3 and 136 for k = 4.
    """

    def __init__(self, k, span, **options):
        super().__init__(**options)
        self.k = k
        self.span = span
        self.n_words = 4**k
        # What stands on the other strand is a word's mate: both are added, and of each
        # pair one column stays. A palindrome (AT) is its own mate and counts twice.
        mates = reverse_complements(k)
        self.one_of_each = np.flatnonzero(np.arange(self.n_words) <= mates)
        self.its_mate = mates[self.one_of_each]

    def compute_output_shape(self, input_shape):
        # Without it, Keras traces `call` wherever a network is built: half a second.
        return input_shape[0], len(self.one_of_each)

    def call(self, X):
        X = central(X, self.span)
        places = self.span - self.k + 1
        base = ops.argmax(X, -1)  # (B, span), A, G, C, T are 0, 1, 2, 3
        known = known_bases(X)

        # The number of the word at each place, k digits in base 4. The first base
        # counts most (in base_4_numeral, least; either would do):
        #     GATT -> 1, 0, 3, 3 -> ((1 * 4 + 0) * 4 + 3) * 4 + 3 = 79
        # An unknown base looks like A here, but its word is not whole: it counts 0.
        word = ops.zeros_like(base[:, :places])
        whole = ops.ones_like(known[:, :places])
        for i in range(self.k):
            word = word * 4 + base[:, i : i + places]
            whole = whole * known[:, i : i + places]

        # One sum over all sequences at once, into n_sequences * n_words bins: those
        # of sequence b begin at b * n_words. Example, 2-mers: AG (1) is bin 1 in
        # sequence 0, bin 17 in sequence 1.
        n_sequences = ops.shape(X)[0]
        sequence = ops.arange(n_sequences, dtype=base.dtype)[:, None]
        bin_number = sequence * self.n_words + word
        counts = ops.segment_sum(
            ops.reshape(whole, (-1,)),
            ops.reshape(bin_number, (-1,)),
            n_sequences * self.n_words,
        )
        counts = ops.reshape(counts, (-1, self.n_words))

        # Each word, and what counts for it on the other strand.
        own = ops.take(counts, self.one_of_each, 1)
        other = ops.take(counts, self.its_mate, 1)
        return ops.sqrt(own + other)

    def get_config(self):
        return super().get_config() | {"k": self.k, "span": self.span}


def reverse_complements(k):
    """The number of each k-mer's reverse complement, (4^k,).

    Numbers as in KmerCounts. Example, GA: 1 * 4 + 0 = 4; its reverse complement TC is
    3 * 4 + 2 = 14.
    """
    word = np.arange(4**k)
    mate = np.zeros_like(word)
    for _ in range(k):
        last = word % 4
        word = word // 4
        mate = mate * 4 + (3 - last)  # A, G, C, T: the complement of digit d is 3 - d
    return mate


def known_bases(X):
    """(B, length, 4) -> (B, length): 1 where one base is set, 0 at an N."""
    return ops.cast(ops.equal(ops.sum(X, -1), 1), "float32")


def build_paper(
    filters=danq.FILTERS, lstm_units=danq.LSTM_UNITS, recipe=PAPER, dtype=None
):
    """The 2018 autoencoder: DanQ's trunk, a dense code, a dense decoder.

    27,679,060 parameters. Also the network of --ablation 1 and 2, whose recipes change
    its last layer and its training alone.
    """
    inputs = keras.Input((LENGTH, 4))
    # The 2018 script has no rectifier on the convolution.
    x = danq.trunk(inputs, filters, lstm_units, conv_activation=None, dtype=dtype)
    x = layers.Dense(CODE, name="bottleneck")(x)  # (B, 48000) -> (B, 500)
    # One linear map must unpack what 48,000 numbers were squeezed into.
    x = layers.Dense(LENGTH * 4)(x)
    x = layers.Reshape((LENGTH, 4))(x)
    if recipe.loss == "cross-entropy":
        bases = layers.Softmax(name="bases")(x)
    else:
        bases = layers.Identity(name="bases")(x)
    return keras.Model(inputs, {"bases": bases}, name="superq_paper")


def build(args, n_labels=0):
    """The autoencoder that the arguments ask for."""
    recipe = recipe_of(args)
    sizes = {}
    for key in ("filters", "lstm_units"):
        if getattr(args, key) is not None:  # else the network's own
            sizes[key] = getattr(args, key)
    if recipe.code == "dense":
        return build_paper(**sizes, recipe=recipe, dtype=args.dtype)
    # Wider filters: of most known motifs all positions fit.
    if args.motif_start:
        sizes = {"filters": KNOWN_FILTERS + FREE_FILTERS} | sizes
        sizes["width"] = KNOWN_WIDTH
    return build_autoencoder(
        **sizes, n_labels=n_labels, recipe=recipe, dtype=args.dtype
    )


def recipe_of(args):
    """The recipe that the arguments ask for."""
    recipe = ABLATIONS[args.ablation]
    if args.digits:  # else the recipe's own
        recipe = replace(recipe, digits=args.digits)
    return recipe


def encoder_of(autoencoder):
    """(B, 1000, 4) -> (B, 500), sharing the autoencoder's weights."""
    bottleneck = autoencoder.get_layer("bottleneck").output
    return keras.Model(autoencoder.inputs, bottleneck, name="encoder")


def decoder_of(autoencoder):
    """(B, 500) -> bases (B, 1000, 4), sharing the autoencoder's weights."""
    bottleneck = autoencoder.get_layer("bottleneck").output
    return keras.Model(bottleneck, autoencoder.output["bases"], name="decoder")


# ---- its training


def compile_autoencoder(args, n_labels, n_sequences):
    """The autoencoder of the arguments, fed with bits, ready for fit()."""
    keras.utils.set_random_seed(args.seed)
    recipe = recipe_of(args)
    # With weight 0 the labels are no output at all.
    network = build(args, n_labels if args.label_weight else 0)
    losses, weights = losses_of(network, args)
    # Without digits there is no base to count.
    metrics = {}
    if "bases" in losses:
        metrics["bases"] = [keras.metrics.CategoricalAccuracy(name="acc")]
    return danq.compile_model(
        AutoencoderFromBits(network, n_labels, recipe),
        optimizer_of(recipe, args, n_sequences),
        losses,
        metrics=metrics,
        loss_weights=weights,
    )


def losses_of(network, args):
    """Two dicts, losses and their weights, with an entry for each of its outputs."""
    recipe = recipe_of(args)
    losses = {}
    weights = {}
    for output in network.output:
        losses[output] = loss_of(output, recipe)
        weights[output] = args.label_weight if output == "labels" else 1.0
    return losses, weights


def loss_of(output, recipe):
    """What the answer "bases", "composition" or "labels" is compared by."""
    # The mean over what has a weight: known bases, labelled sequences.
    mean = "mean_with_sample_weight"
    if output == "labels":
        return keras.losses.BinaryCrossentropy(reduction=mean)
    if output == "bases" and recipe.loss == "cross-entropy":
        return keras.losses.CategoricalCrossentropy(reduction=mean)
    return "mean_squared_error"


def optimizer_of(recipe, args, n_sequences):
    """2018: Nadam at a constant rate. Ours: Adam, and a rate that goes up and down.

    From FIRST_RATE straight up to --top-rate in a twentieth of all steps, then down a
    cosine to LAST_RATE; gradients longer than 1 are cut to that length.
    """
    if recipe.optimizer == "nadam":
        return keras.optimizers.Nadam(PAPER_RATE, epsilon=1e-8)
    return rising_and_falling(args, args.epochs, n_sequences)


def rising_and_falling(args, epochs, n_sequences):
    """Adam at our rates; n_sequences : of an epoch."""
    steps = danq.steps_of(epochs, n_sequences, args.batch_size)
    return danq.adam(steps, FIRST_RATE, args.top_rate, LAST_RATE)


def settle_training(args, windows):
    """The arguments, with --epochs and --top-rate where these were not given.

    None stands for: by the number of windows. args.json keeps what was given, so that a
    learning curve finds runs of one command together.
    windows : for training
    """
    args = argparse.Namespace(**vars(args))
    # The rates were chosen on validation, at 2,000, 8,000 and 32,247 windows, the three
    # epochs of many windows by the time they take.
    many = windows >= MANY_WINDOWS
    if args.epochs is None:
        args.epochs = HEADED_EPOCHS if args.head_epochs and many else EPOCHS
    if args.top_rate is None:
        args.top_rate = HEADED_RATE if args.head_epochs and not many else TOP_RATE
    return args


def train_autoencoder(args, train, splits, out_dir):
    """Stage 1: write model.keras and, last, autoencoder.json.

    train : the Split, or with more rows, without labels, a MixedSplit
    """
    recipe = recipe_of(args)
    valid = None
    if recipe.keep == "best epoch":
        valid = splits["valid"]
    commonest = base_shares(train).max()
    chance = f" (commonest base: acc {commonest:.4f})"
    if recipe.loss == "squared error":
        # (1 - .25)^2 + 3 * .25^2, over four numbers
        chance = f" (always .25: loss 0.1875; commonest base: acc {commonest:.4f})"

    with danq.all_devices(args.batch_size):
        model = compile_autoencoder(args, train.n_labels, len(train))
        print(
            f"[1/3] autoencoder: {model.count_params():,} parameters, "
            f"{CODE} numbers a sequence, {len(train):,} sequences, "
            f"labels at weight {args.label_weight:g}, epochs: {args.epochs}"
        )

        def prepare():
            network = model.layers[-1]
            if args.motif_start:
                start_filters(network.get_layer("motif_scan"), args, train)
            if args.head_epochs:
                teach_head(network, args, train)

        training = danq.fit(model, train, valid, args, PATIENCE, chance, prepare)
    # The best epoch's model, which need not be the last.
    record = {
        "training": training,
        "sequences": len(train),
        "parameters": model.count_params(),
        "peak_memory_stage1_gb": danq.peak_memory(),
    }
    if recipe.digits != "none":
        trained = danq.load_model(out_dir)
        record["reconstruction"] = reconstruction(
            recipe, trained, train, splits["test"], args.batch_size
        )
    danq.write_json(out_dir / "autoencoder.json", record)


def start_filters(scan, args, train):
    """All filters but a few start as known motifs."""
    n = min(KNOWN_FILTERS, scan.filters - FREE_FILTERS)
    if n < 1:
        raise BadInput(
            f"--motif-start needs more than {FREE_FILTERS} filters, has {scan.filters}"
        )
    motifs = danq.read_motifs(args.motif_start)
    danq.start_from_motifs(scan, motifs, train, n, scale=1.0, share=KNOWN_SHARE)


def teach_head(network, args, train):
    """Train what stands behind the filters and the BLSTM alone, for --head-epochs.

    Filters that start as known motifs find something before they have learned anything.
    While they stay as they are, a window is scanned once, and what was found in it
    serves all these epochs, which take seconds. Then training goes on with all layers:
    filters learn faster from a head that knows what they are good for.
    """
    started = time.time()
    summaries = network.get_layer("summaries").output
    head = head_of(network, summaries.shape[1])
    # One strand of each: the other one has the same summaries.
    rows = danq.even_sample(train.windows, HEAD_WINDOWS)
    seen, composition = scan_once(network.inputs, summaries, train.X, rows)
    targets = {"composition": composition}
    if "labels" in head.output:
        targets["labels"] = train.labels(rows)
    losses, weights = losses_of(head, args)
    optimizer = rising_and_falling(args, args.head_epochs, len(rows))
    danq.compile_model(head, optimizer, losses, metrics=None, loss_weights=weights)
    bar = danq.progress(args.head_epochs, "epoch of the head")
    for epoch in range(args.head_epochs):
        head.fit(seen, targets, batch_size=args.batch_size, verbose=0)
        bar.update(epoch + 1)
    print(
        f"the layers behind the filters learned first: {args.head_epochs} epochs, "
        f"{len(rows):,} windows ({time.time() - started:.0f} s)"
    )


def head_of(network, n):
    """Summaries (B, n) -> what they answer with, sharing the network's weights."""
    inputs = keras.Input((n,))
    features = inputs
    for name in ("scale", "hide_summaries", "pooled"):
        features = network.get_layer(name)(features)
    answers = {"composition": network.get_layer("composition")(features)}
    if "labels" in network.output:
        hidden = network.get_layer("hide_features")(features)
        answers["labels"] = network.get_layer("labels")(hidden)
    return keras.Model(inputs, answers)


def scan_once(inputs, summaries, X, rows):
    """What the filters find in some windows, and the windows' 4-mer counts.

    inputs, summaries : of the network
    X : packed (N, 500);  rows : (n,) of them
    Returns (n, 1416) and (n, 136), float32. 1,416 are 32 + 32 + 136 counts of words,
    and for each of two spans 288 amounts, 288 best sites and 32 of the BLSTM.
    """
    counts = KmerCounts(*COMPOSITION_KMERS)(inputs[0])
    scan = danq.FromBits(keras.Model(inputs, [summaries, counts]))
    seen = []
    composition = []
    for block in gen_batches(len(rows), 500):
        found, words = scan.predict_on_batch(X[rows[block]])
        seen.append(found)
        composition.append(words)
    return np.concatenate(seen), np.concatenate(composition)


# ---- how well is DNA rebuilt?


def reconstruction(recipe, model, train, test, batch_size):
    """Base accuracy and bits per base of held-out rows.

    They are decoded from encodings as they are kept, with their rounding.
    """
    encoder = encoder_of(model)
    decoder = decoder_of(model)
    commonest = base_shares(train).argmax()
    rows = danq.even_sample(len(test.X), 10_000)
    n_known = 0
    n_right = 0
    n_commonest = 0
    bits = 0.0
    for block in gen_batches(len(rows), batch_size):
        X = onehot(test.X[rows[block]])
        Z = encoder.predict_on_batch(X).astype(recipe.encodings)
        P = decoder.predict_on_batch(Z)
        # Only bases that are known can be rebuilt.
        known = X.sum(-1) == 1
        X = X[known]  # (bases, 4)
        P = P[known]
        # Sums over all blocks; the means follow at the end.
        n_known += len(X)
        n_right += (P.argmax(-1) == X.argmax(-1)).sum()
        n_commonest += X[:, commonest].sum()
        # The bits that it takes to write down the true bases, knowing P.
        bits -= np.log2(np.clip(P[X > 0], 1e-7, 1)).sum(dtype=float)

    n = max(n_known, 1)  # there may be N only
    report = {
        "base_accuracy": float(n_right / n),
        "bits_per_base": float(bits / n),
        "commonest_base": float(n_commonest / n),
    }
    print_reconstruction(report, len(rows))
    return report


def base_shares(split):
    """Shares of A, G, C, T in an even sample of rows."""
    sample = danq.even_sample(len(split.X), 5000)
    # From 1 on, so that rows of N alone have shares, too.
    counts = 1 + onehot(split.X[sample]).sum((0, 1))
    return counts / counts.sum()


# ---- encodings


def has_network(args):
    """Whether the features are those of SuperQ's network, trained or not."""
    return args.features in ("autoencoder", "untrained")


def strand_blind(args):
    """Whether a sequence and its reverse complement have the same features.

    Of the 500 numbers the digits differ, but neither forest nor labels read these.
    """
    if has_network(args):
        return recipe_of(args).pooled
    return args.features != "pca"


def encodings_of(autoencoder, recipe, move=0):
    """A function bits (n, 500 bytes) -> encodings (n, width), as they are kept.

    move : pooled features are the mean of three views, the window as it lies and moved
        by so many bases to each side: what a site at an edge of the middle, or of a
        step, happens to give, is no matter of chance then
    """
    encoder = danq.FromBits(encoder_of(autoencoder))

    def encode(bits):
        Z = encoder.predict_on_batch(bits)
        if move:
            left = encoder.predict_on_batch(danq.moved(bits, -move))
            right = encoder.predict_on_batch(danq.moved(bits, move))
            # Left and right first: on the other strand they change places.
            mean = (Z + (left + right)) / 3
            # The digits, which stand first, are those of the window as it lies.
            Z = np.concatenate([Z[:, :-POOLED], mean[:, -POOLED:]], 1)
        return Z.astype(recipe.encodings)

    return encode


# ---- a random forest for many labels
# For logistic regression write two functions of these names and give
# --reuse-encodings: fit_forest with these arguments -> a dict of arrays (forest.npz);
# predict_forest(dict, Z) -> scores (n, K). Both get all columns of the encodings, and
# what is fitted from column `first` on must predict from there, too.


def fit_forest(
    Z,
    Y,
    trees=TREES,
    leaf=LEAF,
    samples=SAMPLES,
    projections=PROJECTIONS,
    seed=1337,
    first=0,
):
    """Grow a random forest of many outputs.

    Z : (N, width), used from column `first` on;  Y : (N, K) 0/1; arrays or HDF5
    samples : rows drawn for each GROUP of trees, so that memory does not grow with N
    leaf : rows in a leaf at least, if a tree grew on all rows drawn
    projections : random sums of labels that stand for them as trees grow (Joly et al.
        2014); 0 for the labels themselves. With them a tree grows on SHARE of the rows,
        and its leaf needs that share of `leaf`: a quarter of 30, rounded, is 8
    A leaf answers with the mean labels of all N rows that reach it.
    """
    forests = []
    inner = []  # scikit-learn's own tree objects
    bar = danq.progress(trees)
    for start in range(0, trees, GROUP):
        n_trees = min(GROUP, trees - start)
        # Each group of trees has numbers of its own, from the seed alone.
        rng = np.random.default_rng(seed + start)
        rows = slice(None)
        if len(Z) > samples:
            rows = rng.choice(len(Z), samples, replace=False)
        X = read_rows(Z, rows)[:, first:].astype(np.float32)
        T = read_rows(Y, rows).astype(np.float32)
        # Grown on all labels, a tree needs all rows.
        share = 1.0
        if projections:
            share = SHARE
            T = project(T, projections, rng)
        forest = grow(X, T, n_trees, leaf, share, seed + start)
        forests.append(forest)
        inner += [tree.tree_ for tree in forest.estimators_]
        bar.update(start + n_trees)
    nodes = flatten_trees(inner, first)
    return nodes | {"means": leaf_means(nodes, forests, Z, Y, first)}


def project(T, n, rng):
    """n random sums of the labels, (rows, K) -> (rows, n).

    Labels that go together stay together, and a tree needs a hundredth of the time.
    """
    mix = rng.standard_normal((T.shape[1], n), np.float32)
    return T @ (mix / np.sqrt(n))


def grow(X, T, n_trees, leaf, share, seed):
    """scikit-learn's forest on targets T (n, outputs).

    Regression, as the variance p (1 - p) of a 0/1 label is half of its Gini impurity:
    the splits are a classifier's. Random sums of labels nearly keep that variance.
    """
    forest = RandomForestRegressor(
        n_trees,
        min_samples_leaf=max(1, round(leaf * share)),
        max_features="sqrt",
        max_samples=max(1, int(share * len(X))),
        n_jobs=-1,
        random_state=seed % 2**32,
    )
    # scikit-learn would say so in a page.
    if not np.isfinite(X).all():
        raise BadInput(
            "the encodings hold NaN or infinite numbers, as after a training that "
            "diverged: the forest cannot be fitted to them"
        )
    if T.shape[1] == 1:
        T = T[:, 0]  # scikit-learn warns of a single column
    return forest.fit(X, T)


def predict_forest(forest, Z):
    """Scores (n, K) float32 of encodings Z (n, width).

    The mean, over the trees, of the leaves that a row reaches.
    """
    # (n, leaves) x (leaves, K): for each row the sum over its leaves.
    reached = leaf_matrix(leaves_of(forest, Z), len(forest["means"]))
    return reached @ forest["means"] / np.float32(len(forest["root"]))


# ---- stage 3


def fit_and_score(args, out_dir):
    """Stage 3: forest on training, thresholds on validation, scores on test."""
    started = time.time()
    with open_encodings(out_dir) as (file, about):
        # The labels as the encodings know them: the data may have moved.
        labels = []
        for column, row in enumerate(file["labels"].asstr()[:]):
            labels.append(danq.Label(column, *row))
        forest = fit_and_save_forest(args, out_dir, file["train"], about)
        if args.features == "motifs":
            fit_and_save_network(args, out_dir, file["train"])
        forest_seconds = round(time.time() - started, 2)
        answers = answers_of(args, out_dir, forest)
        print("scoring validation and test", flush=True)
        # SuperQ's answer is chosen on validation, never on test.
        P_valid, Y_valid = ask_all(answers, file["valid"])
        about["validation"] = scores_of_answers(P_valid, Y_valid, labels)
        answer = choose_answer(about["validation"])
        P_test, Y_test = ask_all(answers, file["test"])
        about["answers"] = {}
        if len(answers) > 1:
            about["answers"] = scores_of_answers(P_test, Y_test, labels)
            print_answers(about["answers"], answer)

    # The thresholds of F1 are chosen on validation, too.
    thresholds = danq.best_thresholds(P_valid[answer], Y_valid)
    P_test = P_test[answer]
    seconds = {
        "autoencoder": about["training"]["seconds"],
        "encodings": about["encoding_seconds"],
        "forest": forest_seconds,
    }
    summary = about | {
        "model": run_name(args),
        "test_windows": len(P_test),
        "answer": answer,
        "seconds": seconds,
        # What SuperQ cost: all three stages, as none is of use without the others.
        "training_seconds": round(sum(seconds.values()), 2),
        "subset_accuracy": subset_accuracy(P_test, Y_test),
    }
    danq.finish_run(out_dir, P_test, Y_test, labels, thresholds, summary)


def subset_accuracy(P, Y):
    """The 2018 score: a window counts where all its labels are right."""
    all_right = ((P >= 0.5) == Y).all(1)
    return float(all_right.mean())


def first_column(args):
    """The first of the encodings that the forest reads: digits are noise to it."""
    recipe = recipe_of(args)
    # k-mer counts and PCA have no digits.
    if has_network(args) and recipe.pooled and recipe.digits != "none":
        return DIGITS
    return 0


def score_encodings(score, group):
    """Scores and labels (windows, K) of a split in encodings.h5.

    score : encodings (n, width) -> (n, K)
    """
    windows = int(group.attrs["windows"])
    strands = bool(group.attrs["strands"])
    P = danq.strand_mean(score, group["Z"], windows, strands, batch_size=500)
    return P, group["Y"][:windows]


def ask_all(answers, group):
    """Scores of each answer, {name: (windows, K)}, and labels of a split.

    group : of encodings.h5
    """
    scores = {}
    for name, score in answers.items():
        if name == "mean":
            # A forest takes minutes on DeepSEA's test split: it is asked once.
            scores[name] = (scores["forest"] + scores["label output"]) / 2
        else:
            scores[name], Y = score_encodings(score, group)
    return scores, Y


def answers_of(args, out_dir, forest, autoencoder=None):
    """{name: a function of encodings Z (n, width) -> probabilities (n, K)}.

    The forest; the label output of the autoencoder, or of the yardstick's own network;
    the mean of both. The forest leads on few windows, the label output on many.
    """

    def from_forest(Z):
        return predict_forest(forest, Z)

    if args.features == "motifs":
        network = danq.load_model(out_dir, "network.keras")
        first = 0
    elif args.label_weight:
        # The label layer reads the pooled half of the bottleneck, as the forest does.
        network = (autoencoder or danq.load_model(out_dir)).get_layer("labels")
        first = -POOLED
    else:
        return {"forest": from_forest}

    def from_labels(Z):
        return ops.convert_to_numpy(network(Z[:, first:].astype(np.float32)))

    def mean(Z):
        return (from_forest(Z) + from_labels(Z)) / 2

    return {"forest": from_forest, "label output": from_labels, "mean": mean}


def choose_answer(scores):
    """The answer of the highest AUROC and AUPRC, added; of equal ones the first.

    Either alone is more a matter of chance.
    scores : scores_of_answers of a split, {answer: {"auroc", "auprc"}}
    """

    def both(answer):
        # None where no label has both classes.
        return sum(score or 0 for score in scores[answer].values())

    return max(scores, key=both)


def scores_of_answers(scores, Y, labels):
    """{answer: {auroc, auprc}}, means over the labels; scores : ask_all's."""
    means_of = {}
    for name, P in scores.items():
        # Thresholds of F1 do not matter here: only rankings are scored.
        _, means = danq.evaluate(P, Y, labels, [0.5] * len(labels))
        means_of[name] = {key: means["all"][key] for key in ("auroc", "auprc")}
    return means_of


# ---- all stages


def main(argv=None):
    args = parse_args(argv)
    out_dir = Path(args.out_dir)
    # First what needs no run of its own, then what a finished run does, then a run.
    if args.compare:
        beside = runs_folder(args.compare[0]) / "comparison.md"
        compare(args.compare, args.output or beside)
    elif args.curve:
        beside = runs_folder(args.curve[0]) / "curve.md"
        learning_curve(args.curve, args.output or beside)
    elif args.motifs:
        danq.write_motifs(args, "superq.py")
    elif args.predict:
        danq.annotate(args, *trained_scores(out_dir))
    elif args.variants:
        danq.write_variant_effects(args, *mutation_scores(args))
    elif args.mutate:
        danq.write_mutation_effects(args, *mutation_scores(args))
    elif args.test_data:
        danq.score_elsewhere(args, *trained_scores(out_dir))
    elif args.reuse_encodings:
        fit_another_forest(args, out_dir)
    else:
        run_all_stages(args, out_dir)


def run_all_stages(args, out_dir):
    motifs = danq.motif_files(args)
    splits, labels = danq.load_data(args)
    simulated = splits["train"].simulated
    sources = danq.data_files(splits, labels) | motifs
    train = splits["train"]
    if args.unlabelled:
        # These rows teach bases and composition; their labels weigh nothing.
        folder = danq.packed_dir(out_dir)
        more, content = load_unlabelled(args.unlabelled, folder, args.unlabelled_limit)
        train = MixedSplit(**vars(train), unlabelled=more)
        # It may be called train.mat, too.
        sources[f"unlabelled {Path(args.unlabelled).name}"] = content
    with danq.run_folder(args, "superq.py", simulated, sources) as finished:
        if finished:
            return
        args = settle_training(args, splits["train"].windows)
        # Each stage leaves a file: what is there is not made again.
        if not (out_dir / "autoencoder.json").is_file():
            if args.features == "autoencoder":
                train_autoencoder(args, train, splits, out_dir)
            else:
                make_yardstick(args, splits, out_dir)
        path = out_dir / "encodings.h5"
        if not path.is_file():
            about = danq.read_json(out_dir / "autoencoder.json", "training")
            about |= danq.describe(args, splits["train"], splits["test"])
            about["features"] = args.features
            model = danq.load_model(out_dir)
            encode = encodings_of(model, recipe_of(args), args.move)
            one_strand = strand_blind(args)
            write_encodings(
                path, encode, splits, labels, about, args.batch_size, one_strand
            )
        fit_and_score(args, out_dir)


def trained_scores(out_dir, answer=None):
    """A finished run as a function, packed (n, 500) -> (n, K), and if strand-blind.

    answer : forest, label output or mean; None: the one chosen on validation
    """
    settings = danq.finished_settings(out_dir, "superq.py")
    args = argparse.Namespace(**settings)
    model = danq.load_model(out_dir)
    encode = encodings_of(model, recipe_of(args), args.move)
    forest = load_forest(out_dir / "forest.npz")
    answers = answers_of(args, out_dir, forest, model)
    if answer is None:
        answer = danq.read_json(out_dir / "summary.json", "answer")["answer"]

    def score(bits):
        return answers[answer](encode(bits))

    return score, strand_blind(args)


def mutation_scores(args):
    """trained_scores for small changes: the mean of forest and label output.

    A forest answers in steps: many changes of one base move it by nothing, some by too
    much.
    """
    out_dir = Path(args.out_dir)
    # A run that is unfinished, or DanQ's, is refused.
    danq.finished_settings(out_dir, "superq.py")
    # Empty where the forest is the only one that answers.
    if danq.read_json(out_dir / "summary.json", "answers")["answers"]:
        return trained_scores(out_dir, "mean")
    # Without labels in its loss a run has no such output, nor have most yardsticks.
    print(
        f"{out_dir} has no label output: the forest alone answers, in steps",
        file=danq.messages(args.output),
    )
    return trained_scores(out_dir)


# ==== The machinery: not needed to understand SuperQ.
# ---- flags, and what a run is called

# --features, and what tables and figures call them.
FEATURES = {
    "autoencoder": "SuperQ",
    "untrained": "untrained encoder -> forest",
    "pca": "PCA -> forest",
    "gc": "GC content -> forest",
    "cpg": "CpG count -> forest",
    "kmer": "k-mers -> forest",
    "motifs": "known motifs + k-mers",
    "chosen": "chosen motifs + k-mers -> forest",
}


def run_name(args):
    """What tables and figures call a run: "SuperQ", and what differs from it."""
    name = FEATURES[args.features]
    # Whether filters could start as motifs, and labels take part, at all.
    has_labels = args.features == "autoencoder" and ABLATIONS[args.ablation].pooled
    if args.motif_start:
        name += " from known motifs"
    elif has_labels:
        name += " from random filters"
    # What differs from the usual, in the order in which it matters.
    if args.paper:
        name += " (paper)"
    elif args.ablation < len(ABLATIONS) - 1:
        name += f", ablation {args.ablation}"
    if has_labels and args.label_weight == 0:
        name += ", labels for the forest alone"
    elif has_labels and args.label_weight != LABEL_WEIGHT:
        name += f", label weight {args.label_weight:g}"
    # From known motifs the head learns first, else it does not.
    if args.motif_start and not args.head_epochs:
        name += ", no head start"
    if args.head_epochs and not args.motif_start:
        name += ", head first"
    if args.digits:
        name += f", digits {args.digits}"
    if args.lstm_units == 0 and has_network(args):
        name += ", no BLSTM"
    if has_labels and args.move != MOVE:
        name += f", windows moved by {args.move}"
    if args.unlabelled:
        name += f", + {args.unlabelled_limit or 'all'} unlabelled"
    if not args.forest_projections:
        name += ", direct forest"
    return name


def parse_args(argv=None):
    epochs = (
        f"{EPOCHS}; of {MANY_WINDOWS:,} windows or more, with --head-epochs, "
        f"{HEADED_EPOCHS}"
    )
    moves = f"; features are the mean of three views, N bases apart ({MOVE})"
    parser, groups = danq.shared_arguments(__doc__, None, epochs, BATCH, moves)
    data = groups["data"].add_argument
    data("--unlabelled", metavar="FILE", help="FASTA or .mat for the autoencoder alone")
    data(
        "--unlabelled-limit",
        type=positive,
        metavar="N",
        help="take N, every k-th of the file",
    )

    network = groups["network"].add_argument
    network(
        "--paper",
        action="store_true",
        help="the 2018 network, recipe (10 epochs, batches of 100) and size of forest "
        "(10 trees, leaf 1)",
    )
    network(
        "--filters",
        type=positive,
        help=f"of the first convolution ({FILTERS}; with --motif-start "
        f"{KNOWN_FILTERS + FREE_FILTERS}; --paper {danq.FILTERS})",
    )
    network(
        "--lstm-units",
        type=number(int, 0),
        help=f"of the BLSTM, each way; 0: none ({LSTM_UNITS}; --paper "
        f"{danq.LSTM_UNITS})",
    )
    network(
        "--ablation",
        type=int,
        choices=range(len(ABLATIONS)),
        metavar="N",
        default=len(ABLATIONS) - 1,
        help="take the first N steps from the 2018 autoencoder to ours (%(default)s)",
    )

    network(
        "--digits",
        choices=("base-4", "random", "none"),
        help="how the digits' weights start; none: no digits, and no decoder (base-4)",
    )

    # None stands for: as the network has it.
    training = groups["training"].add_argument
    training(
        "--label-weight",
        type=number(float, 0),
        metavar="W",
        help="of the labels in the autoencoder's loss; 0: none, as in 2018 "
        f"({LABEL_WEIGHT:g})",
    )
    training(
        "--top-rate",
        # Training starts at FIRST_RATE: the highest is no lower.
        type=number(float, FIRST_RATE),
        metavar="RATE",
        help=f"the highest learning rate ({TOP_RATE:g}; of fewer windows, with "
        f"--head-epochs, {HEADED_RATE:g})",
    )
    training(
        "--head-epochs",
        type=number(int, 0),
        metavar="N",
        help="epochs in which the layers behind the filters learn alone, before all "
        f"layers do (with --motif-start {HEAD_EPOCHS}, else 0)",
    )

    forest = groups["forest"].add_argument
    forest(
        "--features",
        default="autoencoder",
        choices=FEATURES,
        help="what the forest sees: the bottleneck (autoencoder), or a yardstick: that "
        "of an untrained network, principal components (pca), GC content, CpG or k-mer "
        "counts, known motifs and k-mers, 500 chosen of these",
    )
    forest(
        "--motif-file",
        metavar="FILE.meme",
        help="known motifs for --features motifs and chosen",
    )
    forest(
        "--forest-trees",
        action=danq.Given,
        type=positive,
        default=TREES,
        help="trees (%(default)s)",
    )
    forest(
        "--forest-leaf",
        action=danq.Given,
        type=positive,
        default=LEAF,
        help=f"windows in a leaf at least ({LEAF}; motifs: {MOTIFS_LEAF})",
    )
    forest(
        "--forest-samples",
        action=danq.Given,
        type=positive,
        default=SAMPLES,
        help="windows that trees grow on at most (%(default)s)",
    )
    forest(
        "--forest-projections",
        action=danq.Given,
        type=number(int, 0),
        default=PROJECTIONS,
        metavar="D",
        help="random sums of labels that trees grow on; 0 for the labels (%(default)s)",
    )
    forest(
        "--reuse-encodings",
        action="store_true",
        help="the forest alone, on encodings.h5 of --out-dir; what else was given for "
        "that run stays",
    )

    after = groups["after training"].add_argument
    after(
        "--compare",
        nargs="+",
        metavar="DIR",
        help="set finished runs side by side, DanQ's first (times are in its units; "
        "differences are SuperQ's scores minus the others'), and exit",
    )
    after(
        "--curve",
        nargs="+",
        metavar="DIR",
        help="set finished runs of several sizes side by side, and exit",
    )

    # --paper and motifs change defaults, so the line is parsed twice: what was given on
    # it stays.
    first = parser.parse_args(argv)
    if first.features == "motifs":
        parser.set_defaults(forest_leaf=MOTIFS_LEAF)
    if first.paper:
        if first.ablation < len(ABLATIONS) - 1:
            raise BadInput("--paper takes none of the steps: not with --ablation")
        parser.set_defaults(
            epochs=10, batch_size=danq.BATCH, forest_trees=10, forest_leaf=1
        )
    args = parser.parse_args(argv)
    if args.paper:
        args.ablation = 0
    complete(args)
    return args


def complete(args):
    """Defaults that depend on other arguments; BadInput where these contradict."""
    learns = args.features == "autoencoder"
    has_labels = learns and ABLATIONS[args.ablation].pooled
    of_training = (args.paper, args.label_weight, args.unlabelled, args.top_rate)
    if not learns and any(of_training):
        raise BadInput(
            "--features is for yardsticks, which are not trained: "
            "not with --paper, --label-weight, --unlabelled, --top-rate"
        )
    if not has_network(args) and args.ablation < len(ABLATIONS) - 1:
        raise BadInput(f"--ablation is of SuperQ's network: not with {args.features}")
    if args.top_rate and ABLATIONS[args.ablation].optimizer == "nadam":
        raise BadInput("--top-rate is of our training: not with --paper, --ablation 1")
    if args.label_weight and not has_labels:
        raise BadInput(
            "--label-weight needs the pooled features: not with --paper, --ablation"
        )
    for flag in ("motif_start", "move", "head_epochs"):
        if getattr(args, flag) and not has_labels:
            raise BadInput(
                f"{danq.flag_of(flag)} needs the pooled features: "
                "not with --paper, --ablation, --features"
            )
    needs_motifs = args.features in ("motifs", "chosen")
    if needs_motifs != bool(args.motif_file):
        raise BadInput(
            "--features motifs (or chosen) and --motif-file FILE need each other"
        )
    if args.digits and not has_labels:
        raise BadInput("--digits is of our network: not with --paper, --ablation")
    if args.unlabelled_limit and not args.unlabelled:
        raise BadInput("--unlabelled-limit needs --unlabelled FILE")
    if args.reuse_encodings and args.restart:
        raise BadInput("--restart discards the encodings that --reuse-encodings needs")
    # Labels teach ours; the 2018 network and the yardsticks know none.
    if args.label_weight is None:
        args.label_weight = LABEL_WEIGHT if has_labels else 0.0
    if args.move is None:
        args.move = MOVE if has_labels else 0
    # Filters that start at random find nothing yet that a head could learn from.
    if args.head_epochs is None:
        args.head_epochs = HEAD_EPOCHS if args.motif_start else 0
    if args.out_dir is None:
        name = "superq" if learns else args.features
        if args.paper:
            name = "superq-paper"
        args.out_dir = f"runs/{name}"


# ---- feeding bits


class AutoencoderFromBits(danq.FromBits):
    """An autoencoder fed with bits, which are what it must answer, too."""

    def __init__(self, network, n_labels, recipe):
        super().__init__(network, n_labels)
        self.asked = tuple(network.output)  # names of its outputs
        self.counts_unknown = recipe.loss == "squared error"  # as in 2018
        self.composition = KmerCounts(*COMPOSITION_KMERS)

    def targets(self, x, y, weight):
        """Two dicts, targets and weights, with an entry for each output.

        Unknown bases weigh 0, and so do the labels of rows that have none.
        """
        X = self.onehot(x)
        labels, label_weight = super().targets(x, y, weight)
        if self.counts_unknown:
            base_weight = ops.ones_like(X[..., 0])
        else:
            base_weight = known_bases(X)
        every_row = ops.ones_like(base_weight[:, 0])
        if label_weight is None:
            label_weight = every_row

        targets = {"bases": X, "labels": labels}
        if "composition" in self.asked:
            targets["composition"] = self.composition(X)
        weights = {
            "bases": base_weight,
            "composition": every_row,
            "labels": label_weight,
        }
        return (
            {name: targets[name] for name in self.asked},
            {name: weights[name] for name in self.asked},
        )


# ---- encodings.h5


def write_encodings(path, encode, splits, labels, about, batch_size, one_strand):
    """Stage 2: encode all splits into an HDF5 file.

    /train/Z (N, width), /train/Y (N, K), attributes windows, strands; /valid, /test;
    /labels (K, 3) assay, name, factor. A kill leaves the batches that were made in
    path.part: the next call goes on after them.
    one_strand : encode each window once, as its forward strand
    """
    part = path.with_suffix(".part")
    # One encoding shows width and type; a whole batch compiles for those that follow.
    first = encode(splits["train"].X[:batch_size])[:1]
    blocks = []  # (split, rows), in the order of the file
    n_rows = {}
    for name, split in splits.items():
        # All forward strands come first.
        n_rows[name] = split.windows if one_strand else len(split.X)
        for rows in gen_batches(n_rows[name], batch_size):
            blocks.append((split, rows))
    # A raw file first, as a kill in the middle would spoil an HDF5 file.
    seconds = encode_to_part(part, encode, blocks, row_bytes=first.nbytes)
    started = time.time()

    # gzip needs far less than a byte for each label.
    bytes_a_row = len(labels) // 4 + 4
    size = os.path.getsize(part) + sum(n_rows.values()) * bytes_a_row + (1 << 20)
    with (
        open(part, "rb") as encodings,
        new_file(path) as temporary,
        danq.new_hdf5(temporary) as file,
    ):
        danq.claim(temporary, size)
        # With their labels beside them, encodings are of use without this kit.
        table = [label[1:] for label in labels]
        file["labels"] = np.array(table, h5py.string_dtype())
        for name, split in splits.items():
            group = file.create_group(name)
            write_split(group, split, n_rows[name], encodings, first)
        seconds = round(seconds + time.time() - started, 2)
        file.attrs["about"] = json.dumps(about | {"encoding_seconds": seconds})
    part.unlink()
    width = first.shape[1]
    print(f"[2/3] encodings: {width} numbers a sequence -> {path} ({seconds:.0f} s)")


def encode_to_part(part, encode, blocks, row_bytes):
    """Append the encodings of blocks to a raw file, after those that it holds.

    blocks : [(split, rows)];  Returns the seconds that all of them take.
    """
    sizes = [(rows.stop - rows.start) * row_bytes for _, rows in blocks]
    ends = np.cumsum([0, *sizes])  # bytes of the first 0, 1, 2, ... blocks
    bar = danq.progress(len(blocks))
    with danq.file_faults(part, damage=()), open(part, "ab") as file:
        # Whole blocks stay; a kill may have cut through the last one.
        # Example, ends 20, 40, 60 and 50 bytes: two blocks, 40 bytes.
        done = int(np.searchsorted(ends, file.tell(), "right")) - 1
        done = min(done, len(blocks) - 1)  # the last one again, for its time alone
        file.truncate(ends[done])
        started = time.time()
        for i in range(done, len(blocks)):
            split, rows = blocks[i]
            file.write(encode(split.X[rows]).tobytes())
            bar.update(i + 1)
    # Those made before took as long, each.
    return (time.time() - started) * len(blocks) / (len(blocks) - done)


def write_split(group, split, n, encodings, first):
    """A split's encodings, from an open raw file, and labels into an HDF5 group.

    n : of its rows
    first : an encoding (1, width), which shows width and type
    """
    width = first.shape[1]
    n_labels = split.n_labels
    group.attrs.update(windows=split.windows, strands=n > split.windows)
    # Chunks of whole rows; fletcher32 notices a damaged one.
    Z = group.create_dataset(
        "Z", (n, width), first.dtype, chunks=(min(n, 256), width), fletcher32=True
    )
    Y = group.create_dataset(
        "Y", (n, n_labels), "u1", chunks=(min(n, 1024), n_labels), compression="gzip"
    )
    for rows in gen_batches(n, 8192):
        numbers = (rows.stop - rows.start) * width
        Z[rows] = np.fromfile(encodings, first.dtype, numbers).reshape(-1, width)
        Y[rows] = split.labels(rows)


@contextlib.contextmanager
def open_encodings(out_dir):
    """Yield encodings.h5 and what it says about its run."""
    path = out_dir / "encodings.h5"
    advice = "remove it and give the command again without --reuse-encodings"
    if not path.is_file():
        raise BadInput(f"{path} is missing: run once without --reuse-encodings")
    with danq.file_faults(path, advice):
        file = h5py.File(path)
        about = json.loads(file.attrs["about"])
        for name in SPLITS:
            file[f"{name}/Z"]  # a KeyError: damaged
            file[f"{name}/Y"]
    # HDF5 finds a damaged chunk when it is read, with an OSError.
    with file, danq.file_faults(path, advice, OSError):
        yield file, about


# ---- the forest's trees, and forest.npz


def read_rows(array, rows, block=20_000):
    """Rows of an HDF5 dataset, in its order.

    rows : a slice or numbers
    """
    # In blocks and by a mask: much faster than HDF5's own indexing.
    wanted = np.zeros(len(array), bool)
    wanted[rows] = True
    parts = []
    for start in range(0, len(array), block):
        stop = start + block
        parts.append(array[start:stop][wanted[start:stop]])
    return np.concatenate(parts)


def flatten_trees(trees, first):
    """scikit-learn's trees, one behind the other, as arrays over all their nodes.

    trees : their inner objects (tree_), whose nodes are numbered from 0 in each
    first : the column of the encodings that the trees call 0
    Returns feature, threshold; left, right: numbers of the nodes below, of a leaf its
    own; leaf: a leaf's number among all leaves, else -1; and root, a node a tree.

    Example, two trees of a root and two leaves: nodes 0 1 2 | 3 4 5, root 0, 3;
    left 1 1 2 | 4 4 5, right 2 1 2 | 5 4 5; leaf -1 0 1 | -1 2 3.
    """
    columns = {"feature": [], "threshold": [], "left": [], "right": [], "leaf": []}
    roots = []
    n_nodes = 0
    n_leaves = 0
    for tree in trees:
        # scikit-learn marks a leaf by -1 for the node below.
        own = n_nodes + np.arange(tree.node_count)
        is_leaf = tree.children_left < 0
        # Counted on over all trees, so that a leaf's number says which tree, too.
        leaf_number = n_leaves + is_leaf.cumsum() - 1
        columns["feature"].append(np.where(is_leaf, 0, tree.feature + first))
        columns["threshold"].append(tree.threshold)
        columns["left"].append(np.where(is_leaf, own, n_nodes + tree.children_left))
        columns["right"].append(np.where(is_leaf, own, n_nodes + tree.children_right))
        columns["leaf"].append(np.where(is_leaf, leaf_number, -1))
        roots.append(n_nodes)
        # Where the next tree begins.
        n_nodes += tree.node_count
        n_leaves += is_leaf.sum()
    nodes = {"root": np.array(roots, np.int32)}
    for name, parts in columns.items():
        kind = np.float64 if name == "threshold" else np.int32
        nodes[name] = np.concatenate(parts).astype(kind)
    return nodes


def leaves_of(nodes, Z):
    """Numbers of the leaves that rows of Z (n, width) reach, (n, trees)."""
    Z = np.asarray(Z, np.float32)
    # Where a row's numbers begin in Z laid flat: take() is faster than Z[row, column].
    start = np.arange(0, Z.size, Z.shape[1])[:, None]
    # All rows start at the root of every tree, and go down a level at a time.
    node = np.tile(nodes["root"], (len(Z), 1))
    while True:
        value = Z.take(start + nodes["feature"].take(node))
        goes_left = value <= nodes["threshold"].take(node)
        below = np.where(goes_left, nodes["left"].take(node), nodes["right"].take(node))
        if np.array_equal(node, below):  # below a leaf is the leaf itself
            return nodes["leaf"].take(node)
        node = below


def leaf_matrix(leaf, n_leaves):
    """Leaf numbers (n, trees) -> sparse (n, n_leaves), 1 where a row reaches a leaf.

    Example: the leaves 0, 2 of one row, of 4 -> 1 0 1 0.
    """
    n, n_trees = leaf.shape
    ones = np.ones(leaf.size, np.float32)
    row_ends = np.arange(0, leaf.size + 1, n_trees)
    return sparse.csr_matrix((ones, leaf.ravel(), row_ends), (n, n_leaves))


def leaf_means(nodes, forests, Z, Y, first, block=20_000):
    """Mean labels of the rows of (Z, Y) in each leaf, (leaves, K) float32.

    forests : the scikit-learn forests that `nodes` were made of
    """
    n_leaves = nodes["leaf"].max() + 1
    sums = np.zeros((n_leaves, Y.shape[1]), np.float32)  # counts: exact in float32
    sizes = np.zeros((n_leaves, 1), np.float32)
    for start in range(0, len(Z), block):
        X = Z[start : start + block][:, first:].astype(np.float32)
        # Nodes as each tree numbers them, then as we do.
        node = np.hstack([forest.apply(X) for forest in forests]) + nodes["root"]
        reached = leaf_matrix(nodes["leaf"].take(node), n_leaves)
        labels = sparse.csr_matrix(Y[start : start + block], dtype=np.float32)
        # (leaves, rows) x (rows, K): the labels of the rows in each leaf, added
        block_sums = (reached.T @ labels).tocoo()
        # Sparse, as few labels are 1 and few leaves are reached by a block.
        sums[block_sums.row, block_sums.col] += block_sums.data
        sizes += reached.T.sum(1)
    # Each row's labels count in one leaf of every tree, and no leaf is without rows:
    # those that it grew on are among them.
    return sums / sizes


def fit_and_save_forest(args, out_dir, group, about):
    """The forest on the training encodings -> forest.npz."""
    Z = group["Z"]
    Y = group["Y"]
    rows_a_window = 2 if group.attrs["strands"] else 1
    read = Z.shape[1] - first_column(args)
    print(
        f"[3/3] forest: {args.forest_trees} trees, {len(Z):,} rows, {read} of "
        f"{Z.shape[1]} numbers, {Y.shape[1]} labels"
    )
    forest = fit_forest(
        Z,
        Y,
        args.forest_trees,
        args.forest_leaf * rows_a_window,
        args.forest_samples * rows_a_window,
        args.forest_projections,
        args.seed,
        first=first_column(args),
    )
    # The file itself says what it was fitted on.
    data = about["data"]
    if about["simulated"]:
        data = f"SIMULATED {data}"
    with new_file(out_dir / "forest.npz") as temporary:
        np.savez(temporary, **forest, data=data)
    return forest


def load_forest(path):
    """Plain arrays; a file with Python objects is refused, not run."""
    with danq.file_faults(path, "fit it again"):
        return dict(np.load(path, allow_pickle=False))


FOREST_SETTINGS = (
    "forest_trees",
    "forest_leaf",
    "forest_samples",
    "forest_projections",
)


def fit_another_forest(args, out_dir):
    """--reuse-encodings: stage 3 alone. All settings but the forest's stay."""
    with open_encodings(out_dir) as (file, about):
        simulated = about["simulated"]
        windows = int(file["train"].attrs["windows"])
    # What the encodings were made with, whatever this command line says.
    before = danq.read_json(out_dir / "args.json", "settings")["settings"]
    for key in vars(args):
        is_given = key in FOREST_SETTINGS and key in args.given
        if key in before and not is_given:
            setattr(args, key, before[key])
    sources = before["data_files"]
    with danq.run_folder(
        args, "superq.py", simulated, sources, FOREST_SETTINGS
    ) as finished:
        if not finished:
            fit_and_score(settle_training(args, windows), out_dir)


# ---- results in a terminal


def print_reconstruction(report, n):
    print(
        f"held-out DNA, {n:,} test sequences: bases rebuilt "
        f"{report['base_accuracy']:.4f} ({report['bits_per_base']:.3f} bits); "
        f"commonest base {report['commonest_base']:.4f}; the 2018 paper .2526"
    )


def print_answers(scores, answer):
    for name, row in scores.items():
        chosen = ", chosen on validation" if name == answer else ""
        # None where no label has both classes.
        auroc = row["auroc"] or math.nan
        auprc = row["auprc"] or math.nan
        print(f"  test, {name}: AUROC {auroc:.4f}, AUPRC {auprc:.4f}{chosen}")


# ---- yardsticks and unlabelled DNA


def make_yardstick(args, splits, out_dir):
    """Stage 1 of a yardstick: its features as a network that is not trained."""
    train = splits["train"]
    started = time.time()
    # What looks at the data, PCA and chosen, looks at training windows alone.
    if args.features == "kmer":
        model = kmer_network()
    elif args.features == "gc":
        model = kmer_network(kmers=[(1, LENGTH)])
    elif args.features == "cpg":
        model = cpg_network()
    elif args.features == "motifs":
        motifs = danq.read_motifs(args.motif_file)
        print(f"{len(motifs):,} known motifs of {args.motif_file}")
        model = kmer_network(motifs=list(motifs.values()))
    elif args.features == "chosen":
        model = kmer_network(motifs=choose_motifs(args.motif_file, train))
    elif args.features == "pca":
        model = pca_network(train, args.seed)
    else:
        # The autoencoder's encoder as training would find it.
        keras.utils.set_random_seed(args.seed)
        model = encoder_of(build(args, train.n_labels))
    model.name = args.features
    if train.simulated:
        model.name += "_SIMULATED"
    with new_file(out_dir / "model.keras") as temporary:
        model.save(temporary)
    seconds = round(time.time() - started, 2)
    record = {
        "training": {"epochs": 0, "best_epoch": 0, "seconds": seconds},
        "parameters": model.count_params(),
    }
    danq.write_json(out_dir / "autoencoder.json", record)


# SuperQ may answer with its network's label output, or the mean of it and the forest.
# So that the strongest yardstick, known motifs, is not weaker for want of it, it has a
# network on its features, too.


def fit_network(args, Z, Y):
    """Train a dense network, features (n, width) -> probabilities (n, K).

    As large as what SuperQ makes of its features; the rates are those of SuperQ from
    random filters.
    Z : (N, width);  Y : (N, K) 0/1; arrays or HDF5
    """
    keras.utils.set_random_seed(args.seed)
    # Each feature gets mean 0, variance 1, as in 5,000 rows or more.
    scale = layers.Normalization()
    scale.adapt(Z[:: max(1, len(Z) // 5000)].astype(np.float32))
    network = keras.Sequential(
        [
            keras.Input(Z.shape[1:]),
            scale,
            layers.Dropout(0.4),
            layers.Dense(POOLED, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(Y.shape[1], activation="sigmoid"),
        ]
    )
    optimizer = rising_and_falling(args, args.epochs, 2 * len(Z))
    network.compile(optimizer, "binary_crossentropy")
    blocks = list(gen_batches(len(Z), 8192))
    # SuperQ sees each window twice in an epoch, as both strands: so does this.
    passes = 2 * args.epochs
    bar = danq.progress(passes * len(blocks), "block")
    for i in range(passes):
        order = np.random.default_rng((args.seed, i)).permutation(len(blocks))
        # One block is in memory at a time; fit shuffles its rows.
        for j, block in enumerate(order):
            rows = blocks[block]
            X = Z[rows].astype(np.float32)
            network.fit(X, Y[rows], batch_size=args.batch_size, verbose=0)
            bar.update(i * len(blocks) + j + 1)
    return network


def fit_and_save_network(args, out_dir, group):
    """The yardstick's network on the training encodings -> network.keras."""
    print(f"[3/3] network: {2 * args.epochs} times over {len(group['Z']):,} rows")
    network = fit_network(args, group["Z"], group["Y"])
    with new_file(out_dir / "network.keras") as temporary:
        network.save(temporary)


def choose_motifs(path, train):
    """As many motifs as make 500 numbers beside the k-mer counts, without labels."""
    matrices = list(danq.read_motifs(path).values())
    # 500 less the yardstick's 146 counts: 354 numbers, of 177 motifs in two spans.
    n = (CODE - kmer_network().output_shape[1]) // len(YARDSTICK_SPANS)
    # Not scaled: where each motif counts the same, it is luck whether CTCF's, which is
    # long and like no other, is among so few.
    chosen = danq.most_telling(danq.occupancies(matrices, train), n, scaled=False)
    print(f"{len(chosen)} of {len(matrices):,} known motifs of {path} are chosen")
    return [matrices[i] for i in chosen]


def cpg_network():
    """How often C stands before G, (B, 1000, 4) -> (B, 1)."""
    inputs = keras.Input((LENGTH, 4))
    counts = KmerCounts(2, LENGTH)(inputs)  # (B, 10)
    words = np.flatnonzero(np.arange(16) <= reverse_complements(2))
    # CG is the word 2 * 4 + 1 = 9, see KmerCounts.
    column = int(np.flatnonzero(words == 9)[0])
    only = layers.Identity(name="bottleneck")(counts[:, column : column + 1])
    return keras.Model(inputs, only)


def kmer_network(kmers=YARDSTICK_KMERS, motifs=()):
    """Counts of k-mers, and occupancies of known motifs: (B, 1000, 4) -> (B, n).

    kmers : pairs (k, central bases)
    motifs : read_motifs' matrices, all of them looked for in each of YARDSTICK_SPANS
    """
    inputs = keras.Input((LENGTH, 4))
    parts = [KmerCounts(k, span)(inputs) for k, span in kmers]
    if motifs:
        for span in YARDSTICK_SPANS:
            parts.append(danq.occupancy_layer(motifs, span)(inputs))
    return keras.Model(inputs, layers.Concatenate(name="bottleneck")(parts))


def pca_network(train, seed):
    """The first 500 principal components of the one-hot: (B, 1000, 4) -> (B, 500)."""
    X = onehot(train.X[danq.even_sample(len(train.X), 20_000)])
    X = X.reshape(len(X), -1).astype(np.float32)
    pca = PCA(min(CODE, len(X)), random_state=seed).fit(X)
    # components (x - mean), as a dense layer: components x + bias
    # As a network, it is saved, loaded and fed like the others.
    projection = layers.Dense(pca.n_components_, name="bottleneck")
    inputs = keras.Input((LENGTH, 4))
    model = keras.Model(inputs, projection(layers.Flatten()(inputs)))
    projection.set_weights([pca.components_.T, -pca.components_ @ pca.mean_])
    return model


@dataclasses.dataclass
class MixedSplit(danq.Split):
    """A Split, and sequences without labels as its rows n..n + m: (m, 500) uint8."""

    unlabelled: np.ndarray | None = None

    def __len__(self):
        return len(self.X) + len(self.unlabelled)

    def batch(self, rows):
        """X, Y and weights of some rows: 1, or 0 without labels."""
        n = len(self.X)
        labelled = rows < n
        X = np.empty((len(rows), self.X.shape[1]), np.uint8)
        # Rows below n are of the Split, those above of the file without labels.
        X[labelled] = self.X[rows[labelled]]
        X[~labelled] = self.unlabelled[rows[~labelled] - n]
        Y = self.Y[np.where(labelled, rows, 0)]  # anything, where it weighs nothing
        return X, Y, labelled.astype(np.float32)


def load_unlabelled(path, folder, limit=None):
    """Packed sequences (n, 500) of a file without labels, and a hash of all.

    path : FASTA, cut into windows side by side, those of more N than bases left out;
        or a .mat with trainxdata or xdata
    limit : take so many, every k-th
    """
    path = Path(path)
    # A pipe would be empty the second time.
    if path.exists() and not path.is_file():
        raise BadInput(f"--unlabelled {path} is read twice: give a file, not a pipe")
    state = f"{os.path.realpath(path)} {danq.file_state(path)} {danq.PACKED_FORMAT}"
    # Another file, or another state of it, is another copy.
    copy = folder / f"{path.name}-{sha256(state.encode()).hexdigest()[:8]}.npy"
    if not copy.is_file():
        with danq.locked(folder, wait=True), new_file(copy) as temporary:
            if h5py.is_hdf5(path) or path.open("rb").read(6) == b"MATLAB":
                pack_mat(path, temporary)
            else:
                pack_fasta(path, temporary)
    with danq.file_faults(copy, "remove it: it is made again"):
        X = np.load(copy, mmap_mode="r")
    # Of all of it, whatever the limit, which is a setting of its own.
    content = danq.content_hash(copy)
    if limit is not None:
        # Example, 10 of 35: rows 0, 3, 6, ... 27.
        step = max(1, len(X) // limit)
        X = X[::step][:limit]
    return X, content


def pack_mat(path, target):
    """Pack the sequences of the first variable that may hold some."""
    keys = [f"{split}xdata" for split in SPLITS] + ["xdata"]
    with danq.open_mat(path, keys) as (*arrays, _):
        for key, X in zip(keys, arrays, strict=True):
            if X is not None:
                danq.check_layout(path, [key], X)
                danq.pack_array(X, target, f"{path}: {key}")
                return
    raise BadInput(f"{path} has no variable {' or '.join(keys)}")


def pack_fasta(path, target):
    n = sum(1 for _ in known_windows(path))  # read twice: once for their number
    if not n:
        raise BadInput(
            f"{path} holds no window of {LENGTH} bases with half of them known"
        )
    windows = known_windows(path)
    with danq.new_npy(target, n, LENGTH // 2) as file:
        while batch := list(islice(windows, 1000)):
            X = danq.letters_to_onehot(batch, path)
            file.write(danq.packed(X).tobytes())


def known_windows(path):
    """Windows side by side of which at least half of the bases are known."""
    for window in danq.fasta_windows(path, LENGTH):
        letters = window[-1]
        unknown = letters.translate(None, b"ACGT")  # what is left without them
        if len(unknown) <= LENGTH // 2:
            yield window


# ---- side by side


def runs_folder(folder):
    """The folder that holds a run's; a run's own may hold scores on other data."""
    folder = Path(os.path.realpath(folder))
    # Scores on other data lie within the run that they are of.
    if (folder.parent / "args.json").is_file():
        folder = folder.parent
    return folder.parent


def read_runs(folders):
    """Finished runs: their summaries, and a few keys more.

    folder, name, settings, code; rows, of metrics.csv; auroc and others, the means over
    all labels
    """
    # Short names, unless two runs have the same.
    names = [Path(os.path.realpath(folder)).name for folder in folders]
    runs = []
    for folder, name in zip(folders, names, strict=True):
        settings = danq.finished_settings(folder)
        summary = danq.read_json(Path(folder) / "summary.json", "means", "labels")
        means = summary["means"]["all"]
        if not means["labels"]:
            raise BadInput(
                f"{folder} has no scores: no label has both classes in its test split"
            )
        run = means | summary
        run["folder"] = Path(folder)
        run["name"] = name if names.count(name) == 1 else str(folder)
        run["settings"] = danq.without_places(settings)
        run["code"] = danq.read_json(Path(folder) / "args.json").get("code")
        run["rows"] = danq.read_metrics(folder)
        runs.append(run)
    return runs


def compare(folders, output):
    """Set finished runs, DanQ's first, side by side in `output`.md and `output`.png.

    Runs that differ in their seed alone are one row, with mean and spread. A folder
    without a finished run is named below the table, unless there is no other.
    """
    # One run that failed shall not hide what the others found.
    missing = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise BadInput(f"--compare: {folder} is no folder of a run")
        if not (Path(folder) / "summary.json").is_file():
            missing.append(str(folder))
    if len(missing) == len(folders):
        missing = []  # reading the first one says what is wrong
    runs = read_runs([folder for folder in folders if str(folder) not in missing])
    base = runs[0]
    for run in runs:
        check_comparable(run, base)
    # A row of the table for each group.
    groups = group_runs(runs, ("seed",))
    scores = {name: scores_of(group) for name, group in groups.items()}
    factors = np.array(label_column(base, "factor"))
    assays = np.array(label_column(base, "assay"))

    figures = {"": draw_comparison(groups, scores), "-training": draw_training(runs)}
    if len(groups) > 1:
        pair = {name: scores[name] for name in pair_of(groups)}
        figures["-labels"] = draw_labels(pair, assays)
    table = comparison_table(groups)
    rivals = rivals_of(groups)
    table += differences(scores, factors, rivals)
    table += differences_by_assay(scores, assays, rivals)
    if missing:
        table += f"\nWithout a result: {', '.join(missing)} (no finished run).\n"
    save_side_by_side(table, figures, output, base["simulated"])


def pair_of(groups):
    """The first group, and the first SuperQ among the others, or else the second."""
    first, *others = groups
    for name in others:
        # Not a yardstick, which has SuperQ's script, too.
        if groups[name][0]["settings"].get("features") == "autoencoder":
            return first, name
    return first, others[0]


def rivals_of(groups):
    """The groups that all others are compared with.

    All of DanQ's, and counting and known motifs, which learn nothing.
    """
    rivals = []
    for name, group in groups.items():
        settings = group[0]["settings"]
        is_danq = settings["script"] == "danq.py"
        if is_danq or settings.get("features") in ("kmer", "motifs"):
            rivals.append(name)
    # The first one, where there is none of these.
    return rivals or list(groups)[:1]


def check_comparable(run, base):
    """Two runs must have seen the same data."""
    keys = (
        "simulated",
        "limit",
        "labels",
        "train_sequences",
        "test_windows",
        "strands",
        "base_rate",
    )
    both = f"{run['folder']} does not match {base['folder']}:"
    # Scores on other windows, or after other training data, are another question's.
    for key in keys:
        if run[key] != base[key]:
            raise BadInput(
                f"{both} {key} is {run[key]}, not {base[key]} (runs of several sizes: "
                "--curve)"
            )
    hashes = [one["settings"]["data_files"].get("train.mat") for one in (run, base)]
    if hashes[0] != hashes[1]:
        raise BadInput(f"{both} another train.mat")
    # Labels are compared one by one, in their order.
    for key in ("name", "assay", "factor"):
        if label_column(run, key) != label_column(base, key):
            raise BadInput(f"{both} the {key}s of their labels differ (metrics.csv)")


def label_column(run, key):
    return [row[key] for row in run["rows"]]


def group_runs(runs, free):
    """{name: runs}; a group's runs have one model and differ in `free` settings alone.

    Where a model has several groups, each is named after its first run, too.
    """
    groups = []
    for run in runs:
        # A run joins the first group that it fits into.
        for group in groups:
            # The same seed again, perhaps with other code, is no second seed.
            again = any(same_settings(run, one, free=()) for one in group)
            if same_settings(run, group[0], free) and not again:
                group.append(run)
                break
        else:
            groups.append([run])
    models = [group[0]["model"] for group in groups]
    named = {}
    for model, group in zip(models, groups, strict=True):
        name = model
        if models.count(model) > 1:
            name += f" [{group[0]['name']}]"
        named[name] = group
        if len({run["code"] for run in group}) > 1:
            print(f"warning: the runs of {name} were made by different code")
    return named


def same_settings(run, other, free):
    one = run["settings"]
    two = other["settings"]
    for key in one.keys() | two.keys():
        # A flag that an older version did not have is one that is not given: None.
        if key not in free and one.get(key) != two.get(key):
            return False
    return run["model"] == other["model"]


def save_side_by_side(table, figures, output, simulated):
    """Print a table, write it and the figures.

    figures : {end: figure}, for `output`END.png and .svg
    """
    # Standard output takes the table; figures need a name.
    if str(output) == "-":
        print(table, end="")
        return
    name = str(output).removesuffix(".md").removesuffix(".png")
    if os.path.basename(name) in ("", ".", ".."):
        raise BadInput(f"--output {output} is a folder: name a file")
    with new_file(f"{name}.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    print(f"{table}-> {name}.md")
    for end, figure in figures.items():
        danq.save_figure(figure, f"{name}{end}.png", simulated)


def comparison_table(groups):
    """Scores and costs as Markdown: a title, what the data are, a row a group."""
    first = next(iter(groups.values()))
    base = first[0]
    unit = mean_seconds(first)
    assays = [name for name in base["means"] if name != "all"]
    head = ["model"]
    for measure in ("AUROC", "AUPRC", "F1"):
        head.append(f"{measure} ({' '.join(assays)})")
    head += ["training", "times the first row's", "best epoch", "bases rebuilt"]
    rows = [head]
    for name, runs in groups.items():
        rows.append(comparison_row(name, runs, assays, unit))
        rows += answer_rows(runs)

    # An AUPRC without skill is the share of positives.
    rates = [f"{mean['base_rate'] or 0:.4f}" for mean in base["means"].values()]
    chance = in_brackets(rates[0], rates[1:])
    rows.append(["chance", "0.5", chance, "", "", "", "", "0.25"])
    for name, paper in danq.published(base).items():
        cells = []
        for measure in ("auroc", "auprc"):
            numbers = [f"{score:.4f}" for score in paper[measure]]
            cells.append(in_brackets(numbers[0], numbers[1:]))
        rows.append([f"published: {name}", *cells, "", "", "", "", ""])

    title = "Side by side"
    if base["simulated"]:
        title += ", on SIMULATED data"
    # Each window is two training sequences then.
    strands = "both strands of each window, " if base["strands"] else ""
    return (
        f"# {title}\n\nData {base['data']}: "
        f"{base['train_sequences']:,} training sequences, "
        f"{base['test_windows']:,} test windows, {strands}"
        f"{base['labels_scored']} of {base['labels']} labels scored. "
        "Time: DanQ to its best epoch; SuperQ all three stages.\n\n"
        f"{markdown(rows)}"
    )


def comparison_row(name, runs, assays, unit):
    """Cells of a group of runs.  unit : seconds of training that count as 1"""
    if len(runs) > 1:
        name += f" ({len(runs)} seeds)"
    row = [name]
    for key in ("auroc", "auprc", "f1"):
        of_assays = []
        for assay in assays:
            values = [run["means"][assay][key] for run in runs]
            # None where no label of the assay has scores.
            scored = None not in values
            of_assays.append(f"{np.mean(values):.4f}" if scored else "-")
        overall = mean_and_spread([run[key] for run in runs])
        row.append(in_brackets(overall, of_assays))

    stages = []
    for stage in ("autoencoder", "encodings", "forest"):
        if stage in runs[0]["seconds"]:
            values = [run["seconds"][stage] for run in runs]
            stages.append(f"{stage} {np.mean(values):,.0f}")
    # Time, in seconds and as a multiple of the first row's.
    seconds = mean_seconds(runs)
    row.append(in_brackets(f"{seconds:,.0f} s", stages))
    row.append(f"{seconds / unit:.3f}")
    # Yardsticks have no epochs.
    row.append(f"{runs[0]['training']['best_epoch'] or '-'}")

    rebuilt = []
    for run in runs:
        # DanQ and the yardsticks rebuild nothing.
        if "reconstruction" in run:
            rebuilt.append(run["reconstruction"]["base_accuracy"])
    row.append(mean_and_spread(rebuilt))
    return row


def answer_rows(runs):
    """A row for each answer that SuperQ could give; scores on other data have none."""
    rows = []
    if not all(run.get("answers") for run in runs):
        return rows
    for answer in runs[0]["answers"]:
        row = [f"- {answer}"]
        for key in ("auroc", "auprc"):
            values = [run["answers"][answer][key] for run in runs]
            row.append(mean_and_spread(values))
        rows.append(row + [""] * 5)
    return rows


def mean_seconds(runs):
    return np.mean([run["training_seconds"] for run in runs])


def markdown(rows):
    """A table of rows of cells, the first its head."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@dataclasses.dataclass
class Scores:
    """AUROC and AUPRC of each label, the mean over runs that differ in their seed.

    whole : (K, 2), NaN where a label has one class only
    without : (stretches, K, 2), with one stretch of the test windows left out
    """

    whole: np.ndarray
    without: np.ndarray

    def __sub__(self, other):
        return Scores(self.whole - other.whole, self.without - other.without)


def scores_of(runs):
    whole = []
    without = []
    for run in runs:
        # With all test windows ...
        path = run["folder"] / "metrics.csv"
        whole.append(numbers_of(run["rows"], path, "auroc", "auprc"))
        # ... and with one stretch of them left out.
        path = run["folder"] / "without.npz"
        with danq.file_faults(path, "train again with --restart"):
            without.append(np.load(path)["scores"])
    return Scores(np.mean(whole, 0), np.mean(without, 0))


def numbers_of(rows, path, *columns):
    """Columns of a file's rows as numbers (n, columns), NaN where one is missing."""
    numbers = []
    with danq.file_faults(path, "train again with --restart"):
        for row in rows:
            numbers.append([float(row[column] or "nan") for column in columns])
    return np.array(numbers).reshape(-1, len(columns))


def other_dna(whole, without):
    """Mean over labels, and its 95 % interval: these labels, on other DNA.

    The delete-one-stretch jackknife. Windows next to each other share most of their
    bases, stretches of them next to none: these are what was sampled.
    whole : (K,);  without : (stretches, K), with a stretch left out
    """
    scored = always_scored(whole, without)
    if not scored.any():
        return np.nan, np.nan, np.nan
    mean = whole[scored].mean()
    means = without[:, scored].mean(1)  # (stretches,)
    n = len(means)
    if n < 2:  # nothing was left out
        return mean, -np.inf, np.inf
    # Each mean lacks a stretch only: they differ n - 1 times too little.
    error = np.sqrt((n - 1) / n * np.sum((means - means.mean()) ** 2))
    margin = t_distribution.ppf(0.975, n - 1) * error
    return mean, mean - margin, mean + margin


def always_scored(whole, without):
    """Which labels have both classes, whichever stretch is left out, (K,)."""
    return np.isfinite(whole) & np.isfinite(without).all(0)


def other_factors(whole, factors):
    """95 % interval of the mean over labels: this DNA, other factors.

    2,000 times, as many factors as there are are drawn from them, with repeats, each
    with all its labels: CTCF in twenty cell lines is one observation of a factor.
    whole : (K,);  factors : (K,)
    """
    sums, sizes = factor_sums(whole, factors)
    if len(sizes) < 2:  # nothing to draw from
        return -np.inf, np.inf
    drawn = bootstrap(
        (sums, sizes),
        mean_of_factors,
        paired=True,
        n_resamples=2000,
        method="percentile",
        rng=0,
    )
    limits = drawn.confidence_interval
    return limits.low, limits.high


def factor_sums(whole, factors):
    """Of each factor the sum over its labels, and their number; NaN counts in none."""
    scored = np.isfinite(whole)
    # Numbers 0, 1, ... of each label's factor.
    _, which = np.unique(factors[scored], return_inverse=True)
    return np.bincount(which, whole[scored]), np.bincount(which)


def mean_of_factors(sums, sizes, axis):
    """Mean over all labels of some factors, from each factor's sum and number."""
    return sums.sum(axis) / sizes.sum(axis)


DIFFERENCES_HEAD = [
    "model",
    "against",
    "score",
    "difference",
    "95 %, these labels on other DNA",
    "95 %, other factors",
    "leads in labels",
    "leads in factors",
    "verdict",
]


def differences(scores, factors, rivals):
    """Markdown: mean differences over labels of all models from some of them.

    scores : {model: Scores};  factors : (K,);  a difference is model minus rival
    """
    rows = [DIFFERENCES_HEAD]
    for model, rival, difference in against(scores, rivals):
        for column, score in enumerate(("AUROC", "AUPRC")):
            whole = difference.whole[:, column]
            without = difference.without[..., column]
            cells = difference_cells(whole, without, factors)
            rows.append([model, rival, score, *cells])
    if len(rows) == 1:
        return ""
    return "\n" + markdown(rows)


def against(scores, rivals):
    """Yield model, rival, Scores of the first less those of the second: each pair once.

    Rival by rival, so that one question's answers stand together.
    """
    for i, rival in enumerate(rivals):
        for model in scores:
            # Two rivals meet once: the later one against the earlier.
            if model not in rivals[: i + 1]:
                # Label by label and stretch by stretch: what both share cancels out.
                yield model, rival, scores[model] - scores[rival]


def differences_by_assay(scores, assays, rivals):
    """Markdown: the same differences, of each assay's labels alone, a pair a row.

    assays : (K,), of each label
    """
    # Each once, in the labels' order, as in the table of scores.
    names = list(dict.fromkeys(assays))
    head = ["AUROC / AUPRC", "against"]
    for name in names:
        head.append(f"{name}, {np.sum(assays == name)} labels")
    rows = [head]
    for model, rival, difference in against(scores, rivals):
        cells = [assay_cell(difference, assays == name) for name in names]
        rows.append([model, rival, *cells])
    # Of one assay, or one model, the table above says it all.
    if len(names) == 1 or len(rows) == 1:
        return ""
    return (
        "\nThe same, assay by assay; tie: the interval for these labels on other DNA "
        f"holds 0.\n\n{markdown(rows)}"
    )


def assay_cell(difference, labels):
    """ "+0.0181 / -0.0021 (tie)", the means of both scores over some labels."""
    parts = []
    for column in range(2):
        whole = difference.whole[labels, column]
        without = difference.without[:, labels, column]
        # Too few of a label may lie in the test split to score it.
        if not always_scored(whole, without).any():
            return "-"
        mean, low, high = other_dna(whole, without)
        tie = " (tie)" if low <= 0 <= high else ""
        parts.append(f"{mean:+.4f}{tie}")
    return " / ".join(parts)


def difference_cells(whole, without, factors):
    # All of these are of the same labels.
    scored = always_scored(whole, without)
    if not scored.any():
        return ["-"] * (len(DIFFERENCES_HEAD) - 3)  # less model, against, score
    whole = np.where(scored, whole, np.nan)
    mean, low, high = other_dna(whole, without)
    factors_low, factors_high = other_factors(whole, factors)
    verdict = "higher" if mean > 0 else "lower"
    if factors_low <= 0 <= factors_high:
        verdict += ", these labels only"
    # A tie, unless it would hold on other DNA.
    if low <= 0 <= high:
        verdict = "tie"
    # A mean may rest on few labels: in how many does the model lead?
    leads = whole[np.isfinite(whole)] > 0
    # A factor's sum has the sign of its mean.
    sums, _ = factor_sums(whole, factors)
    return [
        f"{mean:+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        f"{factors_low:+.4f} to {factors_high:+.4f}",
        f"{leads.sum()} of {len(leads)}",
        f"{(sums > 0).sum()} of {len(sums)}",
        verdict,
    ]


def mean_and_spread(values):
    """ "mean ± standard deviation" of several values, "-" of none."""
    if not values:
        return "-"
    text = f"{np.mean(values):.4f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.4f}"
    return text


def in_brackets(first, others):
    """ "first (others)"."""
    if not others:
        return first
    return f"{first} ({' '.join(others)})"


def learning_curve(folders, output):
    """Scores of finished runs of several sizes as `output`.md and `output`.png.

    All must be scored on one test set.
    """
    runs = read_runs(folders)
    tests = {}
    for run in runs:
        # Two test sets that agree in all of these are taken as one.
        test = (run["test_windows"], run["labels_scored"], run["base_rate"])
        tests[test] = str(run["folder"])
    models = {}  # {model: {windows: runs}}
    # Of one line, the number of windows is the x axis. A backend changes how long it
    # takes, which no curve shows, and scores by their rounding.
    free = ("seed", "limit", "data_files", "backend")
    for model, group in group_runs(runs, free).items():
        models[model] = by_windows(group)
    if len(tests) > 1:
        raise BadInput(
            f"{' and '.join(tests.values())} have different test sets: "
            "score on one --test-data"
        )
    all_sizes = set()
    for sizes in models.values():
        all_sizes |= sizes.keys()
    all_sizes = sorted(all_sizes)
    table = curve_table(models, all_sizes)
    figure = draw_curve(models, all_sizes)
    save_side_by_side(table, {"": figure}, output, runs[-1]["simulated"])


def by_windows(runs):
    """{training windows: runs}."""
    sizes = {}
    for run in runs:
        if "train_windows" not in run:
            raise BadInput(f"{run['folder']} is of an older version: train again")
        same_size = sizes.setdefault(run["train_windows"], [])
        # A --limit above all windows is none: the same run twice is no second seed.
        seeds = [one["settings"]["seed"] for one in same_size]
        if run["settings"]["seed"] not in seeds:
            same_size.append(run)
    return sizes


def curve_table(models, sizes):
    """Markdown of {model: {windows: runs}}, a column a size."""
    rows = [["AUROC / AUPRC"]]
    for windows in sizes:
        rows[0].append(f"{windows:,} windows")
    for model, runs in models.items():
        row = [model]
        for windows in sizes:
            own = runs.get(windows, [])
            auroc = mean_and_spread([run["auroc"] for run in own])
            auprc = mean_and_spread([run["auprc"] for run in own])
            row.append(f"{auroc} / {auprc}")
        rows.append(row)
    return markdown(rows)


# ---- figures


def draw_curve(models, sizes):
    """Means over labels against training windows, 95 % on other DNA as bands."""
    figure, axes = danq.subplots(1, 2, figsize=(13, 4.5))
    # Read once, for both panels: {model: {windows: Scores}}.
    scores = {}
    for model, runs in models.items():
        scores[model] = {windows: scores_of(runs[windows]) for windows in sorted(runs)}
    for column, measure in enumerate(("auroc", "auprc")):
        axis = axes[column]
        lines = {}
        for model, sizes_of_model in scores.items():
            line = []
            lows = []
            highs = []
            for windows, own in sizes_of_model.items():
                whole = own.whole[:, column]
                mean, low, high = other_dna(whole, own.without[..., column])
                line.append((windows, mean))
                lows.append(low)
                highs.append(high)
            axis.fill_between(list(sizes_of_model), lows, highs, alpha=0.15)
            lines[model] = line
        draw_lines(axis, lines, dashed=yardsticks_of(models))
        axis.set(xscale="log", xlabel="training windows", ylabel=measure.upper())
        axis.set(xticks=sizes, xticklabels=sizes)
        axis.minorticks_off()
    return figure


def yardsticks_of(models):
    """Names of the models that learn no features."""
    names = []
    for model, runs in models.items():
        first = next(iter(runs.values()))[0]
        if first["settings"].get("features", "autoencoder") != "autoencoder":
            names.append(model)
    return names


def draw_lines(axis, lines, dashed=()):
    """Draw {name: [(x, y), ...]}, names at the right, sorted by their ends."""
    names = sorted(lines, key=lambda name: lines[name][-1][1])
    # Names stand one above the other, so that none covers another.
    for i, (name, points) in enumerate(lines.items()):
        style = "--" if "val_" in name or name in dashed else "-"
        axis.plot(*zip(*points, strict=True), marker="osD^v<>"[i % 7], linestyle=style)
        height = (names.index(name) + 0.5) / len(names)
        axis.annotate(
            # In lines, so that room is left for the lines that are drawn.
            name.replace(", ", ",\n"),
            points[-1],
            (1.08, height),
            va="center",
            textcoords="axes fraction",
            # From the middle of the name's left edge.
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "color": "gray"},
            annotation_clip=False,
        )


def draw_comparison(groups, scores):
    """A row for each model, the best on top: mean and interval, a dot for each run."""
    base = next(iter(groups.values()))[0]
    # From below: the lowest AUROC first.
    models = sorted(groups, key=lambda model: np.nanmean(scores[model].whole[:, 0]))
    titles = {
        "auroc": "AUROC, 95 % on other DNA",
        "auprc": "AUPRC, 95 % on other DNA",
        "training_seconds": "training (s)",
    }
    size = (13, 2 + 0.4 * len(groups))
    figure, axes = danq.subplots(1, 3, figsize=size, sharey=True)
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for height, model in enumerate(models):
            values = [run[key] for run in groups[model]]
            axis.plot(values, [height] * len(values), "ok", alpha=0.6)
            # Seconds have no interval.
            if key in danq.MEASURES:
                column = int(key == "auprc")
                own = scores[model]
                _, low, high = other_dna(own.whole[:, column], own.without[..., column])
                axis.plot([low, high], [height, height], color=".5")
        draw_marks(axis, key, base)
        axis.set_xlabel(title)
        axis.grid(axis="y", alpha=0.4)
    axes[0].set(yticks=range(len(models)), yticklabels=models)
    axes[0].set(ylim=(-0.5, len(models) - 0.5))
    axes[2].set_xscale("log")
    # Within a decade, too, more than one number: 200, 500, 1000.
    axes[2].xaxis.get_major_locator().set_params(subs=(1, 2, 5))
    axes[2].xaxis.set_major_formatter("{x:g}")
    axes[2].xaxis.set_minor_formatter("")  # they overlap
    return figure


def draw_marks(axis, key, base):
    """Dotted lines at chance and at the published scores."""
    # A model without skill: AUROC .5, AUPRC the share of positives.
    marks = {"chance": {"auroc": [0.5], "auprc": [base["base_rate"]]}}
    marks |= danq.published(base)
    sides = ("center", "right", "left")
    for side, (name, numbers) in zip(sides, marks.items(), strict=False):
        if key in numbers:
            x = numbers[key][0]
            axis.axvline(x, color="k", linestyle="dotted")
            axis.text(x, 1.02, name, ha=side, transform=axis.get_xaxis_transform())


# What the paper's training printed, epoch by epoch; its Figs. 2 and 3.
PAPER_LOG = {
    "danq.py": {
        "loss": [0.0767],
        "val_loss": [0.0684, 0.0666],
        "acc": [0.9791],
        "val_acc": [0.9815],
    },
    "superq.py": {
        "acc": [0.2526, 0.2511, 0.2526, 0.2525, 0.2560, 0.2505, 0.2511, 0.2505],
    },
}
PAPER_LOSS = (1.4e8, 4.7e9)  # the autoencoder's, lowest and highest of eight epochs


def draw_training(runs):
    """Loss and accuracy of every run, epoch by epoch, and the paper's."""
    # Below one another, as in the paper's Figs. 2 and 3.
    figure, axes = danq.subplots(4, 1, figsize=(10, 16))
    panels = []
    for script in PAPER_LOG:
        panels += [(script, "loss"), (script, "acc")]
    for axis, (script, key) in zip(axes, panels, strict=True):
        lines = {}
        for column in (key, f"val_{key}"):
            values = PAPER_LOG[script].get(column)
            if values:
                lines[f"2018 paper: {column}"] = list(enumerate(values, 1))
        for run in runs:
            if run["settings"]["script"] == script:
                lines |= history_lines(run, key)
        if lines:
            draw_lines(axis, lines)
        if (script, key) == ("superq.py", "loss"):
            axis.axhspan(*PAPER_LOSS, alpha=0.2)
            axis.text(1, PAPER_LOSS[1], "2018 paper: loss, its eight epochs")
        scale = "log" if key == "loss" else "linear"
        axis.set(xlabel="epoch", ylabel=key, title=script, yscale=scale)
        # As plain numbers: 10^8 would be written as a formula.
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
        low, high = axis.get_ylim()
        if scale == "log" and high < 1000 * low:
            # .2 and .5, too: there may be no power of ten in sight.
            axis.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def history_lines(run, key):
    """{name: [(epoch, value)]} of a run's history, on training and on validation."""
    path = run["folder"] / "history.csv"
    if not path.is_file():  # yardsticks have none, nor have scores on other data
        return {}
    rows = danq.read_csv(path)
    lines = {}
    for column in (key, f"val_{key}"):
        points = numbers_of(rows, path, "epoch", column)
        points = points[np.isfinite(points[:, 1])]
        if len(points):
            lines[f"{run['name']}: {column}"] = points.tolist()
    return lines


def draw_labels(scores, assays):
    """AUROC label by label, the second model against the first, a panel an assay.

    scores : {model: Scores}, two of them;  assays : (K,)
    """
    first, second = scores
    x = scores[first].whole[:, 0]
    y = scores[second].whole[:, 0]
    names = list(dict.fromkeys(assays))[:12]
    size = (4 * len(names) + 1, 4.5)
    figure, axes = danq.subplots(1, len(names), figsize=size, squeeze=False)
    for i, name in enumerate(names):
        axis = axes[0, i]
        # This assay's labels that both models have scores of.
        own = (assays == name) & np.isfinite(x + y)
        colour = danq.COLOURS[i % len(danq.COLOURS)]
        axis.plot(x[own], y[own], "o", color=colour, alpha=0.6)
        axis.axline((0.5, 0.5), slope=1, color="k", linestyle="dashed")
        higher = (y > x)[own].sum()
        axis.set(
            title=f"{name}: higher in {higher} of {own.sum()} labels",
            xlabel=f"AUROC, {first}",
            ylabel=f"AUROC, {second}",
        )
    return figure


if __name__ == "__main__":
    danq.command_line(main)
