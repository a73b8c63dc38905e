"""Tests of danq.py and superq.py: by example in letters, then by property, then both scripts small.

    bash run_all.sh --test                           makes the environment, then runs this (about 7 minutes on 2 cores)
    DEEPSEA_DATA=dir pytest test_superq.py -k data   the data tests on the first rows of real files
"""
import csv
import functools
import gzip
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""                 # tolerances and equality to the bit are the CPU's

import danq
import superq
import h5py
import hypothesis
import hypothesis.strategies as st
import joblib
import keras
import numpy as np
import pytest
import scipy.io
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

HERE = Path(__file__).resolve().parent
SMALL = ["--epochs", "2", "--batch-size", "20", "--filters", "4", "--lstm-units", "2"]


def letters_to_onehot(text):
    """One-hot (1, len, 4) in the order A, G, C, T; any other letter is N."""
    return np.array([[[letter == base for base in "AGCT"] for letter in text]], np.uint8)


def random_data(n=60, K=9, seed=0):
    """One-hot (n, 1000, 4) whose second half is the reverse complement of the first, and labels (n, K)."""
    rng = np.random.default_rng(seed)
    X = np.eye(4, dtype=np.uint8)[rng.integers(4, size=(n // 2, 1000))]
    X[0, :5], X[1, 7] = 0, (1, 0, 1, 0)                 # an N stretch and an IUPAC M
    Y = (rng.random((n // 2, K)) < .3).astype(np.uint8)
    return np.concatenate([X, X[:, ::-1, ::-1]]), np.concatenate([Y, Y])


def split_of(X, K=3):
    """A Split of one-hot X (n, 1000, 4) and labels (n, K), all 1."""
    pack = lambda array: np.packbits(array.reshape(len(array), -1), axis=1)
    return danq.Split(pack(X), pack(np.ones((len(X), K), np.uint8)), K, len(X), False, False, "")


def write_hdf5(folder, split, X, Y, **options):
    with h5py.File(folder / f"{split}.mat", "w", userblock_size=512) as file:
        file.create_dataset(f"{split}xdata", data=X.transpose(1, 2, 0), **options)
        file.create_dataset(f"{split}data", data=Y.T)


def write_v5(folder, split, X, Y, **options):
    scipy.io.savemat(folder / f"{split}.mat", {f"{split}xdata": X.transpose(0, 2, 1), f"{split}data": Y}, **options)


def write_data(folder, K=9):
    for split in danq.SPLITS:
        (write_hdf5 if split == "train" else write_v5)(folder, split, *random_data(K=K))
    return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Real files where DEEPSEA_DATA names them, else a simulated set of 64 training windows."""
    if os.environ.get("DEEPSEA_DATA"):
        return Path(os.environ["DEEPSEA_DATA"]).resolve()
    folder = tmp_path_factory.mktemp("simulated") / "demo"
    danq.make_demo_data(folder, windows=64)
    return folder


@pytest.fixture(scope="session")
def runs(data_dir, tmp_path_factory):
    """Both scripts run small by subprocess, as a reader would: {name: (out_dir, what it printed)}."""
    folder, done = tmp_path_factory.mktemp("runs"), {}
    (folder / "more.fa").write_text(">chr\n" + "GATTACAT" * 1000 + "N" * 2500)
    for name, script, flags in (
            ("danq", "danq.py", SMALL), ("superq", "superq.py", SMALL), ("paper", "superq.py", ["--paper", *SMALL]),
            ("wishes", "superq.py", ["--label-weight", "0", "--layout", "2d", "--unlabelled", "more.fa", "--unlabelled-limit", "6", *SMALL]),
            *((features, "superq.py", ["--features", features]) for features in ("kmer", "untrained", "pca")),
            ("danq-forest", "superq.py", ["--features", "danq"])):
        flags = [*flags, "--data-dir", str(data_dir), "--out-dir", str(folder / name), "--limit", "40"]
        flags += ["--forest-trees", "6", "--forest-leaf", "4"] if script == "superq.py" else []
        run = subprocess.run([sys.executable, HERE / script, *flags], capture_output=True, text=True, cwd=folder)
        assert run.returncode == 0, run.stderr
        done[name] = folder / name, run.stdout, flags
    return done


# ---------------------------------------------------------------- data

def test_strands_in_letters():
    flipped = danq.reverse_complement(letters_to_onehot("GATTACAN"))
    np.testing.assert_array_equal(flipped, letters_to_onehot("NTGTAATC"))
    np.testing.assert_array_equal(danq.reverse_complement(flipped), letters_to_onehot("GATTACAN"))
    degenerate = np.array([[[1, 0, 1, 0]]])             # M is A or C; its complement K is T or G
    assert danq.reverse_complement(degenerate).tolist() == [[[0, 1, 0, 1]]]


@pytest.mark.parametrize("rows", (4000, 919, 177, 8, 3, 1))
def test_packing_round_trip(rows):
    bits = np.random.default_rng(rows).integers(2, size=(rows, 13), dtype=np.uint8)
    packed = danq.pack_bits(bits)
    np.testing.assert_array_equal(packed, np.packbits(bits.T, axis=1))
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1, count=rows), bits.T)
    shifted = np.unpackbits(danq.pack_bits(bits, 3), axis=1, count=rows + 3)
    np.testing.assert_array_equal(shifted, np.pad(bits.T, ((0, 0), (3, 0))))


@pytest.mark.parametrize("write, options", [
    (write_hdf5, {"chunks": (1000, 4, 16)}), (write_hdf5, {"chunks": (1, 4, 60), "compression": "gzip"}), (write_hdf5, {}),
    (write_hdf5, {"chunks": (7, 1, 11), "compression": "gzip", "shuffle": True}), (write_hdf5, {"chunks": (9, 4, 60)}), (write_hdf5, {"dtype": "f8"}),
    (write_v5, {}), (write_v5, {"do_compression": True})])
@pytest.mark.parametrize("budget", (1 << 28, 3000))
def test_data_layouts_and_formats(tmp_path, write, options, budget, monkeypatch):
    X, Y = random_data()
    monkeypatch.setattr(danq.pack_array, "__defaults__", (budget,))
    for split in ("train", "valid"):
        write(tmp_path, split, X, Y, **options)
        packed = danq.load_split(tmp_path, split, tmp_path / "packed")
        np.testing.assert_array_equal(danq.onehot(packed.X), X)
        np.testing.assert_array_equal(danq.unpack_labels(packed), Y)
        assert packed.strands and packed.windows == 30 and packed.X.shape == (60, 500) and packed.Y.shape == (60, 2)
        few = danq.load_split(tmp_path, split, tmp_path / "packed", limit=7)
        np.testing.assert_array_equal(danq.onehot(few.X), np.concatenate([X[:7], X[30:37]]))


@pytest.mark.parametrize("shape, chunks", [
    ((1000, 4, 4_400_000), (1000, 4, 64)), ((1000, 4, 4_400_000), (1, 4, 4_400_000)), ((1000, 4, 4_400_000), None),
    ((1000, 4, 4_400_000), (13, 1, 5000)), ((1000, 4, 4_400_000), (9, 4, 4_400_000)), ((919, 4_400_000), (919, 64)), ((919, 4_400_000), (1, 4_400_000)), ((919, 999), (7, 10))])
def test_tiles_cover_once_within_budget_and_read_chunks_once(shape, chunks):
    budget = 256 << 20
    rows, columns = danq.plan_tiles(shape, chunks, 1, budget)
    for cuts, total in ((rows, shape[0]), (columns, shape[-1])):
        assert [start for start, _ in cuts] == [0] + [stop for _, stop in cuts[:-1]] and cuts[-1][1] == total
    largest = max(b - a for a, b in rows) * max(b - a for a, b in columns) * (4 if len(shape) == 3 else 1)
    assert largest <= budget
    if chunks:
        assert all(start % chunks[0] == 0 for start, _ in rows) and all(start % chunks[-1] == 0 for start, _ in columns)


@pytest.mark.parametrize("chunk_rows", (1, 3, 5, 8))
def test_rows_of_chunks_that_share_a_byte(tmp_path, chunk_rows):
    Y = random_data(K=19)[1].T
    with h5py.File(tmp_path / "y.h5", "w") as file:
        danq.pack_array(file.create_dataset("Y", data=Y, chunks=(chunk_rows, 60)), np.arange(60), tmp_path / "y.npy", "Y", 60 * chunk_rows)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.packbits(Y.T, axis=1))


def test_data_first_rows_are_what_the_files_hold(data_dir, tmp_path):
    for split in danq.SPLITS:
        packed = danq.load_split(data_dir, split, tmp_path, limit=7)
        with danq.open_mat(data_dir / f"{split}.mat", (f"{split}xdata", f"{split}data")) as ((X, Y), _):
            half = X.shape[-1] // 2
            for rows, want in ((slice(0, 7), slice(0, 7)), (slice(7, 14), slice(half, half + 7))):
                np.testing.assert_array_equal(danq.onehot(packed.X[rows]), X[..., want].transpose(2, 0, 1))
                np.testing.assert_array_equal(danq.unpack_labels(packed, rows), Y[:, want].T)
        assert packed.strands and packed.windows == 7
        assert (danq.onehot(packed.X).sum(-1) <= 1).all(), "neither simulated nor ENCODE windows hold degenerate bases"


def test_data_packed_copy_is_reused_and_rebuilt_when_its_source_changed(tmp_path, capsys):
    write_v5(tmp_path, "valid", *random_data())
    for packs in (True, False):
        danq.load_split(tmp_path, "valid", tmp_path / "packed")
        assert ("packed" in capsys.readouterr().out) == packs
    X, Y = random_data(n=40)
    write_v5(tmp_path, "valid", X, Y)
    assert len(danq.load_split(tmp_path, "valid", tmp_path / "packed").X) == 40
    assert "packed" in capsys.readouterr().out


def test_a_spoilt_packed_copy_is_made_again(tmp_path):
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data")
    packed = tmp_path / "packed"
    whole = danq.load_split(tmp_path / "data", "train", packed)
    for spoil in (lambda: next(packed.rglob("train_X.npy")).write_bytes(b""), lambda: next(packed.rglob("train.json")).write_text("[]")):
        spoil()
        again = danq.load_split(tmp_path / "data", "train", packed)
        assert (again.X == danq.load_split(tmp_path / "data", "train", tmp_path / "other").X).all() and again.windows == whole.windows


def test_data_whose_halves_are_no_strands_is_scored_without_averaging(tmp_path):
    X, Y = random_data()
    X[40:] = X[:20]
    write_v5(tmp_path, "valid", X, Y)
    split = danq.load_split(tmp_path, "valid", tmp_path / "packed")
    assert not split.strands and split.windows == 60
    count = lambda rows: danq.onehot(split.X[rows])[:, :, 0].sum(1, keepdims=True)
    np.testing.assert_array_equal(danq.strand_mean(count, split, 7, 1), X[:, :, 0].sum(1, keepdims=True))


def test_strand_mean_is_the_mean_of_both_strands(tmp_path):
    X, Y = random_data()
    write_v5(tmp_path, "valid", X, Y)
    split = danq.load_split(tmp_path, "valid", tmp_path / "packed")
    As = X[:, :, 0].sum(1, keepdims=True)
    mean = danq.strand_mean(lambda rows: danq.onehot(split.X[rows])[:, :, 0].sum(1, keepdims=True), split, 7, 1)
    np.testing.assert_allclose(mean, (As[:30] + As[30:]) / 2)


def test_batches_are_a_pure_function_of_seed_and_epoch(tmp_path):
    X, Y = random_data()
    write_v5(tmp_path, "train", X, Y)
    split = danq.load_split(tmp_path, "train", tmp_path / "packed")
    orders = {key: danq.Batches(split, 25, seed=key[0], epoch=key[1]).order.tolist() for key in ((1, 0), (1, 1), (2, 0))}
    assert orders[1, 0] == danq.Batches(split, 7, seed=1, epoch=0).order.tolist()
    assert len({tuple(order) for order in orders.values()}) == 3
    assert all(sorted(order) == list(range(60)) for order in orders.values())
    batches = danq.Batches(split, 25, seed=1, epoch=0)
    assert [len(batches[i][0]) for i in range(len(batches))] == [25, 25, 10]
    np.testing.assert_array_equal(batches[1][0], X[batches.order[25:50]])
    np.testing.assert_array_equal(batches[1][1], Y[batches.order[25:50]])


def test_simulated_data_look_like_deepsea(tmp_path):
    danq.make_demo_data(tmp_path / "demo", windows=400)
    split = danq.load_split(tmp_path / "demo", "train", tmp_path)
    labels = danq.load_labels(tmp_path / "demo", 919)
    X, Y = danq.onehot(split.X), danq.unpack_labels(split)
    assert split.simulated and split.strands and Y.shape == (800, 919) and .012 < Y.mean() < .03
    assert [sum(label[1] == assay for label in labels) for assay in ("DNase", "TF", "histone")] == [125, 690, 104]
    assert all("SIMULATED" in name for _, _, name in labels) and len({name for _, _, name in labels}) == 919
    codes = superq.base_codes(X)
    assert .36 < np.isin(codes[codes >= 0], (1, 2)).mean() < .50, "GC content"
    pairs = superq.words(codes, 2)
    CpG, GpC = (np.mean(pairs[pairs >= 0] == 4 * "AGCT".index(a) + "AGCT".index(b)) for a, b in ("CG", "GC"))
    assert CpG < .6 * GpC, "CpG is depleted"


# ---------------------------------------------------------------- networks

def test_published_sizes():
    model = danq.build_danq(919)
    assert model.count_params() == 46_926_479
    assert model.get_layer("motif_pool").output.shape == (None, 75, 320)
    assert model.get_layer("motif_grammar").output.shape == (None, 75, 640)
    assert model.get_layer("dense").input.shape == (None, 48_000)
    paper = superq.build_paper()
    assert paper.count_params() == 27_679_060
    ours = [superq.build(superq.parse_args(["--filters", "8", "--lstm-units", "2", *flags.split()])) for flags in (
        "--mend 0 --no-lstm", "--mend 1", "--mend 3", "--mend 4 --layout 2d", "--mixed-precision", "--no-lstm --layout 2d")]
    for autoencoder in (paper, superq.build_autoencoder(n_labels=919), *ours):
        assert superq.encoder_of(autoencoder).output.shape == (None, 500)
        bases = autoencoder.output["bases"] if isinstance(autoencoder.output, dict) else autoencoder.output
        assert bases.shape == (None, 1000, 4)


def test_convolution_is_rectified_unless_linear():
    X, _ = random_data(8)
    for activation, rectified in (("relu", True), ("linear", False)):
        model = danq.build_danq(3, 8, 2, activation)
        scan = keras.Model(model.inputs, model.get_layer("motif_scan").output).predict(X, verbose=0)
        assert (scan.min() >= 0) == rectified and scan.max() > 0


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_oracle(x, kernel, recurrent, bias):
    """Plain LSTM over (steps, features), gates in Keras' order i, f, c, o: hidden states (steps, units)."""
    units, states = recurrent.shape[0], []
    h, c = np.zeros(units), np.zeros(units)
    for step in x:
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


def test_numpy_oracle_of_the_trunk_and_independence_of_batch_mates():
    keras.utils.set_random_seed(0)
    X, _ = random_data(6)
    inputs = keras.Input((1000, 4))
    model = keras.Model(inputs, danq.trunk(inputs, 5, 3))
    model.set_weights([weight + np.random.default_rng(i).normal(0, .1, weight.shape) for i, weight in enumerate(model.get_weights())])
    kernel, bias, *lstm = model.get_weights()
    scan = np.array([np.einsum("pb,pbf->f", X[2, i:i + 26], kernel) + bias for i in range(975)])
    pooled = np.maximum(scan, 0).reshape(75, 13, 5).max(1)
    forward, backward = lstm_oracle(pooled, *lstm[:3]), lstm_oracle(pooled[::-1], *lstm[3:])[::-1]
    expected = np.concatenate([forward, backward], 1).ravel()
    np.testing.assert_allclose(model.predict(X, verbose=0)[2], expected, atol=1e-5)
    np.testing.assert_allclose(model.predict(X[2:3], verbose=0)[0], expected, atol=1e-5)
    np.testing.assert_allclose(model.predict(X[[5, 2, 0]], verbose=0)[1], expected, atol=1e-5)


def test_encoder_shares_weights():
    autoencoder = superq.build_autoencoder(4, 2)
    encoder, (X, _) = superq.encoder_of(autoencoder), random_data(4)
    before = encoder.predict(X, verbose=0)
    layer = autoencoder.get_layer("motif_scan")
    layer.set_weights([weight * 2 + .1 for weight in layer.get_weights()])
    assert not np.allclose(encoder.predict(X, verbose=0), before)


def test_unknown_bases_are_left_out_of_loss_and_accuracy():
    X = np.concatenate([letters_to_onehot("GATTACAN"), letters_to_onehot("NNNNNNNG")])
    X[0, 1] = 1, 0, 1, 0                                # an M: A or C
    np.testing.assert_array_equal(superq.known_bases(X), [[1, 0, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 1]])
    assert superq.base_codes(X)[0].tolist() == [1, -1, 3, 3, 0, 2, 0, -1]
    X, _ = random_data(6)                               # holds an N stretch and an M
    model = superq.build_autoencoder(4, 2)
    superq.compile_autoencoder(model, len(superq.MENDS), steps=1)       # a run of a single step has a schedule, too
    targets, weights = superq.rebuild(model, split_of(X))(X, np.arange(6))
    scores = model.evaluate(X, targets, sample_weight=weights, batch_size=6, verbose=0, return_dict=True)
    P, known = model.predict(X, verbose=0)["bases"], superq.known_bases(X)
    assert known.sum() == 6000 - 2 * 6
    assert scores["bases_acc"] == pytest.approx((P.argmax(-1) == X.argmax(-1))[known].mean())
    squares = np.square(model.predict(X, verbose=0)["composition"] - targets["composition"]).mean()
    assert scores["loss"] == pytest.approx(-np.log((P * X).sum(-1)[known]).mean() + squares, rel=1e-4)


def test_pooled_features_and_composition_are_strand_blind():
    X, _ = random_data(6)
    flipped = danq.reverse_complement(X)
    for layout in ("1d", "2d"):
        model = superq.build_autoencoder(4, 2, layout=layout)
        encoder = superq.encoder_of(model)
        check_strand_blind(encoder, X, flipped)
    rows = np.arange(6)
    compositions = [superq.rebuild(model, split_of(x))(x, rows)[0]["composition"] for x in (X, flipped)]
    np.testing.assert_array_equal(*compositions)


def check_strand_blind(encoder, X, flipped):
    Z, Z_flipped = (encoder.predict(x, verbose=0) for x in (X, flipped))
    np.testing.assert_allclose(Z[:, superq.DIGITS:], Z_flipped[:, superq.DIGITS:], atol=1e-4)
    assert np.abs(Z[:, :superq.DIGITS] - Z_flipped[:, :superq.DIGITS]).max() > .1


def test_kmers_and_markov_models_in_letters(tmp_path):
    counts = superq.kmer_counts(letters_to_onehot("GATTACANGATTACA"), k=2)[0]
    number = lambda pair: 4 * "AGCT".index(pair[0]) + "AGCT".index(pair[1])
    assert {pair: counts[number(pair)] for pair in ("GA", "AT", "TT", "TA", "AC", "CA", "AA")} == {
        "GA": 2, "AT": 2, "TT": 2, "TA": 2, "AC": 2, "CA": 2, "AA": 0}
    assert counts.sum() == 12                           # nothing across the N
    X = np.tile(letters_to_onehot("AC"), (60, 500, 1))
    write_v5(tmp_path, "valid", X, np.ones((60, 1), np.uint8))
    split = danq.load_split(tmp_path, "valid", tmp_path / "packed")
    np.testing.assert_allclose(superq.markov_model(split, 0)[0], (.5, 0, .5, 0), atol=1e-3)
    assert superq.markov_model(split, 2)[superq.words(superq.base_codes(letters_to_onehot("CA")), 2)[0, 0], 2] > .99


def test_nadam_of_2018_by_hand():
    """Two steps on one weight, worked with the formulas of Dozat (2016) and Keras 2's momentum schedule."""
    weight = keras.Variable(1.)
    optimizer = superq.Nadam2018(.1, beta_1=.9, beta_2=.999, epsilon=1e-8)
    expected, m, v, product = 1., 0., 0., 1.
    for t, gradient in ((1, .5), (2, -.2)):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        now, later = (.9 * (1 - .5 * .96 ** (.004 * s)) for s in (t, t + 1))
        product *= now
        m, v = .9 * m + .1 * gradient, .999 * v + .001 * gradient ** 2
        ahead = (1 - now) * gradient / (1 - product) + later * m / (1 - product * later)
        expected -= .1 * ahead / (np.sqrt(v / (1 - .999 ** t)) + 1e-8)
        assert float(keras.ops.convert_to_numpy(weight)) == pytest.approx(expected, rel=1e-5)


def planted_data(n, seed):
    """Sequences (n, 1000, 4) of random bases; half hold ten copies of a 12-mer: labels (n, 1)."""
    rng = np.random.default_rng(seed)
    codes, y = rng.integers(4, size=(n, 1000)), np.arange(n) % 2
    site = ["AGCT".index(base) for base in "TTCCAGGAATCG"]
    for row in np.flatnonzero(y):
        for at in rng.choice(np.arange(0, 980, 20), 10, replace=False):
            codes[row, at:at + 12] = site
    return np.eye(4, dtype=np.uint8)[codes], y[:, None].astype(np.uint8)


def test_a_planted_motif_is_found():
    keras.utils.set_random_seed(1)
    model = danq.build_danq(1, 16, 8)
    danq.compile_model(model, keras.optimizers.Adam(2e-3), "binary_crossentropy", [keras.metrics.BinaryAccuracy(name="acc")])
    model.fit(*planted_data(1000, 0), batch_size=50, epochs=8, verbose=0)
    X, Y = planted_data(200, 1)
    assert roc_auc_score(Y[:, 0], model.predict(X, verbose=0)[:, 0]) > .9


# ---------------------------------------------------------------- scoring

def test_scoring_by_hand():
    y, p = np.array([1, 0, 1, 0]), np.array([.9, .8, .7, .1])
    scores = danq.score_label(y, p, .75)
    assert scores["auroc"] == pytest.approx(3 / 4)                      # 3 of the 4 (positive, negative) pairs in order
    assert scores["auprc"] == pytest.approx(.5 * 1 + .5 * 2 / 3)
    assert scores["f1"] == pytest.approx(2 * 1 / (2 + 2))               # called: one right, one wrong; one missed
    assert scores["recall_at_10fdr"] == pytest.approx(.5)
    assert danq.best_threshold(y, p) == pytest.approx(.7)               # F1 .8 there, .667 at .9
    assert danq.best_threshold(np.zeros(4), p) == .5


def test_scoring_against_scikit_learn_with_one_class_labels():
    rng = np.random.default_rng(0)
    Y = (rng.random((300, 5)) < .3).astype(np.uint8)
    P = np.round(rng.random((300, 5)) + .5 * Y, 2).astype(np.float32)   # rounded: ties
    Y[:, 3], Y[:, 4] = 0, 1
    labels = [(i, "TF" if i < 2 else "DNase", f"label {i}") for i in range(5)]
    rows, means = danq.evaluate(P, Y, labels, danq.best_thresholds(P, Y))
    assert means["all"]["labels"] == 3 and means["DNase"]["labels"] == 1 and rows[3]["auroc"] is None is rows[4]["f1"]
    for row in rows[:3]:
        y, p = Y[:, row["column"]], P[:, row["column"]]
        assert row["auroc"] == pytest.approx(roc_auc_score(y, p)) and row["auprc"] == pytest.approx(average_precision_score(y, p))
        assert row["f1"] == pytest.approx(f1_score(y, p >= row["threshold"]))
        assert row["f1"] == pytest.approx(max(f1_score(y, p >= t) for t in np.unique(p)))
    assert means["TF"]["auroc"] == pytest.approx(np.mean([row["auroc"] for row in rows[:2]]))


# ---------------------------------------------------------------- forest

def forest_data(n=400, K=7):
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(n, 20)).astype(np.float16).astype(np.float32)
    return Z, (Z[:, :K] + .5 * rng.normal(size=(n, K)) > .8).astype(np.uint8)


@pytest.mark.parametrize("K", (7, 1))
def test_forest_is_scikit_learns_own_when_projection_is_off(K):
    Z, Y = forest_data(K=K)
    ours = superq.fit_forest(Z, Y, trees=30, leaf=5, projections=0, seed=3, bootstrap=False)
    theirs = RandomForestRegressor(30, min_samples_leaf=5, max_features="sqrt", bootstrap=False, random_state=3)
    theirs.fit(Z, Y if K > 1 else Y[:, 0])
    new = np.random.default_rng(1).normal(size=(100, 20)).astype(np.float32)
    np.testing.assert_allclose(superq.predict_forest(ours, new), theirs.predict(new).reshape(100, K), atol=1e-6)


def test_projected_forest_predicts_as_well_as_the_direct_one():
    Z, Y = forest_data(1500)
    scores = {}
    for projections in (0, 32):
        forest = superq.fit_forest(Z[:1000], Y[:1000], trees=40, leaf=5, projections=projections)
        P = superq.predict_forest(forest, Z[1000:])
        scores[projections] = np.mean([roc_auc_score(Y[1000:, i], P[:, i]) for i in range(7)])
    assert scores[32] > scores[0] - .02 and scores[0] > .75, scores


def test_forest_grown_on_samples_streams_and_survives_its_file(tmp_path):
    Z, Y = forest_data()
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["Z"], file["Y"] = Z.astype(np.float16), Y
        forest = superq.fit_forest(file["Z"], file["Y"], trees=25, leaf=5, samples=100)
    superq.save_forest(tmp_path / "f.npz", forest)
    np.testing.assert_array_equal(superq.predict_forest(superq.load_forest(tmp_path / "f.npz"), Z), superq.predict_forest(forest, Z))
    reached = superq.leaves_of(forest, Z)               # leaf means are over all rows, not only the 100 drawn
    assert (reached.sum(1) == 25).all()
    sizes = np.asarray(reached.sum(0)).ravel()
    np.testing.assert_allclose((reached.T @ Y) / sizes[:, None], forest["means"], atol=1e-5)


def test_a_forest_that_holds_python_objects_is_refused(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)
    np.savez(tmp_path / "f.npz", format=superq.FOREST_FORMAT, means=np.array([Malicious()], object))
    with pytest.raises(danq.BadInput, match="allow_pickle=False.* must be a forest of plain arrays"):
        superq.load_forest(tmp_path / "f.npz")
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- both scripts, small

def test_scripts_write_what_they_promise(runs, data_dir):
    K = len(danq.load_labels(data_dir, 919)) if not os.environ.get("DEEPSEA_DATA") else None
    for name, files in (("danq", {"model.keras", "history.csv"}), ("superq", {"model.keras", "history.csv", "encodings.h5", "forest.npz"}),
                        ("paper", {"model.keras", "encodings.h5"}), *((name, {"encodings.h5", "forest.npz"}) for name in ("wishes", "kmer", "untrained", "pca", "danq-forest"))):
        out, printed, _ = runs[name]
        assert files | {"args.json", "metrics.csv", "summary.json"} <= {path.name for path in out.iterdir()}
        assert not [path for path in out.iterdir() if ".tmp" in path.name]
        summary = json.loads((out / "summary.json").read_text())
        with open(out / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["column", "assay", "name", "positives", "base_rate", "auroc", "auprc", "f1", "threshold", "recall_at_10fdr"]
        assert len(rows) == summary["labels"] and (K is None or len(rows) == K)
        scored = [float(row["auroc"]) for row in rows if row["auroc"]]
        assert len(scored) == summary["labels_scored"] and np.mean(scored) == pytest.approx(summary["means"]["all"]["auroc"])
        assert f"{summary['labels_scored']} of {summary['labels']} labels" in printed
        if not os.environ.get("DEEPSEA_DATA"):
            assert "SIMULATED" in printed and summary["simulated"] and all("SIMULATED" in row["name"] for row in rows)
        versions = json.loads((out / "args.json").read_text())
        assert {"keras", "numpy"} <= versions["versions"].keys() and versions["device"]
    with open(runs["danq"][0] / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert list(history[0])[:6] == ["epoch", "seconds", "loss", "acc", "val_loss", "val_acc"] and len(history) == 2
    assert "commonest base" in runs["superq"][1] and "order 2" in runs["superq"][1]
    assert "always .25: loss 0.1875" in runs["paper"][1]


def test_encodings_round_trip(runs, data_dir):
    out, _, flags = runs["superq"]
    args = superq.parse_args(flags)
    splits, _ = danq.load_data(args)
    encoder = superq.encoder_of(keras.saving.load_model(out / "model.keras", compile=False))
    with h5py.File(out / "encodings.h5") as file:
        about = json.loads(file.attrs["about"])
        assert about["features"] == "autoencoder" and about["data"] == str(data_dir)
        for name, split in splits.items():
            assert file[f"{name}/Z"].shape == (len(split.X), 500) and file[f"{name}/Z"].dtype == np.float16
            np.testing.assert_allclose(file[f"{name}/Z"][:], encoder.predict(danq.onehot(split.X), verbose=0), atol=.01)
            np.testing.assert_array_equal(file[f"{name}/Y"][:], danq.unpack_labels(split))


def test_same_seed_same_result_and_another_seed_another(runs, tmp_path):
    for name, module in (("danq", danq), ("superq", superq)):
        out, _, flags = runs[name]
        flags = [str(tmp_path / name) if flag == str(out) else flag for flag in flags]
        module.main(flags)
        assert (tmp_path / name / "metrics.csv").read_bytes() == (out / "metrics.csv").read_bytes()
        first, again = (keras.saving.load_model(folder / "model.keras", compile=False).get_weights() for folder in (out, tmp_path / name))
        assert all(np.array_equal(a, b) for a, b in zip(first, again))
    module.main([*flags, "--seed", "2", "--restart"])
    assert (tmp_path / name / "metrics.csv").read_bytes() != (out / "metrics.csv").read_bytes()


def test_a_finished_run_is_kept(runs, capsys):
    out, _, flags = runs["kmer"]
    kept = lambda: {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != ".lock"}
    before = kept()
    superq.main(flags)
    assert "finished already" in capsys.readouterr().out
    with pytest.raises(danq.BadInput, match="seed was 1337, now 5"):
        superq.main([*flags, "--seed", "5"])
    assert before == kept()


def test_forest_alone_on_kept_encodings(runs, tmp_path, capsys):
    out, _, flags = runs["superq"]
    flags = ["--out-dir", str(out), "--reuse-encodings", "--forest-leaf", "4", "--forest-trees", "9"]
    encodings = (out / "encodings.h5").stat().st_mtime_ns
    superq.main(flags)
    assert "[3/3] forest: 9 trees" in (printed := capsys.readouterr().out) and "[1/3]" not in printed
    assert (out / "encodings.h5").stat().st_mtime_ns == encodings
    assert json.loads((out / "summary.json").read_text())["reconstruction"]["base_accuracy"] > 0
    assert json.loads((out / "args.json").read_text())["settings"]["epochs"] == 2
    superq.main([*flags[:-1], "6"])                     # as it was


def test_comparison_sets_runs_side_by_side(runs, tmp_path, capsys):
    folders = [runs[name][0] for name in runs]
    superq.main(["--compare", *map(str, folders)])
    table = (folders[0].parent / "comparison.md").read_text()
    assert table in capsys.readouterr().out and (folders[0].parent / "comparison.png").stat().st_size > 10_000
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        line = next(line for line in table.splitlines() if line.startswith(f"| {summary['model']} "))
        assert f"{summary['means']['all']['auprc']:.4f}" in line
    assert ("SIMULATED" in table) == (not os.environ.get("DEEPSEA_DATA"))
    other = tmp_path / "other"
    other.mkdir()
    for name in ("summary.json", "args.json"):
        (other / name).write_text((folders[1] / name).read_text().replace('"limit": 40', '"limit": 41'))
    check_one_line(lambda: superq.main(["--compare", str(folders[0]), str(other)]), capsys, "limit is 41, not 40")


def test_seeds_become_mean_and_spread(runs, tmp_path, capsys):
    for i, auroc in enumerate((.6, .7, .9)):
        (tmp_path / str(i)).mkdir()
        summary = json.loads((runs["kmer"][0] / "summary.json").read_text())
        summary["means"]["all"]["auroc"] = auroc
        (tmp_path / str(i) / "summary.json").write_text(json.dumps(summary))
        (tmp_path / str(i) / "args.json").write_bytes((runs["kmer"][0] / "args.json").read_bytes())
    superq.main(["--compare", *(str(tmp_path / str(i)) for i in range(3))])
    assert "4-mers -> forest (3 seeds)" in (printed := capsys.readouterr().out) and "| 0.7333 ± 0.1528 (" in printed


def test_runs_that_differ_in_more_than_their_seed_are_rows_of_their_own(runs, tmp_path, capsys):
    for i, change in enumerate(({"seed": 1}, {"seed": 2}, {"seed": 2, "forest_trees": 9})):
        (tmp_path / str(i)).mkdir()
        shutil.copy(runs["kmer"][0] / "summary.json", tmp_path / str(i))
        record = json.loads((runs["kmer"][0] / "args.json").read_text())
        (tmp_path / str(i) / "args.json").write_text(json.dumps(record | {"settings": record["settings"] | change}))
    superq.main(["--compare", str(tmp_path / "0"), str(tmp_path / "1"), "--output", str(tmp_path / "seeds.v1")])
    assert "4-mers -> forest (2 seeds) |" in capsys.readouterr().out and (tmp_path / "seeds.v1.png").is_file()
    superq.main(["--compare", *(str(tmp_path / str(i)) for i in range(3)), "--output", str(tmp_path / "all.md")])
    assert [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if "forest [" in line and line[0] == "|"] == [
        f"4-mers -> forest [{i}]" for i in range(3)] and (tmp_path / "all.md").is_file()


def test_foreign_data_are_scored_by_label_name(runs, data_dir, tmp_path, capsys):
    """The test split itself gives the run's own scores; without names that match, only bases are scored."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "test.mat").write_bytes((data_dir / "test.mat").read_bytes())
    names = (data_dir / "labels.tsv").read_text().splitlines() if (data_dir / "labels.tsv").is_file() else None
    for name, module in (("danq", danq), ("superq", superq)):
        out = runs[name][0]
        before = (out / "metrics.csv").read_bytes()
        if names:
            (foreign / "labels.tsv").write_text("\n".join(names))
        flags = ["--out-dir", str(out), "--test-data", str(foreign), "--limit", "40"]
        module.main(flags)
        summary, there = (json.loads((folder / "summary.json").read_text()) for folder in (out, out / "test-foreign"))
        assert there["means"] == summary["means"] and there["data"] == str(foreign) and (out / "metrics.csv").read_bytes() == before
        if not names:
            continue
        kept = [line if i % 3 == 1 else line + "-other" for i, line in enumerate(names)]
        (foreign / "labels.tsv").write_text("\n".join([names[0], *kept[1:]]))
        module.main(flags)
        with open(out / "metrics.csv", newline="") as ours, open(out / "test-foreign" / "metrics.csv", newline="") as theirs:
            expected, rows = list(csv.DictReader(ours))[::3], list(csv.DictReader(theirs))
        assert rows == expected and f"{len(rows)} of {len(names) - 1} labels are there" in capsys.readouterr().out
        (foreign / "labels.tsv").write_text("\n".join([names[0], *(line + "-other" for line in names[1:])]))
        module.main(flags)
        there = json.loads((out / "test-foreign" / "summary.json").read_text())
        assert there["labels"] == 0 and (name == "danq" or there["reconstruction"]["mse"] == pytest.approx(summary["reconstruction"]["mse"]))


def test_unlabelled_sequences_join_the_reconstruction_alone(tmp_path):
    X, _ = random_data(6)
    split, target = split_of(X[:4]), None
    joined = danq.Joined(split.X, split_of(X).X[4:])
    assert len(joined) == 6
    np.testing.assert_array_equal(danq.onehot(joined[np.array([5, 0, 4, 3])]), X[[5, 0, 4, 3]])
    spread = danq.Joined(split.X, np.arange(10, dtype=np.uint8)[:, None].repeat(500, 1), limit=5)
    assert spread[np.arange(4, 9)][:, 0].tolist() == [0, 2, 4, 6, 8]
    model = superq.build_autoencoder(4, 2, n_labels=3)
    rows = np.array([5, 0, 4, 3])
    targets, weights = superq.rebuild(model, split)(danq.onehot(joined[rows]), rows)
    assert weights["labels"].tolist() == [0, 1, 0, 1] and targets["labels"][1].all() and weights["bases"].any(1).all()
    superq.compile_autoencoder(model, len(superq.MENDS), 10, label_weight=2.)
    scores = [model.evaluate(danq.onehot(joined[rows]), targets | {"labels": labels}, sample_weight=weights, verbose=0)
              for labels in (targets["labels"], targets["labels"] * np.array([[7], [1], [7], [1]]))]
    assert scores[0] == scores[1], "what is not labelled does not count"


def test_unlabelled_files_are_packed_from_fasta_and_mat(tmp_path, capsys):
    X, Y = np.eye(4, dtype=np.uint8)[np.random.default_rng(0).integers(4, size=(6, 1000))], np.ones((6, 3), np.uint8)
    letters = ["".join("AGCT"[i] for i in row.argmax(-1)) for row in X[2:5]]
    (tmp_path / "g.fa.gz").write_bytes(gzip.compress((">a\n" + "".join(letters) + ">b\n" .rjust(4, "\n") + "N" * 999 + "A\n").encode()))
    np.testing.assert_array_equal(danq.onehot(danq.load_unlabelled(tmp_path / "g.fa.gz", tmp_path / "packed")), X[2:5])
    write_hdf5(tmp_path, "train", X, Y, chunks=(100, 4, 2))
    scipy.io.savemat(tmp_path / "x.mat", {"xdata": X.transpose(0, 2, 1)})
    for name in ("train.mat", "x.mat"):
        np.testing.assert_array_equal(danq.onehot(danq.load_unlabelled(tmp_path / name, tmp_path / "packed")), X)
    scipy.io.savemat(tmp_path / "y.mat", {"labels": Y})
    (tmp_path / "n.fa").write_text(">n\n" + "N" * 3000)
    for name, says in (("y.mat", "no variable .* or xdata"), ("n.fa", "no window of 1000 bases"), ("none.fa", "none.fa is missing")):
        check_one_line(lambda: danq.load_unlabelled(tmp_path / name, tmp_path / "packed"), capsys, says)
    assert not list(tmp_path.rglob("*.tmp*"))


def test_pca_and_danq_features_are_what_they_are_called(runs, data_dir):
    X = danq.onehot(danq.load_data(danq.parse_args(runs["danq"][2]))[0]["test"].X)
    with h5py.File(runs["danq-forest"][0] / "encodings.h5") as file:
        model = danq.load_model(runs["danq"][0])
        dense = keras.Model(model.inputs, model.get_layer("dense").output).predict(X, verbose=0)
        assert file["test/Z"].shape[1] == 925
        np.testing.assert_allclose(file["test/Z"][:], dense, rtol=2e-3, atol=1e-4)
    train = danq.onehot(danq.load_data(danq.parse_args(runs["danq"][2]))[0]["train"].X).reshape(-1, 4000).astype(np.float64)
    with h5py.File(runs["pca"][0] / "encodings.h5") as file:
        Z = file["train/Z"][:].astype(np.float64)
    spread = np.linalg.svd(train - train.mean(0), compute_uv=False)[:5] ** 2 / (len(train) - 1)
    np.testing.assert_allclose(Z[:, :5].var(0, ddof=1), spread, rtol=.01)


def test_training_stops_after_its_seconds(runs, tmp_path, capsys):
    _, _, flags = runs["danq"]
    danq.main([*flags, "--out-dir", str(tmp_path / "danq"), "--epochs", "50", "--max-seconds", "1"])
    summary = json.loads((tmp_path / "danq" / "summary.json").read_text())
    assert summary["training"]["epochs"] < 50 and "its seconds are over" in capsys.readouterr().out
    assert summary["model"] == "DanQ stopped after 1 s"


def test_published_figures_are_printed_beside_919_real_labels(capsys, tmp_path):
    rng = np.random.default_rng(0)
    Y, P = rng.integers(2, size=(20, 919)), rng.random((20, 919))
    labels = danq.load_labels(tmp_path, 919)
    for simulated in (False, True):
        danq.finish_run(tmp_path, *danq.evaluate(P, Y, labels, danq.best_thresholds(P, Y)), {"simulated": simulated})
        assert ("0.9384" in capsys.readouterr().out) == (not simulated)
    assert [labels[i][1] for i in (0, 124, 125, 814, 815, 918)] == ["DNase", "DNase", "TF", "TF", "histone", "histone"]


# ---------------------------------------------------------------- annotating FASTA

def test_fasta_is_tiled_with_coordinates(tmp_path):
    rng = np.random.default_rng(0)
    long = "".join(rng.choice(list("ACGT"), 1450))
    lines = "\r\n".join(long.lower()[i:i + 61] for i in range(0, 1450, 61))
    text = f">long chr1 of something\r\n{lines}\r\n>short\r\nGATTACARN-\r\n>empty\r\n\r\n>whole\r\n{long[:1000]}"
    (tmp_path / "a.fa").write_bytes(text.encode())
    (tmp_path / "a.fa.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.fa", "a.fa.gz"):
        windows = list(danq.fasta_windows(tmp_path / name))
        assert [window[:4] for window in windows] == [
            ("long", 0, 1000, False), ("long", 200, 1200, False), ("long", 400, 1400, False), ("long", 450, 1450, False),
            ("short", 0, 10, True), ("whole", 0, 1000, False)]
        assert all(window[4].decode() == long[window[1]:window[2]] for window in windows[:4] + windows[5:])
        assert windows[4][4] == b"N" * 495 + b"GATTACARN-" + b"N" * 495
    X = danq.letters_to_onehot(windows, "a.fa")
    np.testing.assert_array_equal(X[4, 495:502], letters_to_onehot("GATTACA")[0])
    assert X[4, 502].tolist() == [1, 1, 0, 0] and X[4, 503:].sum() == 0 == X[4, :495].sum()      # R is A or G


def test_both_scripts_annotate_fasta_strand_blind(runs, tmp_path):
    X = np.eye(4, dtype=np.uint8)[np.random.default_rng(0).integers(4, size=(6, 1000))]
    letters = lambda row: "".join(np.array(list("AGCT"))[row.argmax(-1)])
    flipped = danq.reverse_complement(X)
    (tmp_path / "x.fa").write_text("".join(f">s{i}\n{letters(x)}\n>r{i}\n{letters(y)}\n" for i, (x, y) in enumerate(zip(X, flipped))))
    for name, module in (("danq", danq), ("superq", superq), ("kmer", superq)):
        out, _, _ = runs[name]
        command = ["--predict", str(tmp_path / "x.fa"), "--out-dir", str(out), "--batch-size", "5", "--output"]
        module.main([*command, str(tmp_path / "p.tsv")])
        module.main([*command, str(tmp_path / "p.h5")])
        with open(tmp_path / "p.tsv") as file:
            head, *rows = csv.reader(file, delimiter="\t")
        assert head[:4] == ["record", "start", "end", "padded"] and len(set(head)) == len(head) and len(rows) == 12
        P = np.array([row[4:] for row in rows], float)
        np.testing.assert_allclose(P[::2], P[1::2], atol=1e-5)          # a sequence and its reverse complement
        with h5py.File(tmp_path / "p.h5") as file:
            np.testing.assert_allclose(file["scores"][:], P, rtol=1e-4, atol=1e-6)
            assert file["record"][:2].tolist() == [b"s0", b"r0"] and file["labels"].asstr()[:].tolist() == head[4:]
    model = danq.load_model(runs["danq"][0])
    danq.main(["--predict", str(tmp_path / "x.fa"), "--out-dir", str(runs["danq"][0]), "--output", str(tmp_path / "p.tsv")])
    P = np.loadtxt(tmp_path / "p.tsv", skiprows=1, usecols=4)
    expected = (model.predict(X, verbose=0) + model.predict(flipped, verbose=0))[:, 0] / 2
    np.testing.assert_allclose(P[::2], expected, atol=1e-4)


@pytest.mark.parametrize("content, says", [
    (b"MKVLA\n", "is not FASTA"), (b">p\nMKVLAEE\n", "record p holds 'L' at base 4"), (b"", "holds no sequence"), (b">a\n\n", "holds no sequence"),
    (gzip.compress(b">a\nGATTACA\n" * 99)[:-20], "damaged gzip")])
def test_bad_fasta_gives_one_clear_line(runs, tmp_path, capsys, content, says):
    (tmp_path / "x.fa").write_bytes(content)
    command = ["--predict", str(tmp_path / "x.fa"), "--out-dir", str(runs["danq"][0]), "--output", str(tmp_path / "p.tsv")]
    check_one_line(lambda: danq.main(command), capsys, says)
    command[3] = str(runs["superq"][0])
    check_one_line(lambda: danq.main(command), capsys, "holds a run of superq.py")
    assert not (tmp_path / "p.tsv").exists()


# ---------------------------------------------------------------- bad input

def truncate(folder):
    path = folder / "train.mat"
    path.write_bytes(path.read_bytes()[:3000])


def edit(split="train", X=lambda X: X, Y=lambda Y: Y, write=write_hdf5):
    """A way to spoil a data folder: rewrite one split from changed arrays."""
    def spoil(folder):
        original = random_data()
        write(folder, split, X(original[0]), Y(original[1]))
    return spoil


def rename_key(folder):
    with h5py.File(folder / "train.mat", "r+") as file:
        file.move("traindata", "labels")


def damage_chunks(folder):
    write_hdf5(folder, "train", *random_data(), chunks=(1000, 4, 60), compression="gzip")
    path = folder / "train.mat"
    blob = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["trainxdata"].id.get_chunk_info(0)
    blob[chunk.byte_offset + 100:chunk.byte_offset + 3000] = bytes(2900)
    path.write_bytes(blob)


def with_value(value):
    def change(array):
        array = array.astype(float)
        array[3, 2] = value
        return array
    return change


@pytest.mark.parametrize("spoil, says", [
    (lambda folder: (folder / "valid.mat").unlink(), "valid.mat is missing"),
    (truncate, "train.mat.*download it again"),
    (lambda folder: (folder / "test.mat").write_text("hello\n" * 99), "test.mat is damaged .* whole MATLAB"),
    (lambda folder: (folder / "test.mat").write_bytes(b""), "test.mat is damaged .* whole MATLAB"),
    (lambda folder: (folder / "valid.mat").write_bytes((folder / "valid.mat").read_bytes()[:5000]), "valid.mat is damaged .* whole MATLAB"),
    (rename_key, "train.mat has no variable traindata"),
    (damage_chunks, "train.mat is damaged"),
    (edit(X=lambda X: X.transpose(0, 2, 1)), r"trainxdata has shape \(4, 1000, 60\)"),
    (edit(Y=lambda Y: Y[:50]), r"traindata has shape \(9, 50\).*60 sequences"),
    (edit(Y=lambda Y: Y * 2), "traindata must hold 0 and 1 only, holds 2"),
    (edit(Y=with_value(np.nan)), "traindata must hold 0 and 1 only, holds nan"),
    (edit("valid", Y=with_value(-1), write=write_v5), "validdata must hold 0 and 1 only, holds -1"),
    (edit("test", X=lambda X: X * 3, write=write_v5), "testxdata must hold 0 and 1 only, holds 3"),
    (edit("test", Y=lambda Y: Y[:, :5], write=write_v5), "the splits differ in their number of labels"),
    (lambda folder: (folder / "labels.tsv").write_text("column\tassay\tname\n0\tTF\tCTCF\n"), "labels.tsv must have"),
])
def test_bad_data_gives_one_clear_line(tmp_path, capsys, spoil, says):
    data = tmp_path / "data"
    data.mkdir()
    spoil(write_data(data))
    check_one_line(lambda: danq.main(["--data-dir", str(data), "--out-dir", str(tmp_path / "out" / "danq")]), capsys, says)
    assert not list(tmp_path.rglob("*.tmp*")) and not (tmp_path / "out" / "danq").exists()


def check_one_line(main, capsys, says):
    """main() must print one line that matches `says` on stderr and exit with code 2."""
    with pytest.raises(SystemExit) as stop:
        danq.command_line(main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and re.search(says, error), error


@pytest.mark.parametrize("flags, says", [
    (["--epochs", "0"], "--epochs: must be at least 1"), (["--epochs", "ten"], "--epochs"), (["--limit", "-3"], "--limit"),
    (["--seed", "-1"], "--seed"), (["--no-such-flag"], "no-such-flag"), (["--data-dir", "nowhere"], "nowhere/train.mat is missing")])
def test_bad_arguments_give_one_clear_line(flags, says, capsys, tmp_path):
    for module in (danq, superq):
        check_one_line(lambda: module.main(["--out-dir", str(tmp_path / "run"), *flags]), capsys, says)


@pytest.mark.parametrize("flags, says", [
    (["--label-weight", "nan"], "--label-weight: must be"), (["--label-weight", "-1"], "--label-weight"), (["--mend", "6"], "--mend"),
    (["--paper", "--features", "pca"], "--paper and --features"), (["--paper", "--label-weight", "1"], "needs the pooled features"),
    (["--features", "kmer", "--label-weight", "1"], "--label-weight and --features"), (["--paper", "--layout", "2d"], "--layout 2d"),
    (["--features", "pca", "--unlabelled", "x.fa"], "--unlabelled and"), (["--unlabelled-limit", "5"], "needs --unlabelled FILE"),
    (["--forest-projections", "-1"], "--forest-projections"), (["--reuse-encodings", "--restart"], "exclude each other")])
def test_arguments_that_do_not_go_together_are_refused(flags, says, capsys):
    check_one_line(lambda: superq.parse_args(flags), capsys, says)


def test_unwritable_out_dir_and_missing_encodings(tmp_path, capsys):
    write_data(tmp_path)
    (tmp_path / "file").write_text("kept")
    check_one_line(lambda: danq.main(["--data-dir", str(tmp_path), "--out-dir", str(tmp_path / "file" / "x" / "run")]), capsys, "file")
    assert (tmp_path / "file").read_text() == "kept"
    check_one_line(lambda: superq.main(["--reuse-encodings", "--out-dir", str(tmp_path / "run")]), capsys, "encodings.h5 is missing")
    check_one_line(lambda: superq.main(["--compare", str(tmp_path)]), capsys, "no finished run")
    check_one_line(lambda: danq.main(["--predict", "x.fa", "--out-dir", str(tmp_path)]), capsys, "no finished run")
    check_one_line(lambda: danq.main(["--make-demo-data", str(tmp_path)]), capsys, "exists already")


def test_a_full_disk_while_packing_loses_nothing(tmp_path):
    """The script by subprocess, allowed to write files of 12 kB at most: the packed bases do not fit."""
    data = tmp_path / "data"
    data.mkdir()
    write_data(data)
    command = f"ulimit -f 12; exec {shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'danq.py'))} --data-dir data --out-dir runs/danq"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "File too large" in run.stderr, run.stderr
    assert not list(tmp_path.rglob("*.tmp*")) and not list(tmp_path.rglob("*.npy"))


def test_a_full_disk_while_annotating_leaves_no_half_a_file(runs, tmp_path):
    (tmp_path / "x.fa").write_text(">a\n" + "ACGT" * 600)
    command = shlex.join([sys.executable, str(HERE / "danq.py"), "--predict", "x.fa", "--out-dir", str(runs["danq"][0]), "--output"])
    for name, limit in (("out.h5", 1000), ("out.h5", 2049), ("out.tsv", 1)):   # before, then after HDF5 opened it
        run = subprocess.run(["bash", "-c", f"ulimit -f {limit}; exec {command} {name}"], capture_output=True, text=True, cwd=tmp_path)
        assert run.returncode == 2 and run.stderr.count("\n") == 1 and f"{name}: File too large" in run.stderr, (name, limit, run)
        assert [path.name for path in tmp_path.iterdir()] == ["x.fa"]


def test_a_folder_that_may_not_be_written_gives_one_line(capsys):
    """As a plain user: root may write anywhere."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        write_data(Path(folder) / "data")
        for name, mode in (("sealed", 0o555), ("open", 0o777), ("open/run", 0o555)):
            (Path(folder) / name).mkdir()
            (Path(folder) / name).chmod(mode)
        Path(folder).chmod(0o755)
        try:
            if user == 0:
                os.seteuid(65534)
            for out, says in (("sealed/run", "sealed/packed: Permission denied"), ("open/run", r"open/run/\.lock: Permission denied")):
                check_one_line(lambda: danq.main(["--data-dir", f"{folder}/data", "--out-dir", f"{folder}/{out}"]), capsys, says)
            check_one_line(lambda: danq.main(["--make-demo-data", f"{folder}/sealed/demo"]), capsys, "sealed/.demo.tmp: Permission denied")
        finally:
            os.seteuid(user)


# ---------------------------------------------------------------- nothing lost

class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


def weights_of(folder):
    return keras.saving.load_model(folder / "model.keras", compile=False).get_weights()


def check_same_run(folder, expected):
    """Weights, history but for its seconds, and scores are equal to the bit; nothing half-made is left."""
    assert all(np.array_equal(a, b) for a, b in zip(weights_of(folder), weights_of(expected), strict=True))
    assert (folder / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()
    tables = []
    for out in (folder, expected):
        with open(out / "history.csv", newline="") as file:
            tables.append([{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(file)])
    assert tables[0] == tables[1]
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir() if not path.is_dir()}


@pytest.mark.parametrize("name", ("danq", "superq"))
def test_a_run_killed_between_any_two_writes_ends_as_if_it_had_not(runs, tmp_path, monkeypatch, name):
    """Die again and again at the n-th renaming of a file, with a checkpoint after every step."""
    expected, _, flags = runs[name]
    flags = [*flags, "--out-dir", str(tmp_path / "r" / name), "--checkpoint-minutes", "0"]
    rename, main, deaths = os.replace, {"danq": danq, "superq": superq}[name].main, 0
    for die_at in (4, 7, 3, 9, 5, 10 ** 9):
        calls = iter(range(1, 10 ** 9))

        def replace(*paths):
            if next(calls) == die_at:
                raise Killed
            rename(*paths)

        monkeypatch.setattr(os, "replace", replace)
        try:
            main(flags)
            break
        except Killed:
            deaths += 1
    assert deaths >= 3
    check_same_run(tmp_path / "r" / name, expected)


def test_kill_minus_9_in_the_middle_of_an_epoch(runs, tmp_path):
    expected, _, flags = runs["danq"]
    flags = [*flags, "--out-dir", str(tmp_path / "danq"), "--checkpoint-minutes", "0"]
    command, state = [sys.executable, HERE / "danq.py", *flags], tmp_path / "danq" / "checkpoint.npz"
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not state.is_file() and run.poll() is None:
        time.sleep(.001)
    run.kill()
    run.wait()
    run.stdout.close()
    with np.load(state) as file:
        assert 0 < json.loads(str(file["at"]))["step"] < 4
    run = subprocess.run(command, capture_output=True, text=True)
    assert "going on after step" in run.stdout, run.stderr
    check_same_run(tmp_path / "danq", expected)


def test_encodings_and_trees_already_made_are_kept(tmp_path, monkeypatch):
    X, _ = random_data(50)
    made = []

    def encode(x):
        made.append(len(x))
        if len(made) == fail_at:
            raise Killed
        return x[:, :7].sum(-1).astype(np.float32)

    def write(name):
        splits = {split: split_of(X) for split in danq.SPLITS}
        superq.write_encodings(tmp_path / name, encode, splits, [(0, "a", "b")] * 3, {}, np.float16, 20)
        with h5py.File(tmp_path / name) as file:
            return [file[f"{split}/Z"][:] for split in danq.SPLITS]
    fail_at = 0
    expected = write("whole.h5")
    made.clear()
    fail_at = 6                                         # the first is for the width; 4 batches of 9 are done
    with pytest.raises(Killed):
        write("e.h5")
    with open(tmp_path / "e.part", "ab") as file:
        file.write(b"half a batch")
    made.clear()
    fail_at = 0
    np.testing.assert_array_equal(write("e.h5"), expected)
    assert len(made) == 1 + 9 - 4 and not (tmp_path / "e.part").exists()

    Z, Y = forest_data()
    flags = {"trees": 7, "leaf": 5, "group": 3, "folder": tmp_path}
    expected, grow, grown = superq.fit_forest(Z, Y, **flags | {"folder": None}), superq.grow_trees, []

    def grow_once(*args):
        grown.append(args)
        if len(grown) == 3:
            raise Killed
        return grow(*args)
    monkeypatch.setattr(superq, "grow_trees", grow_once)
    with pytest.raises(Killed):
        superq.fit_forest(Z, Y, **flags)
    again = superq.fit_forest(Z, Y, **flags)
    assert len(grown) == 4 and all(np.array_equal(again[key], expected[key]) for key in expected)
    np.testing.assert_allclose(superq.predict_forest(again, Z), np.mean(
        [superq.predict_forest(superq.load_forest(tmp_path / f"forest-part{i}.npz"), Z) * n for i, n in ((0, 3), (3, 3), (6, 1))], 0) * 3 / 7,
        atol=1e-6)


def test_divergence_is_found_at_the_epoch_and_the_last_good_model_kept(tmp_path, capsys):
    class Poison(danq.Batches):
        def __getitem__(self, step):
            X, Y = super().__getitem__(step)
            return X, np.full(Y.shape, np.nan, np.float32)

    X, _ = random_data(20)
    split = split_of(X)

    def train(good, folder):
        folder.mkdir()
        model = danq.build_danq(3, 4, 2)
        danq.compile_model(model, "rmsprop", "binary_crossentropy", [keras.metrics.BinaryAccuracy(name="acc")])
        batches = lambda epoch: (danq.Batches if epoch < good else Poison)(split, 10)
        return danq.fit(model, batches, danq.Batches(split, 10), folder, 5, 5), model
    done, model = train(2, tmp_path / "late")
    assert (done["epochs"], done["best_epoch"]) == (3, 2) and "it diverged, loss nan" in capsys.readouterr().out
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    check_one_line(lambda: train(0, tmp_path / "early"), capsys, "diverged in its first epoch: loss nan")


def test_a_folder_in_use_is_refused_by_name(runs, capsys):
    out, _, flags = runs["kmer"]
    hold = ("import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); f.write('process 1 on there'); "
            "f.flush(); print(flush=True); input()")
    danq.LOCKS.clear()                                  # this process may hold it from a test before
    other = subprocess.Popen([sys.executable, "-c", hold, out / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    check_one_line(lambda: superq.main(flags), capsys, "in use by process 1 on there")
    other.communicate(b"\n")
    superq.main(flags)
    assert "finished already" in capsys.readouterr().out


def test_a_model_file_cannot_run_code(tmp_path, capsys):
    ran = tmp_path / "ran"
    inputs = keras.Input((1000, 4))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x, path=str(ran): open(path, "w").close() or x, output_shape=(1000, 4))(inputs))
    ran.unlink(missing_ok=True)
    model.save(tmp_path / "model.keras")
    check_one_line(lambda: danq.load_model(tmp_path), capsys, "model.keras is damaged .*lambda")
    assert not ran.exists()


# ---------------------------------------------------------------- bad files, by generator

SPOILS = {
    "cut": lambda content, rng: content[:rng.integers(1, max(2, len(content) * 9 // 10))],
    "flipped": lambda content, rng: flip(content, rng, max(1, len(content) // 2000)),
    "a few flipped": lambda content, rng: flip(content, rng, 3),
    "empty": lambda content, rng: b"",
    "zeros": lambda content, rng: bytes(len(content)),
    "text": lambda content, rng: b"<html><body>404 not found, says the server</body></html>\n" * 20}


def flip(content, rng, n):
    spoilt = np.frombuffer(content, np.uint8).copy()
    spoilt[rng.integers(len(spoilt), size=n)] ^= rng.integers(1, 256, size=n, dtype=np.uint8)
    return spoilt.tobytes()


def reads_data(folder):
    danq.load_data(danq.parse_args(["--data-dir", str(folder), "--out-dir", str(folder / "out" / "run")]))


def reads_more(name):
    return lambda folder: danq.load_unlabelled(folder / name, folder / "packed")


def reads_run(folder):
    module = superq if (folder / "forest.npz").is_file() else danq
    module.main(["--predict", str(folder / "ok.fa"), "--out-dir", str(folder), "--output", str(folder / "p.tsv")])


INPUTS = {                                              # file: who reads it
    "train.mat": reads_data, "valid.mat": reads_data, "labels.tsv": reads_data, "more.fa": reads_more("more.fa"),
    "more.fa.gz": reads_more("more.fa.gz"), "more.mat": reads_more("more.mat"), "danq/args.json": reads_run,
    "danq/summary.json": reads_run, "danq/metrics.csv": reads_run, "danq/model.keras": reads_run, "superq/forest.npz": reads_run,
    "superq/encodings.h5": lambda folder: superq.main(["--out-dir", str(folder), "--reuse-encodings", "--forest-trees", "2"]),
    "checkpoint.npz": lambda folder: danq.Checkpoint(folder / "checkpoint.npz", 1)}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", INPUTS)
def test_spoilt_files_give_one_clear_line_or_the_right_result(runs, tmp_path, capsys, name, spoil):
    folder = tmp_path / "f"
    if "/" in name:
        run, file = name.split("/")
        shutil.copytree(runs[run][0], folder)
        (folder / "ok.fa").write_text(">ok\n" + "GATTACA" * 200)
    else:
        folder.mkdir()
        file = name
        write_data(folder)
        (folder / "labels.tsv").write_text("column\tassay\tname\n" + "".join(f"{i}\tTF\tname {i}\n" for i in range(9)))
        fasta = b">a\n" + b"\n".join([b"GATTACAGATTACA" * 5] * 60) + b"\n"
        (folder / "more.fa").write_bytes(fasta)
        (folder / "more.fa.gz").write_bytes(gzip.compress(fasta))
        scipy.io.savemat(folder / "more.mat", {"xdata": random_data()[0].transpose(0, 2, 1)}, do_compression=True)
        np.savez(folder / "checkpoint.npz", format=1, at=json.dumps({"epoch": 0, "step": 1, "seconds": 0.}), v0=np.arange(99.))
    path, before = folder / file, set(folder.rglob("*"))
    path.write_bytes(SPOILS[spoil](path.read_bytes(), np.random.default_rng([len(name), len(spoil)])))
    try:
        danq.command_line(lambda: INPUTS[name](folder))
    except SystemExit as stop:
        error = capsys.readouterr().err
        assert stop.code == 2 and error.count("\n") == 1 and (path.name in error or str(folder) in error), error
        made = {path for path in set(folder.rglob("*")) - before if path.is_file()}
        assert not [path for path in made if ".tmp" in path.name or path.name == "p.tsv"], made
    else:
        assert "flipped" in spoil or file in ("more.fa", "metrics.csv"), "this cannot have been read"


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(st.lists(st.tuples(st.text("abcXYZ 01|", max_size=9), st.text("ACGTNacgtnRYu", max_size=2600)), max_size=4),
                  st.sampled_from(["\n", "\r\n"]), st.integers(1, 200), st.integers(1, 1500))
def test_fasta_windows_hold_the_letters_at_their_coordinates(tmp_path_factory, records, newline, width, step):
    path = tmp_path_factory.mktemp("fuzz") / "x.fa"
    path.write_text("".join(f">{name}{newline}" + "".join(text[i:i + width] + newline for i in range(0, len(text), width))
                            for name, text in records), newline="")
    windows = list(danq.fasta_windows(path, step))
    for (name, text), group in zip([record for record in records if record[1]],
                                   [list(group) for _, group in itertools.groupby(windows, record_counter(records, windows))], strict=True):
        for _, start, end, padded, letters in group:
            assert len(letters) == 1000 and padded == (len(text) < 1000)
            assert letters.strip(b"N") in text[start:end].upper().encode() if padded else letters.decode() == text[start:end].upper()
        covered = {i for _, start, end, _, _ in group for i in range(start, end)}
        assert step > 1000 or covered == set(range(len(text)))
    if windows:
        danq.letters_to_onehot(windows, path)


def record_counter(records, windows):
    """A key for groupby: the number of the record that each window belongs to; a record's first window starts at 0."""
    counter = itertools.count(-1)
    at = [-1]

    def key(window):
        if window[1] == 0:
            at[0] = next(counter) + 1
        return at[0]
    return key


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(st.binary(max_size=300))
def test_arbitrary_bytes_as_fasta_are_refused_or_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "x.fa"
    path.write_bytes(content)
    try:
        windows = list(danq.fasta_windows(path))
        if windows:
            assert danq.letters_to_onehot(windows, path).shape[1:] == (1000, 4)
    except danq.BadInput as error:
        assert "x.fa" in str(error) and "\n" not in str(error)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 1000), st.integers(1, 40), st.integers(14, 20), st.booleans(),
                  st.one_of(st.none(), st.integers(1, 25)))
def test_packing_does_not_depend_on_layout_or_block(tmp_path_factory, n, K, chunk_rows, chunk_n, budget, gzipped, limit):
    rng = np.random.default_rng([n, K])
    X, Y = rng.integers(2, size=(n, 1000, 4), dtype=np.uint8), rng.integers(2, size=(n, K), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("fuzz")
    with h5py.File(folder / "train.mat", "w") as file:
        file.create_dataset("trainxdata", data=X.transpose(1, 2, 0), chunks=(chunk_rows, 4, min(chunk_n, n)), compression="gzip" if gzipped else None)
        file.create_dataset("traindata", data=Y.T)
    whole = danq.pack_array.__defaults__
    try:
        danq.pack_array.__defaults__ = (1 << budget,)
        split = danq.load_split(folder, "train", folder / "packed", limit)
    finally:
        danq.pack_array.__defaults__ = whole
    wanted = np.r_[0:limit, n // 2:n // 2 + limit] if limit and limit < n // 2 else np.arange(n)
    np.testing.assert_array_equal(danq.onehot(split.X), X[wanted])
    np.testing.assert_array_equal(danq.unpack_labels(split), Y[wanted])


def test_unusual_data_run_to_the_end(tmp_path):
    """One label, odd rows, a single test row, sequences of N alone, through links."""
    X, Y = random_data(31, K=1)
    X[3:6] = 0
    data = tmp_path / "data"
    data.mkdir()
    for split, n in (("train", 31), ("valid", 7), ("test", 1)):
        write_hdf5(tmp_path, split, X[:n], Y[:n])
        (data / f"{split}.mat").symlink_to(tmp_path / f"{split}.mat")
    danq.main(["--data-dir", str(data), "--out-dir", str(tmp_path / "runs" / "danq"), *SMALL])
    superq.main(["--data-dir", str(data), "--out-dir", str(tmp_path / "runs" / "superq"), *SMALL, "--forest-trees", "3"])
    for name in ("danq", "superq"):
        summary = json.loads((tmp_path / "runs" / name / "summary.json").read_text())
        assert (summary["labels"], summary["test_windows"], summary["labels_scored"]) == (1, 1, 0)


def test_a_loop_of_links_and_a_vanished_folder_give_one_line(runs, tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    write_data(tmp_path)
    (tmp_path / "train.mat").unlink()
    (tmp_path / "train.mat").symlink_to(tmp_path / "train.mat")
    for data, out, says in ((tmp_path / "loop", "out", "train.mat is missing"), (tmp_path, "out", "train.mat is missing"),
                            (tmp_path, "loop/run", "symbolic links")):
        check_one_line(lambda: danq.main(["--data-dir", str(data), "--out-dir", str(tmp_path / out)]), capsys, says)
    (data := tmp_path / "data").mkdir()
    danq.load_split(write_data(data), "train", tmp_path / "packed")
    shutil.rmtree(data)
    check_one_line(lambda: danq.load_split(data, "train", tmp_path / "packed"), capsys, "train.mat is missing")


def test_a_full_disk_at_each_stage_keeps_what_was_made(runs, tmp_path):
    """Files of so many kB at most: the encodings do not fit, then their HDF5 file, then the trees; at last all does."""
    _, _, flags = runs["kmer"]
    flags = [*flags, "--forest-trees", "100", "--out-dir"]
    superq.main([*flags, str(runs["kmer"][0].parent / "kmer-whole")])
    out = runs["kmer"][0].parent / "kmer-full-disk"     # beside packed data, which are there
    command = shlex.join([sys.executable, str(HERE / "superq.py"), *flags, str(out)])
    for limit, says in ((20, "encodings.part: File too large"), (90, "encodings.h5"), (1300, "forest-part0.npz: File too large")):
        run = subprocess.run(["bash", "-c", f"ulimit -f {limit}; exec {command}"], capture_output=True, text=True)
        assert run.returncode == 2 and run.stderr.count("\n") == 1 and says in run.stderr, (limit, run.stderr)
        assert not list(out.glob(".*.tmp*")), limit
    superq.main([*flags, str(out)])
    assert (out / "metrics.csv").read_bytes() == (out.parent / "kmer-whole" / "metrics.csv").read_bytes()


# ---------------------------------------------------------------- what results may not depend on

def test_predictions_do_not_depend_on_their_batch_and_scores_not_on_the_order_of_labels(runs, tmp_path):
    X = danq.onehot(danq.load_data(danq.parse_args(runs["danq"][2]))[0]["test"].X)
    for name in ("danq", "superq"):
        score = danq.load_model(runs[name][0]).predict_on_batch if name == "danq" else superq.trained_scores(runs[name][0])
        np.testing.assert_allclose(np.concatenate([score(X[i:i + 7]) for i in range(0, len(X), 7)]), score(X), atol=1e-5)
    rng = np.random.default_rng(0)
    Y, P, order = rng.integers(2, size=(50, 6)), rng.random((50, 6)), rng.permutation(6)
    labels = [(i, "TF", f"name {i}") for i in range(6)]
    rows, means = danq.evaluate(P, Y, labels, danq.best_thresholds(P, Y))
    shuffled, again = danq.evaluate(P[:, order], Y[:, order], [labels[i] for i in order], danq.best_thresholds(P[:, order], Y[:, order]))
    assert shuffled == [rows[i] for i in order] and again["all"]["auroc"] == pytest.approx(means["all"]["auroc"])


def test_results_do_not_depend_on_the_number_of_threads(runs, tmp_path):
    """The same training with one thread: losses agree to rounding, the forest on the same encodings exactly."""
    out, _, flags = runs["danq"]
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
    run = subprocess.run([sys.executable, HERE / "danq.py", *flags, "--out-dir", tmp_path / "danq"], env=os.environ | threads,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for a, b in zip(weights_of(out), weights_of(tmp_path / "danq"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    Z, Y = forest_data()
    forests = []
    for jobs in (1, 2):
        with joblib.parallel_backend("threading", n_jobs=jobs):
            forests.append(superq.fit_forest(Z, Y, trees=8, leaf=5))
    assert all(np.array_equal(forests[0][key], forests[1][key]) for key in forests[0])


# ---------------------------------------------------------------- speed and memory

def test_floating_point_operations_by_hand():
    conv, blstm, dense = 975 * 26 * 4 * 5, 75 * 2 * 4 * (5 * 3 + 3 * 3), 75 * 6 * 925 + 925 * 7
    assert danq.flops(danq.build_danq(7, 5, 3)) == 2 * (conv + blstm + dense)
    assert 3 * danq.flops(danq.build_danq()) == pytest.approx(1.2e9, rel=.01)                   # a training step, a sample
    scans, steps, code = 2 * 993 * 8 * 4 * 5, 2 * 49 * 2 * 4 * (5 * 3 + 3 * 3), (5 + 6) * 100
    assert danq.flops(superq.encoder_of(superq.build_autoencoder(5, 3))) == 2 * (200 * 5 * 4 * 2 + scans + steps + code)


def test_benchmarks_measure_every_stage(tmp_path, monkeypatch, capsys):
    """The smallest size; the packed copies of all chunk shapes are compared to their source by the benchmark itself."""
    monkeypatch.setattr(danq, "benchmark_network", functools.partial(danq.benchmark_network, seconds=.1))
    tables = {}
    for module, more in ((danq, []), (superq, ["--forest-trees", "4", "--forest-leaf", "2", "--forest-samples", "20"])):
        module.main(["--benchmark", "--limit", "25", "--filters", "4", "--lstm-units", "2", "--batch-size", "10", "--data-dir", "none",
                     "--out-dir", str(tmp_path / "runs" / "x"), *more])
        record = json.loads((tmp_path / "runs" / f"benchmark-{module.__name__}.json").read_text())
        tables[module] = record["rows"]
        printed = capsys.readouterr().out
        assert all(f"| {name} |" in printed and row["rate"] > 0 and row["gb"] > 0 for name, row in record["rows"].items())
        assert record["versions"]["keras"] and record["device"] and record["matrix_product_flop_s"] > 0
    assert [name for name in tables[danq] if name.startswith("packing")] == [f"packing, chunks: {name}" for name in danq.CHUNKINGS]
    training = tables[danq]["training, batches of 10"]
    assert training["projected_seconds"] == pytest.approx(danq.FULL * 60 / training["rate"])
    assert training["flop"] == 3 * danq.flops(danq.build_danq(919, 4, 2)) and training["flop_s"] == pytest.approx(training["flop"] * training["rate"])
    forest = tables[superq]["forest, 4 trees x 919 labels, 50 rows"]
    half = tables[superq]["forest, 4 trees x 919 labels, 25 rows"]
    assert half["full_seconds"] is None and forest["projected_seconds"] == pytest.approx(forest["seconds"] + (danq.FULL - 50) * (forest["seconds"] - half["seconds"]) / 25)
    assert [path.name for path in (tmp_path / "runs").iterdir() if not path.name.startswith("benchmark-")] == []


def test_benchmark_takes_real_files(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(danq, "benchmark_network", lambda model, batches: {})
    danq.main(["--benchmark", "--data-dir", str(data_dir), "--out-dir", str(tmp_path / "danq")])
    row = json.loads((tmp_path / "benchmark-danq.json").read_text())["rows"]["packing"]
    with h5py.File(data_dir / "train.mat") as file:
        assert row["n"] == file["trainxdata"].shape[-1] and "h5py alone reads" in row["beside"]


def test_mixed_precision_keeps_weights_digits_and_answers_in_float32(runs, tmp_path):
    X = random_data(20)[0]
    models = {}
    for mixed in (False, True):
        keras.utils.set_random_seed(3)
        models[mixed] = danq.build_danq(9, 8, 4, mixed=mixed), superq.encoder_of(superq.build_autoencoder(8, 4, mixed=mixed))
    (plain, encoder), (mixed, mixed_encoder) = models[False], models[True]
    assert [mixed.get_layer(name).compute_dtype for name in ("motif_scan", "motif_grammar", "dense")] == ["bfloat16", "float32", "bfloat16"]
    assert {w.dtype for w in mixed.weights} == {"float32"}
    P, Q, Z, W = (model.predict_on_batch(X) for model in (plain, mixed, encoder, mixed_encoder))
    assert P.dtype == Q.dtype == W.dtype == np.float32 and 0 < abs(P - Q).max() < .02
    np.testing.assert_array_equal(Z[:, :superq.DIGITS], W[:, :superq.DIGITS])
    assert 0 < abs(Z - W).max() < .1
    for name, module in (("danq", danq), ("superq", superq)):
        out, _, flags = runs[name]
        module.main([*flags, "--out-dir", str(tmp_path / name), "--mixed-precision"])
        losses = [[float(row["loss"]) for row in csv.DictReader(open(folder / "history.csv"))] for folder in (out, tmp_path / name)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=.02)


def test_two_devices_train_as_one_does(data_dir, tmp_path, capsys, monkeypatch):
    """Data-parallel on simulated devices of the CPU, which JAX has; elsewhere one line says that one device is used."""
    monkeypatch.setattr(danq, "devices", lambda: ["gpu:0", "gpu:1", "gpu:2"])
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with danq.all_devices(100):
        assert capsys.readouterr().out == "one of 3 devices is used: Keras shares the work out on JAX only (KERAS_BACKEND=jax)\n"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(danq.BadInput, match="--batch-size 100 does not divide among 3 devices"), danq.all_devices(100):
        pass
    pytest.importorskip("jax")
    for name, flags in (("danq", []), ("superq", ["--forest-trees", "4"])):
        tables = []
        for n in (1, 2):
            run = subprocess.run([sys.executable, HERE / f"{name}.py", *SMALL, *flags, "--limit", "41", "--data-dir", data_dir,
                                  "--out-dir", tmp_path / str(n) / name], capture_output=True, text=True,
                                 env=os.environ | {"KERAS_BACKEND": "jax", "XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"})
            assert run.returncode == 0, run.stderr
            assert ("training on 2 devices, 10 sequences of a batch on each" in run.stdout) == (n == 2)
            with open(tmp_path / str(n) / name / "history.csv", newline="") as file:
                tables.append([[float(row[key]) for key in ("loss", "val_loss")] for row in csv.DictReader(file)])
        np.testing.assert_allclose(*tables, rtol=1e-4)


# ---------------------------------------------------------------- documents

def test_every_command_of_the_documents_parses():
    text = "\n".join((HERE / name).read_text() for name in ("README.md", "danq.py", "superq.py", "run_all.sh"))
    commands = re.findall(r"python (danq|superq)\.py((?: (?!#|  )[^\s`|)]+)*)", text)
    assert len(commands) > 8
    for script, flags in commands:
        {"danq": danq, "superq": superq}[script].parse_args(shlex.split(flags))
    for flags in re.findall(r"bash run_all\.sh((?: --\S+)*)", text):
        assert flags.strip("` ") in ("", "--test", "--study")


def test_shell_script_is_sound_and_refuses_bad_settings():
    subprocess.run(["bash", "-n", HERE / "run_all.sh"], check=True)
    for settings, flags, says in (({"EPOCHS": "0"}, [], "EPOCHS"), ({"LIMIT": "x"}, [], "LIMIT"), ({"DATA": "/nowhere"}, [], "/nowhere"), ({"SEEDS": "1,2"}, [], "SEEDS"),
                                  ({}, ["--tset"], "--tset")):
        run = subprocess.run(["bash", HERE / "run_all.sh", *flags], env=os.environ | settings, capture_output=True, text=True)
        assert run.returncode == 2 and run.stderr.count("\n") == 1 and says in run.stderr
