"""Tests of danq.py and superq.py, in the order of the scripts; at the end their benchmarks.

    bash run_all.sh --test                           makes the environment, then runs this (about 5 minutes on 2 cores)
    DEEPSEA_DATA=dir pytest test_superq.py -k data   the data tests on the first rows of real files
    python test_superq.py --benchmark danq           speed and memory of each stage (or superq, or both's training)

A test runs in an empty folder of its own: relative paths are there.
"""
import contextlib
import csv
import gzip
import io
import json
import math
import mmap
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
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
from sklearn.metrics import average_precision_score, roc_auc_score

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


def random_data(n=60, K=9, seed=0):
    """One-hot (n, 1000, 4) whose second half is the reverse complement of the first, and labels (n, K)."""
    X, Y = random_sequences(n // 2, seed), np.random.default_rng(seed).random((n // 2, K)) < .3
    X[0, :5], X[1, 7] = 0, (1, 0, 1, 0)  # an N stretch and an IUPAC M
    return np.concatenate([X, danq.reverse_complement(X)]), np.concatenate([Y, Y]).astype(np.uint8)


def split_of(X, Y):
    """A Split of one-hot X (n, 1000, 4) and labels (n, K)."""
    return danq.Split(danq.packed(X), np.packbits(Y, axis=1), Y.shape[1], len(X))


def compiled(name, args, split):
    """The network that a script trains on a Split."""
    if name == "danq":
        return danq.compiled_danq(args, split.n_labels)
    return superq.compiled_autoencoder(args, split.n_labels, len(split))


def write_hdf5(split, X, Y, label_chunks=None, simulated=False, **options):
    with h5py.File(f"{split}.mat", "w", userblock_size=512) as file:
        file.create_dataset(f"{split}xdata", data=X.transpose(1, 2, 0), **options)
        file.create_dataset(f"{split}data", data=Y.T, chunks=label_chunks)
        if simulated:
            file["simulated"] = 1


def write_v5(split, X, Y, compressed=False, **more):
    arrays = {f"{split}xdata": X.transpose(0, 2, 1), f"{split}data": Y, **more}
    scipy.io.savemat(f"{split}.mat", arrays, do_compression=compressed)


def write_data(n=60, **more):
    for seed, (split, write) in enumerate(zip(danq.SPLITS, (write_hdf5, write_v5, write_v5))):
        write(split, *random_data(n, seed=seed), **more)


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
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, *command], text=True, env=os.environ | {"PYTHONPATH": str(HERE)} | env,
                            **pipes)


