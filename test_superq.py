"""Tests of danq.py and superq.py, in the order of the scripts; at the end their benchmarks.

    bash run_all.sh --test                           makes the environment, then runs this (5 to 7 minutes on 2 cores)
    DEEPSEA_DATA=dir pytest test_superq.py -k data   the data tests on the first rows of real files
    python test_superq.py --benchmark danq           speed and memory of each stage (or superq, or both's training)

A test runs in an empty folder of its own: relative paths are there.
"""
import argparse
import contextlib
import csv
import dataclasses
import gzip
import io
import json
import math
import mmap
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

if __name__ != "__main__":  # tolerances and equality to the bit are the CPU's; a benchmark takes what there is
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import danq
import superq
import h5py
import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import scipy.io
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

HERE = Path(__file__).resolve().parent
SCRIPTS = {"danq": danq, "superq": superq}
# Keras 3.15 on NumPy 2 says this of each variable that it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
REAL_DATA = os.environ.get("DEEPSEA_DATA") and Path(os.environ["DEEPSEA_DATA"]).resolve()
SMALL = "--epochs 2 --batch-size 20 --filters 4 --lstm-units 2".split()
FOREST = "--forest-trees 6 --forest-leaf 4".split()


# ---- helpers

@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def letters_to_onehot(text):
    """One-hot (1, len, 4) in the order A, G, C, T; any other letter is N."""
    return np.array([[[letter == base for base in "AGCT"] for letter in text]], np.uint8)


def letters_of(x):
    return "".join("AGCT"[base] for base in x.argmax(-1))


def random_sequences(n, seed=0):
    return np.eye(4, dtype=np.uint8)[np.random.default_rng(seed).integers(4, size=(n, 1000))]