def printed_by(process):
    printed, error = process.communicate()
    assert process.returncode == 0, error
    return printed


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Real files where DEEPSEA_DATA names them, else random ones of 60 windows, marked as simulated."""
    if REAL_DATA:
        return REAL_DATA
    folder = tmp_path_factory.mktemp("data")
    with contextlib.chdir(folder):
        write_data(120, simulated=True)
        names = "".join(f"{i}\tTF\tSIMULATED|{i}\n" for i in range(9))
        Path("labels.tsv").write_text(f"column\tassay\tname\n{names}")
    return folder


@pytest.fixture(scope="session")
def runs(data_dir, tmp_path_factory):
    """Small runs that tests share, {name: (out_dir, printed, flags)}: danq on a terminal, superq as a process."""
    folder, done = tmp_path_factory.mktemp("runs"), {}
    (folder / "more.fa").write_text(">chr\n" + "GATTACAT" * 1000 + "N" * 2500)
    more = f"--unlabelled {folder}/more.fa --unlabelled-limit 6 --label-weight 0 --mixed-precision --max-seconds .01"
    variants = {"danq": "", "paper": "--paper", "more": more, "kmer": "--features kmer", "pca": "--features pca",
                "untrained": "--features untrained", "superq": ""}
    for name, flags in variants.items():
        variants[name] = [*flags.split(), *SMALL, "--data-dir", str(data_dir), "--limit", "40", "--out-dir",
                          str(folder / name), *FOREST * (name != "danq")]
    process = start_python(HERE / "superq.py", *variants["superq"])
    for name, flags in [*variants.items()][:-1]:
        out = io.StringIO()
        out.isatty = lambda: name == "danq"
        with contextlib.redirect_stdout(out):
            SCRIPTS.get(name, superq).main(flags)
        done[name] = folder / name, out.getvalue(), flags
    return done | {"superq": (folder / "superq", printed_by(process), variants["superq"])}


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


def test_mixed_precision_keeps_weights_and_answers_in_float32():
    for build in (danq.build_danq, superq.build_autoencoder):
        model = build(filters=8, lstm_units=4, n_labels=9, dtype="mixed_bfloat16")
        assert {weight.dtype for weight in model.weights} == {output.dtype for output in model.outputs} == {"float32"}
        assert model.get_layer("motif_scan").compute_dtype == "bfloat16"


# ---- danq.py: its training

def entropy(Y, P):
    return -(Y * np.log(P) + (1 - Y) * np.log(1 - P)).mean()


@pytest.mark.parametrize("name, labelled", [("danq", 12), ("superq", 12), ("superq", 8)])
def test_bits_give_the_losses_of_one_hot(name, labelled):
    """By hand, from what the network answers: known bases and labelled rows alone count."""
    X, Y = random_data(12)
    split = split_of(X[:labelled], Y[:labelled])
    if labelled < 12:
        split = superq.MixedSplit(**vars(split), unlabelled=danq.packed(X)[labelled:])
    args, batches, known = SCRIPTS[name].parse_args(SMALL), danq.Batches(split, 12), X.sum(-1) == 1
    model = compiled(name, args, split)
    P, scores = model.layers[-1].predict(X, verbose=0), model.evaluate(batches, verbose=0, return_dict=True)
    if name == "danq":
        expected = {"loss": entropy(Y, P), "acc": ((P > .5) == Y).mean()}
    else:
        counts = np.asarray(superq.KmerCounts(4, 300)(X.astype(np.float32)))
        true, hits = (P["bases"] * X).sum(-1)[known], P["bases"].argmax(-1) == X.argmax(-1)
        loss = -np.log(true).mean() + np.square(P["composition"] - counts).mean()
        loss += 10 * entropy(Y[:labelled], P["labels"][:labelled])
        expected = {"loss": loss, "bases_acc": hits[known].mean()}
    assert {key: scores[key] for key in expected} == pytest.approx(expected, rel=1e-4)
    assert [(array.dtype, array.shape) for array in batches[0][:2]] == [(np.uint8, (12, 500)), (np.uint8, (12, 2))]


def test_a_batch_too_large_for_the_device_gives_one_line(capsys, monkeypatch):
    """In the first step of fit(); of smaller batches, tried for real, up to `most` sequences fit."""
    def draw(batches, step):
        if len(drawn) % 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes\nmore of it")
        drawn.append(step)
        return batches.split.batch(batches.order[:20])

    def train_on_batch(model, bits, *others):
        assert len(bits) <= most
        train(model, bits, *others)

    write_data()
    train, drawn = keras.Model.train_on_batch, []
    monkeypatch.setattr(danq.Batches, "__getitem__", draw)
    monkeypatch.setattr(keras.Model, "train_on_batch", train_on_batch)
    for most, advice in ((0, "no smaller one tried does"), (9, "try 5 with --restart"), (20, "try 10 with --restart")):
        says = f"--batch-size 20 does not fit in memory: {advice}"
        check_one_line(capsys, says, danq.main, [*SMALL, "--data-dir", "."])
        drawn.append(0)


@pytest.mark.parametrize("good_epochs", (2, 0))
def test_divergence_is_found_at_the_epoch_and_the_last_good_model_kept(capsys, monkeypatch, good_epochs):
    write_data()
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([3 * good_epochs - 1], [1e-3, 1e38])
    monkeypatch.setattr(danq, "LEARNING_RATE", rate)
    flags = [*SMALL, "--epochs", "5", "--data-dir", "."]
    if not good_epochs:
        return check_one_line(capsys, "diverged in its first epoch: loss (nan|inf)", danq.main, flags)
    danq.main(flags)
    assert read_json("runs/danq/summary.json")["training"]["best_epoch"] == 2
    assert re.search("it diverged, loss (nan|inf)", capsys.readouterr().out)  # which, depends on the machine
    assert all(np.isfinite(weight).all() for weight in danq.load_model("runs/danq").get_weights())


def test_two_devices_train_as_one_does(data_dir):
    """Data-parallel on simulated devices of the CPU, which JAX has."""
    pytest.importorskip("jax")
    both = ("import sys, danq, superq; n, *flags = sys.argv[1:]; danq.main([*flags, '--out-dir', n + '/danq']); "
            "superq.main([*flags, '--forest-trees', '4', '--out-dir', n + '/superq'])")
    flags = [*SMALL, "--epochs", "1", "--limit", "41", "--data-dir", data_dir]
    processes = {n: start_python("-c", both, n, *flags, KERAS_BACKEND="jax",
                                 XLA_FLAGS=f"--xla_force_host_platform_device_count={n}") for n in "12"}
    for n, process in processes.items():
        assert printed_by(process).count("training on 2 devices, 10 sequences on each") == 2 * (n == "2")
    for name in SCRIPTS:
        losses = [[float(row[key]) for row in read_table(f"{n}/{name}/history.csv") for key in ("loss", "val_loss")]
                  for n in processes]
        np.testing.assert_allclose(*losses, rtol=1e-4)


# ---- danq.py: scores

def test_scoring_by_hand():
    """Two labels that mirror each other, and two of one class only, which get no scores."""
    y, p = np.array([1, 0, 1, 0]), np.array([.9, .8, .7, .1])
    P, Y = np.stack([p] * 4, 1), np.stack([y, 1 - y, 0 * y, 0 * y + 1], 1)
    labels = [(i, assay, f"label {i}") for i, assay in enumerate(("TF", "TF", "DNase", "DNase"))]
    rows, means = danq.evaluate(P, Y, labels, [.75] * 4)
    assert rows[0]["auroc"] == pytest.approx(3 / 4)  # 3 of the 4 (positive, negative) pairs in order
    assert rows[0]["auprc"] == pytest.approx(.5 * 1 + .5 * 2 / 3)
    assert rows[0]["f1"] == pytest.approx(2 * 1 / (2 + 2))  # called: one right, one wrong; one missed
    assert rows[0]["recall_at_10fdr"] == pytest.approx(.5) and rows[2]["auroc"] is None is rows[3]["f1"]
    assert means["all"]["auroc"] == means["TF"]["auroc"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert [means[name]["labels"] for name in ("all", "TF", "DNase")] == [2, 2, 0]
    assert danq.best_thresholds(P, Y)[:3] == pytest.approx([.7, .1, .5])  # F1 is .8 and .667; no positives




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
        assert REAL_DATA or "SIMULATED" in printed


def test_training_is_printed_and_recorded_beside_its_yardsticks(runs):
    for name, epochs in (("danq", 2), ("superq", 2), ("paper", 2), ("more", 1)):
        history = read_table(runs[name][0] / "history.csv")
        assert len(history) == epochs and {"epoch", "seconds", "loss", "acc"} <= history[0].keys()
        assert bool(history[0]["val_loss"] and history[0]["val_acc"]) == (name != "paper")
    assert re.search(r"bases rebuilt .*commonest base .*paper \.2526", runs["superq"][1])
    assert "always .25: loss 0.1875" in runs["paper"][1]
    assert "stopped: --max-seconds 0.01" in runs["more"][1], "within an epoch"


def test_a_terminal_sees_one_bar_an_epoch_and_at_the_end_what_to_do_next(runs):
    text = runs["danq"][1]
    assert text.count("Epoch 1/2") == text.count("Epoch 2/2") == 1 and "4/4" in text and "step of epoch 2/2" in text
    made, following = text.splitlines()[-2:]
    assert "model.keras" in made and "--predict seqs.fa" in following
    assert "\b" not in runs["superq"][1], "elsewhere no bar"


@pytest.mark.parametrize("name", SCRIPTS)
def test_foreign_data_are_scored_by_label_name(runs, data_dir, capsys, name):
    """The run's own test split, its names as they are, two in three unknown, all unknown."""
    out, there = runs[name][0], runs[name][0] / f"test-{Path.cwd().name}"
    rows = read_table(out / "metrics.csv")
    head, *labels = (data_dir / "labels.tsv").read_text().splitlines()
    shutil.copy(data_dir / "test.mat", ".")
    for known in (slice(None), slice(0, None, 3), slice(0)):
        renamed = [label if label in labels[known] else f"{label}-other" for label in labels]
        Path("labels.tsv").write_text("\n".join([head, *renamed]))
        SCRIPTS[name].main(["--out-dir", str(out), "--test-data", ".", "--limit", "40", "--batch-size", "20"])
        assert f"{len(rows[known])} of {len(rows)} labels are there" in capsys.readouterr().out
        assert read_table(there / "metrics.csv") == rows[known] and read_table(out / "metrics.csv") == rows
    nothing = read_json(there / "summary.json")
    assert nothing["labels"] == 0 and not {"reconstruction", "label_output"} & nothing.keys(), "of the own test split"