def random_data(n=60, K=9):
    """One-hot (n, 1000, 4) whose second half is the reverse complement of the first, and labels (n, K)."""
    X, Y = random_sequences(n // 2), (np.random.default_rng(1).random((n // 2, K)) < .3).astype(np.uint8)
    X[0, :5], X[1, 7] = 0, (1, 0, 1, 0)  # an N stretch and an IUPAC M
    return np.concatenate([X, X[:, ::-1, ::-1]]), np.concatenate([Y, Y])


def split_of(X, Y=None):
    """A Split of one-hot X (n, 1000, 4) and labels (n, K), three that are always 1 where none are given."""
    Y = np.ones((len(X), 3), np.uint8) if Y is None else Y
    return danq.Split(danq.packed(X), np.packbits(Y, axis=1), Y.shape[1], len(X))


def write_hdf5(split, X, Y, label_chunks=None, **options):
    with h5py.File(f"{split}.mat", "w", userblock_size=512) as file:
        file.create_dataset(f"{split}xdata", data=X.transpose(1, 2, 0), **options)
        file.create_dataset(f"{split}data", data=Y.T, chunks=label_chunks)


def write_v5(split, X, Y, compressed=False):
    arrays = {f"{split}xdata": X.transpose(0, 2, 1), f"{split}data": Y}
    scipy.io.savemat(f"{split}.mat", arrays, do_compression=compressed)


def write_data():
    for split in danq.SPLITS:
        (write_hdf5 if split == "train" else write_v5)(split, *random_data())


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    return json.loads(Path(path).read_text())


def check_one_line(capsys, says, function, *args):
    """function(*args) must print one line that matches `says` on stderr and exit with code 2."""
    with pytest.raises(SystemExit) as stop:
        danq.command_line(lambda: function(*args))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and re.search(says, error), error


def start_python(*command, **env):
    """Python in a process of its own, which finds the scripts."""
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": str(HERE)} | env)


def run_python(*command, **env):
    process = start_python(*command, **env)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Real files where DEEPSEA_DATA names them, else a simulated set of 64 training windows."""
    if REAL_DATA:
        return REAL_DATA
    folder = tmp_path_factory.mktemp("simulated") / "demo"
    danq.make_demo_data(folder, windows=64)
    return folder


@pytest.fixture(scope="session")
def runs(data_dir, tmp_path_factory):
    """Small runs that tests share, {name: (out_dir, printed, flags)}: danq and superq as a reader starts them."""
    folder, done = tmp_path_factory.mktemp("runs"), {}
    (folder / "more.fa").write_text(">chr\n" + "GATTACAT" * 1000 + "N" * 2500)
    more = f"--label-weight 0 --unlabelled {folder}/more.fa --unlabelled-limit 6 --mixed-precision"
    small = [*SMALL, "--data-dir", str(data_dir), "--limit", "40"]
    own = {name: [*flags.split(), *small, "--out-dir", str(folder / name), *FOREST] for name, flags in {
        "paper": "--paper", "more": more, "kmer": "--features kmer", "untrained": "--features untrained",
        "danq-forest": "--features danq"}.items()}
    both = {name: [*small, "--out-dir", str(folder / name), *FOREST * (name == "superq")] for name in SCRIPTS}
    started = {name: start_python(HERE / f"{name}.py", *flags) for name, flags in both.items()}

    def wait_for_both():
        for name, process in started.items():
            printed, error = process.communicate()
            assert process.returncode == 0, error
            done[name] = folder / name, printed, both[name]

    for name, flags in own.items():
        if name == "danq-forest":
            wait_for_both()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            superq.main(flags)
        done[name] = folder / name, out.getvalue(), flags
    return done


# ---- danq.py: the network

def test_published_sizes():
    model = danq.build_danq(919)
    assert model.count_params() == 46_926_479
    assert model.get_layer("motif_pool").output.shape == (None, 75, 320)  # steps into the BLSTM
    assert model.get_layer("motif_grammar").output.shape == (None, 75, 640)
    assert model.get_layer("dense").input.shape == (None, 48_000)
    assert superq.build_paper().count_params() == 27_679_060


def lstm_oracle(x, kernel, recurrent, bias):
    """Plain LSTM over (steps, features), gates in Keras' order i, f, c, o: hidden states (steps, units)."""
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    h, c, states = np.zeros(len(recurrent)), np.zeros(len(recurrent)), []
    for step in x:
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize("activation", ("relu", "linear"))
def test_numpy_oracle_of_the_trunk(activation):
    X, inputs, rng = random_sequences(2), keras.Input((1000, 4)), np.random.default_rng(0)
    model = keras.Model(inputs, danq.trunk(inputs, 5, 3, activation))
    model.set_weights([rng.normal(0, .3, weight.shape) for weight in model.get_weights()])
    kernel, bias, *lstm = model.get_weights()
    x = np.array([np.einsum("pb,pbf->f", X[1, i:i + 26], kernel) + bias for i in range(975)])
    x = np.maximum(x, 0) if activation == "relu" else x
    x = x.reshape(75, 13, 5).max(1)
    expected = np.concatenate([lstm_oracle(x, *lstm[:3]), lstm_oracle(x[::-1], *lstm[3:])[::-1]], 1).ravel()
    np.testing.assert_allclose(model.predict(X, verbose=0)[1], expected, atol=1e-4)


def test_predictions_do_not_depend_on_batch_mates(runs):
    bits = danq.packed(random_sequences(12))
    for score in (danq.FromBits(danq.load_model(runs["danq"][0])).predict_on_batch,
                  superq.trained_scores(runs["superq"][0])):
        whole, few = score(bits), np.concatenate([score(bits[i:i + 5]) for i in (0, 5, 10)])
        np.testing.assert_allclose(few, whole, atol=1e-5)
        np.testing.assert_allclose(score(bits[[5, 2, 0]]), whole[[5, 2, 0]], atol=1e-5)


def test_mixed_precision_keeps_weights_and_answers_in_float32():
    answers = []
    for dtype in (None, "mixed_bfloat16"):
        keras.utils.set_random_seed(3)
        model = danq.build_danq(9, 8, 4, dtype=dtype)
        assert {weight.dtype for weight in model.weights} == {"float32"}
        answers.append(model.predict_on_batch(random_sequences(20)))
    assert answers[1].dtype == np.float32 and 0 < abs(answers[0] - answers[1]).max() < .02


# ---- danq.py: its training

@pytest.mark.parametrize("name", SCRIPTS)
def test_bits_give_the_losses_of_one_hot(name):
    """The device unpacks sequences and labels and works out targets: the loss by hand, from one-hot and counts."""
    X, Y = random_data(12)
    split, args = split_of(X, Y), SCRIPTS[name].parse_args([*SMALL, "--batch-size", "12"])
    if name == "danq":
        model = danq.compiled_danq(args, 9)
        P = model.layers[-1].predict(X, verbose=0)
        expected = entropy(Y, P).mean()
    else:
        model = superq.compiled_autoencoder(args, 9, 12)
        P = model.layers[-1].predict(X, verbose=0)
        known = X.sum(-1) == 1
        bases = -np.log((P["bases"] * X).sum(-1)[known]).mean()
        counts = np.asarray(superq.KmerCounts(4, 300)(X.astype(np.float32)))
        expected = bases + np.square(P["composition"] - counts).mean() + 10 * entropy(Y, P["labels"]).mean()
    scores = model.evaluate(danq.Batches(split, 12), verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(expected, rel=1e-4)
    batch = danq.Batches(split, 12)[0]
    assert [array.dtype for array in batch] == [np.uint8] * 2
    assert [array.shape for array in batch] == [(12, 500), (12, 2)]


def entropy(Y, P):
    return -(Y * np.log(P) + (1 - Y) * np.log(1 - P))


def test_a_batch_too_large_for_the_device_gives_one_line(capsys, monkeypatch):
    X, Y = random_data(20)
    args = danq.parse_args([*SMALL, "--out-dir", "."])
    model = danq.compiled_danq(args, 9)

    def exhausted(*args, **options):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes\nmore of it")
    monkeypatch.setattr(model, "fit", exhausted)
    batches = danq.Batches(split_of(X, Y), 20)
    training = model, lambda epoch: batches, batches, args, 5
    check_one_line(capsys, "--batch-size 20 does not fit .* try 10", danq.fit, *training)


def test_a_run_of_an_older_version_gives_one_line(runs, capsys):
    shutil.copytree(runs["superq"][0], "old")
    Path("old/args.json").write_text(json.dumps(read_json("old/args.json") | {"format": 1}))
    check_one_line(capsys, "old was made by another version", superq.main, "--predict x.fa --out-dir old".split())


@pytest.mark.parametrize("good_epochs", (2, 0))
def test_divergence_is_found_at_the_epoch_and_the_last_good_model_kept(capsys, good_epochs):
    args = danq.parse_args([*SMALL, "--epochs", "5", "--out-dir", "."])
    model, split = danq.compiled_danq(args, 3), split_of(random_sequences(60))

    def batches(epoch):
        if epoch >= good_epochs:
            model.optimizer.learning_rate = math.nan
        return danq.Batches(split, 20, 0, epoch)

    training = model, batches, danq.Batches(split, 20), args, 5
    if not good_epochs:
        return check_one_line(capsys, "diverged in its first epoch: loss nan", danq.fit, *training)
    assert danq.fit(*training)["best_epoch"] == 2 and "it diverged, loss nan" in capsys.readouterr().out
    assert all(np.isfinite(weight).all() for weight in danq.load_model(".").get_weights())


def test_training_stops_at_its_time_limit_within_an_epoch(runs):
    danq.main([*runs["danq"][2], "--out-dir", "late", "--max-seconds", ".01"])
    history = read_table("late/history.csv")
    assert len(history) == 1 and history[0]["val_loss"] and Path("late/summary.json").is_file()


def test_two_devices_train_as_one_does(data_dir):
    """Data-parallel on simulated devices of the CPU, which JAX has."""
    pytest.importorskip("jax")
    both = ("import sys, danq, superq; n, *flags = sys.argv[1:]; danq.main([*flags, '--out-dir', n + '/danq']); "
            "superq.main([*flags, '--forest-trees', '4', '--out-dir', n + '/superq'])")
    for n in "12":
        env = {"KERAS_BACKEND": "jax", "XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
        run = run_python("-c", both, n, *SMALL, "--epochs", "1", "--limit", "41", "--data-dir", data_dir, **env)
        assert run.returncode == 0, run.stderr
        assert run.stdout.count("training on 2 devices, 10 sequences on each") == 2 * (n == "2")
    for name in SCRIPTS:
        losses = [[float(row[key]) for row in read_table(f"{n}/{name}/history.csv") for key in ("loss", "val_loss")]
                  for n in "12"]
        np.testing.assert_allclose(*losses, rtol=1e-4)


# ---- danq.py: scores

def test_scoring_by_hand():
    y, p = np.array([1, 0, 1, 0]), np.array([.9, .8, .7, .1])
    scores = danq.score_label(y, p, .75)
    assert scores["auroc"] == pytest.approx(3 / 4)  # 3 of the 4 (positive, negative) pairs in order
    assert scores["auprc"] == pytest.approx(.5 * 1 + .5 * 2 / 3)
    assert scores["f1"] == pytest.approx(2 * 1 / (2 + 2))  # called: one right, one wrong; one missed
    assert scores["recall_at_10fdr"] == pytest.approx(.5)
    thresholds = danq.best_thresholds(np.stack([p, p], 1), np.stack([y, np.zeros(4)], 1))
    assert thresholds == [pytest.approx(.7), .5]  # F1 is .8 at .7, .667 at .9


def test_scoring_against_scikit_learn_with_labels_of_one_class():
    rng = np.random.default_rng(0)
    Y = (rng.random((300, 5)) < .3).astype(np.uint8)
    P = np.round(rng.random((300, 5)) + .5 * Y, 2).astype(np.float32)  # rounded: ties
    Y[:, 3], Y[:, 4] = 0, 1
    labels = [(i, "TF" if i < 2 else "DNase", f"label {i}") for i in range(5)]
    rows, means = danq.evaluate(P, Y, labels, danq.best_thresholds(P, Y))
    for row, y, p in zip(rows[:3], Y.T, P.T):
        assert row["auroc"] == pytest.approx(roc_auc_score(y, p))
        assert row["auprc"] == pytest.approx(average_precision_score(y, p))
        assert row["f1"] == pytest.approx(f1_score(y, p >= row["threshold"]))
        assert row["f1"] == pytest.approx(max(f1_score(y, p >= t) for t in np.unique(p)))
    assert means["TF"]["auroc"] == pytest.approx(np.mean([row["auroc"] for row in rows[:2]]))
    assert means["all"]["labels"] == 3 and means["DNase"]["labels"] == 1 and rows[3]["auroc"] is None is rows[4]["f1"]


# ---- danq.py and superq.py: the command line

def test_scripts_write_what_they_promise(runs):
    columns = "column assay name positives base_rate auroc auprc f1 threshold recall_at_10fdr".split()
    for name, (out, printed, _) in runs.items():
        files = {path.name for path in out.iterdir()}
        assert name == "danq" or {"encodings.h5", "forest.npz"} < files
        assert not [file for file in files if ".tmp" in file or file in ("encodings.part", "checkpoint.npz")]
        assert read_json(out / "args.json")["versions"].keys() > {"keras", "numpy", "python"}
        summary, rows = read_json(out / "summary.json"), read_table(out / "metrics.csv")
        scored = [float(row["auroc"]) for row in rows if row["auroc"]]
        assert list(rows[0]) == columns and f"{len(scored)} of {len(rows)} labels" in printed
        assert (len(rows), len(scored)) == (summary["labels"], summary["labels_scored"])
        assert np.mean(scored) == pytest.approx(summary["means"]["all"]["auroc"])
        assert REAL_DATA or "SIMULATED" in printed and all("SIMULATED" in row["name"] for row in rows)


def test_training_is_printed_and_recorded_beside_its_yardsticks(runs):
    for name in ("danq", "superq", "paper"):
        history = read_table(runs[name][0] / "history.csv")
        assert len(history) == 2 and {"epoch", "seconds", "loss", "acc", "val_loss", "val_acc"} <= history[0].keys()
    assert re.search(r"bases rebuilt .*commonest base .*paper \.2526", runs["superq"][1])
    assert "always .25: loss 0.1875" in runs["paper"][1]


def test_a_terminal_sees_one_bar_and_one_number_an_epoch_and_at_the_end_what_to_do_next(data_dir):
    out = io.StringIO()
    out.isatty = lambda: True
    with contextlib.redirect_stdout(out):
        danq.main(["--data-dir", str(data_dir), "--out-dir", "runs/danq", "--limit", "40", *SMALL])
    text = out.getvalue()
    assert text.count("Epoch 1/2") == text.count("Epoch 2/2") == 1 and "4/4" in text and "step of epoch 2/2" in text
    box = text.splitlines()[-4:]
    assert "model.keras" in box[1] and "--predict seqs.fa" in box[2] and len({len(line) for line in box}) == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_foreign_data_are_scored_by_label_name(runs, data_dir, capsys, name):
    """The test split itself gives the run's own scores; without a known name only bases are scored."""
    out, there = runs[name][0], runs[name][0] / f"test-{Path.cwd().name}"
    own, rows = read_json(out / "summary.json"), read_table(out / "metrics.csv")
    head, *names = (data_dir / "labels.tsv").read_text().splitlines()
    shutil.copy(data_dir / "test.mat", ".")

    def score(same):
        names_there = [name if same(i) else name + "-other" for i, name in enumerate(names)]
        Path("labels.tsv").write_text("\n".join([head, *names_there]))
        SCRIPTS[name].main(["--out-dir", str(out), "--test-data", ".", "--limit", "40", "--batch-size", "20"])
        assert read_table(out / "metrics.csv") == rows
        return read_json(there / "summary.json")

    assert score(lambda i: True)["means"] == own["means"]
    score(lambda i: i % 3 == 0)
    assert read_table(there / "metrics.csv") == rows[::3]
    assert f"{len(rows[::3])} of {len(rows)} labels are there" in capsys.readouterr().out
    nothing = score(lambda i: False)
    assert nothing["labels"] == 0 and nothing.get("reconstruction") == own.get("reconstruction")
    assert nothing["subset_accuracy"] is nothing["label_output"] is None, "these are of the first test set"


@pytest.mark.parametrize("name, flags, says", [
    ("danq", "--epochs 0", "--epochs: must be at least 1"), ("danq", "--seed -1", "--seed: must be at least 0"),
    ("superq", "--limit ten", "--limit"), ("superq", "--no-such-flag", "no-such-flag"),
    ("danq", "--data-dir nowhere", "nowhere/train.mat is missing"), ("danq", "--make-demo-data .", "exists already"),
    ("danq", "--data-dir . --out-dir train.mat/x", "train.mat"), ("danq", "--predict x.fa", "no finished run"),
    ("superq", "--compare .", "no finished run"), ("superq", "--reuse-encodings", "encodings.h5 is missing"),
    ("superq", "--label-weight nan", "--label-weight: must be"), ("superq", "--ablation 6", "--ablation"),
    ("danq", "--plot x.jpg", "--plot: must end in .png"), ("superq", "--motifs x.txt", "--motifs: must end in .meme"),
    ("danq", "--plot x.png", "needs --predict"), ("superq", "--motifs x.meme", "no finished run"),
    ("superq", "--paper --features pca", "is for yardsticks"), ("superq", "--unlabelled-limit 5", "needs --unlabelled"),
    ("superq", "--paper --label-weight 1", "needs the pooled features")])
def test_bad_arguments_give_one_clear_line(capsys, name, flags, says):
    write_data()
    check_one_line(capsys, says, SCRIPTS[name].main, flags.split())


# ---- danq.py: errors and files

def test_a_folder_that_may_not_be_written_gives_one_line(capsys, monkeypatch):
    """As a plain user: root may write anywhere."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.chdir(folder)
        write_data()
        Path("open/run").mkdir(parents=True)
        for name, mode in (("open", 0o777), ("open/run", 0o555), (".", 0o555)):
            Path(name).chmod(mode)
        try:
            os.seteuid(user or 65534)
            for flags, says in (("--data-dir . --out-dir run", "packed: Permission denied"),
                                ("--data-dir . --out-dir open/run", r"open/run/\.lock: Permission denied"),
                                ("--make-demo-data demo", r"\.demo\.tmp: Permission denied")):
                check_one_line(capsys, says, danq.main, flags.split())
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o755)


def test_a_model_file_cannot_run_code(capsys):
    inputs = keras.Input((1000, 4))
    touch = keras.layers.Lambda(lambda x: open("ran", "w").close() or x, output_shape=(1000, 4))
    model = keras.Model(inputs, touch(inputs))
    Path("ran").unlink(missing_ok=True)
    model.save("model.keras")
    check_one_line(capsys, "model.keras is damaged .*lambda", danq.load_model, ".")
    assert not Path("ran").exists()


# ---- danq.py: the folder of a run

def test_a_finished_run_is_kept_and_a_folder_in_use_refused_by_name(runs, capsys):
    out, _, flags = runs["kmer"]
    hold = ("import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
            "print('process 1 on there', end='', file=f, flush=True); print(flush=True); input()")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", hold, out / ".lock"], stdin=pipe, stdout=pipe) as other:
        other.stdout.readline()
        check_one_line(capsys, "in use by process 1 on there", superq.main, flags)
        other.communicate(b"\n")
    superq.main(flags)
    assert "finished already" in capsys.readouterr().out
    check_one_line(capsys, "seed was 1337, now 5", superq.main, [*flags, "--seed", "5"])


# ---- danq.py: data

def test_strands_in_letters():
    flipped = danq.reverse_complement(letters_to_onehot("GATTACAN"))
    np.testing.assert_array_equal(flipped, letters_to_onehot("NTGTAATC"))
    np.testing.assert_array_equal(danq.reverse_complement(flipped), letters_to_onehot("GATTACAN"))
    degenerate = np.array([[[1, 0, 1, 0]]])  # M is A or C; its complement K is T or G
    assert danq.reverse_complement(degenerate).tolist() == [[[0, 1, 0, 1]]]


def check_packing(write, X, Y, tile=danq.TILE, limit=None, **options):
    """Data are packed into what they were, `tile` bytes at a time."""
    write("train", X, Y, **options)
    shutil.rmtree("packed", ignore_errors=True)
    with mock.patch.object(danq, "TILE", tile):
        split = danq.load_split(".", "train", "packed", limit)
    half = len(X) // 2
    rows = np.r_[:limit, half:half + limit] if limit and limit < half else np.arange(len(X))
    np.testing.assert_array_equal(danq.onehot(split.X), X[rows])
    np.testing.assert_array_equal(split.labels(), Y[rows])


@pytest.mark.parametrize("write, options", [
    (write_v5, {}), (write_v5, {"compressed": True}), (write_hdf5, {}), (write_hdf5, {"dtype": "f8"}),
    (write_hdf5, {"chunks": (7, 1, 11), "compression": "gzip", "shuffle": True})])
def test_data_layouts_and_formats(write, options):
    check_packing(write, *random_data(), **options)
    check_packing(write, *random_data(), tile=9000, limit=7, **options)


@pytest.mark.parametrize("rows", (1, 3, 5, 8))
def test_data_whose_chunks_share_a_byte(rows):
    """Labels in HDF5 chunks of a few rows each, read one by one; a byte holds eight."""
    check_packing(write_hdf5, *random_data(K=19), tile=60 * rows, label_chunks=(rows, 60))


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 1000), st.integers(1, 40), st.integers(1, 5),
                  st.one_of(st.none(), st.integers(1, 25)))
def test_packing_does_not_depend_on_the_data_layout(n, K, rows, columns, chunks, limit):
    rng, columns = np.random.default_rng([n, K]), min(columns, n)
    X, Y = rng.integers(2, size=(n, 1000, 4), dtype=np.uint8), rng.integers(2, size=(n, K), dtype=np.uint8)
    tile = max(1000, chunks * rows * 4 * columns)
    check_packing(write_hdf5, X, Y, tile, limit, chunks=(rows, 4, columns))


def test_data_first_rows_are_what_the_files_hold(data_dir):
    for name in danq.SPLITS:
        split = danq.load_split(data_dir, name, "packed", limit=7)
        with danq.open_mat(data_dir / f"{name}.mat", (f"{name}xdata", f"{name}data")) as (X, Y, _):
            half = X.shape[-1] // 2
            for row, column in enumerate([*range(7), *range(half, half + 7)]):
                np.testing.assert_array_equal(danq.onehot(split.X[[row]])[0], X[..., column])
                np.testing.assert_array_equal(split.labels([row])[0], Y[:, column])
        assert split.strands and split.windows == 7


def test_data_are_packed_once_and_again_when_source_or_copy_changed(capsys):
    def pack(n, says):
        split = danq.load_split(".", "valid", "packed")
        assert (danq.onehot(split.X) == random_data(n)[0]).all() and split.windows == n // 2
        assert ("packed" in capsys.readouterr().out) == says

    write_v5("valid", *random_data(60))
    pack(60, True)
    pack(60, False)
    write_v5("valid", *random_data(40))
    pack(40, True)
    for file, spoilt in (("valid_X.npy", ""), ("valid.json", "[]")):
        next(Path("packed").rglob(file)).write_text(spoilt)
        pack(40, True)


@pytest.mark.parametrize("strands", (True, False))
def test_strands_of_data_are_averaged_where_the_halves_are_strands(strands):
    X, Y = random_data()
    if not strands:
        X[40:] = X[:20]
    write_v5("valid", X, Y)
    split, A = danq.load_split(".", "valid", "packed"), X[:, :, 0].sum(1, keepdims=True)
    expected = (A[:30] + A[30:]) / 2 if strands else A
    assert split.strands == strands and split.windows == len(expected)
    np.testing.assert_allclose(danq.strand_mean(lambda rows: A[rows], split, 7), expected)


def test_batches_are_a_pure_function_of_seed_and_epoch():
    X, Y = random_data()
    split = split_of(X, Y)
    orders = [danq.Batches(split, 25, *key).order.tolist() for key in ((1, 0), (1, 1), (2, 0))]
    assert orders[0] == danq.Batches(split, 7, seed=1, epoch=0).order.tolist()
    assert len({*map(tuple, orders)}) == 3 and all(sorted(order) == [*range(60)] for order in orders)
    batches = danq.Batches(split, 25, seed=1)
    assert [len(batches[i][0]) for i in range(len(batches))] == [25, 25, 10]
    np.testing.assert_array_equal(danq.onehot(batches[1][0]), X[orders[0][25:50]])
    np.testing.assert_array_equal(np.unpackbits(batches[1][1], axis=1, count=9), Y[orders[0][25:50]])


def edit(split="train", X=lambda X: X, Y=lambda Y: Y, write=write_hdf5):
    """A way to spoil data: rewrite one split from changed arrays."""
    original = random_data()
    return lambda: write(split, X(original[0]), Y(original[1]))


@pytest.mark.parametrize("spoil, says", [
    (lambda: os.remove("valid.mat"), "valid.mat is missing"),
    (lambda: os.truncate("train.mat", 3000), "train.mat is damaged.* download it again"),
    (lambda: os.truncate("valid.mat", 5000), "valid.mat is damaged .* complete MATLAB"),
    (lambda: scipy.io.savemat("test.mat", {"x": 1}), "test.mat has no variable testxdata"),
    (edit(X=lambda X: X.transpose(0, 2, 1)), r"trainxdata has shape \(4, 1000, 60\)"),
    (edit(Y=lambda Y: Y[:50]), r"traindata has shape \(9, 50\).*60 sequences"),
    (edit(Y=lambda Y: np.where(Y, np.nan, 0)), r"traindata must hold 0 and 1 only, not nan \(row \d, sequence \d"),
    (edit("valid", X=lambda X: X * -1., write=write_v5), "validxdata must hold 0 and 1 only, not -1"),
    (edit("test", Y=lambda Y: Y[:, :5], write=write_v5), "the splits differ in their number of labels"),
    (lambda: write_hdf5("train", *random_data(), chunks=(1000, 4, 60)), "too large .* h5repack -l CHUNK=1000x4x256"),
    (lambda: Path("labels.tsv").write_text("column\tassay\tname\n0\tTF\tCTCF\n"), "labels.tsv must have")])
def test_bad_data_give_one_clear_line(capsys, monkeypatch, spoil, says):
    monkeypatch.setattr(danq, "TILE", 200_000)  # bytes of the largest HDF5 chunk
    write_data()
    spoil()
    check_one_line(capsys, says, danq.main, ["--data-dir", ".", "--out-dir", "out/danq"])
    assert not list(Path().rglob("*.tmp*")) and not Path("out/danq").exists()


def test_unusual_data_run_to_the_end():
    """One label, odd rows, a single test row, sequences of N alone, through links."""
    X, Y = random_data(31, K=1)
    X[3:6] = 0
    Path("data").mkdir()
    for split, n in (("train", 31), ("valid", 7), ("test", 1)):
        write_hdf5(split, X[:n], Y[:n])
        Path(f"data/{split}.mat").symlink_to(f"../{split}.mat")
    superq.main([*SMALL, *FOREST, "--epochs", "1"])
    summary = read_json("runs/superq/summary.json")
    assert (summary["labels"], summary["test_windows"], summary["labels_scored"]) == (1, 1, 0)


# ---- danq.py: annotating new sequences

def test_fasta_is_tiled_with_coordinates():
    long = letters_of(random_sequences(2).reshape(-1, 4))[:1450]
    lines = "\r\n".join(long.lower()[i:i + 61] for i in range(0, 1450, 61))
    text = f">long chr1 of something\r\n{lines}\r\n>short\r\nGATTACARN-\r\n>empty\r\n\r\n>whole\r\n{long[:1000]}"
    Path("a.fa.gz").write_bytes(gzip.compress(text.encode()))
    windows = list(danq.fasta_windows("a.fa.gz"))
    assert [window[:4] for window in windows] == [
        ("long", 0, 1000, False), ("long", 200, 1200, False), ("long", 400, 1400, False),
        ("long", 450, 1450, False), ("short", 0, 10, True), ("whole", 0, 1000, False)]
    X = danq.letters_to_onehot(windows, "a.fa")
    np.testing.assert_array_equal(X[3], letters_to_onehot(long[450:])[0])
    np.testing.assert_array_equal(X[4, 495:502], letters_to_onehot("GATTACA")[0])
    assert X[4, 502].tolist() == [1, 1, 0, 0] and X[4, 503:].sum() == 0 == X[4, :495].sum()  # R is A or G


@pytest.mark.parametrize("name", SCRIPTS)
def test_fasta_is_annotated_strand_blind(runs, name):
    X = random_sequences(6)
    strands = enumerate([*X, *danq.reverse_complement(X)])
    Path("x.fa").write_text("".join(f">s{i}\n{letters_of(x)}\n" for i, x in strands))
    flags = f"--predict x.fa --batch-size 5 --output new/p.tsv --plot p.png --out-dir {runs[name][0]}"
    SCRIPTS[name].main(flags.split())
    head, *rows = (line.split("\t") for line in Path("new/p.tsv").read_text().splitlines())
    labels = [row["name"] for row in read_table(runs[name][0] / "metrics.csv")]
    assert head == ["record", "start", "end", "padded", *labels]
    assert [row[:4] for row in rows] == [[f"s{i}", "0", "1000", "0"] for i in range(12)]
    P = np.array([row[4:] for row in rows], float)
    np.testing.assert_allclose(P[:6], P[6:], atol=1e-5)
    highest, picture = np.argsort(P[0])[-10:], Path("p.svg").read_text()
    assert "base of s0" in picture and all(labels[label] in picture for label in highest)


@pytest.mark.parametrize("content, says", [
    (b"MKVLA\n", "is not FASTA"), (b">p\nMKVLAEE\n", "record p holds 'L' at base 4"), (b">a\n\n", "holds no sequence"),
    (gzip.compress(b">a\n" + b"GATTACA\n" * 9999)[:99], "damaged gzip")])
def test_bad_fasta_gives_one_clear_line(runs, capsys, content, says):
    Path("x.fa").write_bytes(content)
    check_one_line(capsys, says, danq.main, ["--predict", "x.fa", "--out-dir", str(runs["danq"][0])])
    assert os.listdir() == ["x.fa"]


# ---- danq.py: motifs

def test_a_filters_motif_is_counted_where_it_answers_most():
    """A filter made for GATTACA, one of zeros; the word stands in the first three of ten windows."""
    X, width = random_sequences(10), 26
    X[:3, 300:307] = letters_to_onehot("GATTACA")[0]
    model, split = danq.build_danq(3, filters=2, lstm_units=0), split_of(X)
    kernel = np.zeros((width, 4, 2))
    kernel[5:12, :, 0] = letters_to_onehot("GATTACA")[0]
    scan = model.get_layer("motif_scan")
    scan.set_weights([kernel, np.array([-5., 0])])  # six of seven bases answer by half of the highest
    counts, sites, shares = danq.count_sites(scan, model, split, 4)
    at = [["ACGT".index(letter) for letter in "GATTACA"][i] for i in range(7)]
    assert sites[1] == 0 and sites[0] >= 3 and (counts[0, 5:12].argmax(1) == at).all()
    assert counts[0, 5:12].max(1).min() >= 3 and (counts[0].sum(1) == sites[0]).all()
    np.testing.assert_allclose(shares, X.mean((0, 1))[[0, 2, 1, 3]])


@pytest.mark.parametrize("name, filters, width", [("danq", 4, 26), ("superq", 4, 16), ("paper", 4, 26)])
def test_motifs_are_written_in_memes_format_and_drawn(runs, name, filters, width):
    SCRIPTS.get(name, superq).main(["--motifs", "new.meme", "--out-dir", str(runs[name][0])])
    head, *motifs = Path("new.meme").read_text().split("\nMOTIF ")
    assert head.startswith("MEME version 4\n") and "ALPHABET= ACGT" in head and 0 < len(motifs) <= filters
    for motif in motifs:
        title, shape, *rows = motif.strip().splitlines()
        assert re.fullmatch(rf"letter-probability matrix: alength= 4 w= {width} nsites= \d+ E= 0", shape)
        np.testing.assert_allclose(np.loadtxt(rows).sum(1), 1, atol=1e-5)
        assert len(rows) == width and (REAL_DATA or title.startswith("SIMULATED"))
    assert all(0 < Path(f"new.{kind}").stat().st_size < 300_000 for kind in ("png", "svg"))


def test_a_run_without_a_convolution_has_no_motifs(runs, capsys):
    check_one_line(capsys, "run of superq.py", danq.main, ["--motifs", "x.meme", "--out-dir", str(runs["superq"][0])])
    check_one_line(capsys, "no convolution", superq.main, ["--motifs", "x.meme", "--out-dir", str(runs["kmer"][0])])


# ---- danq.py: simulated data

def test_simulated_data_look_like_deepsea():
    danq.make_demo_data("demo", windows=400)
    split, labels = danq.load_split("demo", "train", "packed"), danq.load_labels("demo", 919)
    assert split.simulated and split.strands and split.n_labels == 919 and .03 < split.labels().mean() < .08
    assert [label[1] for label in labels] == ["DNase"] * 125 + ["TF"] * 690 + ["histone"] * 104
    marks, _, cells, factors, _ = (set(column) for column in zip(*(name.split("|") for _, _, name in labels)))
    assert marks == {"SIMULATED"} and len(cells) == len(factors) == 6
    codes = superq.base_codes(danq.onehot(split.X)).astype(int)
    known = (codes[:, 1:] >= 0) & (codes[:, :-1] >= 0)
    pairs = (4 * codes[:, :-1] + codes[:, 1:])[known]
    shares = np.bincount(pairs, minlength=16).reshape(4, 4) / len(pairs)  # of A, G, C, T
    assert .36 < shares[1:3].sum() < .50, "GC content"
    assert shares[2, 1] < .6 * shares[1, 2], "CpG is depleted"
    again = danq.load_split("demo", "test", "packed")
    assert len(again) == 200 and not np.array_equal(again.X, split.X[:200])


def test_who_knows_the_rules_of_simulated_data_scores_what_the_docstring_says():
    _, Y, P = danq.simulate(np.random.default_rng(1), 3000, danq.random_motifs(np.random.default_rng(2)))
    scores = [[score(Y[:, k], P[:, k]) for score in (roc_auc_score, average_precision_score)] for k in range(0, 919, 5)]
    auroc, auprc = map(float, re.search(r"AUROC (.\d+), AUPRC (.\d+)", danq.make_demo_data.__doc__).groups())
    np.testing.assert_allclose(np.mean(scores, 0), (auroc, auprc), atol=.02)


# ---- superq.py: the autoencoders

@pytest.mark.parametrize("flags", ("--paper --no-lstm", "--ablation 1", "--ablation 3", "--ablation 4", "--no-lstm"))
def test_every_autoencoder_has_500_numbers_and_answers_with_bases(flags):
    network = superq.build(superq.parse_args(["--filters", "8", "--lstm-units", "2", *flags.split()]), n_labels=9)
    bases = network.output["bases"] if isinstance(network.output, dict) else network.output
    assert superq.encoder_of(network).output.shape == (None, 500) and bases.shape == (None, 1000, 4)


def compiled_small():
    """A small autoencoder, compiled, and a function: Split -> its losses and accuracy, all in one batch."""
    network = superq.build_autoencoder(4, 2, n_labels=3)
    model = superq.compile_autoencoder(network, list(superq.CHANGES), steps=1, n_labels=3, label_weight=2.)
    return network, lambda split: model.evaluate(danq.Batches(split, len(split)), verbose=0, return_dict=True)


def test_unknown_bases_count_in_neither_loss_nor_accuracy():
    X, _ = random_data(6)  # holds an N stretch and an M on both strands
    network, losses = compiled_small()
    scores, known, P = losses(split_of(X)), X.sum(-1) == 1, network.predict(X, verbose=0)["bases"]
    assert known.sum() == 6000 - 2 * 6
    assert scores["bases_acc"] == pytest.approx((P.argmax(-1) == X.argmax(-1))[known].mean())
    assert scores["bases_loss"] == pytest.approx(-np.log((P * X).sum(-1)[known]).mean(), rel=1e-4)


def test_unlabelled_sequences_join_the_reconstruction_alone():
    X, (_, losses) = random_sequences(6), compiled_small()
    both = dataclasses.replace(split_of(X[:4]), unlabelled=danq.packed(X[4:]))
    labelled, together, everything = losses(split_of(X[:4])), losses(both), losses(split_of(X))
    assert together["labels_loss"] == pytest.approx(labelled["labels_loss"], rel=1e-5)
    assert together["bases_loss"] == pytest.approx(everything["bases_loss"], rel=1e-5)


def test_nadam_of_2018_by_hand():
    """Two steps on one weight: Dozat (2016) with Keras 2's momentum schedule."""
    weight, optimizer = keras.Variable(1.), superq.Nadam2018(.1, beta_1=.9, beta_2=.999, epsilon=1e-8)
    expected, m, v, product = 1., 0., 0., 1.
    for t, gradient in ((1, .5), (2, -.2)):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        now, later = (.9 * (1 - .5 * .96 ** (.004 * s)) for s in (t, t + 1))
        product *= now
        m, v = .9 * m + .1 * gradient, .999 * v + .001 * gradient ** 2
        ahead = (1 - now) * gradient / (1 - product) + later * m / (1 - product * later)
        expected -= .1 * ahead / (np.sqrt(v / (1 - .999 ** t)) + 1e-8)
        assert float(keras.ops.convert_to_numpy(weight)) == pytest.approx(expected, rel=1e-5)


# ---- superq.py: how well is DNA rebuilt?

def squared_counts(k, X):
    """{k-mer: counts on either strand} of KmerCounts over all of one-hot X, by the first of both strands' names."""
    names = ["".join("AGCT"[i // 4 ** j % 4] for j in range(k)[::-1]) for i in range(4 ** k)]
    one = [name for i, name in enumerate(names) if i <= superq.complement_words(k)[i]]
    counts = np.asarray(superq.KmerCounts(k, X.shape[1])(X.astype(np.float32)))[0] ** 2
    return {name: count for name, count in zip(one, counts, strict=True) if count}


def test_kmers_in_letters():
    X = letters_to_onehot("GATTACANGATTACA")  # none across the N; AATC is GATT on the other strand
    assert squared_counts(4, X) == pytest.approx({"AATC": 2, "ATTA": 2, "GTAA": 2, "TACA": 2})
    assert squared_counts(4, danq.reverse_complement(X)) == squared_counts(4, X)
    pairs = {"AT": 2, "AA": 1, "GA": 1, "AC": 1, "CA": 1, "TA": 2}  # AT and TA are their own other strand
    assert squared_counts(2, letters_to_onehot("GATTACA")) == pytest.approx(pairs)


def test_pooled_features_stand_in_the_middle_and_are_strand_blind():
    X, elsewhere = random_sequences(4), random_sequences(4)
    elsewhere[:, 350:650] = X[:, 350:650]  # the same middle; 600 and 1,000 bases are only counted
    inputs = keras.Input((1000, 4))
    network = keras.Model(inputs, superq.pooled_features(inputs, 4, 2, False, None))
    Z = [network.predict(x, verbose=0) for x in (X, danq.reverse_complement(X), X[:, ::-1])]
    np.testing.assert_allclose(Z[0], Z[1], atol=1e-4)
    assert abs(Z[0] - Z[2]).max() > .01
    middle = keras.Model(network.inputs, network.get_layer("motif_scan").output)
    np.testing.assert_array_equal(middle.predict(X, verbose=0), middle.predict(elsewhere, verbose=0))


def test_shares_of_bases():
    split = split_of(np.tile(letters_to_onehot("AC"), (60, 500, 1)))
    np.testing.assert_allclose(superq.base_shares(split), (.5, 0, .5, 0), atol=1e-3)


# ---- superq.py: encodings and forest

@pytest.mark.parametrize("name, model, layer", (("superq", "superq", "bottleneck"), ("danq-forest", "danq", "dense")))
def test_encodings_are_what_a_layer_answers(runs, name, model, layer):
    model, splits = danq.load_model(runs[model][0]), danq.load_data(superq.parse_args(runs[name][2]))[0]
    layer = keras.Model(model.inputs, model.get_layer(layer).output)
    with h5py.File(runs[name][0] / "encodings.h5") as file:
        for split, rows in splits.items():
            Z = layer.predict(danq.onehot(rows.X), verbose=0)
            np.testing.assert_allclose(file[f"{split}/Z"][:], Z, rtol=2e-3, atol=.01)
            np.testing.assert_array_equal(file[f"{split}/Y"][:], rows.labels())


def forest_data(n=400, K=7):
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(n, 20)).astype(np.float16).astype(np.float32)
    return Z, (Z[:, :K] + .5 * rng.normal(size=(n, K)) > .8).astype(np.uint8)


@pytest.mark.parametrize("K", (7, 1))
def test_forest_is_scikit_learns_own_without_projections(K):
    Z, Y = forest_data(K=K)
    ours = superq.fit_forest(Z, Y, trees=30, leaf=5, projections=0, seed=3, bootstrap=False)
    theirs = RandomForestRegressor(30, min_samples_leaf=5, max_features="sqrt", bootstrap=False, random_state=3)
    theirs.fit(Z, Y if K > 1 else Y[:, 0])
    new = np.random.default_rng(1).normal(size=(100, 20)).astype(np.float32)
    np.testing.assert_allclose(superq.predict_forest(ours, new), theirs.predict(new).reshape(100, K), atol=1e-6)


def test_forest_streams_and_its_leaf_means_are_over_all_rows():
    Z, Y = forest_data()
    with h5py.File("e.h5", "w") as file:
        file["Z"], file["Y"] = Z.astype(np.float16), Y
        forest = superq.fit_forest(file["Z"], file["Y"], trees=25, leaf=5, samples=100)
    reached = superq.leaves_of(forest, Z)
    sizes = np.asarray(reached.sum(0)).ravel()
    assert (reached.sum(1) == 25).all() and sizes.sum() == 25 * 400
    np.testing.assert_allclose((reached.T @ Y) / sizes[:, None], forest["means"], atol=1e-5)


def test_another_classifier_takes_the_forests_place(runs, monkeypatch):
    """Linear regression in two functions, as superq.py says above its forest."""
    def fit(Z, Y, *args, **options):
        return {"W": np.linalg.lstsq(np.float32(Z[:]), np.float32(Y[:]), rcond=None)[0]}

    monkeypatch.setattr(superq, "fit_forest", fit)
    monkeypatch.setattr(superq, "predict_forest", lambda fitted, Z: Z @ fitted["W"])
    shutil.copytree(runs["superq"][0], "run")
    superq.main("--out-dir run --reuse-encodings --forest-leaf 9".split())
    Path("some.fa").write_text(">chr\n" + "GATTACAT" * 125)
    superq.main("--out-dir run --predict some.fa".split())
    with np.load("run/forest.npz") as file:
        assert set(file) == {"W", "data"}
    assert len(Path("predictions.tsv").read_text().splitlines()) == 2


def test_a_forest_file_cannot_run_code(capsys):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (Path("ran"),)
    np.savez("f.npz", means=np.array([Malicious()], object))
    check_one_line(capsys, "f.npz is damaged .*plain arrays", superq.load_forest, "f.npz")
    assert not Path("ran").exists()


def test_forest_alone_on_kept_encodings(runs, capsys):
    shutil.copytree(runs["superq"][0], "run")
    encodings, before = os.stat("run/encodings.h5").st_mtime_ns, read_json("run/summary.json")
    superq.main("--out-dir run --reuse-encodings --forest-leaf 4 --forest-trees 9".split())
    assert "[3/3] forest: 9 trees" in (printed := capsys.readouterr().out) and "[1/3]" not in printed
    assert os.stat("run/encodings.h5").st_mtime_ns == encodings
    assert read_json("run/summary.json")["reconstruction"] == before["reconstruction"]


# ---- superq.py: yardsticks and unlabelled DNA

def test_pca_features_have_the_variances_of_the_components():
    X, args = random_sequences(60), superq.parse_args(["--features", "pca"])
    superq.make_yardstick(args, {"train": split_of(X)}, Path())
    Z = superq.load_encoder(Path(), "pca", args.ablation)(danq.packed(X)).astype(float)
    X = X.reshape(60, -1).astype(float)
    spread = np.linalg.svd(X - X.mean(0), compute_uv=False)[:5] ** 2 / 59
    np.testing.assert_allclose(Z[:, :5].var(0, ddof=1), spread, rtol=.01)


def test_unlabelled_files_are_packed_from_fasta_and_mat():
    X = random_sequences(6)
    text = ">a\n" + "".join(letters_of(x) for x in X) + "\n>b\n" + "N" * 999 + "A\n"
    Path("g.fa.gz").write_bytes(gzip.compress(text.encode()))
    write_hdf5("train", X, np.ones((6, 3), np.uint8), chunks=(100, 4, 2))
    scipy.io.savemat("x.mat", {"xdata": X.transpose(0, 2, 1)})
    for name in ("g.fa.gz", "train.mat", "x.mat"):
        for limit, rows in ((None, X), (3, X[::2])):  # evenly spread
            bits = superq.load_unlabelled(name, Path("packed"), limit)
            np.testing.assert_array_equal(danq.onehot(bits), rows)


# ---- superq.py: side by side

def test_comparison_sets_runs_side_by_side(runs, capsys):
    folders = [out for out, _, _ in runs.values()]
    superq.main(["--compare", *map(str, folders)])
    table = (folders[0].parent / "comparison.md").read_text()
    assert table in capsys.readouterr().out
    for picture in ("comparison", "comparison-training", "comparison-labels"):
        for kind in ("png", "svg"):
            assert 10_000 < (folders[0].parent / f"{picture}.{kind}").stat().st_size < 300_000
    training = (folders[0].parent / "comparison-training.svg").read_text()
    assert all(f"{name}: {key}" in training for name in ("danq", "superq", "paper") for key in ("loss", "acc"))
    for summary in (read_json(folder / "summary.json") for folder in folders):
        assert re.search(rf"\| {re.escape(summary['model'])} \|.* {summary['means']['all']['auprc']:.4f} ", table)


def test_seeds_become_mean_and_spread_and_other_settings_rows_of_their_own(runs, capsys):
    def copy_run(name, auroc=.5, windows=40, tested=10, **settings):
        Path(name).mkdir()
        record, summary = (read_json(runs["kmer"][0] / file) for file in ("args.json", "summary.json"))
        Path(name, "args.json").write_text(json.dumps(record | {"settings": record["settings"] | settings}))
        summary["means"]["all"]["auroc"] = auroc
        summary |= {"limit": windows, "train_sequences": 2 * windows, "test_windows": tested}
        Path(name, "summary.json").write_text(json.dumps(summary))
        shutil.copy(runs["kmer"][0] / "metrics.csv", name)

    for seed, auroc in enumerate((.6, .7, .9)):
        copy_run(str(seed), auroc, seed=seed)
    copy_run("other", forest_trees=9)
    copy_run("larger", windows=41)
    copy_run("far", tested=11)
    superq.main("--compare 0 1 2 --output seeds.v1".split())
    printed = capsys.readouterr().out
    assert "k-mers -> forest (3 seeds) | 0.7333 ± 0.1528" in printed and Path("seeds.v1.png").is_file()
    superq.main("--compare 0 other --output all.md".split())
    printed = capsys.readouterr().out
    assert re.findall(r"(?m)^\| k-mers -> forest (\S+) \| \d", printed) == ["[0]", "[other]"]
    assert "| k-mers -> forest [other] | k-mers -> forest [0] | +0.0000 (+0.0000 to +0.0000) |" in printed
    check_one_line(capsys, "limit is 41, not 40", superq.main, ["--compare", "0", "larger"])
    check_one_line(capsys, "is a folder", superq.main, ["--compare", "0", "--output", "runs/"])
    Path("2/metrics.csv").write_text("".join(open("2/metrics.csv").readlines()[:3]))
    check_one_line(capsys, r"2/metrics.csv is damaged \(it has 2 rows", superq.main, ["--compare", "0", "2"])
    superq.main("--curve 0 1 larger --output curve.md".split())
    assert "| k-mers -> forest | 0.6500 ± 0.0707 / " in capsys.readouterr().out and Path("curve.png").is_file()
    check_one_line(capsys, "0 and far were not scored on the same test", superq.main, ["--curve", "0", "far"])


# ---- nothing is lost

class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


def check_same_run(folder, expected):
    """Weights, history but for its seconds, and scores are equal to the bit; nothing half-made is left."""
    weights, theirs = (danq.load_model(out).get_weights() for out in (folder, expected))
    assert all(np.array_equal(a, b) for a, b in zip(weights, theirs, strict=True))
    assert read_table(folder / "metrics.csv") == read_table(expected / "metrics.csv")
    history, theirs = ([row | {"seconds": ""} for row in read_table(out / "history.csv")] for out in (folder, expected))
    assert history == theirs
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir() if not path.is_dir()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_killed_between_any_two_writes_ends_as_if_it_had_not(runs, monkeypatch, name):
    """Die again and again at the n-th renaming of a file, with a checkpoint after every step."""
    expected, _, flags = runs[name]
    rename, deaths, left = os.replace, 0, 0

    def replace(*paths):
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        rename(*paths)

    monkeypatch.setattr(os, "replace", replace)
    for left in (5, 8, 6, 10 ** 9):
        try:
            SCRIPTS[name].main([*flags, "--out-dir", f"runs/{name}", "--checkpoint-minutes", "0"])
            break
        except Killed:
            deaths += 1
    assert deaths >= 3
    check_same_run(Path("runs", name), expected)


def test_kill_minus_9_in_the_middle_of_an_epoch(runs):
    expected, _, flags = runs["danq"]
    command = [sys.executable, HERE / "danq.py", *flags, "--out-dir", "danq", "--checkpoint-minutes", "0"]
    checkpoint = Path("danq/checkpoint.npz")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not checkpoint.is_file() and run.poll() is None:
            time.sleep(.001)
        run.kill()
    with np.load(checkpoint) as file:
        assert 0 < json.loads(str(file["state"]))["step"] < 4
    run = subprocess.run(command, capture_output=True, text=True)
    assert "going on after step" in run.stdout, run.stderr
    check_same_run(Path("danq"), expected)


def test_encodings_already_made_are_kept():
    splits, made = {name: split_of(random_sequences(50)) for name in danq.SPLITS}, []

    def write(path, fail_at=0):
        def encode(bits):
            made.append(len(bits))
            if len(made) == fail_at:
                raise Killed
            return bits[:, :7].astype(np.float32)
        made.clear()
        superq.write_encodings(Path(path), encode, splits, [(0, "a", "b")] * 3, {}, 20)
        with h5py.File(path) as file:
            return [file[f"{split}/Z"][:] for split in splits]

    with pytest.raises(Killed):
        write("e.h5", fail_at=6)  # the first is for the width; 4 batches of 9 are done
    with open("e.part", "ab") as file:
        file.write(b"half a batch")
    again = write("e.h5")
    assert len(made) == 1 + 9 - 4 and not Path("e.part").exists()
    np.testing.assert_array_equal(again, write("whole.h5"))


def test_a_full_disk_gives_one_line_and_keeps_what_was_made(runs):
    """Files may have so many kB at most, as by ulimit -f: while packing, while annotating, in the stages."""
    write_data()
    Path("x.fa").write_text(">a\n" + "ACGT" * 600)
    flags = [*runs["kmer"][2], "--forest-trees", "500", "--out-dir"]
    danq_run, run = runs["danq"][0], shlex.join([*flags, "runs/full"])
    steps = [(12, "danq", "--data-dir .", "npy"), (1, "danq", f"--predict x.fa --out-dir {danq_run}", "tsv"),
             (20, "superq", run, "part"), (90, "superq", run, "h5"), (1300, "superq", run, "npz")]
    superq.main([*flags, "runs/whole"])
    run = run_python("-c", """if True:
        import contextlib, json, resource, shlex, sys, danq, superq
        for kilobytes, name, flags, _ in json.loads(sys.argv[1]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, resource.RLIM_INFINITY))
            with contextlib.suppress(SystemExit):
                danq.command_line(lambda: globals()[name].main(shlex.split(flags)))""", json.dumps(steps))
    assert re.findall(r"(\w+): File too large", run.stderr) == [end for *_, end in steps], run.stderr
    assert not [*Path().rglob("*.tmp*"), *Path().glob("*.tsv")]
    superq.main([*flags, "runs/full"])
    assert read_table("runs/full/metrics.csv") == read_table("runs/whole/metrics.csv")


# ---- bad files, by generator

def flip(content, rng):
    spoilt = np.frombuffer(content, np.uint8).copy()
    n = max(3, len(content) // 2000)
    spoilt[rng.integers(len(spoilt), size=n)] ^= rng.integers(1, 256, size=n, dtype=np.uint8)
    return spoilt.tobytes()


SPOILS = {
    "cut": lambda content, rng: content[:rng.integers(1, max(2, len(content) * 9 // 10))],
    "flipped": flip,
    "empty": lambda content, rng: b"",
    "text": lambda content, rng: b"<html>404 not found</html>\n" * 20}
READERS = {
    "train.mat": lambda: danq.load_split(".", "train", "packed"),
    "more.fa.gz": lambda: superq.load_unlabelled("more.fa.gz", Path("packed")),
    "checkpoint.npz": lambda: danq.Checkpoint(Path("checkpoint.npz"), None),
    "danq/args.json": lambda: danq.main("--predict ok.fa --out-dir danq".split()),
    "danq/model.keras": lambda: danq.main("--predict ok.fa --out-dir danq".split()),
    "superq/forest.npz": lambda: superq.main("--predict ok.fa --out-dir superq".split()),
    "superq/encodings.h5": lambda: superq.main("--out-dir superq --reuse-encodings --forest-trees 2".split())}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", READERS)
def test_spoilt_files_give_one_clear_line_or_the_right_result(runs, capsys, name, spoil):
    run = name.split("/")[0]
    if run in runs:
        shutil.copytree(runs[run][0], run)
    write_data()
    Path("ok.fa").write_text(">ok\n" + "GATTACA" * 200)
    Path("more.fa.gz").write_bytes(gzip.compress(b">a\n" + b"GATTACAGATTACA\n" * 300))
    np.savez("checkpoint.npz", state=json.dumps({"step": 1, "seconds": 0., "history": []}), v0=np.arange(99.))
    path = Path(name)
    path.write_bytes(SPOILS[spoil](path.read_bytes(), np.random.default_rng(len(name))))
    try:
        danq.command_line(READERS[name])
    except SystemExit as stop:
        error = capsys.readouterr().err
        assert stop.code == 2 and error.count("\n") == 1 and run in error, error
        assert not [*Path().rglob("*.tmp*"), *Path().glob("*.tsv")]
    else:
        assert spoil == "flipped", "this cannot have been read"


# ---- documents

def test_every_command_of_the_documents_parses():
    files = [(HERE / name).read_text() for name in ("README.md", "run_all.sh")]
    text = "\n".join([*files, danq.__doc__, superq.__doc__])
    commands = re.findall(r"python (danq|superq|test_superq)\.py((?: (?!#|  )[^\s`|)]+)*)", text)
    parsers = {"danq": danq.parse_args, "superq": superq.parse_args, "test_superq": benchmark_args}
    assert len(commands) > 8
    for script, flags in commands:
        parsers[script](shlex.split(flags))


def test_shell_script_is_sound_and_refuses_bad_settings():
    subprocess.run(["bash", "-n", HERE / "run_all.sh"], check=True)
    for bad in ("EPOCHS=0", "LIMIT=x", "DATA=/nowhere", "SEEDS=1,2", "--tset"):
        command = ["env", bad, "bash", HERE / "run_all.sh"] if "=" in bad else ["bash", HERE / "run_all.sh", bad]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 2 and run.stderr.count("\n") == 1 and bad.split("=")[0] in run.stderr


def test_a_gpu_that_keras_does_not_see_stops_the_run():
    """A copy of the kit, with this environment, on a machine whose nvidia-smi sees a GPU."""
    for name in ("run_all.sh", "danq.py", "requirements.txt"):
        shutil.copy(HERE / name, ".")
    Path("bin").mkdir()
    Path("bin/nvidia-smi").write_text("#!/bin/sh\necho GPU 0: one")
    Path("bin/nvidia-smi").chmod(0o755)
    Path(".venv/bin").mkdir(parents=True)
    Path(".venv/bin/python").write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} \"$@\"")
    Path(".venv/bin/python").chmod(0o755)
    wanted = Path("requirements.txt").read_text().strip()
    Path(".venv/installed.txt").write_text(wanted.replace("tensorflow==", "tensorflow[and-cuda]=="))
    environment = os.environ | {"PATH": f"bin:{os.environ['PATH']}", "KERAS_BACKEND": "tensorflow", "DATA": "."}
    run = subprocess.run(["bash", "run_all.sh"], capture_output=True, text=True, env=environment)
    assert run.returncode == 2 and "nvidia-smi sees a GPU and Keras none (tensorflow says: " in run.stderr, run


# ---- the benchmarks measure what they say

def test_floating_point_operations_by_hand():
    conv, blstm, dense = 975 * 26 * 4 * 5, 75 * 2 * 4 * (5 * 3 + 3 * 3), 75 * 6 * 925 + 925 * 7
    assert flops(danq.build_danq(7, 5, 3)) == 2 * (conv + blstm + dense)
    scans, steps, code = 2 * 285 * 16 * 4 * 5, 2 * 14 * 2 * 4 * (5 * 3 + 3 * 3), (200 + 4 * 5 + 2 * 6) * 250
    assert flops(superq.encoder_of(superq.build_autoencoder(5, 3, 7))) == 2 * (250 * 4 * 4 + scans + steps + code)


def test_benchmarks_measure_every_stage(data_dir, monkeypatch, capsys):
    """The smallest size; packed copies of all chunk shapes are compared to their source by the benchmark itself."""
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", .1)
    monkeypatch.setattr(sys.modules[__name__], "BATCHES", (10,))
    small, rows = "--limit 60 --filters 4 --lstm-units 2 --batch-size 10 --out-dir runs/x", {}
    for name, more in (("danq", ""), ("superq", "--forest-trees 4 --forest-leaf 8 --forest-samples 100")):
        benchmark(f"--benchmark {name} {small} {more}".split())
        record, printed = read_json(f"runs/benchmark-{name}.json"), capsys.readouterr().out
        assert all(f"| {what} |" in printed and row["rate"] > 0 for what, row in record["rows"].items())
        assert record["versions"]["keras"] and record["matrix_product_flop_s"] > 0
        rows |= record["rows"]
    stages = [f"packing, chunks: {chunks}" for chunks in CHUNKINGS] + [
        "feeding batches of 10", "training, batches of 10", "prediction, batches of 10", "encoding",
        "forest, 4 trees x 919 labels, 120 rows"]
    assert set(stages) <= rows.keys() and len(os.listdir("runs")) == 2
    benchmark(f"--benchmark both {small}".split())
    assert re.search(r"of 10: SuperQ trains \d+.\d times", capsys.readouterr().out)
    split, row = benchmark_packing(data_dir / "train.mat", Path())
    assert row["n"] == len(split) and "h5py alone reads" in row["beside"]


# ---- benchmarks

FULL = 4_400_000  # training sequences of the DeepSEA bundle
SECONDS = 20.  # that a network is measured for
BATCHES = 100, 500, 2000  # of --benchmark both
CHUNKINGS = {  # HDF5 chunks of (1000, 4, n) bases and (K, n) labels
    "contiguous": lambda shape: None,
    "whole sequences": lambda shape: (*shape[:-1], min(64, shape[-1])),
    "whole rows": lambda shape: (1, *shape[1:]),
    "tiles": lambda shape: (min(100, shape[0]), *shape[1:-1], min(10_000, shape[-1])),
    "h5py's guess": lambda shape: True}


class Measured:
    """Time and peak memory of a block; row(n) is a row of the table, for n sequences."""

    def __enter__(self):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self.started = time.time()
        return self

    def __exit__(self, *error):
        self.seconds, self.gb = time.time() - self.started, danq.peak_memory()

    def row(self, n, **more):
        return {"n": n, "rate": n / self.seconds, "gb": self.gb, **more}


def flops(network):
    """Floating-point operations of a sample's forward pass: a multiplication and an addition a weight and place."""
    total, pooled = 0, any(isinstance(layer, superq.KmerCounts) for layer in network.layers)
    for layer in network.layers:
        for node in layer._inbound_nodes:
            places = math.prod(node.output_tensors[0].shape[1:-1])
            places *= 2 if pooled and layer.name.startswith("motif_") else 1  # both strands, as rows of the batch
            total += 2 * places * sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    return total


def random_split(folder, n, K=919):
    """A packed split of n random sequences x K random labels, for measuring: it teaches nothing."""
    rng, pairs = np.random.default_rng(0), np.add.outer([128, 64, 32, 16], [8, 4, 2, 1]).astype(np.uint8).ravel()
    np.save(folder / "X.npy", pairs[rng.integers(16, size=(n, danq.LENGTH // 2), dtype=np.uint8)])
    Y = np.bitwise_and.reduce(rng.integers(256, size=(6, n, -(-K // 8)), dtype=np.uint8))  # one label in 64
    Y[:, -1] &= 256 - (1 << -K % 8)
    np.save(folder / "Y.npy", Y)
    X, Y = (np.load(folder / f"{key}.npy", mmap_mode="r") for key in "XY")
    return danq.Split(X, Y, K, n, simulated=True)


def write_chunked(path, split, chunking):
    """Write a packed split as a train.mat with HDF5 chunks of one of CHUNKINGS, gzipped where there are chunks."""
    with h5py.File(path, "w") as file:
        for key, array in (("trainxdata", danq.onehot(split.X).transpose(1, 2, 0)), ("traindata", split.labels().T)):
            chunks = CHUNKINGS[chunking](array.shape)
            options = {"chunks": chunks, "compression": "gzip", "compression_opts": 1} if chunks else {}
            file.create_dataset(key, data=array, **options)


def evict(*paths):
    """Drop files from the system's page cache, so that they are read from the disk."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def release(split):
    """Let go of the mapped pages of a packed split: they would count as this process' memory."""
    for array in (split.X, split.Y):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def benchmark_packing(path, folder):
    """Read train.mat as danq.pack_array does, without packing; then pack it, both from the disk: (Split, row)."""
    only_read = mock.patch.multiple(danq, as_bits=lambda tile, *_: tile, add_bits=lambda *_: None)
    evict(path)
    with only_read, danq.open_mat(path, ("trainxdata", "traindata")) as (X, Y, _), Measured() as alone:
        for array in (X, Y):
            danq.pack_array(array, [(0, X.shape[-1])], folder / "nothing.npy", "")
    evict(path)
    with Measured() as it:
        split = danq.load_split(path.parent, "train", folder)
    n, share = len(split), alone.seconds / it.seconds
    beside = f"h5py alone reads {n / alone.seconds:,.0f} sequences/s, {share:.0%} of that"
    return split, it.row(n, of_it=share, beside=beside)


def benchmark_feeding(batches):
    """Draw batches without a network: a row of the table."""
    with Measured() as it:
        n = sum(len(batches[step][0]) for step in range(min(len(batches), 5000)))
    return {f"feeding batches of {batches.batch_size}": it.row(n)}


def benchmark_network(model, batches):
    """Train and predict for about SECONDS each: two rows of the table, after a first step that compiles."""
    order, size, rows = batches.order, batches.batch_size, {}

    def train(steps):
        batches.order = np.resize(order, steps * size)
        model.fit(batches, shuffle=False, verbose=0)

    def predict(steps):
        for rows in np.resize(order, (steps, size)):
            model.predict_on_batch(batches.split.X[rows])

    for name, run, passes in (("training", train, 3), ("prediction", predict, 1)):
        run(1)
        with Measured() as it:
            run(3)
        steps = max(3, round(SECONDS / it.seconds * 3))
        with Measured() as it:
            run(steps)
        rows[f"{name}, batches of {size}"] = it.row(steps * size, flop=passes * flops(model.layers[-1]))
    return rows


def benchmark_danq(args, folder):
    source, rows = random_split(folder, 2 * (args.limit or 10_000)), {}
    for chunking in CHUNKINGS:
        write_chunked(folder / "train.mat", source, chunking)
        release(source)
        split, rows[f"packing, chunks: {chunking}"] = benchmark_packing(folder / "train.mat", folder)
        assert np.array_equal(split.X, source.X) and np.array_equal(split.Y, source.Y), chunking
    batches = danq.Batches(split, args.batch_size, args.seed)
    with danq.all_devices(args.batch_size):
        return rows | benchmark_feeding(batches) | benchmark_network(danq.compiled_danq(args, split.n_labels), batches)


def benchmark_superq(args, folder):
    split = random_split(folder, 2 * (args.limit or 10_000))
    batches = danq.Batches(split, args.batch_size, args.seed)
    with danq.all_devices(args.batch_size):
        model = superq.compiled_autoencoder(args, split.n_labels, len(split))
        rows = benchmark_feeding(batches) | benchmark_network(model, batches)
    model.layers[-1].save(folder / "model.keras")  # to go on with one device
    rows |= benchmark_encoding(args, folder, split)
    release(split)
    return rows | benchmark_forest(args, folder / "encodings.h5")


def benchmark_both(args, folder):
    """Training and prediction of both networks at three batch sizes."""
    split, rows = random_split(folder, 2 * (args.limit or 10_000)), {}
    for size in BATCHES:
        for name, script in SCRIPTS.items():
            own = script.parse_args([*args.flags, "--batch-size", str(size)])
            model = danq.compiled_danq(own, split.n_labels) if name == "danq" else superq.compiled_autoencoder(
                own, split.n_labels, len(split))
            for what, row in benchmark_network(model, danq.Batches(split, size, own.seed)).items():
                rows[f"{name}: {what}"] = row | {"epochs": own.epochs}
        ratio = rows[f"superq: training, batches of {size}"]["rate"] / rows[f"danq: training, batches of {size}"]["rate"]
        print(f"batches of {size}: SuperQ trains {ratio:.1f} times as fast as DanQ", flush=True)
    return rows


def benchmark_encoding(args, folder, split):
    """Encode all rows: a row of the table."""
    encode, autoencoder = superq.load_encoder(folder, "autoencoder", args.ablation), danq.load_model(folder)
    labels = [(i, "", "") for i in range(split.n_labels)]
    encode(split.X[:args.batch_size])  # compiles
    with Measured() as it:
        superq.write_encodings(folder / "encodings.h5", encode, {"train": split}, labels, {}, args.batch_size)
    return {"encoding": it.row(len(split), flop=flops(superq.encoder_of(autoencoder)))}


def benchmark_forest(args, path):
    """The forest on all rows, without a projection: run_all.sh --full fits it at full size."""
    with h5py.File(path) as file, Measured() as it:
        Z, Y = file["train/Z"], file["train/Y"]
        forest = superq.fit_forest(Z, Y, args.forest_trees, args.forest_leaf, args.forest_samples,
                                   args.forest_projections, args.seed)
        name, n = f"forest, {args.forest_trees} trees x {Y.shape[1]} labels, {len(Z):,} rows", len(Z)
    return {name: it.row(n, full_seconds=None, beside=f"{it.seconds:,.0f} s, {len(forest['means']):,} leaves")}


def matrix_product_rate(size=2048, times=10):
    """Floating-point operations a second of the backend's own matrix product, a network's yardstick."""
    ones = keras.ops.ones((size, size))
    for _ in range(2):  # the first time it compiles
        with Measured() as it:
            for _ in range(times):
                keras.ops.convert_to_numpy(keras.ops.matmul(ones, ones)[0, 0])
    return 2 * size ** 3 * times / it.seconds


def print_benchmark(rows, path, script, epochs):
    """Print {what: row} as a table, with the time for the DeepSEA bundle projected, and write it to `path` as JSON."""
    product, about = matrix_product_rate(), danq.surroundings(script)
    training = next(row["rate"] for name, row in rows.items() if "training" in name)
    print(f"\n{about['machine']}; {', '.join(about['device'])}; Keras {keras.__version__} on {about['backend']}; "
          f"{time.strftime('%F')}; matrix product {product / 1e9:,.0f} GFLOP/s\n\n"
          f"| what | sequences/s | peak memory | {FULL / 1e6:.1f} million take | beside |\n|---|---|---|---|---|")
    for name, row in rows.items():
        passes, beside = row.get("epochs", epochs) if "training" in name else 1, row.get("beside", "")
        if name.startswith("feeding"):
            beside = f"{row['rate'] / training:,.0f} times the training's rate"
        if "flop" in row:
            row["flop_s"] = row["flop"] * row["rate"]
            beside = (f"{row['flop'] / 1e9:.3f} GFLOP each: {row['flop_s'] / 1e9:,.0f} GFLOP/s, "
                      f"{row['flop_s'] / product:.0%} of the matrix product's")
        row["projected_seconds"] = seconds = row.get("full_seconds", FULL * passes / row["rate"])
        unit, each = ("h", 3600) if (seconds or 0) >= 3600 else ("min", 60)
        span = f"{seconds / each:,.1f} {unit}" + f" ({passes} epochs)" * (passes > 1) if seconds else "-"
        print(f"| {name} | {row['rate']:,.0f} | {row['gb']:.2f} GB | {span} | {beside} |")
    danq.write_json(path, about | {"matrix_product_flop_s": product, "rows": rows})
    print(f"-> {path}")


def benchmark_args(argv):
    """The name of the script to measure, and its arguments."""
    parser = danq.Parser(description="Measure every stage of a script; all its flags are taken, too.")
    parser.add_argument("--benchmark", choices=(*SCRIPTS, "both"), required=True)
    chosen, flags = parser.parse_known_args(argv)
    args = SCRIPTS.get(chosen.benchmark, danq).parse_args(flags)
    return chosen.benchmark, argparse.Namespace(**vars(args), flags=flags)


def benchmark(argv=None):
    """Measure every stage; print a table and write it to benchmark-NAME.json beside --out-dir."""
    name, args = benchmark_args(argv)
    home = danq.packed_dir(args.out_dir).parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark", dir=home) as folder:
        rows = {"danq": benchmark_danq, "superq": benchmark_superq, "both": benchmark_both}[name](args, Path(folder))
    print_benchmark(rows, home / f"benchmark-{name}.json", "superq.py" if name == "both" else f"{name}.py", args.epochs)


if __name__ == "__main__":
    danq.command_line(benchmark)