@pytest.mark.parametrize("name, flags, says", [
    ("danq", "--epochs 0", "--epochs: must be at least 1"), ("danq", "--seed -1", "--seed: must be at least 0"),
    ("superq", "--limit ten", "--limit"), ("superq", "--no-such-flag", "no-such-flag"),
    ("danq", "--data-dir nowhere", "nowhere/train.mat is missing"), ("danq", "--make-demo-data .", "exists already"),
    ("danq", "--data-dir . --out-dir train.mat/x", "train.mat"), ("danq", "--predict x.fa", "no finished run"),
    ("superq", "--compare .", "no finished run"), ("superq", "--reuse-encodings", "encodings.h5 is missing"),
    ("superq", "--label-weight nan", "--label-weight: must be"), ("superq", "--ablation 6", "--ablation"),
    ("danq", "--plot x.jpg", "--plot: must end in .png"), ("superq", "--motifs x.txt", "--motifs: must end in .meme"),
    ("danq", "--plot x.png", "needs --predict"), ("superq", "--unlabelled-limit 5", "needs --unlabelled"),
    ("superq", "--paper --features pca", "is for yardsticks"),
    ("superq", "--paper --ablation 3", "not with --ablation"),
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
        os.seteuid(user or 65534)
        try:
            for flags, says in (("--data-dir . --out-dir run", "packed: Permission denied"),
                                ("--data-dir . --out-dir open/run", r"open/run/\.lock: Permission denied"),
                                ("--make-demo-data demo", r"\.demo\.tmp: Permission denied")):
                check_one_line(capsys, says, danq.main, flags.split())
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o755)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_model_or_a_forest_cannot_run_code(capsys):
    inputs = keras.Input((1000, 4))
    touch = keras.layers.Lambda(lambda x: open("ran", "w").close() or x, output_shape=(1000, 4))
    keras.Model(inputs, touch(inputs)).save("model.keras")
    Path("ran").unlink(missing_ok=True)
    check_one_line(capsys, "model.keras is damaged .*lambda", danq.load_model, ".")
    np.savez("f.npz", means=np.array([Malicious()], object))
    check_one_line(capsys, "f.npz is damaged .*fit it again", superq.load_forest, "f.npz")
    assert not Path("ran").exists()


# ---- danq.py: the folder of a run

def test_a_finished_run_is_kept_and_a_folder_in_use_refused_by_name(runs, capsys):
    out, _, flags = runs["kmer"]
    hold = ("import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
            "print('process 1 on there', end='', file=f, flush=True); print(flush=True); input()")
    other = start_python("-c", hold, out / ".lock")
    other.stdout.readline()
    check_one_line(capsys, "in use by process 1 on there", superq.main, flags)
    other.communicate("\n")
    superq.main(flags)
    assert "finished already" in capsys.readouterr().out
    check_one_line(capsys, "seed was 1337, now 5", superq.main, [*flags, "--seed", "5"])


def test_a_run_that_does_not_fit_the_command_gives_one_line(runs, capsys):
    shutil.copytree(runs["kmer"][0], "old")
    Path("old/args.json").write_text(json.dumps(read_json("old/args.json") | {"format": 1}))
    for script, flags, says in (
            (danq, f"--motifs x.meme --out-dir {runs['superq'][0]}", "run of superq.py"),
            (superq, f"--motifs x.meme --out-dir {runs['danq'][0]}", "run of danq.py"),
            (superq, f"--motifs x.meme --out-dir {runs['kmer'][0]}", "no convolution"),
            (superq, "--predict x.fa --out-dir old", "old was made by another version")):
        check_one_line(capsys, says, script.main, flags.split())


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
    both = np.r_[:limit, half:half + limit] if limit and limit < half else np.arange(len(X))
    rows = both if split.strands else np.arange(len(X))[:limit]
    np.testing.assert_array_equal(danq.onehot(split.X), X[rows])
    np.testing.assert_array_equal(split.labels(), Y[rows])


@pytest.mark.parametrize("write, options", [
    (write_v5, {}), (write_v5, {"compressed": True}), (write_hdf5, {}), (write_hdf5, {"dtype": "f8"}),
    (write_hdf5, {"chunks": (7, 1, 11), "compression": "gzip", "shuffle": True}),
    (write_hdf5, {"label_chunks": (3, 60)}), (write_hdf5, {"label_chunks": (5, 60)})])
def test_data_layouts_and_formats(write, options):
    """Read at once; and in tiles, which share the bytes of labels: a byte holds eight."""
    check_packing(write, *random_data(K=19), **options)
    check_packing(write, *random_data(K=19), tile=300, limit=7, **options)


def test_memory_of_packing_is_bound_by_the_tile():
    """A tenth of 4 MB at most; of odd rows strands are not compared."""
    write_hdf5("train", random_sequences(1001), np.ones((1001, 9), np.uint8), chunks=(1000, 4, 10))
    tracemalloc.start()
    with mock.patch.object(danq, "TILE", 100_000):
        danq.load_split(".", "train", "packed")
    assert tracemalloc.get_traced_memory()[1] < 400_000
    tracemalloc.stop()


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
            rows = [*range(7), *range(half, half + 7)]
            np.testing.assert_array_equal(danq.onehot(split.X), X[..., rows].transpose(2, 0, 1))
            np.testing.assert_array_equal(split.labels(), Y[:, rows].T)
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
        X[30:] = X[:30]
    write_v5("valid", X, Y)
    split, A = danq.load_split(".", "valid", "packed"), X[:, :, 0].sum(1, keepdims=True)
    expected = (A[:30] + A[30:]) / 2 if strands else A
    assert split.strands == strands and split.windows == len(expected)
    assert len(danq.load_split(".", "valid", "packed", limit=8)) == 8 * (1 + strands)
    np.testing.assert_allclose(danq.strand_mean(lambda rows: rows, A, split.windows, strands, 7), expected)


def test_batches_take_each_row_once_in_an_order_of_seed_and_epoch():
    X, Y = random_data()
    split = split_of(X, Y)
    orders = [danq.Batches(split, 25, *key).order.tolist() for key in ((1, 0), (1, 1), (2, 0))]
    assert len({*map(tuple, orders)}) == 3 and all(sorted(order) == [*range(60)] for order in orders)
    for i, rows in enumerate((orders[0][:25], orders[0][25:50], orders[0][50:])):
        bits, labels = danq.Batches(split, 25, seed=1)[i]
        np.testing.assert_array_equal(danq.onehot(bits), X[rows])
        np.testing.assert_array_equal(np.unpackbits(labels, axis=1, count=9), Y[rows])


def edit(split="train", X=lambda X: X, Y=lambda Y: Y, write=write_hdf5):
    """A way to spoil data: rewrite one split from changed arrays."""
    original = random_data()
    return lambda: write(split, X(original[0]), Y(original[1]))


@pytest.mark.parametrize("spoil, says", [
    (lambda: os.remove("valid.mat"), "valid.mat is missing"),
    (lambda: os.truncate("train.mat", 3000), "train.mat is damaged.* copy it again"),
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
    """One label, odd rows, a single test row, rows of N alone, links."""
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
def test_fasta_is_annotated_whatever_the_strand_and_the_batch_mates(runs, name):
    X, P = random_sequences(6), {}
    strands = enumerate([*X, *danq.reverse_complement(X)])
    Path("x.fa").write_text("".join(f">s{i}\n{letters_of(x)}\n" for i, x in strands))
    labels = [row["name"] for row in read_table(runs[name][0] / "metrics.csv")]
    for size in (5, 12):
        flags = f"--predict x.fa --batch-size {size} --output new/p.tsv --plot p.png --out-dir {runs[name][0]}"
        SCRIPTS[name].main(flags.split())
        head, *rows = (line.split("\t") for line in Path("new/p.tsv").read_text().splitlines())
        assert head == ["record", "start", "end", "padded", *labels]
        assert [row[:4] for row in rows] == [[f"s{i}", "0", "1000", "0"] for i in range(12)]
        P[size] = np.array([row[4:] for row in rows], float)
    np.testing.assert_allclose(P[5][:6], P[5][6:], atol=1e-5)
    np.testing.assert_allclose(P[5], P[12], atol=1e-5)
    highest, picture = np.argsort(P[5][0])[-10:], Path("p.svg").read_text()
    assert "base of s0" in picture and all(labels[label] in picture for label in highest)


@pytest.mark.parametrize("content, says", [
    (b"MKVLA\n", "is not FASTA"), (b">p\nMKVLAEE\n", "record p holds 'L' at base 4"), (b">a\n\n", "holds no sequence"),
    (gzip.compress(b">a\n" + b"GATTACA\n" * 9999)[:99], "is damaged .*: copy it again")])
def test_bad_fasta_gives_one_clear_line(runs, capsys, content, says):
    Path("x.fa").write_bytes(content)
    check_one_line(capsys, says, danq.main, ["--predict", "x.fa", "--out-dir", str(runs["danq"][0])])
    assert os.listdir() == ["x.fa"]


# ---- danq.py: motifs

def test_a_filters_motif_is_counted_where_it_answers_most():
    """A filter made for GATTACA, one of zeros; the word stands in the first three of ten windows."""
    X = random_sequences(10)
    X[:3, 300:307] = letters_to_onehot("GATTACA")[0]
    model, kernel = danq.build_danq(3, filters=2, lstm_units=0), np.zeros((26, 4, 2))
    kernel[5:12, :, 0] = letters_to_onehot("GATTACA")[0]
    scan = model.get_layer("motif_scan")
    scan.set_weights([kernel, np.array([-5., 0])])  # six of seven bases answer by half of the highest
    counts, sites, shares = danq.count_sites(scan, model, split_of(X, X[:, :3, 0]), 4)
    word = ["ACGT".index(letter) for letter in "GATTACA"]
    assert sites[1] == 0 and sites[0] >= 3 and (counts[0, 5:12].argmax(1) == word).all()
    assert counts[0, 5:12].max(1).min() >= 3 and (counts[0].sum(1) == sites[0]).all()
    np.testing.assert_allclose(shares, X.mean((0, 1))[[0, 2, 1, 3]])


@pytest.mark.parametrize("name, width", [("danq", 26), ("superq", 16)])
def test_motifs_are_written_in_memes_format_and_drawn(runs, name, width):
    SCRIPTS[name].main(["--motifs", "new.meme", "--out-dir", str(runs[name][0])])
    head, *motifs = Path("new.meme").read_text().split("\nMOTIF ")
    assert head.startswith("MEME version 4\n") and "ALPHABET= ACGT" in head and 0 < len(motifs) <= 4
    for motif in motifs:
        title, shape, *rows = motif.strip().splitlines()
        assert re.fullmatch(rf"letter-probability matrix: alength= 4 w= {width} nsites= \d+ E= 0", shape)
        np.testing.assert_allclose(np.loadtxt(rows).sum(1), 1, atol=1e-5)
        assert len(rows) == width and (REAL_DATA or title.startswith("SIMULATED"))
    assert all(0 < Path(f"new.{kind}").stat().st_size < 300_000 for kind in ("png", "svg"))


# ---- danq.py: simulated data

def test_simulated_data_look_like_deepsea():
    danq.main("--make-demo-data demo --limit 200".split())
    split, labels = danq.load_split("demo", "train", "packed"), danq.load_labels("demo", 919)
    assert split.simulated and split.strands and split.n_labels == 919 and .03 < split.labels().mean() < .08
    assert [label[1] for label in labels] == ["DNase"] * 125 + ["TF"] * 690 + ["histone"] * 104
    assert all(name.startswith("SIMULATED|") for _, _, name in labels)
    X = danq.onehot(split.X)
    CpG, GpC = ((X[:, :-1, base] & X[:, 1:, 3 - base]).mean() for base in (2, 1))  # of A, G, C, T
    assert .36 < X[..., 1:3].sum(-1).mean() < .50, "GC content"
    assert CpG < .6 * GpC, "CpG is depleted"
    test = danq.load_split("demo", "test", "packed")
    assert len(test) == 100 and not np.array_equal(test.X, split.X[:100])


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


# ---- superq.py: how well is DNA rebuilt?

def test_kmers_in_letters():
    def counts(k, X):
        return np.asarray(superq.KmerCounts(k, X.shape[1])(X.astype(np.float32)))[0] ** 2

    X = letters_to_onehot("GATTACANGATTACA")
    words, pairs = counts(4, X), counts(2, letters_to_onehot("GATTACA"))
    assert len(words) == 136 and words[words > 0] == pytest.approx([2] * 4)  # none across the N
    np.testing.assert_array_equal(counts(4, danq.reverse_complement(X)), words)
    np.testing.assert_array_equal(counts(4, letters_to_onehot("AATC")), counts(4, letters_to_onehot("GATT")))
    assert sorted(pairs) == pytest.approx([0] * 4 + [1] * 4 + [2] * 2)  # twice AT and TA, their own other strand


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


# ---- superq.py: encodings and forest

@pytest.mark.parametrize("name", ("superq", "untrained"))
def test_encodings_are_what_the_bottleneck_answers(runs, name):
    model, splits = danq.load_model(runs[name][0]), danq.load_data(superq.parse_args(runs[name][2]))[0]
    layer = keras.Model(model.inputs, model.get_layer("bottleneck").output)
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
    """Its trees; their leaves answer with the mean over all rows, not over a bootstrap's."""
    Z, Y = forest_data(K=K)
    ours = superq.fit_forest(Z, Y, trees=30, leaf=5, projections=0, seed=3)
    theirs = RandomForestRegressor(30, min_samples_leaf=5, max_features="sqrt", random_state=3)
    theirs.fit(Z, Y if K > 1 else Y[:, 0])
    new = np.random.default_rng(1).normal(size=(100, 20)).astype(np.float32)
    expected = np.mean([[Y[own == leaf].mean(0) for leaf in reached]
                        for own, reached in zip(theirs.apply(Z).T, theirs.apply(new).T)], 0)
    np.testing.assert_allclose(superq.predict_forest(ours, new), expected, atol=1e-6)


def test_forest_streams_and_its_leaf_means_are_over_all_rows():
    Z, Y = forest_data()
    with h5py.File("e.h5", "w") as file:
        file["Z"], file["Y"] = Z.astype(np.float16), Y
        forest = superq.fit_forest(file["Z"], file["Y"], trees=25, leaf=5, samples=100)
    reached = superq.leaves_of(forest, Z)
    sizes = np.asarray(reached.sum(0)).ravel()
    assert (reached.sum(1) == 25).all() and sizes.sum() == 25 * 400
    np.testing.assert_allclose((reached.T @ Y) / sizes[:, None], forest["means"], atol=1e-5)


def test_another_forest_or_classifier_on_kept_encodings(runs, capsys, monkeypatch):
    """Linear regression in two functions, as superq.py says above its forest."""
    def fit(Z, Y, *args, **options):
        return {"W": np.linalg.lstsq(np.float32(Z[:]), np.float32(Y[:]))[0]}

    shutil.copytree(runs["superq"][0], "run")
    encodings, before = os.stat("run/encodings.h5").st_mtime_ns, read_json("run/summary.json")
    shutil.copytree("run", "run/test-mouse")
    superq.main("--out-dir run --reuse-encodings --forest-leaf 4 --forest-trees 9".split())
    assert "[3/3] forest: 9 trees" in (printed := capsys.readouterr().out) and "[1/3]" not in printed
    assert os.stat("run/encodings.h5").st_mtime_ns == encodings
    assert not Path("run/test-mouse/summary.json").exists(), "the old forest's scores"
    assert read_json("run/summary.json")["reconstruction"] == before["reconstruction"]
    monkeypatch.setattr(superq, "fit_forest", fit)
    monkeypatch.setattr(superq, "predict_forest", lambda fitted, Z: Z @ fitted["W"])
    superq.main("--out-dir run --reuse-encodings --forest-leaf 9".split())
    Path("some.fa").write_text(">chr\n" + "GATTACAT" * 125)
    superq.main("--out-dir run --predict some.fa".split())
    assert set(np.load("run/forest.npz")) == {"W", "data"}
    assert len(Path("predictions.tsv").read_text().splitlines()) == 2


# ---- superq.py: yardsticks and unlabelled DNA

def test_pca_features_have_the_variances_of_the_components(runs):
    split = danq.load_data(superq.parse_args(runs["pca"][2]))[0]["train"]
    X = danq.onehot(split.X).reshape(len(split), -1).astype(float)
    with h5py.File(runs["pca"][0] / "encodings.h5") as file:
        Z = file["train/Z"][:].astype(float)
    spread = np.linalg.svd(X - X.mean(0), compute_uv=False)[:5] ** 2 / (len(X) - 1)
    np.testing.assert_allclose(Z[:, :5].var(0, ddof=1), spread, rtol=.01)


def test_unlabelled_files_are_packed_from_fasta_and_mat():
    X = random_sequences(6)
    text = f">a\n{''.join(map(letters_of, X))}\n>b\n{'N' * 999}A\n"
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
            assert 5_000 < (folders[0].parent / f"{picture}.{kind}").stat().st_size < 300_000
    training = (folders[0].parent / "comparison-training.svg").read_text()
    assert all(f"{name}: {key}" in training for name in ("danq", "superq", "paper") for key in ("loss", "acc"))
    for summary in (read_json(folder / "summary.json") for folder in folders):
        assert re.search(rf"\| {re.escape(summary['model'])} \|.* {summary['means']['all']['auprc']:.4f} ", table)


def test_seeds_become_a_mean_and_other_settings_rows_of_their_own(runs, capsys):
    def copy_run(name, auroc=.5, windows=40, tested=10, **settings):
        shutil.copytree(runs["kmer"][0], name)
        record, summary = read_json(f"{name}/args.json"), read_json(f"{name}/summary.json")
        record["settings"] |= settings
        summary["means"]["all"]["auroc"] = auroc
        summary |= {"limit": windows, "train_sequences": 2 * windows, "test_windows": tested}
        Path(name, "args.json").write_text(json.dumps(record))
        Path(name, "summary.json").write_text(json.dumps(summary))

    def printed(flags):
        superq.main(flags.split())
        return capsys.readouterr().out

    for seed, auroc in enumerate((.6, .7, .9)):
        copy_run(str(seed), auroc, seed=seed)
    copy_run("other", forest_trees=9)
    copy_run("edited", code="another forest")
    copy_run("larger", windows=41)
    copy_run("far", tested=11)
    assert "k-mers -> forest (3 seeds) | 0.7333 ± 0.1528" in printed("--compare 0 1 2 --output seeds.v1")
    table = printed("--compare 0 other edited --output all.md")
    assert re.findall(r"(?m)^\| k-mers -> forest (\S+) \| \d", table) == ["[0]", "[other]", "[edited]"]
    assert "| k-mers -> forest [other] | k-mers -> forest [0] | +0.0000 (+0.0000 to +0.0000) |" in table
    assert "| k-mers -> forest | 0.6500 ± 0.0707 / " in printed("--curve 0 1 larger --output curve.md")
    assert Path("seeds.v1.png").is_file() and Path("curve.png").is_file()
    Path("2/metrics.csv").write_text("".join(open("2/metrics.csv").readlines()[:3]))
    for flags, says in (("--compare 0 larger", "limit is 41, not 40"), ("--compare 0 --output runs/", "is a folder"),
                        ("--compare 0 2", r"2/metrics.csv is damaged \(it has 2 rows"),
                        ("--curve 0 far", "0 and far have different test sets")):
        check_one_line(capsys, says, superq.main, flags.split())


# ---- nothing is lost

class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


def check_same_run(folder, expected):
    """Weights, history but for its seconds, and scores are equal to the bit; nothing half-made is left."""
    weights, theirs = (danq.load_model(out).get_weights() for out in (folder, expected))
    assert all(np.array_equal(a, b) for a, b in zip(weights, theirs, strict=True))
    assert read_table(folder / "metrics.csv") == read_table(expected / "metrics.csv")
    history, theirs = (read_table(out / "history.csv") for out in (folder, expected))
    assert [row | {"seconds": ""} for row in history] == [row | {"seconds": ""} for row in theirs]
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir() if not path.is_dir()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_killed_between_any_two_writes_ends_as_if_it_had_not(runs, monkeypatch, name):
    """Killed at the n-th renaming of a file: while packing, within an epoch, after training."""
    expected, _, flags = runs[name]
    rename, left = os.replace, 0

    def replace(*paths):
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        rename(*paths)

    monkeypatch.setattr(os, "replace", replace)
    flags = [*flags, "--out-dir", f"runs/{name}", "--checkpoint-minutes", "0"]
    for left in (5, 12, 11, *[4] * (name == "superq")):
        with pytest.raises(Killed):
            SCRIPTS[name].main(flags)
    SCRIPTS[name].main(flags)
    check_same_run(Path("runs", name), expected)


def test_kill_minus_9_in_the_middle_of_an_epoch(runs, capsys):
    expected, _, flags = runs["danq"]
    flags, checkpoint = [*flags, "--out-dir", "danq", "--checkpoint-minutes", "0"], Path("danq/checkpoint.npz")
    process = start_python(HERE / "danq.py", *flags)
    while not checkpoint.is_file() and process.poll() is None:
        time.sleep(.001)
    process.kill()
    process.communicate()
    assert 0 < json.loads(str(np.load(checkpoint)["state"]))["step"] < 4
    danq.main(flags)
    assert "going on after step" in capsys.readouterr().out
    check_same_run(Path("danq"), expected)


def test_encodings_already_made_are_kept(runs):
    """A kill left two batches of 20 and a half, here of zeros: two stay."""
    out, _, flags = runs["kmer"]
    shutil.copytree(out, "run")
    with h5py.File("run/encodings.h5") as file:
        Z = file["train/Z"][:]
    for name in ("summary.json", "encodings.h5"):
        os.remove(f"run/{name}")
    Path("run/encodings.part").write_bytes(bytes(50 * Z[0].nbytes))
    superq.main([*flags, "--out-dir", "run"])
    with h5py.File("run/encodings.h5") as file:
        np.testing.assert_array_equal(file["train/Z"], np.concatenate([0 * Z[:40], Z[40:]]))
    assert not Path("run/encodings.part").exists()


def test_a_full_disk_gives_one_line_and_keeps_what_was_made(runs, capsys):
    """Files may have so many kB, as by ulimit -f: packing, stage 2, annotating, stage 3."""
    write_data()
    Path("x.fa").write_text(">a\n" + "ACGT" * 6000)
    expected, _, flags = runs["kmer"]
    shutil.copytree(expected, "copy")
    flags, most = [*flags, "--out-dir", "runs/full"], resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for kilobytes, script, arguments, says in (
                (12, danq, ["--data-dir", "."], "npy"), (60, superq, flags, "part"), (90, superq, flags, "h5"),
                (1, danq, f"--predict x.fa --out-dir {runs['danq'][0]}".split(), "tsv"),
                (20, superq, "--out-dir copy --reuse-encodings --forest-trees 999".split(), "npz")):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, most[1]))
            check_one_line(capsys, f"{says}: File too large", script.main, arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert not [*Path().rglob("*.tmp*"), *Path().glob("*.tsv")]
    superq.main(flags)
    assert read_table("runs/full/metrics.csv") == read_table(expected / "metrics.csv")


# ---- bad files, by generator

def flip(content, rng):
    spoilt = np.frombuffer(content, np.uint8).copy()
    n = max(3, len(content) // 2000)
    spoilt[rng.integers(len(spoilt), size=n)] ^= rng.integers(1, 256, size=n, dtype=np.uint8)
    return spoilt.tobytes()


def predict(name):
    SCRIPTS[name].main(f"--predict ok.fa --out-dir {name}".split())


SPOILS = {
    "cut": lambda content, rng: content[:rng.integers(1, max(2, len(content) * 9 // 10))],
    "flipped": flip,
    "empty": lambda content, rng: b"",
    "text": lambda content, rng: b"<html>404 not found</html>\n" * 20}
READERS = {
    "train.mat": lambda: danq.load_split(".", "train", "packed"),
    "more.fa.gz": lambda: superq.load_unlabelled("more.fa.gz", Path("packed")),
    "checkpoint.npz": lambda: danq.Checkpoint(Path("checkpoint.npz"), None),
    "danq/args.json": lambda: predict("danq"),
    "danq/model.keras": lambda: predict("danq"),
    "superq/forest.npz": lambda: predict("superq"),
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
    for path, line in (("bin/nvidia-smi", "echo GPU 0: one"),
                       (".venv/bin/python", f"exec {shlex.quote(sys.executable)} \"$@\"")):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(f"#!/bin/sh\n{line}")
        Path(path).chmod(0o755)
    wanted = Path("requirements.txt").read_text().strip()
    Path(".venv/installed.txt").write_text(wanted.replace("tensorflow==", "tensorflow[and-cuda]=="))
    environment = os.environ | {"PATH": f"bin:{os.environ['PATH']}", "KERAS_BACKEND": "tensorflow", "DATA": "."}
    run = subprocess.run(["bash", "run_all.sh"], capture_output=True, text=True, env=environment)
    assert run.returncode == 2 and "nvidia-smi sees a GPU and Keras none (tensorflow says: " in run.stderr, run


# ---- the benchmarks measure what they say

def test_floating_point_operations_by_hand():
    conv, blstm, dense = 975 * 26 * 4 * 5, 75 * 2 * 4 * (5 * 3 + 3 * 3), 75 * 6 * 925 + 925 * 7
    assert flops(danq.build_danq(7, 5, 3)) == 2 * (conv + blstm + dense)
    scans, steps, code = 2 * 285 * 16 * 4 * 5, 2 * 19 * 2 * 4 * (5 * 3 + 3 * 3), (200 + 4 * 5 + 2 * 6) * 250
    assert flops(superq.encoder_of(superq.build_autoencoder(5, 3, 7))) == 2 * (250 * 4 * 4 + scans + steps + code)


def test_benchmarks_measure_every_stage(monkeypatch, capsys):
    """At the smallest size. The benchmark itself compares packed copies to their source."""
    for name, small in {"SECONDS": .1, "BATCHES": (10,), "MATRIX": 64}.items():
        monkeypatch.setattr(sys.modules[__name__], name, small)
    small, rows = "--limit 60 --filters 4 --lstm-units 2 --batch-size 10 --out-dir runs/x", {}
    for name, more in (("danq", ""), ("superq", "--forest-trees 4 --forest-leaf 8 --forest-samples 100"), ("both", "")):
        benchmark(f"--benchmark {name} {small} {more}".split())
        record, printed = read_json(f"runs/benchmark-{name}.json"), capsys.readouterr().out
        assert all(f"| {what} |" in printed and row["rate"] > 0 for what, row in record["rows"].items())
        assert record["versions"]["keras"] and record["matrix_product_flop_s"] > 0
        rows |= record["rows"]
    assert re.search(r"of 10: SuperQ trains \d+.\d times", printed) and len(os.listdir("runs")) == 3
    assert rows.keys() > {f"packing, chunks: {chunks}" for chunks in CHUNKINGS} | {
        "feeding batches of 10", "training, batches of 10", "prediction, batches of 10", "encoding",
        "forest, 4 trees x 919 labels, 120 rows", "danq: training, batches of 10", "superq: prediction, batches of 10"}


# ---- benchmarks

FULL = 4_400_000  # training sequences of the DeepSEA bundle
SECONDS = 20.  # that a network is measured for
MATRIX = 2048  # rows of its yardstick's matrices
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
    """Write a packed split as a train.mat in one of CHUNKINGS, gzipped where there are chunks."""
    with h5py.File(path, "w") as file:
        for key, array in (("trainxdata", danq.onehot(split.X).transpose(1, 2, 0)), ("traindata", split.labels().T)):
            chunks = CHUNKINGS[chunking](array.shape)
            options = {"chunks": chunks, "compression": "gzip", "compression_opts": 1} if chunks else {}
            file.create_dataset(key, data=array, **options)


def evict(path):
    """Drop a file from the system's page cache, so that it is read from the disk."""
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


def benchmark_danq(args, folder, source):
    rows = {}
    for chunking in CHUNKINGS:
        write_chunked(folder / "train.mat", source, chunking)
        release(source)
        split, rows[f"packing, chunks: {chunking}"] = benchmark_packing(folder / "train.mat", folder)
        assert np.array_equal(split.X, source.X) and np.array_equal(split.Y, source.Y), chunking
    batches = danq.Batches(split, args.batch_size, args.seed)
    with danq.all_devices(args.batch_size):
        return rows | benchmark_feeding(batches) | benchmark_network(compiled("danq", args, split), batches)


def benchmark_superq(args, folder, split):
    batches = danq.Batches(split, args.batch_size, args.seed)
    with danq.all_devices(args.batch_size):
        model = compiled("superq", args, split)
        rows = benchmark_feeding(batches) | benchmark_network(model, batches)
    model.layers[-1].save(folder / "model.keras")  # to go on with one device
    rows |= benchmark_encoding(args, folder, split)
    release(split)
    return rows | benchmark_forest(args, folder / "encodings.h5")


def benchmark_both(args, folder, split):
    """Training and prediction of both networks at three batch sizes."""
    rows = {}
    for size in BATCHES:
        for name, script in SCRIPTS.items():
            own = script.parse_args([*args.flags, "--batch-size", str(size)])
            model, batches = compiled(name, own, split), danq.Batches(split, size, own.seed)
            for what, row in benchmark_network(model, batches).items():
                rows[f"{name}: {what}"] = row | {"epochs": own.epochs}
        speed, theirs = (rows[f"{name}: training, batches of {size}"]["rate"] for name in ("superq", "danq"))
        print(f"batches of {size}: SuperQ trains {speed / theirs:.1f} times as fast as DanQ", flush=True)
    return rows


def benchmark_encoding(args, folder, split):
    """Encode all rows: a row of the table."""
    encode, autoencoder = superq.load_encoder(folder, args.ablation), danq.load_model(folder)
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


def matrix_product_rate(times=10):
    """Floating-point operations a second of the backend's own matrix product, a network's yardstick."""
    ones = keras.ops.ones((MATRIX, MATRIX))
    for _ in range(2):  # the first time it compiles
        with Measured() as it:
            for _ in range(times):
                keras.ops.convert_to_numpy(keras.ops.matmul(ones, ones)[0, 0])
    return 2 * MATRIX ** 3 * times / it.seconds


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
    args.flags = flags
    return chosen.benchmark, args


def benchmark(argv=None):
    """Measure every stage; print a table and write it to benchmark-NAME.json beside --out-dir."""
    name, args = benchmark_args(argv)
    home = danq.packed_dir(args.out_dir).parent
    home.mkdir(parents=True, exist_ok=True)
    measure = {"danq": benchmark_danq, "superq": benchmark_superq, "both": benchmark_both}[name]
    with tempfile.TemporaryDirectory(prefix="benchmark", dir=home) as folder:
        rows = measure(args, Path(folder), random_split(Path(folder), 2 * (args.limit or 10_000)))
    print_benchmark(rows, home / f"benchmark-{name}.json", "superq.py" if name == "both" else f"{name}.py", args.epochs)


if __name__ == "__main__":
    danq.command_line(benchmark)
