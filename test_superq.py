"""Tests of danq.py and superq.py, in their order; at the end their benchmarks.

    bash run_all.sh --test     makes the environment, then runs this (5 minutes)
    DEEPSEA_DATA=dir pytest test_superq.py -k data     on the first rows of real files
    python test_superq.py --benchmark danq     speed and memory of each stage
                                               (or superq, or both's training)
    python test_superq.py --benchmark answers --out-dir runs/superq-demo
                                               which answer finds what a mutation does

A test runs in an empty folder of its own: relative paths are there.
"""

import argparse
import contextlib
import csv
import errno
import gzip
import io
import itertools
import json
import math
import mmap
import multiprocessing
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from unittest import mock

if __name__ != "__main__":  # a benchmark takes what there is
    # Tolerances and equality to the bit are the CPU's.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Over networks as small as these, threads wait for one another.
    for threads in ("INTRAOP", "INTEROP"):
        os.environ.setdefault(f"TF_NUM_{threads}_THREADS", "1")

import h5py
import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from Bio import bgzf
from keras.layers import BatchNormalization, Conv1D, Dropout
from matplotlib import textpath
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import average_precision_score, roc_auc_score

import danq
import superq

HERE = Path(__file__).resolve().parent
SCRIPTS = {"danq": danq, "superq": superq}
# Keras 3.15 on NumPy 2 says this of each variable that it saves.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword"
)
REAL_DATA = (
    os.environ.get("DEEPSEA_DATA") and Path(os.environ["DEEPSEA_DATA"]).resolve()
)
SMALL = "--epochs 2 --batch-size 20 --filters 4 --lstm-units 2".split()
FOREST = "--forest-trees 6 --forest-leaf 4".split()


# ---- helpers


@pytest.fixture(autouse=True)
def own_folder_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    yield
    # A test that fails in the middle leaves it on, and all others slow.
    tracemalloc.stop()


def letters_to_onehot(text):
    """One-hot (1, len, 4) in the order A, G, C, T; any other letter is N."""
    return np.array(
        [[[letter == base for base in "AGCT"] for letter in text]], np.uint8
    )


IUPAC = {"A": "A", "G": "G", "C": "C", "T": "T", "M": "AC", "N": ""}


def letters_of(x):
    """Letters of one-hot (length, 4), M where A and C are set, N where nothing is."""
    letters = {"".join(sorted(bases)): letter for letter, bases in IUPAC.items()}
    text = ""
    for column in x:
        bases = ["AGCT"[i] for i in np.flatnonzero(column)]
        text += letters["".join(sorted(bases))]
    return text


def random_sequences(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.eye(4, dtype=np.uint8)[rng.integers(4, size=(n, 1000))]


def random_words(n, length=8):
    """The same n words for every split, as one-hot (n, length, 4)."""
    return np.eye(4, dtype=np.uint8)[
        np.random.default_rng(8).integers(4, size=(n, length))
    ]


def random_data(n=60, K=9, seed=0, copies=5):
    """One-hot (n, 1000, 4) and labels (n, K) that follow from it.

    Label k is 1 where word k was planted: `copies` times in the middle 200 bases, on
    either strand. The second half is the reverse complement of the first.
    """
    X = random_sequences(n // 2, seed)
    X[0, :5] = 0  # an N stretch
    X[1, 7] = 1, 0, 1, 0  # an IUPAC M
    rng = np.random.default_rng([seed, 1])
    Y = rng.random((n // 2, K)) < 0.3
    words = random_words(K)
    for row, label in np.argwhere(Y):
        for start in rng.integers(400, 593, size=copies):
            is_minus = rng.random() < 0.5
            word = words[label, ::-1, ::-1] if is_minus else words[label]
            X[row, start : start + 8] = word
    both = np.concatenate([X, danq.reverse_complement(X)])
    return both, np.concatenate([Y, Y]).astype(np.uint8)


def split_of(X, Y):
    """A Split of one-hot X (n, 1000, 4) and labels (n, K)."""
    return danq.Split(danq.packed(X), np.packbits(Y, axis=1), Y.shape[1], len(X))


# The scripts' inner functions that tests call, each called here alone.


def compiled(name, args, split):
    """The network that a script trains on a Split, inside what unpacks its bits."""
    if name == "danq":
        return danq.compile_danq(args, split.n_labels, len(split))
    args = superq.settle_training(args, split.windows)
    return superq.compile_autoencoder(args, split.n_labels, len(split))


def mean_of_views(model, X):
    """Pooled features (n, 250) of one-hot X as it lies and moved by 8 to each side."""
    encoder = keras.Model(model.inputs, model.get_layer("bottleneck").output)
    views = [encoder.predict(np.roll(X, by, 1), verbose=0) for by in (-8, 0, 8)]
    return np.mean(views, 0)[:, 250:]


def reconstruction(model, train, test):
    """What superq.py reports of held-out bases."""
    return superq.reconstruction(superq.OURS, model, train, test, batch_size=4)


def pooled_network(filters, lstm_units=0):
    """Two networks: one-hot -> pooled features, and -> what their dense layer sees."""
    inputs = keras.Input((1000, 4))
    features = superq.pooled_features(inputs, filters, lstm_units, None)
    network = keras.Model(inputs, features)
    (norm,) = [x for x in network.layers if isinstance(x, BatchNormalization)]
    return network, keras.Model(inputs, norm.input)


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
    for seed, (split, write) in enumerate(
        zip(danq.SPLITS, (write_hdf5, write_v5, write_v5), strict=True)
    ):
        write(split, *random_data(n, seed=seed), **more)


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    return json.loads(Path(path).read_text())


def check_one_line(capsys, says, function, *args):
    """function(*args) must print one line, like `says`, on stderr and exit with 2."""
    with pytest.raises(SystemExit) as stop:
        danq.command_line(lambda: function(*args))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1, error
    assert re.search(says, error), error


def start_python(*command, stderr=subprocess.PIPE, **env):
    """Python in a process of its own, which finds the scripts."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE)} | env,
    )


def printed_by(process):
    printed, error = process.communicate()
    assert process.returncode == 0, error
    return printed


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Real files where DEEPSEA_DATA names them, else simulated ones of 60 windows."""
    if REAL_DATA:
        return REAL_DATA
    folder = tmp_path_factory.mktemp("data")
    with contextlib.chdir(folder):
        write_data(120, simulated=True)
        names = "".join(f"{i}\tTF\tSIMULATED|{i}\n" for i in range(9))
        Path("labels.tsv").write_text(f"column\tassay\tname\n{names}")
    return folder


LEARNED = {"train": 800, "valid": 400, "test": 400}  # sequences of what learns
LABELS_TABLE = "column\tassay\tname\n" + "".join(
    f"{k}\t{assay}\tSIMULATED|word {k}\n"
    for k, assay in enumerate(["TF", "TF", "DNase", "TF", "DNase"])
)


def learned_data(split):
    """Sequences and labels, both strands, whose words even a tiny network learns."""
    seed = list(LEARNED).index(split)
    return random_data(LEARNED[split], 5, seed, copies=10)


def learned_windows(split):
    """The same, one strand."""
    X, Y = learned_data(split)
    return X[: len(X) // 2], Y[: len(Y) // 2]


# Calls functions of this file, one after the other; says on its first stdout which is
# done, and what it printed.
IN_ORDER = """
import contextlib, io, json, sys
import test_superq
for name, function, arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        getattr(test_superq, function)(*arguments)
    print(json.dumps([name, out.getvalue()]), flush=True)
"""


class Beside:
    """Functions of this file, called in a process beside the tests: two cores work.

    Its home is that of somebody who has other settings of Keras.
    jobs : (name, name of the function, arguments)
    """

    def __init__(self, folder, jobs):
        self.error = folder / "stderr"
        self.printed = {}
        home = other_keras_settings(folder)
        command = ["-c", IN_ORDER, json.dumps(jobs)]
        with open(self.error, "w") as error:
            self.process = start_python(*command, stderr=error, HOME=home)

    def wait_for(self, name):
        """What the job printed, as soon as it is done."""
        while name not in self.printed:
            line = self.process.stdout.readline()
            assert line, self.error.read_text()
            self.printed.update([json.loads(line)])
        return self.printed[name]


def run_superq(*flags):
    superq.main(flags)


def learn(name, *flags):
    """Short filters and a higher rate: a small DanQ learns sooner."""
    narrow = mock.patch.object(danq, "WIDTH", 12)
    with narrow, mock.patch.dict(danq.RECIPES["2016"], rate=3e-3):
        SCRIPTS[name].main(flags)


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


@contextlib.contextmanager
def before_renaming(hook):
    """hook(name) is called before a file gets its name."""
    rename = os.replace

    def replace(source, target):
        hook(Path(target).name)
        rename(source, target)

    with mock.patch.object(os, "replace", replace):
        yield


def kill_danq(folder, *flags):
    """whole/danq, and killed/danq: killed at the n-th renaming of a file, thrice.

    In packing, in an epoch, after training; then to its end.
    """
    danq.main([*flags, "--out-dir", f"{folder}/whole/danq"])
    flags = [*flags, "--out-dir", f"{folder}/killed/danq", "--checkpoint-minutes", "0"]
    left = 0

    def count(name):
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    with before_renaming(count):
        for n in (5, 12, 11):
            left = n
            with pytest.raises(Killed):
                danq.main(flags)
        danq.main(flags)


def kill_superq(*flags):
    """Killed by the system in an epoch, then before two files; then to its end."""
    # A process of its own: nobody can catch kill -9.
    first = multiprocessing.get_context("spawn").Process(
        target=kill_after_a_checkpoint, args=flags
    )
    first.start()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    left = ["encodings.h5", "summary.json"]

    def kill_once(name):
        if name in left:
            left.remove(name)
            raise Killed

    with before_renaming(kill_once):
        for _ in range(2):
            with pytest.raises(Killed):
                superq.main(flags)
        superq.main(flags)


def kill_after_a_checkpoint(*flags):
    """SuperQ, and kill -9 before it renames a file after its first checkpoint."""
    names = []

    def kill_second(name):
        names.append(name)
        if names.count("checkpoint.npz") == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with contextlib.redirect_stdout(io.StringIO()), before_renaming(kill_second):
        superq.main(flags)


LEARNERS = ("danq", "danq-shuffled", "superq", "superq-shuffled")


def learned_flags(folder, name):
    """Of a learner, on the data of `folder`; of a shuffled one, on its twin's."""
    script, _, twin = name.partition("-")
    own = {
        "danq": "--epochs 4 --filters 16",
        "superq": "--epochs 2 --filters 8 --forest-trees 20 --forest-leaf 20",
    }
    data = folder / f"data{twin and '-' + twin}"
    where = f"--data-dir {data} --out-dir {folder / name}"
    return f"--batch-size 20 --lstm-units 0 {own[script]} {where}".split()


def small_flags(folder, data):
    """Of the small runs that tests share, {name: flags}; all but danq are SuperQ's."""
    more = f"--unlabelled {folder}/more.fa --unlabelled-limit 6 --label-weight 0"
    more += " --mixed-precision --max-seconds .01"
    more += f" --motif-start {folder}/words.meme --filters 41 --head-epochs 1"
    # A BLSTM takes seconds to compile: danq, superq and more have one.
    own = {
        "danq": "",
        "superq": "",
        "paper": "--paper --lstm-units 0",
        "more": more,
        "kmer": "--features kmer",
        "pca": "--features pca --seed 5",
        "untrained": "--features untrained --lstm-units 0",
    }
    flags_of = {}
    for name, flags in own.items():
        where = f"--data-dir {data} --limit 40 --out-dir {folder / name}"
        flags_of[name] = [*SMALL, *flags.split(), *where.split()]
        if name != "danq":
            flags_of[name] += FOREST
    return flags_of


def yardstick_flags(folder):
    """Of the yardsticks that `runs` has not, {name: flags}; their data are ours."""
    flags_of = {}
    for name in ("motifs", "chosen", "gc", "cpg"):
        where = f"--data-dir {folder}/data --out-dir {folder / name}"
        flags = f"--features {name} --batch-size 20 {where}"
        if name in ("motifs", "chosen"):
            flags += f" --motif-file {folder}/two.meme"
        flags_of[name] = [*FOREST, *flags.split()]
    return flags_of


def benchmark_flags(folder):
    """Of benchmarks as small as can be, {name: flags}."""
    small = "--limit 60 --filters 4 --lstm-units 0 --batch-size 10"
    own = {
        "danq": "",
        "superq": "--forest-trees 4 --forest-leaf 8 --forest-samples 100",
        "both": "",
    }
    return {
        name: f"--benchmark {name} {small} {flags} --out-dir {folder}/x".split()
        for name, flags in own.items()
    }


def small_benchmark(*flags):
    """A benchmark that takes no longer than it must."""
    module = sys.modules[__name__]
    with mock.patch.multiple(module, SECONDS=0.1, BATCHES=(10,), MATRIX=64):
        benchmark(flags)


@pytest.fixture(scope="session", autouse=True)
def beside(request, tmp_path_factory):
    """What runs beside the tests, started where a test will ask for it.

    A Beside, with the folder of each fixture in `folders`.
    """
    asked = {name for item in request.session.items for name in item.fixturenames}
    folders = {}
    jobs = []
    if "learned" in asked:
        folders["learned"] = folder = tmp_path_factory.mktemp("learned")
        write_learned_data(folder)
        for name in LEARNERS:
            flags = [name.removesuffix("-shuffled"), *learned_flags(folder, name)]
            jobs.append((f"learned {name}", "learn", flags))
    if "runs" in asked:
        folders["runs"] = folder = tmp_path_factory.mktemp("runs")
        (folder / "more.fa").write_text(">chr\n" + "GATTACAT" * 1000 + "N" * 2500)
        write_words_as_motifs(folder / "words.meme")
        flags_of = small_flags(folder, request.getfixturevalue("data_dir"))
        for name, flags in flags_of.items():
            if name != "danq":
                jobs.append((name, "run_superq", flags))
    if "yardsticks" in asked:
        folders["yardsticks"] = folder = tmp_path_factory.mktemp("yardsticks")
        (folder / "two.meme").write_text(MEME)
        (folder / "data").mkdir()
        with contextlib.chdir(folder / "data"):
            write_data()
        for name, flags in yardstick_flags(folder).items():
            jobs.append((name, "run_superq", flags))
    if "benchmarks" in asked:
        folders["benchmarks"] = folder = tmp_path_factory.mktemp("benchmarks")
        for name, flags in benchmark_flags(folder).items():
            jobs.append((f"benchmark {name}", "small_benchmark", flags))
    if "killed" in asked:
        folders["killed"] = folder = tmp_path_factory.mktemp("killed")
        where = ["--out-dir", f"{folder}/superq", "--checkpoint-minutes", "0"]
        flags = [*flags_of["superq"], *where]
        jobs.append(("killed superq", "kill_superq", flags))
        flags = [*flags_of["danq"], "--lstm-units", "0"]
        jobs.append(("killed danq", "kill_danq", [str(folder), *flags]))
    if not jobs:
        yield None
        return
    runs_beside = Beside(tmp_path_factory.mktemp("beside"), jobs)
    runs_beside.folders = folders
    yield runs_beside
    runs_beside.process.kill()
    runs_beside.process.communicate()


def write_learned_data(folder):
    """data and data-shuffled; test labels are true in both."""
    for twin in ("", "-shuffled"):
        data = folder / f"data{twin}"
        data.mkdir()
        (data / "labels.tsv").write_text(LABELS_TABLE)
        for split in danq.SPLITS:
            X, Y = learned_data(split)
            if twin and split != "test":
                windows = np.random.default_rng(5).permutation(len(X) // 2)
                Y = Y[np.concatenate([windows, windows])]
            with contextlib.chdir(data):
                write_hdf5(split, X, Y, simulated=True)


@pytest.fixture(scope="session")
def learned(beside):
    """Folders of runs that learned, and of twins whose labels were shuffled.

    {name of LEARNERS: folder}; test labels are true.
    """
    for name in LEARNERS:
        beside.wait_for(f"learned {name}")
    return {name: beside.folders["learned"] / name for name in LEARNERS}


@pytest.fixture(scope="session")
def runs(beside, data_dir):
    """Small runs that tests share, {name: (out_dir, printed, flags)}.

    danq is run on a terminal; the others beside the tests, in a home with other
    settings of Keras.
    """
    folder = beside.folders["runs"]
    done = {}
    for name, flags in small_flags(folder, data_dir).items():
        if name == "danq":
            with contextlib.redirect_stdout(Terminal()) as out:
                danq.main(flags)
            printed = out.getvalue()
        else:
            printed = beside.wait_for(name)
        done[name] = folder / name, printed, flags
    return done


@pytest.fixture(scope="session")
def yardsticks(beside):
    """The folder that holds the runs motifs, chosen, gc and cpg, and their data."""
    folder = beside.folders["yardsticks"]
    for name in yardstick_flags(folder):
        beside.wait_for(name)
    return folder


@pytest.fixture(scope="session")
def benchmarks(beside):
    """Benchmarks as small as can be: {name: (record, printed)}."""
    folder = beside.folders["benchmarks"]
    done = {}
    for name in benchmark_flags(folder):
        printed = beside.wait_for(f"benchmark {name}")
        done[name] = read_json(folder / f"benchmark-{name}.json"), printed
    assert len(os.listdir(folder)) == 3, "the records alone are left"
    return done


@pytest.fixture(scope="session")
def killed(beside, runs):
    """Runs that were killed, and went on: {name: (folder, expected, printed)}."""
    folder = beside.folders["killed"]
    printed = {name: beside.wait_for(f"killed {name}") for name in SCRIPTS}
    return {
        "danq": (folder / "killed/danq", folder / "whole/danq", printed["danq"]),
        "superq": (folder / "superq", runs["superq"][0], printed["superq"]),
    }


def predicted(name, folder, X):
    """Label names and probabilities (n, K) that --predict writes for windows."""
    records = [f">s{i}\n{letters_of(x)}\n" for i, x in enumerate(X)]
    Path("windows.fa").write_text("".join(records))
    flags = f"--predict windows.fa --output windows.tsv --out-dir {folder}"
    SCRIPTS[name].main([*flags.split(), "--batch-size", "50"])
    head, rows = read_predictions("windows.tsv")
    # Of each window's five bins the one in its middle has all its bases around it.
    middles = [row for row in rows if row[1] == "400"]
    P = np.array([row[N_PLACE:] for row in middles], float)
    return head[N_PLACE:], P


N_PLACE = 6  # columns of --predict's table before the labels


def read_predictions(path):
    """The head and the rows of --predict's table, as lists of texts."""
    head, *rows = Path(path).read_text().splitlines()
    return head.split("\t"), [row.split("\t") for row in rows]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def other_keras_settings(home):
    """A home whose keras.json is that of another project, as text."""
    (home / ".keras").mkdir(parents=True)
    other = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 1}
    (home / ".keras" / "keras.json").write_text(json.dumps(other))
    return str(home)


def write_words_as_motifs(path):
    """The words that labels follow from, in MEME's text format."""
    text = "MEME version 4\n\nALPHABET= ACGT\n"
    for k, word in enumerate(random_words(9)):
        text += f"\nMOTIF word{k}\nletter-probability matrix: alength= 4 w= 8\n"
        for column in word[:, [0, 2, 1, 3]]:  # A, C, G, T
            text += " ".join(map(str, column)) + "\n"
    path.write_text(text)


# ---- danq.py: the network


def test_published_sizes():
    model = danq.build_danq(919)
    assert model.count_params() == 46_926_479
    assert model.get_layer("motif_pool").output.shape == (
        None,
        75,
        320,
    )  # steps into the BLSTM
    assert model.get_layer("motif_grammar").output.shape == (None, 75, 640)
    assert model.get_layer("dense").input.shape == (None, 48_000)
    assert superq.build_paper().count_params() == 27_679_060
    # DanQ-JASPAR: 1,024 filters of 30 bases, 64 steps into its BLSTM.
    args = danq.parse_args(["--jaspar", "x.meme"])
    sizes = (args.filters, args.lstm_units, danq.JASPAR_WIDTH, danq.JASPAR_POOL)
    assert sizes == (1024, 512, 30, 15)
    args.dtype = None
    model = danq.compile_danq(args, 919, 100).layers[-1]
    assert model.count_params() == 67_892_175


def test_published_scores_stand_beside_deepseas_own_labels_alone():
    """Quang & Xie 2016: all, DNase, TF, histone marks."""
    real = {"labels": 919, "simulated": False}
    scores = danq.published(real)["DanQ (2016)"]
    assert scores["auroc"] == (0.9384, 0.9208, 0.9535, 0.8596)
    assert scores["auprc"] == (0.3709, 0.4636, 0.3520, 0.3850)
    assert list(dict.fromkeys(danq.DEEPSEA_ASSAYS)) == ["DNase", "TF", "histone"]
    assert danq.published(real | {"simulated": True}) == {}
    assert danq.published(real | {"labels": 177}) == {}


def lstm_oracle(x, kernel, recurrent, bias):
    """Plain LSTM over (steps, features): hidden states (steps, units).

    Gates stand in Keras' order i, f, c, o.
    """

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    h = np.zeros(len(recurrent))
    c = np.zeros(len(recurrent))
    states = []
    for step in x:
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_numpy_oracle_of_the_trunk(activation):
    X = random_sequences(2)
    inputs = keras.Input((1000, 4))
    rng = np.random.default_rng(0)
    model = keras.Model(inputs, danq.trunk(inputs, 5, 3, activation))
    model.set_weights(
        [rng.normal(0, 0.3, weight.shape) for weight in model.get_weights()]
    )
    kernel, bias, *lstm = model.get_weights()
    x = np.array(
        [np.einsum("pb,pbf->f", X[1, i : i + 26], kernel) + bias for i in range(975)]
    )
    x = np.maximum(x, 0) if activation == "relu" else x
    x = x.reshape(75, 13, 5).max(1)
    expected = np.concatenate(
        [lstm_oracle(x, *lstm[:3]), lstm_oracle(x[::-1], *lstm[3:])[::-1]], 1
    ).ravel()
    np.testing.assert_allclose(model.predict(X, verbose=0)[1], expected, atol=1e-4)


@pytest.mark.parametrize("name", SCRIPTS)
def test_mixed_precision_keeps_weights_and_answers_in_float32(name):
    args = SCRIPTS[name].parse_args([*SMALL, "--mixed-precision"])
    network = compiled(name, args, split_of(*random_data(12))).layers[-1]
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert {output.dtype for output in network.outputs} == {"float32"}
    assert network.get_layer("motif_scan").compute_dtype == "bfloat16"


def dropouts(network):
    return [layer.rate for layer in network.layers if isinstance(layer, Dropout)]


def rate_at(optimizer, step):
    optimizer.build([])
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


def test_danq_trains_with_the_papers_optimizer_and_dropout():
    split = split_of(*random_data(12))
    model = compiled("danq", danq.parse_args(SMALL), split)
    assert type(model.optimizer).__name__ == "RMSprop"
    assert [rate_at(model.optimizer, step) for step in (0, 10**6)] == pytest.approx(
        [1e-3] * 2
    )
    network = model.layers[-1]
    assert dropouts(network) == [0.2, 0.5]
    assert network.get_layer("labels").activation.__name__ == "sigmoid"
    assert network.get_layer("dense").activation.__name__ == "relu"
    args = danq.parse_args([*SMALL, "--conv-activation", "linear"])
    linear = compiled("danq", args, split).layers[-1]
    assert linear.get_layer("motif_scan").activation.__name__ == "linear"


def test_our_recipe_trains_danq_with_adam_up_and_down_a_cosine():
    """1,000 sequences in batches of 100, 5 epochs: 50 steps, of which 2 warm up."""
    args = danq.parse_args(["--recipe", "ours", "--filters", "4", "--lstm-units", "0"])
    assert (args.epochs, args.patience, args.move) == (5, 5, 8)
    optimizer = danq.compile_danq(args, 3, 1000).optimizer
    assert type(optimizer).__name__ == "Adam"
    assert optimizer.clipnorm == 1
    middle = (1e-3 + 2e-5) / 2
    by_step = {0: 2.5e-5, 2: 1e-3, 26: middle, 50: 2e-5}
    for step, rate in by_step.items():
        assert rate_at(optimizer, step) == pytest.approx(rate, rel=1e-3), step
    paper = danq.parse_args([])
    assert (paper.epochs, paper.patience, paper.filters) == (60, 5, 320)
    assert paper.move == 0
    given = danq.parse_args("--recipe ours --epochs 9 --patience 2 --move 0".split())
    assert (given.epochs, given.patience, given.move) == (9, 2, 0)
    assert danq.run_name(given) == "DanQ, our recipe, windows moved by 0"


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_seed_decides_the_first_weights(name):
    split = split_of(*random_data(12))
    filters = []
    for seed in "112":
        flags = [*SMALL, "--lstm-units", "0", "--seed", seed]
        model = compiled(name, SCRIPTS[name].parse_args(flags), split)
        filters.append(model.layers[-1].get_layer("motif_scan").get_weights()[0])
    np.testing.assert_array_equal(filters[0], filters[1])
    assert not np.array_equal(filters[0], filters[2])


def test_an_epoch_trains_on_moved_batches_of_its_seed_and_number(monkeypatch):
    """The third epoch, from its second step on; validation lies as it is."""
    split = split_of(*random_data())
    flags = [*SMALL, "--lstm-units", "0", "--seed", "7", "--move", "4"]
    args = danq.parse_args(flags)
    model = compiled("danq", args, split)
    checkpoint = danq.Checkpoint(Path("none.npz"))
    checkpoint.history = [{}, {}]
    checkpoint.step = 1
    given = []

    def fit(model, batches, validation_data, **options):
        given.extend([batches, validation_data])
        return argparse.Namespace(history={})

    monkeypatch.setattr(keras.Model, "fit", fit)
    danq.train_epoch(model, split, split, args, checkpoint, [])
    train = danq.Batches(split, 20, seed=7, epoch=2, first=1, move=4)
    valid = danq.Batches(split, 20)
    for found, expected in zip(given, (train, valid), strict=True):
        assert len(found) == len(expected)
        for step in range(len(expected)):
            np.testing.assert_array_equal(found[step][0], expected[step][0])
            np.testing.assert_array_equal(found[step][1], expected[step][1])


def test_dropout_acts_in_training_alone():
    network = danq.build_danq(3, filters=8, lstm_units=0)
    X = random_sequences(4).astype(np.float32)
    still = [np.asarray(network(X, training=False)) for _ in range(2)]
    moving = [np.asarray(network(X, training=True)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert abs(moving[0] - moving[1]).max() > 1e-3


# ---- danq.py: data


def test_strands_in_letters():
    flipped = danq.reverse_complement(letters_to_onehot("GATTACAN"))
    np.testing.assert_array_equal(flipped, letters_to_onehot("NTGTAATC"))
    np.testing.assert_array_equal(
        danq.reverse_complement(flipped), letters_to_onehot("GATTACAN")
    )
    degenerate = np.array([[[1, 0, 1, 0]]])  # M is A or C; its complement K is T or G
    assert danq.reverse_complement(degenerate).tolist() == [[[0, 1, 0, 1]]]


def check_packing(write, X, Y, tile=danq.TILE, **options):
    """Data are packed into what they were, `tile` bytes at a time."""
    write("train", X, Y, **options)
    shutil.rmtree("packed", ignore_errors=True)
    with mock.patch.object(danq, "TILE", tile):
        split = danq.load_split(".", "train", "packed")
    np.testing.assert_array_equal(danq.onehot(split.X), X)
    np.testing.assert_array_equal(split.labels(), Y)


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (write_v5, {}),
        (write_v5, {"compressed": True}),
        (write_hdf5, {}),
        (write_hdf5, {"dtype": "f8"}),
        (write_hdf5, {"chunks": (7, 1, 11), "compression": "gzip", "shuffle": True}),
        (write_hdf5, {"label_chunks": (3, 60)}),
        (write_hdf5, {"label_chunks": (5, 60)}),
    ],
)
def test_data_layouts_and_formats(write, options):
    """Read at once; and in tiles, which share a byte: it holds eight labels."""
    check_packing(write, *random_data(K=19), **options)
    check_packing(write, *random_data(K=19), tile=300, **options)


def test_memory_of_packing_is_bound_by_the_tile():
    """A tenth of 4 MB at most; of odd rows strands are not compared."""
    write_hdf5(
        "train",
        random_sequences(1001),
        np.ones((1001, 9), np.uint8),
        chunks=(1000, 4, 10),
    )
    tracemalloc.start()
    with mock.patch.object(danq, "TILE", 100_000):
        danq.load_split(".", "train", "packed")
    assert tracemalloc.get_traced_memory()[1] < 400_000
    tracemalloc.stop()


def test_disk_is_taken_before_a_memory_map_is_written_to(monkeypatch):
    """On a full disk a write into a hole of a memory map kills the process."""
    written = []

    def add_bits(path, *_):
        state = os.stat(path)
        written.append(state.st_blocks * 512 >= state.st_size)

    monkeypatch.setattr(danq, "add_bits", add_bits)
    danq.pack_array(np.zeros((1000, 4, 2000), np.uint8), "x.npy", "x.mat")
    assert os.path.getsize("x.npy") > 2000 * 500
    assert written == [True]


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 1000),
    st.integers(1, 40),
    st.integers(1, 5),
)
def test_packing_does_not_depend_on_the_data_layout(n, K, rows, columns, chunks):
    rng, columns = np.random.default_rng([n, K]), min(columns, n)
    X = rng.integers(2, size=(n, 1000, 4), dtype=np.uint8)
    Y = rng.integers(2, size=(n, K), dtype=np.uint8)
    tile = max(1000, chunks * rows * 4 * columns)
    check_packing(write_hdf5, X, Y, tile, chunks=(rows, 4, columns))


def test_data_rows_at_random_are_what_the_files_hold(data_dir):
    for name in danq.SPLITS:
        split = danq.load_split(data_dir, name, "packed", limit=7)
        rows = split.X.rows
        keys = (f"{name}xdata", f"{name}data")
        with danq.open_mat(data_dir / f"{name}.mat", keys) as (X, Y, _):
            half = X.shape[-1] // 2
            np.testing.assert_array_equal(rows[7:], rows[:7] + half)
            bases = X[..., rows].transpose(2, 0, 1)
            np.testing.assert_array_equal(danq.onehot(split.X[:]), bases)
            np.testing.assert_array_equal(split.labels(), Y[:, rows].T)
        assert split.strands
        assert split.windows == 7


def test_a_limit_takes_windows_at_random_and_smaller_ones_from_larger(capsys):
    X, Y = random_data(400)
    write_v5("valid", X, Y)
    taken = {}
    for limit in (10, 20, 60, 199, 200, 1000):
        split = danq.load_split(".", "valid", "packed", limit)
        n = min(limit, 200)
        assert (split.windows, len(split)) == (n, 2 * n)
        bits = danq.onehot(split.X[:])
        rows = []  # of the file, each found by its bases
        for row in bits[:n]:
            rows.append(int(np.flatnonzero((X == row).all((1, 2)))[0]))
        np.testing.assert_array_equal(bits[n:], X[np.array(rows) + 200])
        np.testing.assert_array_equal(split.window_labels(), Y[rows])
        taken[limit] = set(rows)
        assert len(taken[limit]) == n
    assert taken[10] < taken[20] < taken[60] < taken[199] < taken[200]
    assert max(taken[10]) > 100, "they are not the first ones"
    assert 60 < np.mean(list(taken[60])) < 140, "spread over all"
    assert capsys.readouterr().out.count("packed valid.mat") == 1, "whole, and once"


def test_data_are_packed_once_and_again_when_source_or_copy_changed(capsys):
    def pack(n, says):
        split = danq.load_split(".", "valid", "packed")
        assert (danq.onehot(split.X) == random_data(n)[0]).all()
        assert split.windows == n // 2
        assert ("packed" in capsys.readouterr().out) == says

    write_v5("valid", *random_data(60))
    pack(60, True)
    pack(60, False)
    write_v5("valid", *random_data(40))
    pack(40, True)
    note = next(Path("packed").rglob("valid.json"))
    older = json.dumps(read_json(note) | {"format": 0})
    for file, spoilt in (
        ("valid_X.npy", ""),
        ("valid.json", "[]"),
        ("valid.json", older),
    ):
        next(Path("packed").rglob(file)).write_text(spoilt)
        pack(40, True)


@pytest.mark.parametrize("differ", ["nothing", "bases", "labels"])
def test_strands_are_found_where_the_halves_are_strands(differ):
    """Reverse complements with the same labels; else each row is a window."""
    X, Y = random_data()
    if differ == "bases":
        X[30:] = X[:30]
    if differ == "labels":
        Y[30:] = 1 - Y[:30]
    write_v5("valid", X, Y)
    split = danq.load_split(".", "valid", "packed")
    limited = danq.load_split(".", "valid", "packed", limit=8)
    found = (split.strands, split.windows, len(limited))
    assert found == ((True, 30, 16) if differ == "nothing" else (False, 60, 8))


def test_strand_mean_meets_each_window_with_its_own_other_strand():
    """Windows 1, 2, 3 and their other strands 10, 20, 30, in batches of two."""
    X = np.array([[1.0], [2], [3], [10], [20], [30]])
    means = danq.strand_mean(lambda rows: rows, X, 3, True, 2)
    assert means.ravel().tolist() == [5.5, 11, 16.5]
    alone = danq.strand_mean(lambda rows: rows, X, 6, False, 4)
    assert alone.ravel().tolist() == [1, 2, 3, 10, 20, 30]


def test_batches_take_each_row_once_in_an_order_of_seed_and_epoch():
    X, Y = random_data()
    split = split_of(X, Y)
    orders = [
        danq.Batches(split, 25, *key).order.tolist() for key in ((1, 0), (1, 1), (2, 0))
    ]
    assert len({*map(tuple, orders)}) == 3
    assert all(sorted(order) == [*range(60)] for order in orders)
    for i, rows in enumerate((orders[0][:25], orders[0][25:50], orders[0][50:])):
        bits, labels = danq.Batches(split, 25, seed=1)[i]
        np.testing.assert_array_equal(danq.onehot(bits), X[rows])
        np.testing.assert_array_equal(np.unpackbits(labels, axis=1, count=9), Y[rows])


def test_a_packed_window_is_moved_as_its_letters_are():
    """What leaves at one end comes in at the other; each row by its own number."""
    X = random_sequences(3)
    for by in (2, -2, 8, 0):
        there = danq.moved(danq.packed(X), by)
        np.testing.assert_array_equal(danq.onehot(there), np.roll(X, by, axis=1))
    there = danq.onehot(danq.moved(danq.packed(X), np.array([4, 0, -6])))
    for row, by in enumerate((4, 0, -6)):
        np.testing.assert_array_equal(there[row], np.roll(X[row], by, axis=0))


def test_windows_are_moved_at_random_as_seed_epoch_and_step_have_it():
    """Each row is its window moved by 4 bases at most, its labels beside it."""
    X, Y = random_data()
    split = split_of(X, Y)

    def steps(seed, epoch, first=0):
        batches = danq.Batches(split, 25, seed, epoch, first, move=4)
        return [batches[i] for i in range(len(batches))]

    def moves(seed, epoch):
        """By how much each row of each step is moved."""
        order = danq.Batches(split, 25, seed, epoch).order
        found = []
        for step, (bits, labels) in enumerate(steps(seed, epoch)):
            rows = order[25 * step : 25 * step + 25]
            np.testing.assert_array_equal(labels, split.Y[rows])
            found.append([])
            for x, row in zip(danq.onehot(bits), rows, strict=True):
                by = [i for i in range(-9, 10) if (x == np.roll(X[row], i, 0)).all()]
                found[step] += by
        return found

    first, second, last = moves(1, 0)
    # All even numbers, to both sides; drawn anew in each step and each epoch.
    assert set(first) == set(second) == {-4, -2, 0, 2, 4}
    assert first != second
    assert first != moves(1, 1)[0]
    assert len(first + second + last) == 60

    def bits_of(batches):
        return b"".join(bits.tobytes() for bits, _ in batches)

    assert bits_of(steps(1, 0)) == bits_of(steps(1, 0))
    # Where a run goes on within an epoch, it meets what it would have met.
    assert bits_of(steps(1, 0)[1:]) == bits_of(steps(1, 0, first=1))
    at_rest = bits_of([danq.Batches(split, 25, 1)[0]])
    assert bits_of(steps(1, 0)[:1]) != at_rest
    assert bits_of([danq.Batches(split, 25, 1, move=0)[0]]) == at_rest


def edit(split="train", X=lambda X: X, Y=lambda Y: Y, write=write_hdf5):
    """A way to spoil data: rewrite one split from changed arrays."""
    original = random_data()
    return lambda: write(split, X(original[0]), Y(original[1]))


def single_number(key):
    with h5py.File("train.mat", "a") as file:
        del file[key]
        file[key] = 1


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda: os.remove("valid.mat"), "valid.mat is missing"),
        (
            lambda: os.truncate("train.mat", 3000),
            "train.mat is damaged.* copy it again",
        ),
        (
            lambda: os.truncate("valid.mat", 5000),
            "valid.mat is damaged .* complete MATLAB",
        ),
        (
            lambda: scipy.io.savemat("test.mat", {"x": 1}),
            "test.mat has no variable testxdata",
        ),
        (
            edit(X=lambda X: X.transpose(0, 2, 1)),
            r"trainxdata has shape \(4, 1000, 60\)",
        ),
        (edit(Y=lambda Y: Y[:50]), r"traindata has shape \(9, 50\).*60 sequences"),
        (lambda: single_number("trainxdata"), r"trainxdata has shape \(\)"),
        (lambda: single_number("traindata"), r"traindata has shape \(\).*60 sequences"),
        (
            edit(Y=lambda Y: np.where(Y, np.nan, 0)),
            r"traindata must hold 0 and 1 only, not nan \(row \d, sequence \d",
        ),
        (
            edit("valid", X=lambda X: X * -1.0, write=write_v5),
            "validxdata must hold 0 and 1 only, not -1",
        ),
        (
            edit("test", Y=lambda Y: Y[:, :5], write=write_v5),
            "the splits differ in their number of labels",
        ),
        (
            lambda: write_hdf5("train", *random_data(), chunks=(1000, 4, 60)),
            "too large .* h5repack -l CHUNK=1000x4x256",
        ),
        (
            lambda: Path("labels.tsv").write_text("column\tassay\tname\n0\tTF\tCTCF\n"),
            r"labels.tsv has 1 labels, the data 9",
        ),
        (
            lambda: Path("labels.tsv").write_text(
                "column\tassay\tname\n0\tall\tCTCF\n"
            ),
            r"labels.tsv, line 2: no assay can be called all",
        ),
    ],
)
def test_bad_data_give_one_clear_line(capsys, monkeypatch, spoil, says):
    monkeypatch.setattr(danq, "TILE", 200_000)  # bytes of the largest HDF5 chunk
    write_data()
    spoil()
    check_one_line(
        capsys, says, danq.main, ["--data-dir", ".", "--out-dir", "out/danq"]
    )
    assert not list(Path().rglob("*.tmp*"))
    assert not Path("out/danq").exists()


def test_an_empty_factor_is_read_from_the_name():
    lines = ["column\tassay\tname\tfactor", "0\tTF\tTF|A|x\t", "1\tTF\tb\tmine"]
    for order in (slice(None), slice(None, None, -1)):
        names = [line.split("\t", 1)[1] for line in lines[1:][order]]
        rows = [f"{i}\t{name}" for i, name in enumerate(names)]
        Path("labels.tsv").write_text("\n".join([lines[0], *rows]) + "\n")
        labels = danq.load_labels(".", 2)
        assert [label.factor for label in labels] == ["TF|A", "mine"][order]


def test_unusual_data_run_to_the_end():
    """One label, odd rows, a single test row, rows of N alone, links; no digits."""
    X, Y = random_data(31, K=1)
    X[3:6] = 0
    Path("data").mkdir()
    for split, n in (("train", 31), ("valid", 7), ("test", 1)):
        write_hdf5(split, X[:n], Y[:n])
        Path(f"data/{split}.mat").symlink_to(f"../{split}.mat")
    flags = [*SMALL, *FOREST, "--epochs", "1", "--lstm-units", "0", "--digits", "none"]
    superq.main(flags)
    summary = read_json("runs/superq/summary.json")
    assert summary["model"] == "SuperQ from random filters, digits none, no BLSTM"
    assert "reconstruction" not in summary
    with h5py.File("runs/superq/encodings.h5") as file:
        assert file["train/Z"].shape[1] == 250
    assert (summary["labels"], summary["test_windows"], summary["labels_scored"]) == (
        1,
        1,
        0,
    )


# ---- danq.py: data from peaks and a genome

# The folder of hg19_peaks and hg19_subset, which was cut from these peaks.
PEAKS_DATA = os.environ.get("PEAKS_DATA") and Path(os.environ["PEAKS_DATA"]).resolve()
COMPLEMENT = str.maketrans("ACGT", "TGCA")
SPLIT_REGIONS = (["v"], ["t"])  # chromosomes of the small genome


def random_dna(n, seed):
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), n))


def write_genome(genome, path="genome.fa", width=60, end="\n"):
    with open(path, "w", newline="") as file:
        for name, letters in genome.items():
            file.write(f">{name} made up{end}")
            for first in range(0, len(letters), width):
                file.write(letters[first : first + width] + end)


def write_tracks(tracks):
    """tracks : {name: (assay, [(chromosome, start, end), ...])}"""
    lines = ["assay\tname\tfile\n"]
    for name, (assay, peaks) in tracks.items():
        lines.append(f"{assay}\t{name}\t{name}.bed\n")
        rows = [f"{chrom}\t{start}\t{end}\n" for chrom, start, end in peaks]
        Path(f"{name}.bed").write_text("".join(rows))
    Path("tracks.tsv").write_text("".join(lines))


def small_genome():
    """3,050 bases to train on, and two of 1,400."""
    return {
        "a": random_dna(3050, 1),
        "v": random_dna(1400, 2),
        "t": random_dna(1400, 3),
    }


def small_tracks():
    """Every kept bin has a peak of TF or of a histone mark."""
    return {
        "ctcf": ("TF", [("a", 0, 3000), ("v", 0, 1400), ("t", 0, 1400)]),
        "open": ("DNase", [("a", 500, 900)]),
    }


def make(valid=SPLIT_REGIONS[0], test=SPLIT_REGIONS[1], **more):
    danq.make_data("out", "genome.fa", "tracks.tsv", valid, test, **more)


def read_mat(path):
    """One-hot (n, 1000, 4) and labels (n, K) of out/SPLIT.mat."""
    split = Path(path).stem
    keys = (f"{split}xdata", f"{split}data")
    with danq.open_mat(path, keys) as (X, Y, _):
        return X[()].transpose(2, 0, 1), Y[()].T


def read_made(folder="out"):
    """{split: [(letters, labels), ...]} of both strands, decoded by hand."""
    rows = {}
    for split in danq.SPLITS:
        X, Y = read_mat(f"{folder}/{split}.mat")
        assert (X.sum(-1) == 1).all()
        letters = np.array(list("AGCT"))[X.argmax(-1)]
        rows[split] = [
            ("".join(text), tuple(labels))
            for text, labels in zip(letters, Y.tolist(), strict=True)
        ]
    return rows


def read_beds(folder="out"):
    beds = {}
    for split in danq.SPLITS:
        lines = Path(f"{folder}/{split}.bed").read_text().splitlines()
        fields = [line.split("\t") for line in lines]
        beds[split] = [(chrom, int(start), int(end)) for chrom, start, end in fields]
    return beds


def owner_of(chrom, base, regions):
    """The split of a base; regions : {split: [(chromosome, start, end)]}, from 0."""
    for split, stretches in regions.items():
        for name, start, end in stretches:
            if name == chrom and start <= base < end:
                return split
    return "train"


def oracle(genome, tracks, regions, rule):
    """What make_data writes, base by base: {split: [(bin, letters, labels)]}."""
    expected = {split: [] for split in danq.SPLITS}
    for chrom, letters in genome.items():
        for start in range(0, len(letters) - 199, 200):
            left, right = start - 400, start + 600
            if left < 0 or right > len(letters):
                continue
            window = letters[left:right].upper()
            owners = {owner_of(chrom, base, regions) for base in range(left, right)}
            labels = []
            for _, peaks in tracks.values():
                covered = 0
                for base in range(start, start + 200):
                    covered += any(
                        name == chrom and first <= base < last
                        for name, first, last in peaks
                    )
                labels.append(int(covered > 100))
            is_tf = [assay == "TF" for assay, _ in tracks.values()]
            wanted = {
                "tf": any(np.array(labels) & is_tf),
                "any": any(labels),
                "all": True,
            }
            if "N" not in window and len(owners) == 1 and wanted[rule]:
                row = ((chrom, start, start + 200), window, tuple(labels))
                expected[owners.pop()].append(row)
    return expected


def check_against_oracle(genome, tracks, regions, rule):
    expected = oracle(genome, tracks, regions, rule)
    rows = read_made()
    beds = read_beds()
    for split in danq.SPLITS:
        forward = [(window, labels) for _, window, labels in expected[split]]
        reverse = [(w.translate(COMPLEMENT)[::-1], labels) for w, labels in forward]
        assert rows[split] == forward + reverse
        assert beds[split] == [bin_ for bin_, _, _ in expected[split]]
    return expected


def whole_chromosome(genome, chrom):
    return [(chrom, 0, len(genome[chrom]))]


def check_make(capsys, says, **arguments):
    """make must print one line that matches `says`, exit with 2, leave nothing."""
    check_one_line(capsys, says, lambda: make(**arguments))
    assert not list(Path().glob(".out*"))


@pytest.mark.parametrize("rule", danq.RULES)
def test_bins_are_labelled_as_an_oracle_in_letters_says(rule):
    """Peaks of 100 and 101 bases of a bin, overlapping, over borders, at both ends."""
    genome = small_genome()
    genome["a"] = genome["a"][:600].lower() + genome["a"][600:]
    genome["t"] = genome["t"][:1399] + "n"
    tracks = {
        "borders": (
            "TF",
            [
                ("a", 400, 500),  # 100 of bin 400: not enough
                ("a", 699, 800),  # 101 of bin 600
                ("a", 850, 951),  # 101 of bin 800, inside
                ("a", 1100, 1300),  # 100 of bins 1000 and 1200
                ("a", 1499, 1701),  # 101 of bins 1400 and 1600
            ],
        ),
        "unions": (
            "TF",
            [
                ("a", 460, 560),
                ("a", 410, 470),  # with the one before 150 of bin 400
                ("a", 610, 670),
                ("a", 610, 670),  # the same one again: 60, not 120
                ("a", 800, 850),
                ("a", 850, 901),  # touch: 101 of bin 800
                ("a", 1000, 1051),
                ("a", 1149, 1199),  # apart: 101 of bin 1000
                ("a", 1200, 1400),
                ("a", 1250, 1260),  # inside another
                ("a", 1799, 1850),
                ("a", 1800, 1900),  # 100 of bin 1800
                ("a", 2000, 2000),  # of no bases
            ],
        ),
        "ends": ("histone", [("a", 0, 700), ("a", 2300, 3050), ("v", 0, 1400)]),
        "rest": ("TF", [("v", 400, 1000), ("t", 0, 1400)]),
        "open": ("DNase", [("t", 0, 1400), ("a", 2000, 2101)]),
    }
    write_genome(genome)
    write_tracks(tracks)
    make(bins=rule)
    regions = {
        "valid": whole_chromosome(genome, "v"),
        "test": whole_chromosome(genome, "t"),
    }
    expected = check_against_oracle(genome, tracks, regions, rule)
    labels = {bin_[1]: row for bin_, _, row in expected["train"]}
    assert labels[600][0] == 1
    assert labels[400][:2] == (0, 1)
    assert labels[800][:2] == (1, 1)
    # of "v" 3 bins; the last two of "t" lie in windows with its N or over its end
    assert len(expected["valid"]) == 3
    assert len(expected["test"]) == 2


@pytest.mark.parametrize("seed", range(4))
def test_random_peaks_and_regions(seed, monkeypatch):
    """Regions in the middle of chromosomes; blocks of 3 windows."""
    monkeypatch.setattr(danq, "WINDOWS", 3)
    rng = np.random.default_rng(seed)
    genome = {"x": random_dna(9_123, seed), "y": random_dna(7_000, seed + 10)}
    genome["y"] = genome["y"][:2500] + "N" + genome["y"][2501:]
    tracks = {}
    for number in range(11):  # two bytes of labels
        peaks = []
        for _ in range(25):
            chrom = str(rng.choice(list(genome)))
            start = int(rng.integers(0, 6_600))
            peaks.append((chrom, start, start + int(rng.integers(20, 400))))
        tracks[f"track{number}"] = (["TF", "DNase"][number % 2], peaks)
    write_genome(genome)
    write_tracks(tracks)
    make(["x:3,001-6,000"], ["y:4001-", "x:6001-8000"])
    regions = {
        "valid": [("x", 3000, 6000)],
        "test": [("y", 4000, 7000), ("x", 6000, 8000)],
    }
    check_against_oracle(genome, tracks, regions, "tf")


@pytest.mark.parametrize("start", [3000, 3001, 2950, 3049])
def test_no_window_reaches_into_another_split(start):
    """Borders are rounded to bins, so that counting from 0 or from 1 is the same."""
    genome = {"x": random_dna(9_000, 1)}
    write_genome(genome)
    write_tracks({"all": ("TF", [("x", 0, 9000)])})
    make([f"x:{start}-5000"], ["x:5000-"])
    bins = {split: {row[1] for row in rows} for split, rows in read_beds().items()}
    assert bins["train"] == set(range(400, 2401, 200))
    assert bins["valid"] == set(range(3400, 4401, 200))
    assert bins["test"] == set(range(5400, 8401, 200))


@pytest.mark.skipif(
    not shutil.which("bedtools"), reason="needs bedtools (Debian: apt install bedtools)"
)
def test_labels_are_those_of_bedtools():
    """bedtools coverage of each kept bin by a label's peaks, and getfasta's letters."""
    rng = np.random.default_rng(5)
    genome = {"x": random_dna(60_000, 5), "v": random_dna(9_000, 6)}
    genome["t"] = random_dna(9_000, 7)
    tracks = {}
    for number in range(3):
        peaks = []
        for _ in range(150):
            chrom = str(rng.choice(list(genome), p=(0.8, 0.1, 0.1)))
            start = int(rng.integers(0, len(genome[chrom]) - 500))
            peaks.append((chrom, start, start + int(rng.integers(30, 500))))
        tracks[f"track{number}"] = ("TF", peaks)
    write_genome(genome)
    write_tracks(tracks)
    make(bins="all")
    rows = read_made()
    for split in danq.SPLITS:
        bed = f"out/{split}.bed"
        half = len(rows[split]) // 2
        for column, name in enumerate(tracks):
            # chrom, start, end, peaks, bases covered, length, fraction
            printed = run_bedtools(f"bedtools coverage -a {bed} -b {name}.bed")
            covered = [int(line.split("\t")[4]) for line in printed.splitlines()]
            labels = [row[1][column] for row in rows[split][:half]]
            assert labels == [int(bases > 100) for bases in covered]
        sizes = "".join(f"{name}\t{len(dna)}\n" for name, dna in genome.items())
        Path("sizes").write_text(sizes)
        Path("w.bed").write_text(
            run_bedtools(f"bedtools slop -b 400 -g sizes -i {bed}")
        )
        printed = run_bedtools("bedtools getfasta -tab -fi genome.fa -bed w.bed")
        letters = [line.split("\t")[1] for line in printed.splitlines()]
        assert letters == [row[0] for row in rows[split][:half]]
    # bins of 200 that bedtools makes itself: all but two at each end are there
    printed = run_bedtools("bedtools makewindows -w 200 -g sizes").splitlines()
    made = [line.split("\t") for line in printed]
    bins = [int(start) for chrom, start, _ in made if chrom == "x"][2:-2]
    assert [start for _, start, _ in read_beds()["train"]] == bins


def run_bedtools(command):
    return subprocess.run(
        command.split(), check=True, capture_output=True, text=True
    ).stdout


def crossing_windows(chromosome):
    """One-hot windows over 50 and 54 Mb, as bytes."""
    rows = set()
    for border in (50_000_000, 54_000_000):
        for start in range(border - 800, border, 200):
            codes = ["AGCT".find(b) for b in chromosome[start : start + 1000].upper()]
            one_hot = np.eye(5, dtype=np.uint8)[codes][:, :4]  # -1: a row of zeros
            rows.add(np.ascontiguousarray(one_hot).tobytes())
            other = np.ascontiguousarray(one_hot[::-1, ::-1])
            rows.add(other.tobytes())
    return rows


@pytest.mark.skipif(not PEAKS_DATA, reason="PEAKS_DATA names no folder of both")
def test_data_made_from_peaks_equal_hg19_subset():
    """Its rows, but for windows over 50 and 54 Mb."""
    source = PEAKS_DATA / "hg19_peaks"
    fasta = source / "20.fa.gz"
    valid = ["chr20:50000000-54000000"]
    test = ["chr20:54000000-"]
    danq.make_data("out", fasta, source / "tracks.tsv", valid, test)
    chromosome = "".join(gzip.open(fasta, "rt").read().split("\n")[1:])
    crossing = crossing_windows(chromosome)
    labels = (PEAKS_DATA / "hg19_subset" / "labels.tsv").read_text()
    assert Path("out/labels.tsv").read_text() == labels
    left_out = 0
    for split in danq.SPLITS:
        X, Y = read_mat(PEAKS_DATA / "hg19_subset" / f"{split}.mat")
        keep = np.array([x.tobytes() not in crossing for x in X])
        left_out += len(keep) - keep.sum()
        made_X, made_Y = read_mat(f"out/{split}.mat")
        assert np.array_equal(made_Y, Y[keep])
        for rows, made in zip(blocks(X[keep]), blocks(made_X), strict=True):
            assert np.array_equal(rows, made)
        # bedtools' way: the letters of each BED row are those of the .mat's
        beds = read_beds()[split]
        for row in (0, len(beds) // 2, len(beds) - 1):
            start = beds[row][1] - 400
            letters = chromosome[start : start + 1000].upper()
            codes = made_X[row].argmax(-1)
            assert "".join(np.array(list("AGCT"))[codes]) == letters
    assert 0 < left_out <= 16  # two borders, four windows each, two strands


def blocks(X):
    return [X[first : first + 4096] for first in range(0, len(X), 4096)]


def same_as_plain(genome, tracks):
    """make() gives what the plain files gave."""
    rows = read_made()
    shutil.rmtree("out")
    write_genome(genome)
    write_tracks(tracks)
    make()
    return rows == read_made()


def test_made_data_have_deepseas_layouts(monkeypatch):
    """train.mat: v7.3; the others v5, or v7.3 where they are large; danq reads them."""
    write_genome(small_genome())
    write_tracks(small_tracks())
    make()
    with h5py.File("out/train.mat") as file:
        X = file["trainxdata"]
        assert (X.shape, X.dtype, X.chunks) == ((1000, 4, 22), "u1", (1000, 4, 22))
        assert (X.compression, file.userblock_size) == ("gzip", 512)
        assert file["traindata"].shape == (2, 22)
    assert scipy.io.loadmat("out/valid.mat")["validxdata"].shape == (6, 4, 1000)
    assert scipy.io.loadmat("out/test.mat")["testdata"].shape == (6, 2)
    split = danq.load_split("out", "train", "packed")
    assert (split.strands, split.windows, split.n_labels) == (True, 11, 2)
    assert not list(Path().glob(".*")) + list(Path("out").glob(".*"))
    assert len(list(Path("out").iterdir())) == 7
    rows = read_made()
    shutil.rmtree("out")
    monkeypatch.setattr(danq, "V5_SLAB", 1000)  # many slabs, the last one smaller
    make()
    assert rows == read_made()
    shutil.rmtree("out")
    monkeypatch.setattr(danq, "V5_BYTES", 6 * 4000 - 1)
    make()
    assert h5py.is_hdf5("out/test.mat")
    assert rows == read_made()


def test_made_labels_are_read():
    write_genome(small_genome())
    write_tracks(small_tracks())
    make()
    labels = danq.load_labels("out", 2)
    assert [label[:3] for label in labels] == [(0, "TF", "ctcf"), (1, "DNase", "open")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("zipped", ["plain", "gzip", "members"])
def test_genomes_and_peaks_have_any_line_end_and_gzip(end, zipped):
    """All three line ends; gzip, of many members, too, under names that hide it."""
    genome = small_genome()
    tracks = small_tracks()
    write_genome(genome, end=end)
    write_tracks(tracks)
    for path in ("genome.fa", "tracks.tsv", "ctcf.bed", "open.bed"):
        text = Path(path).read_text().replace("\n", end).encode()
        if path == "genome.fa":
            text = Path(path).read_bytes()
        parts = {"plain": [], "gzip": [text]}
        parts["members"] = [text[:100], text[100:1500], b"", text[1500:]]
        zipped_parts = [gzip.compress(part) for part in parts[zipped]]
        Path(path).write_bytes(b"".join(zipped_parts) or text)
    make()
    assert same_as_plain(genome, tracks)


def test_spellings_of_a_fasta_and_a_bed():
    """Lower case, one long line, no last line end, comments, blank lines, blanks."""
    genome = small_genome()
    tracks = small_tracks()
    write_tracks(tracks)
    lower = {name: letters.lower() for name, letters in genome.items()}
    write_genome(lower, width=10_000, end="\n\n")
    Path("genome.fa").write_text(Path("genome.fa").read_text().rstrip("\n"))
    Path("open.bed").write_text(
        'browser position a:1-100\ntrack name="x"\n#chrom\tstart\tend\n\na 500 900'
    )
    make()
    assert same_as_plain(genome, tracks)


def test_records_of_a_genome_may_be_empty_unnamed_or_without_a_last_line_end():
    text = b">one >two\r\nAGC\nTN\n\n>three\nacgt\n>\n>last"
    Path("x.fa").write_bytes(text)
    records = [(name, list(codes)) for name, codes in danq.genome_records("x.fa")]
    first = ("one", [0, 1, 2, 3, 4])
    assert records == [first, ("three", [0, 2, 1, 3]), ("unnamed", []), ("last", [])]


@pytest.mark.parametrize(
    ("genome_name", "peak_name"),
    [("chr1", "1"), ("1", "chr1"), ("chrM", "MT"), ("MT", "chrM"), ("X", "chrX")],
)
def test_names_of_chromosomes(genome_name, peak_name, capsys):
    """UCSC's names and Ensembl's; what has no chromosome is counted and named."""
    genome = small_genome()
    genome = {genome_name: genome["a"], "v": genome["v"], "t": genome["t"]}
    write_genome(genome)
    tracks = small_tracks()
    peaks = [(peak_name, 0, 3000), ("v", 0, 1400), ("t", 0, 1400)]
    peaks += [("chrUn", 0, 10), ("chrUn", 5, 10), ("2", 0, 10)]
    tracks = {"ctcf": ("TF", peaks)}
    write_tracks(tracks)
    make(["chrv"], ["t"])
    printed = capsys.readouterr().out
    assert "left out: 2 peaks on chrUn, which the genome lacks\n" in printed
    assert "left out: 1 peaks on 2, which the genome lacks\n" in printed
    beds = read_beds()["train"]
    assert {name for name, _, _ in beds} == {genome_name}
    assert len(beds) == 11


def test_min_signal(capsys):
    """Peaks below S in column 7 are out, those at S stay."""
    write_genome(small_genome())
    write_tracks(small_tracks())
    rows = []
    for chrom, start, end, strength in (
        ("a", 400, 600, "4.9"),
        ("a", 600, 800, "5"),
        ("a", 800, 1000, "nan"),
        ("v", 0, 1400, "1e3"),
        ("t", 0, 1400, "7"),
    ):
        rows.append(f"{chrom}\t{start}\t{end}\t.\t0\t.\t{strength}\n")
    Path("ctcf.bed").write_text("".join(rows))
    Path("tracks.tsv").write_text("assay\tname\tfile\nTF\tctcf\tctcf.bed\n")
    make(min_signal=5.0)
    assert read_beds()["train"] == [("a", 600, 800)]
    assert "left out: 2 peaks below --min-signal 5\n" in capsys.readouterr().out


def test_table_of_what_was_kept(capsys):
    """Counts by hand: 11 bins, 3, 3; `open` has bins 600 and, of 500-600, none."""
    write_genome(small_genome())
    write_tracks(small_tracks())
    make()
    printed = capsys.readouterr().out
    table = {}
    for line in printed.splitlines():
        words = re.split(r" {2,}", line.strip())
        table[words[0]] = words[1:]
    assert table["a"] == ["11", "0", "0"]
    assert table["all"] == ["11", "3", "3"]
    assert table["positives of a label: least"] == ["1", "0", "0"]
    assert table["most"] == ["11", "3", "3"]
    assert table["labels without a positive"] == ["0", "1", "1"]
    # CTCF is everywhere, as the bins with a TF label are kept.
    assert table["labels without a negative"] == ["1", "1", "1"]
    assert "bins: those with a TF label (--bins tf)\n" in printed
    assert "without a positive in valid: open\n" in printed
    assert "left out" not in printed


def test_deepsea_regions_are_the_default():
    """chr7:30508751-35296850, chr8, chr9, rounded to bins."""
    grid = 35_300_000 // 200
    chromosomes = {}
    for key, n in (("7", grid), ("8", 10), ("9", 10)):
        has_n = np.zeros(n, bool)
        owner = np.zeros(n, np.int8)
        chromosomes[key] = danq.Chromosome(f"chr{key}", n * 200, has_n, owner)
    given = {"valid": None, "test": None}
    found = danq.assign_regions(chromosomes, given, "genome.fa")
    assert [row[3:] for row in found] == [(152_544, 176_484), (0, 10), (0, 10)]
    assert [row[0] for row in found] == ["valid", "test", "test"]
    assert np.flatnonzero(chromosomes["7"].owner == 1).min() == 152_544


BAD_PEAKS = [
    ("a\t100\n", "open.bed:2: not BED: a line has"),
    ("chrom\tstart\tend\n", "open.bed:2: not BED: start 'start'"),
    ("a\t-5\t100\n", "open.bed:2: not BED: start '-5'"),
    ("a\t1.5\t100\n", "open.bed:2: not BED: start '1.5'"),
    ("a\t1\t1e3\n", "open.bed:2: not BED: .* end '1e3'"),
    ("a\t1_0\t1000\n", "open.bed:2: not BED: start '1_0'"),
    ("a\t\t1000\n", "open.bed:2: not BED: start ''"),
    ("a\t300\t200\n", "open.bed:2: not BED: the peak starts at 300, after its end"),
    ("a\t3000\t3051\n", r"open.bed:2: .* 3,051, past the last base of a \(3,050\)"),
    ("\x00\x01\x02\n", "open.bed:2: not BED"),
]


@pytest.mark.parametrize(("line", "says"), BAD_PEAKS)
def test_bad_peaks(line, says, capsys):
    write_genome(small_genome())
    write_tracks(small_tracks())
    with open("open.bed", "a") as file:
        file.write(line)
    check_make(capsys, says)


@pytest.mark.parametrize(
    ("text", "signal", "says"),
    [
        ("", None, "open.bed: no peak is left: it has none"),
        ("# nothing\n\n", None, "open.bed: no peak is left: it has none"),
        ("chrQ\t1\t9\n", None, "open.bed: no peak is left: 1 are on chrQ, which the"),
        ("a\t1\t9\n", 2.0, "ctcf.bed:1: has 3 columns: --min-signal"),
        ("a\t1\t9\t.\t0\t.\tx\n", 2.0, "open.bed:1: column 7 .* is 'x'"),
        (
            "a\t1\t9\t.\t0\t.\t1\n",
            2.0,
            "open.bed: no peak is left: 1 are below --min-s",
        ),
    ],
)
def test_bad_peak_files(text, signal, says, capsys):
    write_genome(small_genome())
    write_tracks(small_tracks())
    Path("open.bed").write_text(text)
    if "ctcf" not in says:
        Path("tracks.tsv").write_text("assay\tname\tfile\nTF\topen\topen.bed\n")
    check_make(capsys, says, min_signal=signal)


def test_damaged_gzip_of_a_genome_or_peaks(capsys):
    write_genome(small_genome())
    write_tracks(small_tracks())
    content = gzip.compress(Path("open.bed").read_bytes())
    Path("open.bed").write_bytes(content[:-6])
    check_make(capsys, "open.bed is damaged .* copy it again")
    write_tracks(small_tracks())
    content = gzip.compress(Path("genome.fa").read_bytes())
    Path("genome.fa").write_bytes(content[:900] + b"rubbish" + content[907:])
    check_make(capsys, "genome.fa is damaged .* copy it again")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("TF\tctcf\tctcf.bed\n", "tracks.tsv:1: the header must be assay, name, file"),
        ("assay name file\n", "tracks.tsv:1: the header must be"),
        ("assay\tname\tfile\nTF\tctcf\n", "tracks.tsv:2: must hold assay, name"),
        ("assay\tname\tfile\nTF\t\tctcf.bed\n", "tracks.tsv:2: must hold assay, name"),
        (
            "assay\tname\tfile\n\nTF\tx\tctcf.bed\nTF\tx\topen.bed\n",
            "tracks.tsv:4: the name x stands in line 3, too",
        ),
        (
            "assay\tname\tfile\nTF\tctcf\tnone.bed\n",
            "tracks.tsv:2: there is no file none.bed",
        ),
        ("assay\tname\tfile\nall\tx\tctcf.bed\n", "tracks.tsv:2: no assay can be"),
        ("assay\tname\tfile\n", "tracks.tsv names no track"),
        ("", "tracks.tsv names no track"),
    ],
)
def test_bad_tracks(text, says, capsys):
    write_genome(small_genome())
    write_tracks(small_tracks())
    Path("tracks.tsv").write_text(text)
    check_make(capsys, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            ">p1\nACGT\nMEEPQSDPSV\n",
            "record p1 holds 'E' at base 6: not DNA: a protein FASTA?",
        ),
        (">p1\rACGT\rACGTACGTAC*\r", r"record p1 holds '\*' at base 15: not DNA"),
        ("ACGT\n", "genome.fa is not FASTA"),
        ("", "genome.fa holds no sequence"),
        (">chr1\nACGT\n>1\nACGT\n", "genome.fa: records chr1 and 1 are one"),
        (">a\nACGT\n", "--valid v: genome.fa has no v"),
    ],
)
def test_bad_genomes(text, says, capsys):
    write_tracks(small_tracks())
    Path("genome.fa").write_text(text)
    check_make(capsys, says)


@pytest.mark.parametrize(
    ("valid", "test", "says"),
    [
        (["chrQ"], ["t"], "--valid chrQ: genome.fa has no chrQ"),
        (["v:1-x"], ["t"], "--valid v:1-x: genome.fa has no v:1-x"),
        (["v:2000-3000"], ["t"], "--valid v:2000-3000 matches nothing: v has 1,400"),
        (["v:900-500"], ["t"], "--valid v:900-500 matches nothing"),
        (["v:1-50"], ["t"], "--valid v:1-50 matches nothing: .* bins of 200"),
        (["v"], ["t:1-800"], "--test t:1-800 matches nothing: no bin in it is kept"),
        (["v"], ["t", "v:201-600"], "--test v:201-600 overlaps --valid"),
        (["v", "a"], ["t"], "no bin is left to train"),
        (
            None,
            ["t"],
            "--valid chr7:30508751-35296850 .the default.: genome.fa has no chr7",
        ),
        (["v"], None, "--test chr8 .the default.: genome.fa has no chr8"),
    ],
)
def test_bad_regions(valid, test, says, capsys):
    write_genome(small_genome())
    write_tracks(small_tracks())
    check_make(capsys, says, valid=valid, test=test)


def test_bad_rules_and_missing_files(capsys):
    write_genome(small_genome())
    write_tracks({"open": ("DNase", [("a", 0, 3000), ("v", 0, 1400), ("t", 0, 1400)])})
    check_make(capsys, "--bins tf: no label has the assay TF", bins="tf")
    make()  # the default is `any` here
    assert len(read_beds()["train"]) == 11
    check_make(capsys, "out exists already")
    shutil.rmtree("out")
    Path("genome.fa").unlink()
    check_make(capsys, "genome.fa: No such file")
    Path("tracks.tsv").unlink()
    check_make(capsys, "tracks.tsv: No such file")


def test_a_run_that_was_killed_is_in_nobodys_way():
    write_genome(small_genome())
    write_tracks(small_tracks())
    make()
    rows = read_made()
    Path("out").rename(".out.tmp")
    Path(".out.tmp/train.bed").write_text("half")
    make()
    assert read_made() == rows
    assert len(list(Path("out").iterdir())) == 7


@pytest.mark.parametrize(
    ("kilobytes", "says"),
    [(40, "bed"), (2000, "mat")],
)
def test_a_full_disk_while_data_are_made(kilobytes, says, capsys):
    """Files may have so many kB, as by ulimit -f: BED, .mat."""
    write_genome({"a": random_dna(800_000, 1), "v": "ACGT" * 500, "t": "ACGT" * 500})
    tracks = small_tracks()
    tracks["ctcf"][1].append(("a", 0, 800_000))
    write_tracks(tracks)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, most[1]))
        check_make(capsys, f"{says}: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    make()
    assert len(read_beds()["train"]) == 3996


def test_one_record_of_a_genome_is_in_memory():
    """Neither pass over a genome holds two records of 16 MB at a time."""
    genome = dict.fromkeys("abvt", "ACGT" * 4_000_000)
    write_genome(genome, width=100_000)
    write_tracks(small_tracks())
    tracemalloc.start()
    make()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 16 MB as letters, an eighth more as they grow, and 16 MB as codes
    assert 32e6 < peak < 40e6


# ---- danq.py: its training


def entropy(Y, P):
    return -(Y * np.log(P) + (1 - Y) * np.log(1 - P)).mean()


def losses_by_hand(name, P, X, Y):
    """Loss and accuracy from a network's answers P on X; the first len(Y) have labels.

    Known bases and labelled rows alone count.
    """
    if name == "danq":
        return {"loss": entropy(Y, P), "acc": ((P > 0.5) == Y).mean()}
    known = X.sum(-1) == 1
    true = (P["bases"] * X).sum(-1)[known]
    hits = (P["bases"].argmax(-1) == X.argmax(-1))[known]
    counts = np.asarray(superq.KmerCounts(4, 300)(X.astype(np.float32)))
    bases = -np.log(true).mean()
    composition = np.square(P["composition"] - counts).mean()
    labels = entropy(Y, P["labels"][: len(Y)])
    return {"loss": bases + composition + 10 * labels, "acc": hits.mean()}


@pytest.mark.parametrize(
    ("name", "labelled"), [("danq", 12), ("superq", 12), ("superq", 8)]
)
def test_bits_give_the_losses_of_one_hot(name, labelled):
    X, Y = random_data(12)
    X[3:6, 200:900] = 0  # enough N to see whether they count
    split = split_of(X[:labelled], Y[:labelled])
    if labelled < 12:
        more = danq.packed(X)[labelled:]
        split = superq.MixedSplit(**vars(split), unlabelled=more)
    args = SCRIPTS[name].parse_args([*SMALL, "--lstm-units", "0"])
    model = compiled(name, args, split)
    batches = danq.Batches(split, 12)
    P = model.layers[-1].predict(X, verbose=0)
    scores = model.evaluate(batches, verbose=0, return_dict=True)
    expected = losses_by_hand(name, P, X, Y[:labelled])
    assert scores["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    accuracy = "acc" if name == "danq" else "bases_acc"
    assert scores[accuracy] == pytest.approx(expected["acc"], rel=1e-4)
    bits, labels, *_ = batches[0]
    assert (bits.dtype, bits.shape) == (np.uint8, (12, 500))
    assert (labels.dtype, labels.shape) == (np.uint8, (12, 2))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_small_fit_learns_and_its_twin_with_shuffled_labels_does_not(learned, name):
    """On the commands' own scores; chance is .5."""
    for label in read_table(learned[name] / "metrics.csv"):
        assert float(label["auroc"]) > 0.55
    assert read_json(learned[name] / "summary.json")["means"]["all"]["auroc"] > 0.65
    twin = read_json(learned[f"{name}-shuffled"] / "summary.json")
    assert twin["means"]["all"]["auroc"] < 0.6
    if name == "superq":
        answers = read_json(learned[name] / "summary.json")["answers"]
        for answer, scores in answers.items():
            assert scores["auroc"] > 0.65
            assert twin["answers"][answer]["auroc"] < 0.6


@pytest.mark.parametrize("name", SCRIPTS)
def test_validation_losses_are_those_of_the_kept_model(learned, name):
    """By hand, from what model.keras of the best epoch answers on validation rows."""
    X, Y = learned_data("valid")
    best = read_json(learned[name] / "summary.json")["training"]["best_epoch"]
    history = read_table(learned[name] / "history.csv")
    losses = [float(row["val_loss"]) for row in history]
    assert losses.index(min(losses)) == best - 1
    P = danq.load_model(learned[name]).predict(X, verbose=0)
    expected = losses_by_hand(name, P, X, Y)
    assert losses[best - 1] == pytest.approx(expected["loss"], rel=1e-3)
    assert float(history[best - 1]["val_acc"]) == pytest.approx(
        expected["acc"], abs=1e-3
    )


def test_a_duration_is_said_in_the_unit_that_fits():
    assert danq.duration(45) == "45 seconds"
    assert danq.duration(90) == "1.5 minutes"
    assert danq.duration(9000) == "2.5 hours"


@pytest.mark.parametrize(("name", "patience"), [("danq", 2), ("superq", 3)])
def test_best_epoch_and_patience_on_scripted_losses(monkeypatch, name, patience):
    """Epoch 4 of 9 is the best; a NaN is none, an equal loss no better one.

    Of the recipes that keep the best epoch the third compiles soonest.
    """
    script = [3.0, 4.0, math.nan, 1.0, 2.0, 1.0, 2.0, 0.5, 0.1]
    fit = keras.Model.fit
    weights = []

    def scripted_fit(model, *args, **options):
        history = fit(model, *args, **options)
        history.history["val_loss"] = [script[len(weights)]]
        weights.append(model.get_weights())
        return history

    if name == "danq":
        script.remove(4.0)  # two bad epochs would be its end
    best = script.index(1.0) + 1
    monkeypatch.setattr(keras.Model, "fit", scripted_fit)
    write_data(8)
    flags = "--epochs 9 --batch-size 8 --filters 2 --lstm-units 0 --data-dir ."
    more = "--patience 2" if name == "danq" else "--forest-trees 2 --ablation 3"
    SCRIPTS[name].main([*flags.split(), *more.split(), "--out-dir", "run"])
    history = read_table("run/history.csv")
    summary = read_json("run/summary.json")
    training = summary["training"]
    assert len(history) == best + patience == training["epochs"] == len(weights)
    assert training["best_epoch"] == best
    seconds = [float(row["seconds"]) for row in history]
    assert training["seconds_to_best"] == pytest.approx(sum(seconds[:best]), abs=0.02)
    assert training["seconds"] == pytest.approx(sum(seconds), abs=0.02)
    # What --compare calls its training: DanQ's to the best epoch, all of SuperQ's.
    cost = training["seconds_to_best"]
    if name == "superq":
        cost = sum(summary["seconds"].values())
        assert summary["seconds"]["autoencoder"] == training["seconds"]
    assert summary["training_seconds"] == pytest.approx(cost, abs=0.02)
    kept = danq.load_model("run").get_weights()
    for mine, theirs in zip(kept, weights[best - 1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_batch_too_large_for_the_device_gives_one_line(capsys, monkeypatch):
    """After the first batch, in the first step of fit()."""

    def draw(batches, step):
        if drawn:
            raise RuntimeError("RESOURCE_EXHAUSTED: trying to allocate 99 bytes\nmore")
        drawn.append(step)
        return batches.split.batch(batches.order[:20])

    write_data()
    drawn = []
    monkeypatch.setattr(danq.Batches, "__getitem__", draw)
    says = (
        "too little memory .*RESOURCE_EXHAUSTED: trying to allocate 99 bytes more.*"
        "try half of --batch-size, in training with --restart$"
    )
    check_one_line(capsys, says, danq.main, [*SMALL, "--data-dir", "."])


@pytest.mark.parametrize(
    "words",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 6.75GiB",
        "INTERNAL: operation gpudnnRNNForward() failed: CUDNN_STATUS_INTERNAL_ERROR",
        "INTERNAL: Failed to initialize BLASLT support",
    ],
)
def test_a_device_whose_memory_another_program_takes_gives_one_line(
    capsys, monkeypatch, words
):
    """After training, as the model is loaded or run; training is not done again.

    No file is called damaged, with the advice to train anew.
    """

    def fail(*_, **options):
        raise RuntimeError(words)

    write_data()
    flags = [*SMALL, "--data-dir", "."]
    says = "too little memory .*close what else uses the GPU"
    for place, name in (keras.Model, "predict_on_batch"), (keras.saving, "load_model"):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fail)
            check_one_line(capsys, says, danq.main, flags)
    before = read_table("runs/danq/history.csv")
    danq.main(flags)
    assert read_table("runs/danq/history.csv") == before


@pytest.mark.parametrize("good_epochs", [2, 0])
def test_divergence_is_found_at_the_epoch_and_the_last_good_model_kept(
    capsys, monkeypatch, good_epochs
):
    write_data()
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(
        [3 * good_epochs - 1], [1e-3, 1e38]
    )
    monkeypatch.setitem(danq.RECIPES["2016"], "rate", rate)
    flags = [*SMALL, "--epochs", "5", "--lstm-units", "0", "--data-dir", "."]
    if not good_epochs:
        return check_one_line(
            capsys, "diverged in its first epoch: loss (nan|inf)", danq.main, flags
        )
    danq.main(flags)
    good = read_table("runs/danq/history.csv")[:good_epochs]
    losses = [float(row["val_loss"]) for row in good]
    best = read_json("runs/danq/summary.json")["training"]["best_epoch"]
    assert best == np.argmin(losses) + 1
    assert re.search(
        "it diverged, loss (nan|inf)", capsys.readouterr().out
    )  # which, depends on the machine
    assert all(
        np.isfinite(weight).all()
        for weight in danq.load_model("runs/danq").get_weights()
    )


def test_two_devices_train_as_one_does(data_dir):
    """Data-parallel on simulated devices of the CPU, which JAX has.

    39 windows, as known motifs and the head take them one device's way.
    """
    pytest.importorskip("jax")
    Path("two.meme").write_text(MEME)
    both = (
        "import sys, danq, superq; n, *flags = sys.argv[1:]; "
        "danq.main([*flags, '--out-dir', n + '/danq']); "
        "superq.main([*flags, '--lstm-units', '0', '--forest-trees', '4', "
        "'--motif-start', 'two.meme', '--filters', '34', '--out-dir', n + '/superq'])"
    )
    flags = [*SMALL, "--epochs", "1", "--limit", "39", "--data-dir", data_dir]
    processes = {
        n: start_python(
            "-c",
            both,
            n,
            *flags,
            KERAS_BACKEND="jax",
            XLA_FLAGS=f"--xla_force_host_platform_device_count={n}",
        )
        for n in "12"
    }
    for n, process in processes.items():
        assert printed_by(process).count(
            "training on 2 devices, 10 sequences on each"
        ) == 2 * (n == "2")
    for name in SCRIPTS:
        losses = [
            [
                float(row[key])
                for row in read_table(f"{n}/{name}/history.csv")
                for key in ("loss", "val_loss")
            ]
            for n in processes
        ]
        np.testing.assert_allclose(*losses, rtol=1e-4)


# ---- danq.py: scores


def labels_of_assays(*assays):
    return [danq.Label(i, assay, f"label {i}", "x") for i, assay in enumerate(assays)]


def test_scoring_by_hand():
    """Two labels that mirror each other; two of one class only, which get no scores."""
    y = np.array([1, 0, 1, 0])
    p = np.array([0.9, 0.8, 0.7, 0.1])
    P = np.stack([p] * 4, 1)
    Y = np.stack([y, 1 - y, 0 * y, 0 * y + 1], 1)
    labels = labels_of_assays("TF", "TF", "DNase", "DNase")
    rows, means = danq.evaluate(P, Y, labels, [0.75] * 4)
    assert rows[0]["auroc"] == pytest.approx(
        3 / 4
    )  # 3 of the 4 (positive, negative) pairs in order
    assert rows[0]["auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert rows[0]["f1"] == pytest.approx(
        2 * 1 / (2 + 2)
    )  # called: one right, one wrong; one missed
    assert rows[0]["recall_at_10fdr"] == pytest.approx(0.5)
    assert rows[2]["auroc"] is None is rows[3]["f1"]
    assert (
        means["all"]["auroc"]
        == means["TF"]["auroc"]
        == pytest.approx((3 / 4 + 1 / 4) / 2)
    )
    assert [means[name]["labels"] for name in ("all", "TF", "DNase")] == [2, 2, 0]
    assert danq.best_thresholds(P, Y)[:3] == pytest.approx(
        [0.7, 0.1, 0.5]
    )  # F1 is .8 and .667; no positives


def test_scores_in_a_terminal_stand_below_their_names(capsys):
    means = {"labels": 2, "base_rate": 0.1, "auroc": 0.9, "auprc": 0.5}
    means |= {"f1": 0.4, "recall_at_10fdr": 0.3}
    summary = {"labels": 2, "labels_scored": 2, "simulated": True}
    danq.print_scores(summary | {"means": {"all": means}})
    _, head, row = capsys.readouterr().out.splitlines()
    names = "labels AUROC AUPRC F1 recall at 10 % FDR chance: AUROC .5, AUPRC"
    assert head.split() == names.split()
    assert row.split() == "all 2 0.9000 0.5000 0.4000 0.3000 0.1000".split()


def test_means_are_over_the_scored_labels_of_each_assay():
    """AUROC 1, 1, 0 of three TF labels, .75 of a DNase label; a histone label of 0."""
    y = np.array([1, 0, 1, 0])
    rising = np.array([0.9, 0.1, 0.8, 0.2])
    P = np.stack([rising, rising, 1 - rising, [0.9, 0.8, 0.7, 0.1], rising], 1)
    Y = np.stack([y, y, y, y, 0 * y], 1)
    labels = labels_of_assays("TF", "TF", "TF", "DNase", "histone")
    rows, means = danq.evaluate(P, Y, labels, [0.5, 0.5, 0.5, 0.75, 0.5])
    assert [row["auroc"] for row in rows] == [1, 1, 0, pytest.approx(0.75), None]
    assert means["TF"]["auroc"] == pytest.approx(2 / 3)
    assert means["DNase"]["auroc"] == pytest.approx(0.75)
    assert means["histone"]["auroc"] is None
    assert means["all"]["auroc"] == pytest.approx((1 + 1 + 0 + 0.75) / 4), (
        "not of assays"
    )
    assert means["all"]["f1"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert means["all"]["base_rate"] == pytest.approx(0.5), "of scored labels"
    assert [row["positives"] for row in rows] == [2, 2, 2, 2, 0]


def f1_of(y, called):
    return 2 * (y & called).sum() / (y.sum() + called.sum())


@pytest.mark.parametrize("name", SCRIPTS)
def test_metrics_are_those_of_predict_on_the_test_windows(learned, name):
    """Column by column, thresholds from validation; --predict prints six digits."""
    X, Y = learned_windows("test")
    names, P = predicted(name, learned[name], X)
    X_valid, Y_valid = learned_windows("valid")
    _, P_valid = predicted(name, learned[name], X_valid)
    rows = read_table(learned[name] / "metrics.csv")
    assert names == [row["name"] for row in rows]
    for k, row in enumerate(rows):
        y = Y[:, k]
        scores = {key: float(row[key]) for key in ("auroc", "auprc", "f1")}
        assert int(row["positives"]) == y.sum()
        assert scores["auroc"] == pytest.approx(roc_auc_score(y, P[:, k]), abs=0.005)
        assert scores["auprc"] == pytest.approx(
            average_precision_score(y, P[:, k]), abs=0.01
        )
        cut = float(row["threshold"]) * (1 - 1e-5)
        assert scores["f1"] == pytest.approx(f1_of(y > 0, P[:, k] >= cut), abs=0.02)
        y = Y_valid[:, k] > 0
        best = max(f1_of(y, P_valid[:, k] >= p) for p in P_valid[:, k])
        assert f1_of(y, P_valid[:, k] >= cut) >= best - 0.005
    if name == "superq":
        share = read_json(learned[name] / "summary.json")["subset_accuracy"]
        assert share == pytest.approx(((P >= 0.5) == Y).all(1).mean(), abs=0.02)


@pytest.mark.parametrize(
    ("split", "key"), [("test", "answers"), ("valid", "validation")]
)
def test_the_label_outputs_score_by_hand(learned, split, key):
    """And those of the forest, and of their mean; on both strands' views by hand."""
    X, Y = learned_windows(split)
    model = danq.load_model(learned["superq"])
    both = (X, danq.reverse_complement(X))
    features = np.mean([mean_of_views(model, strand) for strand in both], 0)
    P = np.asarray(model.get_layer("labels")(features))
    answers = read_json(learned["superq"] / "summary.json")[key]
    forest = superq.load_forest(learned["superq"] / "forest.npz")
    with h5py.File(learned["superq"] / "encodings.h5") as file:
        from_forest = superq.predict_forest(forest, file[f"{split}/Z"][:])
    mean = (P + from_forest) / 2
    measures = {"auroc": roc_auc_score, "auprc": average_precision_score}
    for measure, score in measures.items():
        for answer, scores in (
            ("label output", P),
            ("forest", from_forest),
            ("mean", mean),
        ):
            own = [score(Y[:, k], scores[:, k]) for k in range(Y.shape[1])]
            assert answers[answer][measure] == pytest.approx(np.mean(own), abs=0.003)


def test_the_answer_is_the_one_that_validation_ranks_highest(learned):
    """By the sum of AUROC and AUPRC; metrics.csv is of the answer."""

    def chosen(*scores):
        names = ("forest", "label output", "mean")
        rows = [{"auroc": auroc, "auprc": auprc} for auroc, auprc in scores]
        return superq.choose_answer(dict(zip(names, rows, strict=False)))

    assert chosen((0.80, 0.2), (0.80, 0.2), (0.80, 0.21)) == "mean"
    assert chosen((0.80, 0.2), (0.81, 0.2), (0.80, 0.2)) == "label output"
    # One score is lower, the other higher by more.
    assert chosen((0.80, 0.2), (0.82, 0.19), (0.79, 0.2)) == "label output"
    assert chosen((0.80, 0.2), (0.79, 0.23), (0.82, 0.2)) == "label output"
    assert chosen((0.80, 0.2), (0.80, 0.2), (0.80, 0.2)) == "forest"
    # No label has both classes in the validation split.
    assert chosen((None, None), (None, None), (None, None)) == "forest"
    assert chosen((0.9, 0.3)) == "forest"
    summary = read_json(learned["superq"] / "summary.json")
    assert summary["answer"] == superq.choose_answer(summary["validation"])
    own = summary["answers"][summary["answer"]]
    assert own["auroc"] == pytest.approx(summary["means"]["all"]["auroc"])


def test_the_bases_that_are_rebuilt_are_the_test_splits(learned):
    """The share there of the base that is the commonest in training."""
    train, _ = learned_data("train")
    test, _ = learned_data("test")
    known = test[test.sum(-1) == 1]  # (bases, 4)
    share = known.mean(0)[train.sum((0, 1)).argmax()]
    found = read_json(learned["superq"] / "summary.json")["reconstruction"]
    assert found["commonest_base"] == pytest.approx(share, abs=1e-6)


def test_what_is_strand_blind_is_asked_on_one_strand(runs):
    for name, blind in (("superq", True), ("kmer", True), ("pca", False)):
        assert superq.trained_scores(runs[name][0])[1] == blind
        with h5py.File(runs[name][0] / "encodings.h5") as file:
            assert len(file["train/Z"]) == (40 if blind else 80)
    assert not superq.trained_scores(runs["paper"][0])[1]
    for ablation, blind in (("3", False), ("5", True)):  # digits, pooled features
        flags = ["--features", "untrained", "--ablation", ablation]
        assert superq.strand_blind(superq.parse_args(flags)) == blind


# ---- danq.py and superq.py: the command line


def test_scripts_write_what_they_promise(runs):
    columns = "column assay name factor positives base_rate auroc auprc f1 threshold"
    columns = [*columns.split(), "recall_at_10fdr"]
    for name, (out, printed, _) in runs.items():
        files = {path.name for path in out.iterdir()}
        assert name == "danq" or {"encodings.h5", "forest.npz"} < files
        assert not [
            file
            for file in files
            if ".tmp" in file or file in ("encodings.part", "checkpoint.npz")
        ]
        assert read_json(out / "args.json")["versions"].keys() > {
            "keras",
            "numpy",
            "python",
        }
        summary = read_json(out / "summary.json")
        rows = read_table(out / "metrics.csv")
        scored = [float(row["auroc"]) for row in rows if row["auroc"]]
        assert list(rows[0]) == columns
        assert f"{len(scored)} of {len(rows)} labels" in printed
        assert (len(rows), len(scored)) == (summary["labels"], summary["labels_scored"])
        assert np.mean(scored) == pytest.approx(summary["means"]["all"]["auroc"])
        assert REAL_DATA or "SIMULATED" in printed


def test_training_is_printed_and_recorded_beside_its_yardsticks(runs):
    for name, epochs in (("danq", 2), ("superq", 2), ("paper", 2), ("more", 1)):
        history = read_table(runs[name][0] / "history.csv")
        assert len(history) == epochs
        assert {"epoch", "seconds", "loss", "acc"} <= history[0].keys()
        assert bool(history[0]["val_loss"] and history[0]["val_acc"]) == (
            name != "paper"
        )
    assert re.search(
        r"bases rebuilt .*commonest base .*paper \.2526", runs["superq"][1]
    )
    assert "always .25: loss 0.1875" in runs["paper"][1]
    assert "stopped: --max-seconds 0.01" in runs["more"][1], "within an epoch"


def test_a_terminal_sees_one_bar_an_epoch_and_at_the_end_what_to_do_next(runs):
    text = runs["danq"][1]
    assert text.count("Epoch 1/2") == text.count("Epoch 2/2") == 1
    assert "4/4" in text
    assert "step of epoch 2/2" in text
    made, following = text.splitlines()[-2:]
    assert "model.keras" in made
    assert "--predict seqs.fa" in following
    assert "\b" not in runs["superq"][1], "elsewhere no bar"


@pytest.mark.parametrize("name", ["danq", "superq", "pca"])
def test_foreign_data_are_scored_by_label_name(runs, data_dir, capsys, name):
    """The run's own test split: all names known, one in three, none.

    pca alone has both strands in encodings.h5.
    """
    out = runs[name][0]
    main = SCRIPTS.get(name, superq).main
    there = runs[name][0] / f"test-{Path.cwd().name}"
    rows = read_table(out / "metrics.csv")
    head, *labels = (data_dir / "labels.tsv").read_text().splitlines()
    shutil.copy(data_dir / "test.mat", ".")
    for known in (slice(None), slice(0, None, 3)):
        renamed = [
            label if label in labels[known] else f"{label}-other" for label in labels
        ]
        Path("labels.tsv").write_text("\n".join([head, *renamed]))
        flags = f"--out-dir {out} --test-data . --limit 40 --batch-size 20"
        main(flags.split())
        assert (
            f"{len(rows[known])} of {len(rows)} labels are there"
            in capsys.readouterr().out
        )
        assert read_table(there / "metrics.csv") == rows[known]
        assert read_table(out / "metrics.csv") == rows
    of_the_own_test_split = {"reconstruction", "answers"}
    assert not of_the_own_test_split & read_json(there / "summary.json").keys()
    unknown = "".join(f"{i}\tTF\tother {i}\n" for i in range(len(labels)))
    Path("labels.tsv").write_text(f"{head}\n{unknown}")
    says = f"none of its {len(labels)} labels .* is among the run's"
    check_one_line(capsys, says, main, flags.split())


@pytest.mark.parametrize("name", SCRIPTS)
def test_labels_of_foreign_data_may_stand_in_another_order(learned, name):
    """The run's own test split, its columns reversed with their names, one more."""
    X, Y = learned_data("test")
    order = [4, 3, 2, 1, 0]
    write_hdf5("test", X, np.hstack([Y[:, :1], Y[:, order]]))
    rows = read_table(learned[name] / "metrics.csv")
    table = "column\tassay\tname\n0\tTF\tanother\n"
    for column, k in enumerate(order, 1):
        table += f"{column}\t{rows[k]['assay']}\t{rows[k]['name']}\n"
    Path("labels.tsv").write_text(table)
    folder = Path("run")
    shutil.copytree(learned[name], folder)
    SCRIPTS[name].main(["--out-dir", "run", "--test-data", "."])
    there = read_table(folder / f"test-{Path.cwd().name}" / "metrics.csv")
    assert [int(row["column"]) for row in there] == [1, 2, 3, 4, 5]
    for row, k in zip(there, order, strict=True):
        assert row["name"] == rows[k]["name"]
        for key in ("positives", "threshold"):
            assert row[key] == rows[k][key]
        for key in ("auroc", "auprc", "f1"):
            assert float(row[key]) == pytest.approx(float(rows[k][key]), abs=0.01)


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("danq", "--epochs 0", "--epochs: must be at least 1"),
        ("danq", "--seed -1", "--seed: must be at least 0"),
        ("danq", "--predict=", "--predict: is empty"),
        ("danq", "--make-data=", "--make-data: is empty"),
        ("danq", "--test-data=", "--test-data: is empty"),
        ("superq", "--compare=", "--compare: is empty"),
        ("superq", "--limit ten", "--limit"),
        ("superq", "--no-such-flag", "no-such-flag"),
        ("danq", "--data-dir nowhere", "nowhere/train.mat is missing"),
        ("danq", "--make-demo-data .", "exists already"),
        ("danq", "--data-dir . --out-dir train.mat/x", "train.mat"),
        ("danq", "--predict x.fa", "no finished run"),
        ("superq", "--compare .", "no finished run"),
        ("superq", "--compare . nowhere", "nowhere is no folder of a run"),
        ("superq", "--reuse-encodings", "encodings.h5 is missing"),
        ("superq", "--data-dir . --motif-start x.meme", "x.meme is missing: bash"),
        ("superq", "--label-weight nan", "--label-weight: must be"),
        ("superq", "--ablation 6", "--ablation"),
        ("danq", "--plot x.jpg", "--plot: must end in .png"),
        ("superq", "--motifs x.txt", "--motifs: must end in .meme"),
        ("danq", "--plot x.png", "needs --predict"),
        ("superq", "--unlabelled-limit 5", "needs --unlabelled"),
        ("superq", "--paper --features pca", "is for yardsticks"),
        ("superq", "--paper --ablation 3", "not with --ablation"),
        ("superq", "--paper --label-weight 1", "needs the pooled features"),
        ("superq", "--paper --head-epochs 1", "--head-epochs needs the pooled"),
        ("superq", "--paper --top-rate .1", "--top-rate is of our training"),
        ("superq", "--features gc --top-rate .1", "is for yardsticks"),
        ("superq", "--features gc --ablation 1", "--ablation is of SuperQ's network"),
        ("danq", "--move 3", "--move must be an even number"),
        ("superq", "--paper --move 8", "--move needs the pooled features"),
    ],
)
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
            for flags, says in (
                ("--data-dir . --out-dir run", "packed: Permission denied"),
                (
                    "--data-dir . --out-dir open/run",
                    r"open/run/\.lock: Permission denied",
                ),
                ("--make-demo-data demo", r"\.demo\.tmp: Permission denied"),
            ):
                check_one_line(capsys, says, danq.main, flags.split())
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o755)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_model_or_a_forest_cannot_run_code(capsys):
    inputs = keras.Input((1000, 4))
    touch = keras.layers.Lambda(
        lambda x: open("ran", "w").close() or x, output_shape=(1000, 4)
    )
    keras.Model(inputs, touch(inputs)).save("model.keras")
    Path("ran").unlink(missing_ok=True)
    check_one_line(capsys, "model.keras is damaged .*lambda", danq.load_model, ".")
    np.savez("f.npz", means=np.array([Malicious()], object))
    check_one_line(
        capsys, "f.npz is damaged .*fit it again", superq.load_forest, "f.npz"
    )
    assert not Path("ran").exists()


# ---- danq.py: the folder of a run


def test_a_finished_run_is_kept_and_a_folder_in_use_refused_by_name(runs, capsys):
    out, _, flags = runs["kmer"]
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('process 1 on there', end='', file=f, flush=True); "
        "print(flush=True); input()"
    )
    other = start_python("-c", hold, out / ".lock")
    other.stdout.readline()
    check_one_line(capsys, "in use by process 1 on there", superq.main, flags)
    other.communicate("\n")
    superq.main(flags)
    assert "finished already" in capsys.readouterr().out
    check_one_line(capsys, "seed was 1337, now 5", superq.main, [*flags, "--seed", "5"])
    other = [*flags, "--max-seconds", "9"]
    check_one_line(capsys, "max-seconds was not given, now 9", superq.main, other)


def test_restart_discards_a_run_of_other_settings(runs, capsys):
    shutil.copytree(runs["kmer"][0], "run")
    flags = [*runs["kmer"][2], "--out-dir", "run", "--forest-trees", "5"]
    check_one_line(capsys, "forest-trees was 6, now 5", superq.main, flags)
    superq.main([*flags, "--restart"])
    printed = capsys.readouterr().out
    assert "[2/3] encodings" in printed
    assert "[3/3] forest: 5 trees" in printed


def test_a_run_that_does_not_fit_the_command_gives_one_line(runs, capsys):
    shutil.copytree(runs["kmer"][0], "old")
    Path("old/args.json").write_text(
        json.dumps(read_json("old/args.json") | {"format": 1})
    )
    for script, flags, says in (
        (danq, f"--motifs x.meme --out-dir {runs['superq'][0]}", "run of superq.py"),
        (superq, f"--motifs x.meme --out-dir {runs['danq'][0]}", "run of danq.py"),
        (superq, f"--motifs x.meme --out-dir {runs['kmer'][0]}", "no convolution"),
        (superq, "--predict x.fa --out-dir old", "old was made by another version"),
    ):
        check_one_line(capsys, says, script.main, flags.split())


# ---- danq.py: annotating new sequences


def test_fasta_is_tiled_with_coordinates():
    long = letters_of(random_sequences(2).reshape(-1, 4))[:1450]
    lines = "\r\n".join(long.lower()[i : i + 61] for i in range(0, 1450, 61))
    text = f">long chr1 of something\r\n{lines}\r\n>short\r\nGATTACARN-\r\n"
    text += f">empty\r\n\r\n>whole\r\n{long[:1000]}"
    Path("a.fa.gz").write_bytes(gzip.compress(text.encode()))
    windows = list(danq.fasta_windows("a.fa.gz"))
    bins = [*range(0, 1400, 200), 1250]  # the last one flush with the end
    expected = []
    for start in bins:
        padded = int(start < 400 or start > 850)
        place = ("long", start, start + 200, start - 400, start + 600, padded)
        expected.append(place)
    expected.append(("short", 0, 10, -495, 505, 1))
    for start in range(0, 1000, 200):
        padded = int(start != 400)
        place = ("whole", start, start + 200, start - 400, start + 600, padded)
        expected.append(place)
    assert [window[:6] for window in windows] == expected
    X = danq.letters_to_onehot(windows, "a.fa")
    np.testing.assert_array_equal(X[3], letters_to_onehot(long[200:1200])[0])
    np.testing.assert_array_equal(X[0, 400:], letters_to_onehot(long[:600])[0])
    np.testing.assert_array_equal(X[7, :600], letters_to_onehot(long[850:])[0])
    assert X[0, :400].sum() == 0 == X[7, 600:].sum()
    short = X[8]
    np.testing.assert_array_equal(short[495:502], letters_to_onehot("GATTACA")[0])
    assert short[502].tolist() == [1, 1, 0, 0]  # R is A or G
    assert short[503:].sum() == 0 == short[:495].sum()


@pytest.mark.parametrize("name", SCRIPTS)
def test_fasta_is_annotated_whatever_the_strand_and_the_batch_mates(runs, name):
    X = random_sequences(6)
    P = {}
    strands = enumerate([*X, *danq.reverse_complement(X)])
    Path("x.fa").write_text("".join(f">s{i}\n{letters_of(x)}\n" for i, x in strands))
    labels = [row["name"] for row in read_table(runs[name][0] / "metrics.csv")]
    for size, picture in ((5, ""), (12, "--plot p.png")):
        flags = f"--predict x.fa --batch-size {size} --output new/p.tsv {picture}"
        flags += f" --out-dir {runs[name][0]}"
        SCRIPTS[name].main(flags.split())
        head, rows = read_predictions("new/p.tsv")
        assert head == [*danq.PLACE, *labels]
        middle = ["400", "600", "0", "1000", "0"]
        places = [row[:N_PLACE] for row in rows if row[1] == "400"]
        assert places == [[f"s{i}", *middle] for i in range(12)]
        P[size] = np.array([row[N_PLACE:] for row in rows], float).reshape(12, 5, -1)
    # On the other strand the bins stand in the other order.
    np.testing.assert_allclose(P[5][:6], P[5][6:, ::-1], atol=1e-5)
    np.testing.assert_allclose(P[5], P[12], atol=1e-5)
    highest = np.argsort(P[5][0].max(0))[-10:]
    picture = Path("p.svg").read_text()
    assert "base of s0" in picture
    assert all(labels[label] in picture for label in highest)


def test_tracks_are_drawn_at_the_middle_of_each_bin(runs, monkeypatch):
    """1,450 bases are bins at 0, 200, ... 1,200 and, flush with the end, 1,250."""
    figures = captured_figures(monkeypatch)
    text = letters_of(random_sequences(2).reshape(-1, 4))
    Path("x.fa").write_text(f">a\n{text[:1450]}\n>b\n{text[:1200]}\n")
    out = runs["danq"][0]
    danq.main(f"--predict x.fa --plot p.png --out-dir {out}".split())
    head, rows = read_predictions("predictions.tsv")
    names = head[N_PLACE:]
    P = np.array([row[N_PLACE:] for row in rows[:8]], float)
    axes = figures["p.png"].axes
    highest = [P[:, names.index(axis.get_ylabel())].max() for axis in axes]
    assert highest == sorted(highest, reverse=True)
    for axis in axes:
        x, y = axis.lines[0].get_data()
        assert list(x) == [100, 300, 500, 700, 900, 1100, 1300, 1350]
        own = P[:, names.index(axis.get_ylabel())]
        np.testing.assert_allclose(y, own, rtol=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"MKVLA\n", "is not FASTA"),
        (b">p\nMKVLAEE\n", "record p holds 'L' at base 4"),
        (b">a\n\n", "holds no sequence"),
        (
            gzip.compress(b">a\n" + b"GATTACA\n" * 9999)[:99],
            "is damaged .*: copy it again",
        ),
    ],
)
def test_bad_fasta_gives_one_clear_line(runs, capsys, content, says):
    Path("x.fa").write_bytes(content)
    check_one_line(
        capsys,
        says,
        danq.main,
        ["--predict", "x.fa", "--out-dir", str(runs["danq"][0])],
    )
    assert os.listdir() == ["x.fa"]


# ---- what a mutation does


def made_up_score(K=9, seen=None):
    """A model that knows each base's place: packed (n, 500) -> (n, K).

    seen : list, to which the number of sequences of each call is added
    """
    W = np.random.default_rng(4).normal(0, 0.1, (4000, K))

    def score(bits):
        if seen is not None:
            seen.append(len(bits))
        X = np.unpackbits(bits, axis=1).astype(float)
        return (1 / (1 + np.exp(-X @ W))).astype(np.float32)

    return score


def scored_letters(text, score):
    """Scores (K,) of 1,000 letters, the mean over both strands."""
    other = text[::-1].translate(COMPLEMENT)
    P = [score(danq.packed(letters_to_onehot(strand))) for strand in (text, other)]
    return np.mean(P, 0)[0]


def write_vcf(lines, path="in.vcf", end="\n"):
    """lines : tuples CHROM, POS, ID, REF, ALT"""
    text = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    text += ["\t".join([*map(str, line), ".", ".", "."]) for line in lines]
    content = "".join(line + end for line in text).encode()
    if path.endswith("gz"):
        content = gzip.compress(content)
    Path(path).write_bytes(content)


def changes(vcf="in.vcf", genome="genome.fa"):
    """The Changes of a VCF, and the rows of its file of skipped alleles."""
    file = io.StringIO()
    with danq.open_genome(genome) as records:
        tally = danq.Tally(vcf, genome, file)
        found = list(danq.variant_changes(records, tally))
        tally.refuse_other_assembly()
    _, *skipped = file.getvalue().splitlines()
    return found, [line.split("\t") for line in skipped]


def middle_of_changed(genome, start, ref, allele):
    """The 1,000 letters around an allele, or None: a string is cut and cut again."""
    changed = genome[:start] + allele + genome[start + len(ref) :]
    first = start + len(allele) // 2 - 500
    if first < 0 or first + 1000 > len(changed):
        return None
    return changed[first : first + 1000]


def random_variants(genome, n, rng):
    """(start, ref, alt): SNVs, MNVs, insertions, deletions, many near both ends."""
    variants = []
    for i in range(n):
        n_ref, n_alt = rng.integers(1, 8, 2)
        if i % 3 == 0:
            n_ref = n_alt = 1
        if i % 10 == 0:
            n_alt = rng.integers(900, 1200)
        edge = rng.choice([0, 490, 1000, len(genome) - 510, len(genome) - 15])
        start = int(edge + rng.integers(0, 15))
        ref = genome[start : start + n_ref]
        if ref:
            variants.append((start, ref, "".join(rng.choice(list("ACGT"), n_alt))))
    return variants


def test_each_allele_stands_in_the_middle_of_its_own_window():
    rng = np.random.default_rng(3)
    genome = {"one": random_dna(2500, 1), "two": random_dna(2100, 2)}
    write_genome(genome)
    lines = []
    expected = []
    skipped = 0
    for name, letters in genome.items():
        for start, ref, alt in random_variants(letters, 150, rng):
            lines.append((name, start + 1, ".", ref, alt))
            before = middle_of_changed(letters, start, ref, ref)
            after = middle_of_changed(letters, start, ref, alt)
            if before and after:
                expected.append((before, after))
            else:
                skipped += 1
    write_vcf(lines)
    found, reasons = changes()
    windows = [(c.before[-1].decode(), c.after[-1].decode()) for c in found]
    assert windows == expected
    assert len(expected) > 100 < skipped == len(reasons)
    assert {row[-1] for row in reasons} == {
        "its window reaches over an end of the chromosome"
    }
    assert all(change.place[6:] == (True, False) for change in found)


def test_windows_of_ten_are_those_of_the_comment(monkeypatch):
    monkeypatch.setattr(danq, "LENGTH", 10)
    windows = []
    for allele in (b"GAT", b"G", b"GAATT"):
        window = danq.allele_window("c", 5, allele, b"ACGTA", b"CCTTG")
        windows.append(window[-1].decode())
    assert windows == ["CGTAGATCCT", "ACGTAGCCTT", "GTAGAATTCC"]


def genome_and_variants():
    """Two records, five variants with seven alleles, and their windows in letters."""
    genome = {"chr1": random_dna(3000, 1), "chr2": random_dna(3000, 2)}
    write_genome(genome)
    lines = []
    pairs = []
    for chrom, start, n_ref, alts in (
        ("chr1", 1200, 1, ["AA", "CC", "GGATC"]),
        ("chr1", 1300, 4, ["T"]),
        ("chr2", 700, 2, ["TT"]),
        ("chr2", 1900, 1, ["GG"]),
        ("chr2", 1900, 3, ["GG"]),
    ):
        letters = genome[chrom]
        ref = letters[start : start + n_ref]
        lines.append((chrom, start + 1, "rs1", ref, ",".join(alts)))
        for alt in alts:
            before = middle_of_changed(letters, start, ref, ref)
            pairs.append((before, middle_of_changed(letters, start, ref, alt)))
    write_vcf(lines)
    return lines, pairs


def write_effects(runs, *more, score=None, command="--variants in.vcf"):
    """What --variants or --mutate writes with a score that is made up."""
    flags = f"{command} --out-dir {runs['danq'][0]}".split()
    if "--variants" in flags:
        flags += ["--genome", "genome.fa"]
    args = danq.parse_args([*flags, *more])
    write = danq.write_variant_effects if args.variants else danq.write_mutation_effects
    write(args, score or made_up_score())


N_VARIANT = 8  # columns of --variants' table before the labels


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_effects_are_those_of_the_letters_on_both_strands(runs, batch_size):
    _, pairs = genome_and_variants()
    score = made_up_score()
    P = np.array([scored_letters(before, score) for before, _ in pairs])
    P_alt = np.array([scored_letters(after, score) for _, after in pairs])
    odds = np.log(P / (1 - P))
    odds_alt = np.log(P_alt / (1 - P_alt))
    expected = {
        "diff": P_alt - P,
        "logit": odds_alt - odds,
        "both": np.stack([P, P_alt], -1).reshape(len(P), -1),
    }
    labels = [row["name"] for row in read_table(runs["danq"][0] / "metrics.csv")]
    for effect, numbers in expected.items():
        more = ["--effect", effect, "--batch-size", str(batch_size)]
        write_effects(runs, *more)
        head, rows = read_predictions("effects.tsv")
        assert head[:N_VARIANT] == (
            "chrom pos name ref alt strand ref_match contains_unk".split()
        )
        names = labels
        if effect == "both":
            names = [f"{x}|{key}" for x in labels for key in ("p_ref", "p_alt")]
        assert head[N_VARIANT:] == names
        found = np.array([row[N_VARIANT:] for row in rows], float)
        np.testing.assert_allclose(found, numbers, atol=2e-5)
    assert np.abs(expected["diff"]).max() > 0.05


def test_a_probability_of_0_or_1_has_finite_log_odds():
    P = np.array([[0, 1e-9, 0.5]], np.float32)
    P_alt = np.array([[1, 1e-9, 0.8]], np.float32)
    found = danq.effects(P, P_alt, ["logit"])["logit"]
    expected = [[2 * np.log(999_999), 0, np.log(4)]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_window_that_alleles_share_is_scored_once(runs):
    """Seven alleles of five variants: 12 windows, on two strands."""
    _, pairs = genome_and_variants()
    windows = {window for pair in pairs for window in pair}
    assert len(windows) == 12
    seen = []
    write_effects(runs, "--batch-size", "1", score=made_up_score(seen=seen))
    assert sum(seen) == 2 * 12
    seen.clear()
    write_effects(runs, "--batch-size", "8", score=made_up_score(seen=seen))
    assert seen == [8, 8, 8, 8]  # of one size, for what compiles


def test_labels_and_the_largest_changes_are_those_of_the_whole_table(runs):
    genome_and_variants()
    write_effects(runs, "--effect", "both")
    head, rows = read_predictions("effects.tsv")
    whole = np.array([row[N_VARIANT:] for row in rows], float).reshape(len(rows), -1, 2)
    diff = whole[..., 1] - whole[..., 0]

    write_effects(runs, "--labels", "SIMULATED.[27]$")
    named, chosen = read_predictions("effects.tsv")
    assert named[N_VARIANT:] == ["SIMULATED|2", "SIMULATED|7"]
    found = np.array([row[N_VARIANT:] for row in chosen], float)
    np.testing.assert_allclose(found, diff[:, [2, 7]], atol=2e-6)

    write_effects(runs, "--top", "2")
    named, largest = read_predictions("effects.tsv")
    assert named[N_VARIANT:] == ["label", "p_ref", "p_alt", "diff"]
    for i, row in enumerate(rows):
        for rank, line in enumerate(largest[2 * i : 2 * i + 2]):
            k = np.argsort(-np.abs(diff[i]))[rank]
            assert line[:N_VARIANT] == row[:N_VARIANT]
            assert line[N_VARIANT] == f"SIMULATED|{k}"
            numbers = np.array(line[N_VARIANT + 1 :], float)
            np.testing.assert_allclose(numbers, [*whole[i, k], diff[i, k]], atol=2e-6)


def test_tables_in_hdf5_hold_what_those_in_text_hold(runs):
    lines, _ = genome_and_variants()
    for effect, keys in (("diff", ["diff"]), ("both", ["p_ref", "p_alt"])):
        write_effects(runs, "--effect", effect)
        write_effects(runs, "--effect", effect, "--output", "effects.h5")
        head, rows = read_predictions("effects.tsv")
        with h5py.File("effects.h5") as file:
            for column, name in enumerate(head[:N_VARIANT]):
                texts = [row[column] for row in rows]
                array = file[name]
                values = array.asstr()[:] if array.dtype.kind == "O" else array[:]
                assert [str(value) for value in values] == texts
            assert file["labels"].asstr()[:].tolist() == [
                row["name"] for row in read_table(runs["danq"][0] / "metrics.csv")
            ]
            numbers = np.stack([file[key][:] for key in keys], -1)
            assert numbers.dtype == np.float16
            assert file[keys[0]].chunks == (danq.CHUNK, 9)
        found = np.array([row[N_VARIANT:] for row in rows], float)
        np.testing.assert_allclose(
            numbers.reshape(len(rows), -1), found, rtol=1e-3, atol=1e-6
        )
    assert not list(Path().glob("*.skipped.tsv")), "nothing was left out"


def test_a_table_in_hdf5_grows_beyond_a_chunk():
    places = {"record": str, "start": int}
    P = np.random.default_rng(0).random((700, 3)).astype(np.float16)
    with danq.new_table("x.h5", places, ["a", "b", "c"], ["probability"]) as add:
        for first in range(0, 700, 70):
            rows = [(f"r{i}", i) for i in range(first, first + 70)]
            add(rows, {"probability": P[first : first + 70]})
    with h5py.File("x.h5") as file:
        np.testing.assert_array_equal(file["probability"], P)
        assert file["record"].asstr()[-1] == "r699"
        assert file["start"][:].tolist() == list(range(700))
    assert os.path.getsize("x.h5") < 200_000  # what was claimed for it is given back


def annotate(runs, *more):
    """--predict x.fa with a score that is made up."""
    danq.annotate(danq.parse_args(predict_flags(runs, *more)), made_up_score())


def test_predictions_of_some_labels_the_highest_and_in_hdf5(runs):
    write_fasta()
    annotate(runs)
    head, rows = read_predictions("predictions.tsv")
    P = np.array([row[N_PLACE:] for row in rows], float)

    annotate(runs, "--labels", "3|5", "--output", "some.tsv", "--plot", "p.png")
    named, some = read_predictions("some.tsv")
    assert named[N_PLACE:] == [head[N_PLACE + 3], head[N_PLACE + 5]]
    found = np.array([row[N_PLACE:] for row in some], float)
    np.testing.assert_array_equal(found, P[:, [3, 5]])
    assert "SIMULATED|4" not in Path("p.svg").read_text()

    annotate(runs, "--top", "2", "--output", "top.tsv")
    named, top = read_predictions("top.tsv")
    assert named[N_PLACE:] == ["label", "probability"]
    for i, (row, p) in enumerate(zip(rows, P, strict=True)):
        for line, k in zip(top[2 * i : 2 * i + 2], np.argsort(-p), strict=False):
            assert line == [*row[:N_PLACE], head[N_PLACE + k], row[N_PLACE + k]]

    annotate(runs, "--output", "all.h5")
    with h5py.File("all.h5") as file:
        np.testing.assert_allclose(file["probability"], P, rtol=1e-3)
        for column, name in enumerate(head[1:N_PLACE], 1):
            assert file[name][:].tolist() == [int(row[column]) for row in rows]


def test_bars_of_a_picture_are_as_wide_as_their_bins(runs, monkeypatch):
    """A record of 700 bases: the last bin, 500..700, covers half of the one before."""
    figures = captured_figures(monkeypatch)
    write_fasta(n=700)
    annotate(runs, "--plot", "p.png")
    _, rows = read_predictions("predictions.tsv")
    P = np.array([row[N_PLACE:] for row in rows if row[0] == rows[0][0]], float)
    bars = figures["p.png"].axes[0].patches[0].get_data()
    assert bars.edges.tolist() == [0, 200, 400, 500, 700]
    highest = P.max(0).argmax()
    np.testing.assert_allclose(bars.values, P[:, highest], rtol=1e-4)


def test_a_picture_shows_each_factor_once_or_all_labels_that_were_asked_for(
    runs, monkeypatch
):
    # SIMULATED|0, |1, |2 are one factor, and so on.
    monkeypatch.setattr(danq, "factor_of", lambda name: int(name[-1]) // 3)
    figures = captured_figures(monkeypatch)
    write_fasta()
    annotate(runs, "--plot", "p.png")
    annotate(runs, "--plot", "q.png", "--labels", ".")
    head, rows = read_predictions("predictions.tsv")
    P = np.array([row[N_PLACE:] for row in rows if row[0] == rows[0][0]], float)
    ranked = [head[N_PLACE + k] for k in np.argsort(-P.max(0))]
    shown = {
        name: [axis.get_ylabel() for axis in figure.axes]
        for name, figure in figures.items()
    }
    assert shown["q.png"] == ranked
    factors = [danq.factor_of(name) for name in ranked]
    firsts = [factors.index(factor) for factor in dict.fromkeys(factors)]
    assert len(firsts) == 3
    assert shown["p.png"] == [ranked[i] for i in firsts]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "is no regular expression"),
        ("NOSUCH", "none of the run's 9 labels, such as "),
    ],
)
def test_labels_that_match_nothing_give_one_line(runs, capsys, pattern, says):
    write_fasta()
    check_one_line(capsys, says, annotate, runs, "--labels", pattern)


def test_a_whole_name_of_a_label_is_no_expression(runs):
    write_fasta()
    annotate(runs, "--labels", "SIMULATED|4")
    head, _ = read_predictions("predictions.tsv")
    assert head[N_PLACE:] == ["SIMULATED|4"]


def test_of_reference_alleles_that_differ_the_first_is_named(capsys):
    tally = danq.Tally("in.vcf", "genome.fa", io.StringIO())
    for pos, matches in ((5, True), (60, False), (700, False)):
        tally.compare(argparse.Namespace(chrom="chr1", pos=pos), matches)
    tally.report(3, 9, "effects.tsv", "skipped.tsv")
    says = "2 of 3 reference alleles differ from the genome, the first at chr1:60 "
    assert says in capsys.readouterr().out


def test_rows_of_a_vcf_are_reported_or_skipped_with_a_reason(runs, capsys):
    """Reference bases that differ, unknown ones, several alleles, no letters."""
    letters = random_dna(3000, 1).replace("A", "a")
    letters = f"{letters[:2000]}N{letters[2001:]}"
    write_genome({"1": letters})
    base = {i: letters[i - 1].upper() for i in (1100, 1200, 1300, 2001, 2300)}
    other = {i: "ACGT"[("ACGT".find(x) + 1) % 4] for i, x in base.items()}
    write_vcf(
        [
            ("chr1", 1100, "rs1", base[1100].lower(), f"{other[1100].lower()},*"),
            ("1", 1200, ".", other[1200], base[1200]),
            ("1", 1300, "a", base[1300], f"{other[1300]},<DEL>,.,G]17:198982]"),
            # Only with the deletion does the window reach the N at 2,001.
            ("1", 1499, "d", letters[1498:1502].upper(), letters[1498].upper()),
            ("1", 2001, ".", "N", "A"),
            ("chr1", 2300, ".", base[2300], other[2300]),
            ("1", 400, ".", letters[399].upper(), "ACGT"),
            ("1", 0, ".", "N", "A"),
            ("chrUn", 5, ".", "A", "C"),
        ],
        end="\r\n",
    )
    write_effects(runs)
    _, rows = read_predictions("effects.tsv")
    assert [row[:N_VARIANT] for row in rows] == [
        ["chr1", "1100", "rs1", base[1100].lower(), other[1100].lower()]
        + ["+", "True", "False"],
        ["1", "1200", ".", other[1200], base[1200], "+", "False", "False"],
        ["1", "1300", "a", base[1300], other[1300], "+", "True", "False"],
        ["1", "1499", "d", letters[1498:1502].upper(), letters[1498].upper()]
        + ["+", "True", "True"],
        ["1", "2001", ".", "N", "A", "+", "True", "True"],
        ["chr1", "2300", ".", base[2300], other[2300], "+", "True", "True"],
    ]
    head, *skipped = Path("effects.tsv.skipped.tsv").read_text().splitlines()
    assert head.split("\t") == "line chrom pos name ref alt reason".split()
    end = "its window reaches over an end of the chromosome"
    assert [line.split("\t")[:1] + line.split("\t")[5:] for line in skipped] == [
        ["3", "*", "missing because of another deletion (*)"],
        ["5", "<DEL>", "symbolic allele (<...>)"],
        ["5", ".", "no alternative allele (.)"],
        ["5", "G]17:198982]", "breakend"],
        ["9", "ACGT", end],
        ["10", "A", end],
        ["11", "C", "its chromosome is not in the genome"],
    ]
    printed = capsys.readouterr().out
    assert "6 alleles, 9 labels -> effects.tsv" in printed
    says = "1 of 6 reference alleles differ from the genome, the first at 1:1200"
    assert says in printed
    assert f"left out: 2 alleles: {end} -> effects.tsv.skipped.tsv" in printed


def test_two_records_of_one_chromosome_are_named(capsys):
    letters = random_dna(2000, 1)
    write_genome({"chr1": letters, "chrM": letters, "chrMT": letters})
    write_vcf([("chr1", 1000, ".", letters[999], "N")])
    says = "genome.fa: records chrM and chrMT are one chromosome: leave one out"
    check_one_line(capsys, says, changes)
    write_tracks({"a": ("TF", [("chr1", 600, 800)])})
    made = ("out", "genome.fa", "tracks.tsv", ["chr1"], ["chr1"])
    check_one_line(capsys, says, danq.make_data, *made)


def test_where_ref_differs_the_base_of_the_vcf_is_put_in():
    letters = random_dna(2000, 1)
    write_genome({"1": letters})
    wrong = "ACGT"["CGTA".index(letters[999])]
    others = [(1, 1000 + i, ".", letters[999 + i], "N") for i in (1, 2)]
    write_vcf([(1, 1000, ".", wrong, "GG"), *others])
    (change, *_), _ = changes()
    assert (
        change.before[-1] == f"{letters[499:999]}{wrong}{letters[1000:1499]}".encode()
    )
    assert change.place[6] is False


def test_a_vcf_whose_known_chromosomes_give_no_row_is_not_of_another_assembly():
    letters = random_dna(2000, 1)
    write_genome({"1": letters})
    # A symbolic allele, one too near an end, one of a chromosome that is not there.
    lines = [("chr1", 1000, ".", letters[999], "<DEL>")]
    lines += [("1", 5, ".", letters[4], "N"), ("chrUn", 5, ".", "A", "G")]
    write_vcf(lines)
    found, skipped = changes()
    assert not found
    assert len(skipped) == 3
    write_vcf(lines[2:])
    with pytest.raises(danq.BadInput, match=r"none of its chromosomes \(chrUn\)"):
        changes()


@pytest.mark.parametrize("n", [4, 3000])
def test_a_vcf_of_another_assembly_is_refused(runs, capsys, n):
    letters = random_dna(2000, 1)
    write_genome({"1": letters})
    wrong = letters[999:1002].translate(str.maketrans("ACGT", "CGTA"))
    lines = [(1, 1000 + i % 3, ".", wrong[i % 3], "G") for i in range(n)]
    lines += [(1, 1100, ".", letters[1099], "N")] * (n - 1)
    write_vcf(lines)
    seen = []
    says = f"in.vcf: {min(n, 1000):,} of {min(2 * n - 1, 1000):,} reference alleles"
    check_one_line(
        capsys, says, lambda: write_effects(runs, score=made_up_score(seen=seen))
    )
    # It is found before a genome's worth of variants is scored.
    assert sum(seen) < 2 * 2 * danq.CHECKED
    assert sorted(os.listdir()) == ["genome.fa", "genome.fa.fai", "in.vcf"]
    write_vcf(lines[1:])  # half of them: that may be
    if n == 4:
        write_effects(runs)
        assert len(read_predictions("effects.tsv")[1]) == 2 * n - 2
        # Nothing was left out: no file that says so.
        assert not Path("effects.tsv.skipped.tsv").exists()


HEADER = "#CHROM\tPOS\tID\tREF\tALT\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "in.vcf is not a VCF: it has no line that begins with #CHROM"),
        ("##x\n1\t1000\t.\tA\tC\n", "in.vcf:2: not a VCF: .* #CHROM"),
        ("#CHROM POS ID REF ALT\n", "in.vcf:1: must be the header"),
        (f"{HEADER}1 1000 . A C\n", "in.vcf:2: must hold CHROM, .* tabs between"),
        (f"{HEADER}1\t1000\t\tA\tC\n", "in.vcf:2: must hold CHROM"),
        (f"{HEADER}1\t1e3\t.\tA\tC\n", "in.vcf:2: POS must be a whole number"),
        (f"{HEADER}1\t-5\t.\tA\tC\n", "in.vcf:2: POS must be a whole number"),
        (f"{HEADER}\n1\t2002\t.\tA\tC\n", "in.vcf:3: position 2,002 is past the last"),
        (f"{HEADER}1\t1000\t.\t.\tC\n", "in.vcf:2: REF must be bases, is '.'"),
        (f"{HEADER}1\t1000\t.\tA\tC,,T\n", "in.vcf:2: ALT must be bases, is ''"),
        (f"{HEADER}1\t1000\t.\tA\t7\n", "in.vcf:2: ALT must be bases, is '7'"),
        (
            f"{HEADER}chr9\t1000\t.\tA\tC\n",
            "none of its chromosomes .chr9. is a record",
        ),
    ],
)
def test_bad_vcfs_give_one_clear_line(runs, capsys, text, says):
    write_genome({"1": random_dna(2000, 1)})
    Path("in.vcf").write_text(text)
    check_one_line(capsys, says, lambda: write_effects(runs))
    assert not [*Path().glob("*.tsv"), *Path().glob(".*.tmp*")]


@pytest.mark.parametrize("output", ["effects.tsv", "effects.h5"])
def test_a_vcf_without_variants_gives_a_table_without_rows(runs, capsys, output):
    write_genome({"1": random_dna(2000, 1)})
    write_vcf([])
    write_effects(runs, "--output", output)
    assert "in.vcf holds no variant" in capsys.readouterr().out
    if output.endswith(".tsv"):
        head, rows = read_predictions(output)
        assert (len(head), rows) == (N_VARIANT + 9, [])
    else:
        with h5py.File(output) as file:
            assert file["diff"].shape == (0, 9)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "genome.fa is empty"),
        (b"GATTACA\n", "genome.fa is damaged .*line 1.*must be FASTA"),
        (b">a\n\n", "genome.fa holds no sequence"),
        (b">a\rGATTACA\r", "genome.fa holds no sequence"),
        (b">1\nGAT\nGATTACA\nGAT\n", "genome.fa is damaged .*consistent"),
        (b">1\nGAT\n>chr1\nGAT\n", "records 1 and chr1 are one chromosome"),
        (b">1\n" + b"MKVLA" * 400, "record 1 holds 'L' at base"),
        (b">1\n" + b"GATT\xff" * 400, "genome.fa is damaged"),
        (gzip.compress(b">1\nGATTACA\n"), "genome.fa is gzip: .*gunzip -c genome.fa"),
    ],
)
def test_bad_genomes_of_variants_give_one_clear_line(runs, capsys, content, says):
    Path("genome.fa").write_bytes(content)
    write_vcf([(1, 1000, ".", "A", "C"), (1, 1001, ".", "A", "C")])
    check_one_line(capsys, says, lambda: write_effects(runs))
    assert not [*Path().glob("*.tsv"), *Path().glob(".*.tmp*")]


def test_a_genome_is_read_by_its_index_which_is_made_where_it_is_older(capsys):
    _, pairs = genome_and_variants()
    found, _ = changes()
    windows = [(c.before[-1].decode(), c.after[-1].decode()) for c in found]
    assert windows == pairs
    assert "index of genome.fa -> genome.fa.fai" in capsys.readouterr().out
    assert Path("genome.fa.fai").read_text().startswith("chr1\t3000\t14\t60\t61\n")
    changes()
    assert capsys.readouterr().out == ""  # it is there
    # Another genome under the same name: the index is older.
    Path("genome.fa").write_text(
        f">1\n{random_dna(3000, 1)}\n>2\n{random_dna(3000, 2)}"
    )
    os.utime("genome.fa.fai", (0, 0))
    found, _ = changes()
    assert [(c.before[-1].decode(), c.after[-1].decode()) for c in found] == pairs
    assert Path("genome.fa.fai").read_text().startswith("1\t3000\t3\t3000\t3001\n")


def test_a_bgzip_genome_is_read_without_unpacking_and_a_vcf_in_any_form():
    lines, _ = genome_and_variants()
    plain, _ = changes()
    for name in ("genome.fa", "in.vcf"):
        with bgzf.BgzfWriter(f"{name}.gz") as file:
            file.write(Path(name).read_text())
    write_vcf(lines, "gzip.vcf.gz")
    for vcf in ("in.vcf.gz", "gzip.vcf.gz"):  # the index is made, then used
        found, _ = changes(vcf, "genome.fa.gz")
        assert found == plain
    assert Path("genome.fa.gz.gzi").is_file()


def test_an_index_that_may_not_be_written_gives_one_line(capsys, monkeypatch):
    genome_and_variants()
    monkeypatch.setattr(danq.os, "access", lambda path, mode: False)
    check_one_line(capsys, "genome.fa.fai is missing or older.*link", changes)


def test_memory_of_variants_does_not_grow_with_the_genome():
    line = b"GATTACATTT" * 10_000 + b"\n"
    with open("genome.fa", "wb") as file:
        file.write(b">1\n")
        for _ in range(300):  # 30 MB
            file.write(line)
    write_vcf([(1, 10_000 * i + 5000, ".", "T", "C") for i in range(2900)])
    with danq.open_genome("genome.fa") as records:
        tally = danq.Tally("in.vcf", "genome.fa", io.StringIO())
        tracemalloc.start()
        n = sum(1 for _ in danq.variant_changes(records, tally))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert n == 2900
    assert peak < 3e6


def test_variants_do_not_overwrite_what_they_read(runs, capsys):
    genome_and_variants()
    for name in ("in.vcf", "genome.fa", "genome.fa.fai"):
        Path("genome.fa.fai").touch()
        check_one_line(
            capsys,
            f"{name} would overwrite",
            lambda name=name: write_effects(runs, "--output", name),
        )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--variants in.vcf", "--variants needs --genome"),
        ("--genome g.fa", "--genome needs --variants"),
        ("--output x.md", "--output needs --predict or --variants or --mutate"),
        ("--labels CTCF", "--labels needs --predict or --variants or --mutate"),
        ("--top 3", "--top needs --predict"),
        ("--predict x.fa --effect diff", "--effect needs --variants or --mutate"),
        ("--predict x.fa --span 9", "--span needs --mutate"),
        ("--predict x.fa --mutate x.fa", "--predict and --mutate: give one of them"),
        ("--motifs x.meme --predict x.fa", "--predict and --motifs: give one of them"),
        ("--test-data x --motifs x.meme", "--motifs and --test-data: give one"),
        ("--test-dat x", "unrecognized arguments: --test-dat x"),
        ("--mutate x.fa --top 3 --output x.h5", "not with an --output in .h5"),
        ("--mutate x.fa --span 1001", "--span: must be at least 1 and at most 1,000"),
        ("--mutate x.fa --limit 5", "--limit is of data files"),
    ],
)
@pytest.mark.parametrize("name", SCRIPTS)
def test_flags_of_mutations_that_do_nothing_are_refused(capsys, name, flags, says):
    check_one_line(capsys, says, SCRIPTS[name].main, flags.split())


def mutated_by_letters(name, letters, span):
    """(place, window, changed window) of each change, a string changed at a place."""
    padded = "N" * 1000 + letters + "N" * 1000
    middle = len(letters) // 2
    window = padded[middle + 500 : middle + 1500]
    found = []
    for i in range(500 - span // 2, 500 - span // 2 + span):
        for base in "ACGT":
            if window[i] in "ACGT" and base != window[i]:
                changed = window[:i] + base + window[i + 1 :]
                position = middle - 500 + i + 1
                found.append(((name, position, window[i], base), window, changed))
    return found


def test_a_picture_of_mutations_is_of_the_first_record_alone(runs, monkeypatch):
    """Two records of one name, whose middles lie far apart."""
    figures = captured_figures(monkeypatch)
    Path("x.fa").write_text(f">r\n{random_dna(200, 1)}\n>r\n{random_dna(1200, 2)}\n")
    more = ("--span", "4", "--plot", "p.png")
    write_effects(runs, *more, command="--mutate x.fa")
    _, rows = read_predictions("mutations.tsv")
    assert {row[1] for row in rows} == {
        *"99 100 101 102".split(),
        *"599 600 601 602".split(),
    }
    heat = figures["p.png"].axes[0].images[0].get_array()
    assert heat.shape == (4, 4)


def test_every_base_of_the_middle_is_changed_to_each_other_one(runs, capsys):
    records = {
        "long": random_dna(1501, 1),
        "even": random_dna(1000, 2),
        "short": "gattaca",
        "unknown": f"{random_dna(400, 3)}NNR{random_dna(400, 4)}",
    }
    text = "".join(f">{name} x\n{letters}\n" for name, letters in records.items())
    Path("x.fa").write_text(text)
    expected = []
    for name, letters in records.items():
        expected += mutated_by_letters(name, letters.upper(), 9)
    write_effects(runs, "--span", "9", command="--mutate x.fa")
    head, rows = read_predictions("mutations.tsv")
    assert head[:4] == ["record", "position", "ref", "alt"]
    assert [row[:4] for row in rows] == [[*map(str, place)] for place, _, _ in expected]
    printed = capsys.readouterr().out
    assert f"{len(expected)} changes, 9 labels -> mutations.tsv" in printed
    assert "left out: 3 letters of unknown: not A, C, G or T" in printed
    score = made_up_score()
    for i in (0, 30, 60):  # of the long one, the even one, the short one
        _, window, changed = expected[i]
        diff = scored_letters(changed, score) - scored_letters(window, score)
        np.testing.assert_allclose(np.array(rows[i][4:], float), diff, atol=2e-6)


@pytest.mark.parametrize("text", [">a\nNNNN\n", ">a\n\n", ""])
def test_a_fasta_without_a_base_to_change_gives_one_line(runs, capsys, text):
    Path("x.fa").write_text(text)
    check_one_line(
        capsys,
        "x.fa holds no A, C, G or T to change",
        lambda: write_effects(runs, command="--mutate x.fa"),
    )


def test_the_picture_of_mutations_shows_the_tables_numbers(runs, monkeypatch):
    figures = captured_figures(monkeypatch)
    drawn = []
    monkeypatch.setattr(danq, "draw_letter", lambda *all, least: drawn.append(all[1:]))
    Path("x.fa").write_text(f">a\n{random_dna(1200, 1)}\n>b\n{random_dna(900, 2)}\n")
    write_effects(runs, "--span", "8", "--plot", "p.png", command="--mutate x.fa")
    head, rows = read_predictions("mutations.tsv")
    rows = [row for row in rows if row[0] == "a"]
    table = np.array([row[4:] for row in rows], float)
    most = np.argsort(-np.abs(table).max(0))[:3]
    axes = figures["p.png"].axes[:6]
    assert [axis.get_title() for axis in axes[::2]] == [head[4 + k] for k in most]
    for axis, k in zip(axes[::2], most, strict=True):
        heat = np.zeros((4, 8))
        for row, change in zip(rows, table[:, k], strict=True):
            heat["ACGT".index(row[3]), int(row[1]) - int(rows[0][1])] = change
        image = axis.images[0]
        np.testing.assert_allclose(image.get_array(), heat, atol=2e-6)
        first = int(rows[0][1])
        assert image.get_extent() == [first - 0.5, first + 7.5, 3.5, -0.5]
        red, _, blue, _ = image.to_rgba(np.abs(heat).max())
        assert red > blue, "red where the probability rises"
        letters = drawn[:8]
        del drawn[:8]
        costs = -heat.sum(0) / 3
        heights = [height for *_, height in letters]
        np.testing.assert_allclose(heights, costs / np.abs(costs).max(), atol=1e-4)
        own = [row[2] for row in rows[::3]]
        assert ["ACGT"[letter[0]] for letter in letters] == own
        assert [letter[1] for letter in letters] == [first + i for i in range(8)]
    more = "--labels [0-4]$ --span 2 --plot q.png".split()
    write_effects(runs, *more, command="--mutate x.fa")
    titles = [axis.get_title() for axis in figures["q.png"].axes[:10:2]]
    assert sorted(titles) == head[4:9]


def planted_words(label):
    """1,000 random letters with a label's word at 450, 490 and 530."""
    letters = random_dna(1000, 11 + label)
    word = letters_of(random_words(5)[label])
    for start in PLANTED:
        letters = letters[:start] + word + letters[start + 8 :]
    return letters


PLANTED = (450, 490, 530)


@pytest.mark.parametrize(("name", "least"), [("danq", 0.65), ("superq", 0.75)])
def test_a_base_in_a_planted_site_matters_more_than_one_outside(learned, name, least):
    records = [f">{k}\n{planted_words(k)}\n" for k in range(5)]
    Path("x.fa").write_text("".join(records))
    scores = {}
    for run in (name, f"{name}-shuffled"):
        flags = f"--mutate x.fa --out-dir {learned[run]} --batch-size 100 --span 100"
        SCRIPTS[name].main(flags.split())
        _, rows = read_predictions("mutations.tsv")
        scores[run] = []
        for k in range(5):
            own = [row for row in rows if row[0] == str(k)]
            # A base's effect: the mean of its three changes, whatever their sign.
            effect = np.array([row[4 + k] for row in own], float).reshape(-1, 3)
            # position counts from 1: that of the word's first base is start + 1
            inside = [
                any(start < int(row[1]) <= start + 8 for start in PLANTED)
                for row in own[::3]
            ]
            scores[run].append(roc_auc_score(inside, np.abs(effect).mean(1)))
            if run == name:
                # A site that is lost is less of the label, not more.
                assert effect[inside].mean() < 0
    assert np.mean(scores[name]) > least
    assert np.mean(scores[f"{name}-shuffled"]) < 0.6


@pytest.mark.parametrize("name", ["more", "superq"])
def test_superq_answers_mutations_with_forest_and_label_output(runs, capsys, name):
    """Without labels in the loss with the forest alone, which is said."""
    X = letters_to_onehot(random_dna(1000, 1))
    Path("x.fa").write_text(f">a\n{random_dna(1000, 1)}\n")
    out = runs[name][0]
    superq.main(f"--mutate x.fa --out-dir {out} --span 1 --effect both".split())
    _, rows = read_predictions("mutations.tsv")
    found = np.array(rows[0][4::2], float)
    P = danq.both_strands(superq.trained_scores(out, "forest")[0], X, True)[0]
    alone = name == "more"
    if not alone:
        model = danq.load_model(out)
        labels = model.get_layer("labels")(mean_of_views(model, X))
        P = (P + np.asarray(labels)[0]) / 2
    np.testing.assert_allclose(found, P, atol=2e-3)
    said = "has no label output: the forest alone answers"
    assert (said in capsys.readouterr().out) == alone


# ---- danq.py: motifs


def test_a_letter_of_a_logo_is_its_share_of_the_positions_bits():
    P = np.array([[[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]]])
    logos = danq.best_logos(P, np.array([[1.0, 0]]), sites=[30], order=[0])
    heights = logos["filter 0, 30 sites"]
    np.testing.assert_allclose(heights, [[0.5, 0.5, 0, 0], [0, 0, 0, 0]])


def test_a_filters_motif_is_counted_where_it_answers_most():
    """A filter for GATTACA, one of zeros; the word stands in three of ten windows."""
    X = random_sequences(10)
    X[:3, 300:307] = letters_to_onehot("GATTACA")[0]
    model = danq.build_danq(3, filters=2, lstm_units=0)
    kernel = np.zeros((26, 4, 2))
    kernel[5:12, :, 0] = letters_to_onehot("GATTACA")[0]
    scan = model.get_layer("motif_scan")
    scan.set_weights(
        [kernel, np.array([-5.0, 0])]
    )  # six of seven bases answer by half of the highest
    counts, sites, shares = danq.count_sites(scan, model, split_of(X, X[:, :3, 0]), 4)
    word = ["ACGT".index(letter) for letter in "GATTACA"]
    assert sites[1] == 0
    assert sites[0] >= 3
    assert (counts[0, 5:12].argmax(1) == word).all()
    assert counts[0, 5:12].max(1).min() >= 3
    assert (counts[0].sum(1) == sites[0]).all()
    np.testing.assert_allclose(shares, X.mean((0, 1))[[0, 2, 1, 3]])


@pytest.mark.parametrize(("name", "width"), [("danq", 26), ("superq", 16)])
def test_motifs_are_written_in_memes_format_and_drawn(runs, name, width):
    SCRIPTS[name].main(["--motifs", "new.meme", "--out-dir", str(runs[name][0])])
    head, *motifs = Path("new.meme").read_text().split("\nMOTIF ")
    assert head.startswith("MEME version 4\n")
    assert "ALPHABET= ACGT" in head
    assert 0 < len(motifs) <= 4
    for motif in motifs:
        title, shape, *rows = motif.strip().splitlines()
        assert re.fullmatch(
            rf"letter-probability matrix: alength= 4 w= {width} nsites= \d+ E= 0", shape
        )
        np.testing.assert_allclose(np.loadtxt(rows).sum(1), 1, atol=1e-5)
        assert len(rows) == width
        assert REAL_DATA or title.startswith("SIMULATED")
    assert all(
        0 < Path(f"new.{kind}").stat().st_size < 300_000 for kind in ("png", "svg")
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_planted_word_is_written_in_the_letters_of_the_motif_file(learned, name):
    """A filter that looks for word 0 finds it in the windows of label 0."""
    word = random_words(1)[0]
    shutil.copytree(learned[name], "run")
    model = danq.load_model("run")
    scan = model.get_layer("motif_scan")
    kernel, bias = scan.get_weights()
    kernel[:] = 0
    bias[:] = -8
    kernel[4:12, :, 3] = 2 * word
    bias[3] = -13  # seven of eight bases answer by 1, a third of the highest
    scan.set_weights([kernel, bias])
    model.save("run/model.keras")
    SCRIPTS[name].main(["--motifs", "new.meme", "--out-dir", "run"])
    text = Path("new.meme").read_text()
    title, shape, *rows = text.split("\nMOTIF ")[1].strip().splitlines()
    assert "filter_3 " in title
    P = np.loadtxt(rows)
    letters = "".join("ACGT"[base] for base in P[4:12].argmax(1))
    assert letters == letters_of(word)
    assert P[4:12].max(1).min() > 0.9
    _, Y = learned_windows("test")
    sites = int(re.search(r"nsites= (\d+)", shape).group(1))
    assert sites >= Y[:, 0].sum() / 2


def test_a_logo_has_each_letter_at_its_height_the_highest_on_top(monkeypatch):
    """G over A at place 1, C alone at place 2."""
    figures = captured_figures(monkeypatch)
    letters = []
    outline = textpath.TextPath

    def noted(place, letter):
        letters.append(letter)
        return outline(place, letter)

    monkeypatch.setattr(textpath, "TextPath", noted)
    heights = np.zeros((2, 4))  # columns A, C, G, T
    heights[0] = 0.5, 0, 1, 0
    heights[1, 1] = 2
    danq.draw_logos({"one": heights}, False, "x.png")
    drawn = {}
    shapes = figures["x.png"].axes[0].patches
    for letter, shape in zip(letters, shapes, strict=True):
        box = shape.get_path().get_extents()
        drawn[letter] = (box.x0 + box.x1) / 2, box.y0, box.y1
    expected = {"A": (1, 0, 0.5), "G": (1, 0.5, 1.5), "C": (2, 0, 2)}
    for letter, place in expected.items():
        np.testing.assert_allclose(drawn[letter], place, atol=1e-6)


# ---- danq.py: simulated data


def test_simulated_data_that_end_half_made_leave_nothing(monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(danq, "write_demo_labels", fail)
    with pytest.raises(KeyboardInterrupt):
        danq.make_demo_data("demo", 8, seed=1)
    assert not os.listdir()


def test_simulated_data_look_like_deepsea():
    danq.main("--make-demo-data demo --limit 200".split())
    split = danq.load_split("demo", "train", "packed")
    labels = danq.load_labels("demo", 919)
    assert split.simulated
    assert split.strands
    assert split.n_labels == 919
    assert 0.03 < split.labels().mean() < 0.08
    assert [label[1] for label in labels] == ["DNase"] * 125 + ["TF"] * 690 + [
        "histone"
    ] * 104
    assert all(label.name.startswith("SIMULATED|") for label in labels)
    X = danq.onehot(split.X)
    CpG, GpC = (
        (X[:, :-1, base] & X[:, 1:, 3 - base]).mean() for base in (2, 1)
    )  # of A, G, C, T
    assert 0.36 < X[..., 1:3].sum(-1).mean() < 0.50, "GC content"
    assert CpG < 0.6 * GpC, "CpG is depleted"
    assert len(danq.load_split("demo", "test", "packed")) == 100


def test_no_simulated_sequence_stands_in_two_splits():
    """Eight windows each: the same draws would be the same sequences."""
    danq.main("--make-demo-data demo --limit 8".split())
    rows = []
    for name in danq.SPLITS:
        rows += map(bytes, danq.load_split("demo", name, "packed").X)
    assert len(set(rows)) == len(rows) == 3 * 2 * 8


def test_labels_of_simulated_data_follow_from_their_sequences():
    """By GC content, and by a factor's motif in the middle; as written to the files."""
    danq.main("--make-demo-data demo --limit 400".split())
    for name in danq.SPLITS:
        split = danq.load_split("demo", name, "packed")
        X = danq.onehot(split.X)
        gc = X[..., 1:3].sum((1, 2))
        open_labels = split.labels()[:, :125].sum(1)
        assert np.corrcoef(gc, open_labels)[0, 1] > 0.2, name
    motifs = danq.random_motifs(np.random.default_rng(2))
    X, Y, _ = danq.simulate(np.random.default_rng(1), 1500, motifs)
    labels = range(125, 815)  # of transcription factors
    for factor in range(4):
        own = Y[:, [label for label in labels if label % 6 == factor]].sum(1)
        other = Y[:, [label for label in labels if label % 6 == factor + 1]].sum(1)
        best = best_match(X[:, 400:600], motifs[2 * factor])
        rise = np.corrcoef(best, own)[0, 1]
        assert rise > 0.2
        assert rise > np.corrcoef(best, other)[0, 1] + 0.1


def test_half_of_the_planted_motifs_are_among_a_hundred_others():
    """Factors 0 and 2 bind a motif each, 4 a pair: four of eight."""
    for name in ("demo", "again"):
        danq.main(f"--make-demo-data {name} --limit 8".split())
    text = Path("demo/motifs.meme").read_text()
    assert text == Path("again/motifs.meme").read_text()
    known = danq.read_motifs("demo/motifs.meme")
    assert len(known) == 104
    assert all(name.startswith("SIMULATED_") for name in known)
    planted = danq.random_motifs(np.random.default_rng(1337))
    # Pseudocounts move a probability a little.
    found = {
        (factor, name)
        for factor, motif in enumerate(planted)
        for name, P in known.items()
        if np.abs(P - motif).max() < 0.05
    }
    assert sorted(which for which, _ in found) == [0, 4, 8, 9]
    assert len({name for _, name in found}) == 4
    numbers = [int(name.removeprefix("SIMULATED_")) for _, name in found]
    assert max(numbers) > 20, "they do not stand first"


def best_match(X, motif):
    """The highest log-likelihood of a motif (width, 4) in X, on either strand."""
    width = len(motif)
    scores = []
    for strand in (X, danq.reverse_complement(X)):
        for start in range(X.shape[1] - width + 1):
            site = strand[:, start : start + width]
            scores.append((site * np.log(motif)).sum((1, 2)))
    return np.max(scores, 0)


def test_who_knows_the_rules_of_simulated_data_scores_what_the_docstring_says():
    _, Y, P = danq.simulate(
        np.random.default_rng(1), 3000, danq.random_motifs(np.random.default_rng(2))
    )
    scores = [
        [score(Y[:, k], P[:, k]) for score in (roc_auc_score, average_precision_score)]
        for k in range(0, 919, 5)
    ]
    auroc, auprc = map(
        float,
        re.search(r"AUROC (.\d+), AUPRC (.\d+)", danq.make_demo_data.__doc__).groups(),
    )
    np.testing.assert_allclose(np.mean(scores, 0), (auroc, auprc), atol=0.02)


# ---- superq.py: the autoencoders


@pytest.mark.parametrize(
    "flags",
    ["--paper", "--ablation 1", "--ablation 3", "--ablation 4", ""],
)
def test_every_autoencoder_has_500_numbers_and_answers_with_bases(flags):
    network = superq.build(
        superq.parse_args(["--filters", "8", "--lstm-units", "0", *flags.split()]),
        n_labels=9,
    )
    assert superq.encoder_of(network).output.shape == (None, 500)
    assert network.output["bases"].shape == (None, 1000, 4)


STEPS = ("softmax", "adam", "local", "sines", "pooled")  # --ablation's, in order


def steps_taken(model):
    """Which of STEPS a compiled autoencoder has, by what it does."""
    network = model.layers[-1]
    taken = set()
    X = random_sequences(3)
    other = X.copy()
    other[:, 600:604] = X[:, 600:604, ::-1]
    answers = network.predict(X, verbose=0)
    bases = answers["bases"]
    if np.allclose(bases.sum(-1), 1, atol=1e-5) and bases.min() >= 0:
        taken.add("softmax")
    if type(model.optimizer).__name__ == "Adam":
        taken.add("adam")
    encoder = superq.encoder_of(network)
    changed = encoder.predict(X, verbose=0) != encoder.predict(other, verbose=0)
    if not changed[:, :150].any():  # of the first 300 bases at least
        taken.add("local")
    readers = [layer for layer in network.layers if isinstance(layer, Conv1D)]
    into_decoder = [layer.input for layer in readers if layer.input.shape[1] == 250]
    if into_decoder and into_decoder[0].shape[2] > 2:  # sine and cosine beside digits
        taken.add("sines")
    if "composition" in answers:
        taken.add("pooled")
    return taken


@pytest.mark.parametrize("n", range(6))
def test_each_step_of_the_ablation_is_the_one_of_its_name(n):
    X, Y = random_data(12)
    X[4:9, 200:700] = 0  # unknown bases
    args = superq.parse_args([*SMALL, "--lstm-units", "0", "--ablation", str(n)])
    model = compiled("superq", args, split_of(X, Y))
    assert steps_taken(model) == set(STEPS[:n])
    batches = danq.Batches(split_of(X, Y), 12)
    answer = model.layers[-1].predict(X, verbose=0)["bases"]
    known = X.sum(-1) == 1
    if n == 0:  # 2018: squared error of all bases
        loss = np.square(answer - X).mean()
    else:  # cross-entropy of known bases
        loss = -np.log((answer * X).sum(-1)[known]).mean()
    if n < 5:  # without composition and labels
        scores = model.evaluate(batches, verbose=0, return_dict=True)
        assert scores["loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "top"),
    [("", 4e-3), ("--head-epochs 1", 2e-3), ("--head-epochs 1 --top-rate .003", 3e-3)],
)
def test_superqs_learning_rate_rises_and_falls_down_a_cosine(more, top):
    """1,000 sequences in batches of 50, 4 epochs: 80 steps, of which 4 warm up."""
    split = superq.MixedSplit(
        **vars(split_of(*random_data(12))), unlabelled=np.zeros((988, 500), np.uint8)
    )
    flags = f"--batch-size 50 --epochs 4 --filters 4 --lstm-units 0 {more}".split()
    model = compiled("superq", superq.parse_args(flags), split)
    assert type(model.optimizer).__name__ == "Adam"
    assert model.optimizer.clipnorm == 1
    middle = (top + 8e-5) / 2  # of the cosine, at step 4 + 76 / 2
    by_step = {0: 1e-4, 2: (1e-4 + top) / 2, 4: top, 42: middle, 80: 8e-5}
    for step, rate in by_step.items():
        assert rate_at(model.optimizer, step) == pytest.approx(rate, rel=1e-3), step


@pytest.mark.parametrize(
    ("flags", "windows", "epochs", "top"),
    [
        ("", 100_000, 6, 4e-3),
        ("--head-epochs 1", 19_999, 6, 2e-3),
        ("--head-epochs 1", 20_000, 3, 4e-3),
        ("--head-epochs 1 --epochs 9 --top-rate .003", 20_000, 9, 3e-3),
        ("--motif-start x.meme", 8000, 6, 2e-3),
        ("--motif-start x.meme --head-epochs 0", 32_000, 6, 4e-3),
        ("--features motifs --motif-file x.meme", 32_000, 6, 4e-3),
    ],
)
def test_epochs_and_rate_follow_the_windows_where_the_head_learns_first(
    flags, windows, epochs, top
):
    given = superq.parse_args(flags.split())
    args = superq.settle_training(given, windows)
    assert (args.epochs, args.top_rate) == (epochs, top)
    # Chosen on validation: known motifs have smaller leaves.
    assert given.forest_leaf == (15 if given.features == "motifs" else 30)
    # What was given is what args.json keeps.
    assert given.epochs in (None, 9)


def test_2018s_recipe_is_nadam_at_its_rate():
    args = superq.parse_args([*SMALL, "--paper"])
    assert (args.epochs, args.batch_size) == (2, 20), "what is given stays"
    paper = superq.parse_args(["--paper"])
    assert (paper.epochs, paper.batch_size) == (10, 100)
    assert (paper.forest_trees, paper.forest_leaf) == (10, 1)
    model = compiled("superq", args, split_of(*random_data(12)))
    assert type(model.optimizer).__name__ == "Nadam"
    assert rate_at(model.optimizer, 9) == pytest.approx(0.015)
    assert model.optimizer.epsilon == pytest.approx(1e-8)
    assert dropouts(model.layers[-1]) == [0.2, 0.5]


def test_the_weight_of_the_labels_is_the_one_that_is_given():
    """With 0 the autoencoder is not even asked for them."""
    for weight in (0, 3):
        flags = [*SMALL, "--lstm-units", "0", "--label-weight", str(weight)]
        args = superq.parse_args(flags)
        network = compiled("superq", args, split_of(*random_data(12))).layers[-1]
        expected = {"bases": 1, "composition": 1}
        if weight:
            expected["labels"] = weight
        assert superq.losses_of(network, args)[1] == expected


def test_superqs_dropout_leaves_the_bases_alone():
    network = superq.build_autoencoder(4, 2, n_labels=3)
    assert dropouts(network) == [0.4, 0.5]
    X = random_sequences(4).astype(np.float32)
    first = network(X, training=True)
    second = network(X, training=True)
    np.testing.assert_array_equal(first["bases"], second["bases"])
    for name in ("composition", "labels"):
        difference = np.asarray(first[name]) - np.asarray(second[name])
        assert abs(difference).max() > 1e-3


def test_digits_start_as_numerals_or_at_random():
    numerals = []
    for flags in ([], ["--digits", "random"]):
        args = superq.parse_args(["--filters", "4", "--lstm-units", "0", *flags])
        weights = superq.build(args).get_weights()
        (digits,) = [array for array in weights if array.shape == (4, 4, 1)]
        numerals.append(np.array_equal(digits, superq.base_4_numeral()))
    assert numerals == [True, False]


def test_a_digit_is_a_numeral_of_four_bases_and_answers_for_them_alone():
    """GATT -> 1 0 3 3 of A, G, C, T, less 1.5: -.5 -1.5 1.5 1.5, times 1 4 16 64."""
    network = superq.build_autoencoder(4, 0, n_labels=3)
    X = random_sequences(2)
    X[0, 40:44] = letters_to_onehot("GATT")[0]
    code = superq.encoder_of(network).predict(X, verbose=0)
    assert code[0, 10] == pytest.approx((-0.5 * 1 - 1.5 * 4 + 1.5 * 16 + 1.5 * 64) / 64)
    bottleneck = network.get_layer("bottleneck").output
    decoder = keras.Model(bottleneck, network.output)
    changed = code.copy()
    changed[:, 10] += 1
    before = decoder.predict(code, verbose=0)
    after = decoder.predict(changed, verbose=0)
    moved = (before["bases"] != after["bases"]).any((0, 2))
    assert np.flatnonzero(moved).tolist() == [40, 41, 42, 43]
    np.testing.assert_array_equal(before["labels"], after["labels"])
    changed = code.copy()
    changed[:, 250:] += 1  # pooled features
    after = decoder.predict(changed, verbose=0)
    np.testing.assert_array_equal(before["bases"], after["bases"])
    for name in ("composition", "labels"):
        assert (before[name] != after[name]).all()


# ---- superq.py: how well is DNA rebuilt?


def counts_by_strings(text, k):
    """Counts of each k-mer with its reverse complement's, in the order A, G, C, T."""
    other = text[::-1].translate(COMPLEMENT)
    counts = {}
    for letters in itertools.product("AGCT", repeat=k):
        word = "".join(letters)
        mate = word[::-1].translate(COMPLEMENT)
        if mate not in counts:
            starts = range(len(text) - k + 1)
            counts[word] = sum(
                strand[i : i + k] == word for strand in (text, other) for i in starts
            )
    return list(counts.values())


@pytest.mark.parametrize(("k", "span"), [(2, 12), (3, 12), (4, 12), (4, 8), (2, 6)])
def test_kmers_are_those_that_python_counts(k, span):
    """Palindromes, which are their own reverse complement, count twice."""
    text = "GAATTCANGATTACAGGCCA"
    X = letters_to_onehot(text).astype(np.float32)
    first = (len(text) - span) // 2
    counts = np.asarray(superq.KmerCounts(k, span)(X))[0] ** 2
    by_strings = counts_by_strings(text[first : first + span], k)
    np.testing.assert_allclose(counts, by_strings, atol=1e-4)


def test_pooled_features_stand_in_the_middle_and_are_strand_blind():
    X = random_sequences(4)
    elsewhere = random_sequences(4)
    # The same middle: all else is only counted.
    elsewhere[:, 290:710] = X[:, 290:710]
    inputs = keras.Input((1000, 4))
    network = keras.Model(inputs, superq.pooled_features(inputs, 4, 2, None))
    Z = [
        network.predict(x, verbose=0)
        for x in (X, danq.reverse_complement(X), X[:, ::-1])
    ]
    np.testing.assert_allclose(Z[0], Z[1], atol=1e-4)
    assert abs(Z[0] - Z[2]).max() > 0.01
    middle = keras.Model(network.inputs, network.get_layer("motif_scan").output)
    np.testing.assert_array_equal(
        middle.predict(X, verbose=0), middle.predict(elsewhere, verbose=0)
    )


@pytest.mark.parametrize("kmers", [[], [(4, 300)]])
def test_a_base_outside_the_middle_leaves_the_pooled_features(monkeypatch, kmers):
    """Motifs alone, and with counts of the middle: both within bases 290 to 709."""
    monkeypatch.setattr(superq, "INPUT_KMERS", kmers)
    network, _ = pooled_network(filters=8)
    X = random_sequences(4)
    before = network.predict(X, verbose=0)
    for base, changes in {
        289: False,
        290: True,
        500: True,
        709: True,
        710: False,
    }.items():
        other = X.copy()
        other[:, base] = other[:, base, [1, 2, 3, 0]]
        after = network.predict(other, verbose=0)
        assert (before != after).any() == changes, base


@pytest.mark.parametrize("setting", ["MIDDLE_STEPS", "CORE_STEPS"])
def test_steps_without_an_exact_middle_are_refused(monkeypatch, setting):
    monkeypatch.setattr(superq, setting, getattr(superq, setting) + 1)
    with pytest.raises(danq.BadInput, match=rf"cannot be cut .*{setting}"):
        superq.build_autoencoder(4, 2)


def test_motifs_of_the_core_are_those_of_the_210_bases_in_the_middle(monkeypatch):
    """Half of the features; bases 395 to 604 are the core.

    Through a BLSTM all of the middle would be heard: nothing stands in its place.
    """
    monkeypatch.setattr(superq, "INPUT_KMERS", [])
    monkeypatch.setattr(danq, "blstm", lambda units: keras.layers.Identity())
    _, motifs = pooled_network(filters=8, lstm_units=2)
    X = random_sequences(64)  # in many, the best site is moved
    before = motifs.predict(X, verbose=0)

    def heard(first, last):
        """Which features change with the bases first .. last - 1."""
        other = X.copy()
        other[:, first:last] = other[:, first:last, [1, 2, 3, 0]]
        return (before != motifs.predict(other, verbose=0)).any(0)

    deaf = ~heard(290, 395)
    assert deaf.sum() == len(deaf) / 2
    assert not heard(605, 710)[deaf].any()
    for base in (395, 604):
        assert heard(base, base + 1)[deaf].any()
    assert heard(290, 291)[~deaf].any()
    assert heard(709, 710)[~deaf].any()


def rebuilding(answer):
    """An autoencoder whose code is the bases themselves, decoded by a function."""
    inputs = keras.Input((1000, 4))
    code = keras.layers.Flatten(name="bottleneck")(inputs)
    bases = answer(keras.layers.Reshape((1000, 4))(code))
    return keras.Model(inputs, {"bases": bases})


def test_reconstruction_by_hand():
    """A perfect, a wrong and a constant decoder; unknown bases do not count."""
    X = random_sequences(6)
    X[1:4, 100:900] = 0
    X[5, :300] = 1, 0, 1, 0  # M
    known = X[X.sum(-1) == 1]  # (bases, 4)
    train = split_of(X, np.ones((6, 3), np.uint8))
    train.X[:] = danq.packed(letters_to_onehot("C" * 1000))  # its commonest base
    test = split_of(X, np.ones((6, 3), np.uint8))

    perfect = reconstruction(rebuilding(lambda bases: bases), train, test)
    assert perfect["base_accuracy"] == 1
    assert perfect["bits_per_base"] == pytest.approx(0, abs=1e-5)
    assert perfect["commonest_base"] == pytest.approx(known[:, 2].mean())

    wrong = reconstruction(rebuilding(lambda bases: bases[..., ::-1]), train, test)
    assert wrong["base_accuracy"] == 0

    shares = np.array([0.125, 0.5, 0.25, 0.125], np.float32)
    constant = reconstruction(rebuilding(lambda bases: 0 * bases + shares), train, test)
    assert constant["base_accuracy"] == pytest.approx(
        known[:, 1].mean()
    )  # it answers G
    bits = known @ [3, 1, 2, 3]  # of 1/8, 1/2, 1/4, 1/8
    assert constant["bits_per_base"] == pytest.approx(bits.mean(), rel=1e-5)


# ---- superq.py: encodings and forest


@pytest.mark.parametrize("name", ["superq", "untrained"])
def test_encodings_are_what_the_bottleneck_answers(runs, name):
    """Digits of the window as it lies; features are the mean of three views of it."""
    model = danq.load_model(runs[name][0])
    splits = danq.load_data(superq.parse_args(runs[name][2]))[0]
    layer = keras.Model(model.inputs, model.get_layer("bottleneck").output)
    with h5py.File(runs[name][0] / "encodings.h5") as file:
        for split, rows in splits.items():
            # Each window once: its other strand has the same pooled features.
            X = danq.onehot(rows.X[: rows.windows])
            Z = layer.predict(X, verbose=0)
            if name == "superq":
                Z[:, 250:] = mean_of_views(model, X)
            np.testing.assert_allclose(file[f"{split}/Z"][:], Z, rtol=2e-3, atol=0.01)
            labels = rows.window_labels()
            np.testing.assert_array_equal(file[f"{split}/Y"][:], labels)


def forest_data(n=400, K=7):
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(n, 20)).astype(np.float16).astype(np.float32)
    return Z, (Z[:, :K] + 0.5 * rng.normal(size=(n, K)) > 0.8).astype(np.uint8)


@pytest.mark.parametrize("K", [7, 1])
def test_forest_is_scikit_learns_own_without_projections(K):
    """Its trees; their leaves answer with the mean over all rows, not a bootstrap's."""
    Z, Y = forest_data(K=K)
    ours = superq.fit_forest(Z, Y, trees=30, leaf=5, projections=0, seed=3)
    theirs = RandomForestRegressor(
        30, min_samples_leaf=5, max_features="sqrt", random_state=3
    )
    theirs.fit(Z, Y if K > 1 else Y[:, 0])
    new = np.random.default_rng(1).normal(size=(100, 20)).astype(np.float32)
    expected = 0
    for tree in theirs.estimators_:
        leaf = tree.apply(Z)
        means = [Y[leaf == reached].mean(0) for reached in tree.apply(new)]
        expected += np.array(means) / 30
    np.testing.assert_allclose(superq.predict_forest(ours, new), expected, atol=1e-6)


def test_forest_from_a_column_on_is_scikit_learns_of_the_sliced_columns():
    """The first five columns would give the labels away."""
    Z, Y = forest_data()
    Z[:, :5] = Y[:, :5]
    new = np.random.default_rng(1).normal(size=(100, 20)).astype(np.float32)
    ours = superq.fit_forest(Z, Y, trees=20, leaf=5, projections=0, seed=3, first=5)
    sliced = superq.fit_forest(Z[:, 5:], Y, trees=20, leaf=5, projections=0, seed=3)
    answers = superq.predict_forest(ours, new)
    np.testing.assert_array_equal(answers, superq.predict_forest(sliced, new[:, 5:]))


@pytest.mark.parametrize("samples", [10_000, 600])
def test_trees_grown_on_projected_labels_find_what_the_labels_depend_on(samples):
    """Each label is the sign of a column of its own, among 60."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(2000, 60)).astype(np.float32)
    Y = (Z[:, 5:9] > 0).astype(np.uint8)
    forest = superq.fit_forest(Z, Y, trees=40, leaf=40, samples=samples, seed=5)
    new = rng.normal(size=(500, 60)).astype(np.float32)
    P = superq.predict_forest(forest, new)
    for k in range(4):
        assert roc_auc_score(new[:, 5 + k] > 0, P[:, k]) > 0.95


def test_a_projected_tree_grows_on_a_quarter_of_the_rows_and_of_the_leaf():
    Z, Y = forest_data(n=400)
    forest = superq.grow(Z, Y, n_trees=1, leaf=30, share=0.25, seed=0)
    assert (forest.min_samples_leaf, forest.max_samples) == (8, 100)


def test_forest_streams_and_its_leaf_means_are_over_all_rows():
    Z, Y = forest_data()
    with h5py.File("e.h5", "w") as file:
        file["Z"], file["Y"] = Z.astype(np.float16), Y
        forest = superq.fit_forest(file["Z"], file["Y"], trees=25, leaf=5, samples=100)
    leaves = superq.leaves_of(forest, Z)
    reached = superq.leaf_matrix(leaves, len(forest["means"]))
    sizes = np.asarray(reached.sum(0)).ravel()
    np.testing.assert_allclose(
        (reached.T @ Y) / sizes[:, None], forest["means"], atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "seed", "first", "rows"), [("superq", 1337, 250, 1), ("pca", 5, 0, 2)]
)
def test_forest_npz_is_the_forest_of_the_training_rows(runs, name, seed, first, rows):
    """Of pca a window is two rows, of a leaf, too: its strands are encoded both."""
    kept = superq.load_forest(runs[name][0] / "forest.npz")
    with h5py.File(runs[name][0] / "encodings.h5") as file:
        Z = file["train/Z"][:]
        Y = file["train/Y"][:]
    again = superq.fit_forest(Z, Y, trees=6, leaf=4 * rows, seed=seed, first=first)
    for key, values in again.items():
        np.testing.assert_array_equal(kept[key], values)


def test_another_forest_or_classifier_on_kept_encodings(runs, capsys, monkeypatch):
    """Linear regression in two functions, as superq.py says above its forest."""

    def fit(Z, Y, *args, **options):
        return {"W": np.linalg.lstsq(np.float32(Z[:]), np.float32(Y[:]))[0]}

    shutil.copytree(runs["superq"][0], "run")
    encodings = os.stat("run/encodings.h5").st_mtime_ns
    before = read_json("run/summary.json")
    shutil.copytree("run", "run/test-mouse")
    superq.main(
        "--out-dir run --reuse-encodings --forest-leaf 4 --forest-trees 9".split()
    )
    assert "[3/3] forest: 9 trees" in (printed := capsys.readouterr().out)
    assert "[1/3]" not in printed
    assert os.stat("run/encodings.h5").st_mtime_ns == encodings
    assert not Path("run/test-mouse/summary.json").exists(), "the old forest's scores"
    assert read_json("run/summary.json")["reconstruction"] == before["reconstruction"]
    monkeypatch.setattr(superq, "fit_forest", fit)
    monkeypatch.setattr(superq, "predict_forest", lambda fitted, Z: Z @ fitted["W"])
    superq.main("--out-dir run --reuse-encodings --forest-leaf 9".split())
    # What is not given stays, of the forest's settings, too.
    settings = read_json("run/args.json")["settings"]
    assert (settings["forest_trees"], settings["forest_leaf"]) == (9, 9)
    Path("some.fa").write_text(">chr\n" + "GATTACAT" * 125)
    superq.main("--out-dir run --predict some.fa".split())
    assert set(np.load("run/forest.npz")) == {"W", "data"}
    assert len(Path("predictions.tsv").read_text().splitlines()) == 1 + 5


# ---- superq.py: yardsticks and unlabelled DNA


def test_pca_features_have_the_variances_of_the_components(runs):
    split = danq.load_data(superq.parse_args(runs["pca"][2]))[0]["train"]
    X = danq.onehot(split.X).reshape(len(split), -1).astype(float)
    with h5py.File(runs["pca"][0] / "encodings.h5") as file:
        Z = file["train/Z"][:].astype(float)
    spread = np.linalg.svd(X - X.mean(0), compute_uv=False)[:5] ** 2 / (len(X) - 1)
    np.testing.assert_allclose(Z[:, :5].var(0, ddof=1), spread, rtol=0.01)


MEME = """MEME version 4

ALPHABET= ACGT

MOTIF MA1 one
letter-probability matrix: alength= 4 w= 3 nsites= 16 E= 0
1 0 0 0
0 0.5 0.5 0
0.25 0.25 0.25 0.25

MOTIF MA2 two
letter-probability matrix: alength= 4 w= 2 nsites= 16 E= 0
0 0 0 1
0 0 1 0
"""


JASPAR = """>MA1 one
A [ 16 0 4 ]
C [ 0 8 4 ]
G [ 0 8 4 ]
T [ 0 0 4 ]
>MA2 two
A [ 0 0 ]
C [ 0 0 ]
G [ 0 16 ]
T [ 16 0 ]
"""


@pytest.mark.parametrize(
    ("written", "sites"), [("0", 20), ("1e+02", 100), ("4.5E1", 45), ("7", 7)]
)
def test_sites_of_a_motif_are_read_however_they_are_written(written, sites):
    """0, as some programs write: not known, 20 as where nothing is said."""
    Path("m.meme").write_text(MEME.replace("nsites= 16", f"nsites= {written}"))
    (first, *_) = danq.read_motifs("m.meme")["MA1 one"]
    extra = math.sqrt(sites)
    seen = (sites + extra / 4) / (sites + extra)
    never = (extra / 4) / (sites + extra)
    np.testing.assert_allclose(first, [seen, never, never, never])


def test_two_motifs_of_one_name_both_count():
    Path("m.meme").write_text(MEME.replace("MA2 two", "MA1 one"))
    assert list(danq.read_motifs("m.meme")) == ["MA1 one", "MA1 one'"]
    # Nor need a matrix have a name.
    Path("m.meme").write_text(re.sub("MOTIF.*\n", "", MEME))
    assert list(danq.read_motifs("m.meme")) == ["unnamed", "unnamed'"]


def test_motif_files_are_read_in_the_order_of_the_one_hot():
    """16 sites: four more, one of each base; columns A, G, C, T."""
    Path("m.meme").write_text(MEME)
    motifs = danq.read_motifs("m.meme")
    assert list(motifs) == ["MA1 one", "MA2 two"]
    np.testing.assert_allclose(motifs["MA1 one"][0], [0.85, 0.05, 0.05, 0.05])
    np.testing.assert_allclose(motifs["MA1 one"][1], [0.05, 0.45, 0.45, 0.05])
    np.testing.assert_allclose(motifs["MA2 two"][1], [0.05, 0.85, 0.05, 0.05])
    Path("m.jaspar").write_text(JASPAR)
    the_same = danq.read_motifs("m.jaspar")
    assert list(the_same) == list(motifs)
    for name, P in motifs.items():
        np.testing.assert_allclose(the_same[name], P)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("ACGT\n", "ACDEFGHIKLMNPQRSTVWY\n", "line 3: the alphabet must be ACGT"),
        ("0 0.5 0.5 0", "0 0.5 0.9 0", "line 8: must be four probabilities"),
        ("0 0.5 0.5 0", "0 0.5 x 0", "line 8: must be four probabilities"),
        ("0 0.5 0.5 0", "nan 0.5 0.5 0", "line 8: must be four probabilities"),
        ("0 0 1 0\n", "", "the motif MA2 two ends before its last row"),
        ("alength= 4 w= 2", "alength= 20 w= 2", "line 12: must say alength= 4"),
        (MEME, "ACGT\n", "holds no motif in MEME's text format"),
        ("0 0.5 0.5 0\n0.25 0.25 0.25 0.25", "", "the motif MA1 one ends before"),
        (MEME, JASPAR.replace("A [", "B ["), "line 2: must be A \\[ and its counts"),
        (MEME, JASPAR.replace("8 4 ]", "8 x ]"), "line 3: must be C"),
        (MEME, JASPAR.replace("8 4 ]", "8 nan ]"), "line 3: must be C"),
        (MEME, JASPAR.replace("0 8 4 ]", "0 8 ]"), "line 1: MA1 one must have four"),
        (MEME, JASPAR.replace("16 0 4", "0 0 4"), "has a position without any count"),
        (MEME, JASPAR[:40], "line 1: MA1 one must have four rows"),
        (MEME, JASPAR + "MA3\n", "line 11: must be a motif's name after >"),
    ],
)
def test_bad_motif_files_give_one_clear_line(capsys, old, new, says):
    Path("m.meme").write_text(MEME.replace(old, new))
    check_one_line(capsys, f"m.meme.*{says}", danq.read_motifs, "m.meme")


@pytest.mark.parametrize(
    ("main", "flag"),
    [
        (danq.main, "--motif-start"),
        (danq.main, "--jaspar"),
        (superq.main, "--motif-start"),
        (superq.main, "--features motifs --motif-file"),
    ],
)
def test_motif_files_are_read_before_data_are_packed(capsys, main, flag):
    """Of the bundle, packing takes minutes."""
    write_data()
    Path("bad.meme").write_text("ACGT\n")
    for name, says in (
        ("no.meme", f"{flag.split()[-1]} no.meme is missing: bash run_all.sh --real"),
        ("bad.meme", "bad.meme holds no motif in MEME's text format"),
    ):
        check_one_line(capsys, says, main, [*flag.split(), name, "--data-dir", "."])
    assert not Path("runs").exists()


def test_occupancies_are_sums_over_places_and_strands():
    """By hand, place by place, of two motifs of different widths; an N scores 0."""
    Path("m.meme").write_text(MEME)
    motifs = list(danq.read_motifs("m.meme").values())
    X = random_sequences(3).astype(np.float32)
    X[0, 400] = 0
    network = superq.kmer_network(kmers=[(1, 1000)], motifs=motifs)
    answers = network.predict(X, verbose=0)[:, 2:]
    # Both motifs in the middle 200 bases, then both in the middle 400.
    columns = [(P, span) for span in (200, 400) for P in motifs]
    for x, own in zip(X, answers, strict=True):
        for (P, span), answer in zip(columns, own, strict=True):
            log_odds = np.log(P / 0.25)
            total = 0
            first = 500 - span // 2
            for matrix in (log_odds, log_odds[::-1, ::-1]):  # and the other strand
                for start in range(first, first + span - len(P) + 1):
                    site = x[start : start + len(P)]
                    total += np.exp((site * matrix).sum())
            assert answer == pytest.approx(np.log(total), abs=1e-4)


def features_of(folder, name):
    """The encodings of a yardstick's training windows, and these as letters."""
    with h5py.File(folder / name / "encodings.h5") as file:
        Z = file["train/Z"][:].astype(float)
    X = danq.onehot(danq.load_split(folder / "data", "train", folder / "packed").X)
    return Z, [letters_of(x) for x in X[: len(Z)]]


def test_known_motifs_and_gc_content_go_into_the_same_forest(yardsticks, capsys):
    for name in ("motifs", "chosen"):
        Z, _ = features_of(yardsticks, name)
        assert Z.shape == (30, 146 + 2 * 2), "windows, on one strand"
    for name in ("gc", "cpg"):
        Z, texts = features_of(yardsticks, name)
        by_hand = [text.count("CG") for text in texts]
        if name == "gc":
            by_hand = [text.count("G") + text.count("C") for text in texts]
        # Square roots of counts; C and G are the last of two pairs, CG stands on both
        # strands.
        both = 1 if name == "gc" else 2
        np.testing.assert_allclose(Z[:, -1] ** 2, both * np.array(by_hand), rtol=0.01)
    runs = f"{yardsticks}/gc {yardsticks}/motifs"
    superq.main(f"--compare {runs} --output c.md".split())
    models = [row[:2] for row in table_rows("c.md")]
    assert ["GC content -> forest", "known motifs + k-mers"] in models
    says = "--motif-file FILE need each other"
    check_one_line(capsys, says, superq.main, ["--features", "motifs"])


def test_a_network_learns_from_a_yardsticks_features(monkeypatch):
    """Whatever their sizes: label 0 is feature 2, far from 0; the same twice."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(600, 4)) * (1, 1, 1000, 1) + (0, 0, 50_000, 0)
    Y = np.stack([Z[:, 2] > 50_000, rng.random(600) < 0.5], 1).astype(np.uint8)
    # Two blocks, of one class each: both must be read.
    Z[:500] = Z[np.argsort(Y[:500, 0], kind="stable")]
    Y[:500] = Y[np.argsort(Y[:500, 0], kind="stable")]
    blocks = superq.gen_batches
    monkeypatch.setattr(superq, "gen_batches", lambda n, size: blocks(n, 250))
    args = argparse.Namespace(seed=3, epochs=4, batch_size=50, top_rate=4e-3)
    answers = []
    for _ in range(2):
        network = superq.fit_network(args, Z[:500], Y[:500])
        answers.append(network.predict(Z[500:], verbose=0))
    np.testing.assert_array_equal(*answers)
    # As often as SuperQ sees a window: as both strands, 4 epochs, 10 batches each.
    assert int(network.optimizer.iterations) == 2 * 4 * 10
    assert roc_auc_score(Y[500:, 0], answers[0][:, 0]) > 0.95


def test_known_motifs_answer_with_their_forest_and_a_network(yardsticks):
    """Both, and their mean, on the test windows by hand; other yardsticks: a forest."""
    out = yardsticks / "motifs"
    forest = superq.load_forest(out / "forest.npz")
    network = danq.load_model(out, "network.keras")
    with h5py.File(out / "encodings.h5") as file:
        Z = file["test/Z"][:].astype(np.float32)
    expected = {
        "forest": superq.predict_forest(forest, Z),
        "label output": network.predict(Z, verbose=0),
    }
    expected["mean"] = sum(expected.values()) / 2
    # The network is that of the training windows.
    args = argparse.Namespace(**danq.finished_settings(out))
    args = superq.settle_training(args, windows=30)
    with h5py.File(out / "encodings.h5") as file:
        again = superq.fit_network(args, file["train/Z"], file["train/Y"])
    found = again.predict(Z, verbose=0)
    np.testing.assert_allclose(found, expected["label output"], atol=1e-5)
    assert abs(expected["forest"] - expected["label output"]).max() > 0.01
    bits = danq.load_split(yardsticks / "data", "test", yardsticks / "packed").X
    for answer, P in expected.items():
        score, _ = superq.trained_scores(out, answer)
        np.testing.assert_allclose(score(bits[: len(Z)]), P, atol=2e-3)
    assert list(read_json(out / "summary.json")["answers"]) == list(expected)
    assert read_json(yardsticks / "gc" / "summary.json")["answers"] == {}
    assert not (yardsticks / "gc" / "network.keras").exists()


def test_of_many_motifs_as_many_are_chosen_as_make_500_numbers(monkeypatch):
    """177, of two numbers each, beside 146; here 3 of 5, two of them the same."""
    monkeypatch.setattr(superq, "CODE", 146 + 2 * 3)
    words = random_words(5)
    words[4] = words[3]
    matrices = {f"{k}": 0.9 * word + 0.025 for k, word in enumerate(words)}
    monkeypatch.setattr(danq, "read_motifs", lambda path: matrices)
    split = split_of(*random_data(60))
    chosen = superq.choose_motifs("m.meme", split)
    assert len(chosen) == 3
    both = [matrix is matrices["3"] or matrix is matrices["4"] for matrix in chosen]
    assert sum(both) <= 1


@pytest.mark.parametrize("features", ["chosen --motif-file m.meme", "pca"])
def test_what_a_yardstick_looks_at_is_training_windows_alone(monkeypatch, features):
    splits = {name: split_of(*random_data(12)) for name in danq.SPLITS}
    seen = []

    class Looked(Exception):
        pass

    def look(*arguments):
        seen.extend(map(id, arguments))
        raise Looked

    monkeypatch.setattr(superq, "choose_motifs", look)
    monkeypatch.setattr(superq, "pca_network", look)
    args = superq.parse_args(f"--features {features}".split())
    with pytest.raises(Looked):
        superq.make_yardstick(args, splits, Path())
    assert [name for name in splits if id(splits[name]) in seen] == ["train"]


def test_a_filter_is_the_log_odds_of_a_motif_or_of_its_best_part():
    P = np.full((3, 4), 0.25)
    P[1] = 0.7, 0.1, 0.1, 0.1
    kernel = danq.as_filter(P, 6)
    assert np.flatnonzero(kernel.any(1)).tolist() == [2], "1 of 3 zeros before, and 1"
    np.testing.assert_allclose(kernel[2], np.log([2.8, 0.4, 0.4, 0.4]))
    wide = np.full((9, 4), 0.25)
    wide[6:8] = 0.7, 0.1, 0.1, 0.1
    kernel = danq.as_filter(wide, 3)
    assert np.flatnonzero(kernel.any(1)).size == 2, "the part that has them both"


def test_motifs_are_chosen_by_what_they_explain_of_all():
    """Three copies of one column, two of another, one alone; by least squares."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 500))
    columns = np.stack([c, b, a, a, b, a], 1) + 0.01 * rng.normal(size=(500, 6))
    chosen = danq.most_telling(columns, 3)
    assert chosen[0] in (2, 3, 5)
    assert chosen[1] in (1, 4)
    assert chosen[2] == 0
    R = (columns - columns.mean(0)) / columns.std(0)
    explained = []
    for k in range(6):
        fit = np.linalg.lstsq(R[:, [k]], R)[0]
        explained.append(np.square(R[:, [k]] @ fit).sum())
    assert chosen[0] == np.argmax(explained)
    # As they are, the one that varies most explains most.
    columns[:, 0] *= 3
    assert danq.most_telling(columns, 3)[0] in (2, 3, 5)
    assert danq.most_telling(columns, 3, scaled=False)[0] == 0


def test_superq_starts_from_known_motifs(runs, capsys):
    """The words that labels follow from, as motifs: their filters stay near them."""
    out, printed, flags = runs["more"]
    assert "9 of 41 filters start as known motifs, of 9" in printed
    assert "learned first: 1 epochs, 40 windows" in printed
    assert read_json(out / "summary.json")["sequences"] == 2 * 40 + 6
    scan = danq.load_model(out).get_layer("motif_scan")
    assert scan.kernel.shape == (20, 4, 41)
    kernel = np.asarray(scan.get_weights()[0])
    found = set()
    for i in range(9):
        best = kernel[6:14, :, i].argmax(1)
        for k, word in enumerate(random_words(9)):
            if (best == word.argmax(1)).all():
                found.add(k)
    assert len(found) == 9
    name = "SuperQ from known motifs, labels for the forest alone, + 6 unlabelled"
    assert read_json(out / "summary.json")["model"] == name
    for more, says in (
        (["--filters", "30"], "needs more than 32 filters, has 30"),
        (["--ablation", "3"], "--motif-start needs the pooled features"),
    ):
        other = ["--out-dir", f"other{len(more[1])}"]
        check_one_line(capsys, says, superq.main, [*flags, *more, *other])


def test_the_head_learns_first_and_alone():
    """Labels and composition better than before; filters and digits as they were."""
    split = split_of(*random_data(60))
    flags = "--filters 8 --lstm-units 2 --batch-size 10 --head-epochs 20".split()
    args = superq.settle_training(superq.parse_args(flags), split.windows)
    network = compiled("superq", args, split).layers[-1]
    X = danq.onehot(split.X).astype(np.float32)
    Y = split.labels()

    def label_loss():
        return entropy(Y, network.predict(X, verbose=0)["labels"])

    before = [layer.get_weights() for layer in network.layers]
    loss = label_loss()
    superq.teach_head(network, args, split)
    assert label_loss() < 0.8 * loss
    changed = set()
    for layer, weights in zip(network.layers, before, strict=True):
        pairs = zip(layer.get_weights(), weights, strict=True)
        if not all(np.array_equal(after, earlier) for after, earlier in pairs):
            changed.add(layer.name)
    assert changed == {"scale", "pooled", "composition", "labels"}


def test_the_head_learns_the_labels_of_the_windows_that_it_sees(monkeypatch):
    """Ten of 60 windows, evenly spread."""
    monkeypatch.setattr(superq, "HEAD_WINDOWS", 10)
    split = split_of(*random_data(60))
    flags = [*SMALL, "--lstm-units", "0", "--head-epochs", "1"]
    args = superq.settle_training(superq.parse_args(flags), split.windows)
    network = compiled("superq", args, split).layers[-1]
    given = []

    def fit(head, seen, targets, **options):
        given.append(targets["labels"])

    monkeypatch.setattr(keras.Model, "fit", fit)
    superq.teach_head(network, args, split)
    rows = np.linspace(0, 59, 10).astype(int)
    np.testing.assert_array_equal(given[0], split.labels()[rows])


def test_each_window_is_scanned_once_in_order():
    split = split_of(*random_data(60))
    network = superq.build(superq.parse_args(["--filters", "4", "--lstm-units", "0"]))
    summaries = network.get_layer("summaries").output
    rows = np.array([3, 40, 41])
    seen, counts = superq.scan_once(network.inputs, summaries, split.X, rows)
    X = danq.onehot(split.X[rows]).astype(np.float32)
    np.testing.assert_array_equal(counts, superq.KmerCounts(4, 300)(X))
    # The first of them are the words of three bases in all 1,000.
    np.testing.assert_array_equal(seen[:, :32], superq.KmerCounts(3, 1000)(X))


def test_first_weights_are_set_at_a_start_alone():
    """Of a run that goes on, the checkpoint brings all weights."""
    split = split_of(*random_data(20))
    calls = []
    for epochs in ("1", "2"):
        args = danq.parse_args([*SMALL, "--out-dir", ".", "--epochs", epochs])
        model = compiled("danq", args, split)
        danq.fit(model, split, None, args, 5, prepare=lambda: calls.append(1))
        assert len(calls) == 1


def scan_of(n, width):
    scan = keras.layers.Conv1D(n, width, activation="relu")
    scan.build((None, 1000, 4))
    return scan


def test_filters_that_start_as_motifs_answer_in_the_share_of_places_asked_for():
    # Probabilities of many kinds: of equal scores, rounding would say which are above.
    rng = np.random.default_rng(0)
    matrices = 3 * random_words(4) + rng.random((4, 8, 4))
    matrices /= matrices.sum(2, keepdims=True)
    motifs = {f"{k}": P for k, P in enumerate(matrices)}
    split = split_of(*random_data(60))
    scan = scan_of(6, 26)
    before = scan.get_weights()
    danq.start_from_motifs(scan, motifs, split, n=4, scale=0.25, share=0.05)
    kernel, bias = scan.get_weights()
    # The four in any order, each at its scale.
    highest = sorted(kernel[..., i].max() for i in range(4))
    expected = sorted(0.25 * np.log(4 * matrices.max((1, 2))))
    np.testing.assert_allclose(highest, expected, rtol=1e-5)
    X = danq.onehot(split.X[: split.windows])
    # The places that DanQ's filters see in the middle 300 bases: 275.
    answers = np.asarray(scan(X[:, 350:650].astype(np.float32)))
    share = (answers[..., :4] > 0).mean((0, 1))
    np.testing.assert_allclose(share, 0.05, atol=0.002)
    np.testing.assert_array_equal(kernel[..., 4:], before[0][..., 4:])
    np.testing.assert_array_equal(bias[4:], before[1][4:])


def test_one_window_can_choose_no_motifs(capsys):
    motifs = {"one": 0.9 * random_words(1)[0] + 0.025}
    split = split_of(random_sequences(1), np.zeros((1, 9), np.uint8))
    start = (scan_of(4, 26), motifs, split, 1, 1.0, 0.05)
    says = "no motif varies in 1 training windows"
    check_one_line(capsys, says, danq.start_from_motifs, *start)


def test_motifs_that_tell_nothing_more_start_no_filter(capsys):
    """Two motifs, one of them twice: the third filter stays random; a line says so."""
    one, two = 0.9 * random_words(2) + 0.025
    motifs = {"one": one, "two": two, "one again": one}
    split = split_of(*random_data(60))
    scan = scan_of(4, 26)
    before = scan.get_weights()[0]
    danq.start_from_motifs(scan, motifs, split, n=3, scale=1, share=0.05)
    printed = capsys.readouterr().out
    assert "2 of 4 filters start as known motifs, of 3" in printed
    assert "no more of them: 60 windows tell so few motifs apart" in printed
    kernel = scan.get_weights()[0]
    assert not np.array_equal(kernel[..., 1], before[..., 1])
    np.testing.assert_array_equal(kernel[..., 2:], before[..., 2:])


def test_the_filters_of_danq_jaspar_start_as_probabilities_less_a_quarter(capsys):
    """Somewhere in the filter; a motif that is wider by its best part."""
    words = random_words(3, length=8)
    motifs = {f"{k}": 0.9 * word + 0.025 for k, word in enumerate(words)}
    motifs["wide"] = np.concatenate([np.full((9, 4), 0.25), motifs["0"]])
    scan = scan_of(5, 12)
    random = scan.get_weights()[0]
    danq.start_as_jaspar(scan, motifs, seed=1)
    kernel, bias = scan.get_weights()
    starts = set()
    for i, P in enumerate([*motifs.values()][:3]):
        used = np.flatnonzero(np.abs(kernel[..., i] - random[..., i]).max(1))
        assert len(used) == 8
        np.testing.assert_allclose(kernel[used, :, i], P - 0.25, rtol=1e-5)
        starts.add(used[0])
    assert len(starts) > 1
    np.testing.assert_allclose(kernel[..., 3], motifs["wide"][5:] - 0.25, rtol=1e-5)
    np.testing.assert_array_equal(kernel[..., 4], random[..., 4])
    assert -1 <= bias.min() < bias.max() <= 0
    says = "4 motifs do not fit into 3 filters"
    check_one_line(
        capsys, says, lambda: danq.start_as_jaspar(scan_of(3, 12), motifs, 1)
    )
    says = "--jaspar has a start of its own"
    flags = "--jaspar a --motif-start b".split()
    check_one_line(capsys, says, danq.parse_args, flags)


def test_danq_starts_from_known_motifs():
    """On the command line, with our recipe; the run is named after both."""
    write_data()
    Path("m.meme").write_text(MEME)
    flags = [*SMALL, "--lstm-units", "0", "--data-dir", ".", "--epochs", "1"]
    danq.main([*flags, "--recipe", "ours", "--motif-start", "m.meme"])
    kernel = danq.load_model("runs/danq").get_layer("motif_scan").get_weights()[0]
    zeros = (np.abs(kernel).max(1) < 0.01).sum(0)  # positions, of each filter
    assert (zeros > 10).sum() == 2, "narrow motifs in filters of 26 bases"
    # --motifs, which writes, in place of --motif-start.
    with pytest.raises(danq.BadInput, match="m.meme would overwrite m.meme"):
        danq.main(["--motifs", "m.meme"])
    summary = read_json("runs/danq/summary.json")
    assert summary["model"] == "DanQ from known motifs, our recipe"
    assert "m.meme" in read_json("runs/danq/args.json")["settings"]["data_files"]
    danq.main([*flags, "--jaspar", "m.meme", "--out-dir", "runs/jaspar"])
    bias = danq.load_model("runs/jaspar").get_layer("motif_scan").get_weights()[1]
    assert -1.1 < bias.min() < -0.1, "from -1 to 0; else they start as 0"


def test_unlabelled_dna_does_not_hide_the_data_of_its_name(monkeypatch):
    """Both files may be called train.mat: args.json holds the content of both."""
    write_data()
    kept = {}

    @contextlib.contextmanager
    def run_folder(args, script, simulated, sources):
        kept.update(sources)
        yield True

    monkeypatch.setattr(danq, "run_folder", run_folder)
    flags = [*SMALL, "--data-dir", ".", "--unlabelled", "train.mat"]
    superq.main([*flags, "--unlabelled-limit", "4"])
    assert {"train.mat", "unlabelled train.mat"} < kept.keys()


def test_unlabelled_files_are_packed_from_fasta_and_mat():
    X = random_sequences(6)
    text = f">a\n{''.join(map(letters_of, X))}\n>b\n{'N' * 999}A\n"
    Path("g.fa.gz").write_bytes(gzip.compress(text.encode()))
    write_hdf5("train", X, np.ones((6, 3), np.uint8), chunks=(100, 4, 2))
    scipy.io.savemat("x.mat", {"xdata": X.transpose(0, 2, 1)})
    for name in ("g.fa.gz", "train.mat", "x.mat"):
        for limit, rows in ((None, X), (3, X[::2])):  # evenly spread
            bits, _ = superq.load_unlabelled(name, Path("packed"), limit)
            np.testing.assert_array_equal(danq.onehot(bits), rows)


# ---- superq.py: side by side


def test_comparison_sets_runs_side_by_side(runs, capsys):
    folders = [out for out, _, _ in runs.values()]
    superq.main(["--compare", *map(str, folders)])
    table = (folders[0].parent / "comparison.md").read_text()
    assert table in capsys.readouterr().out
    for picture in ("comparison", "comparison-training", "comparison-labels"):
        for kind in ("png", "svg"):
            assert (
                5_000
                < (folders[0].parent / f"{picture}.{kind}").stat().st_size
                < 300_000
            )
    training = (folders[0].parent / "comparison-training.svg").read_text()
    assert all(
        f"{name}: {key}" in training
        for name in ("danq", "superq", "paper")
        for key in ("loss", "acc")
    )
    for summary in (read_json(folder / "summary.json") for folder in folders):
        assert re.search(
            rf"\| {re.escape(summary['model'])} \|"
            rf".* {summary['means']['all']['auprc']:.4f} ",
            table,
        )


def made_up_run(folder, like, scores, assays=None, factors=None, **more):
    """A copy of a run with made-up scores of each label: AUROC and AUPRC.

    scores : (K, 2), or (stretches, K, 2), of which a label's score is the mean, and its
        score without a stretch that of the others
    more : of its summary; its means are those of the scores
    """
    folder = Path(folder)
    shutil.copytree(like, folder)
    (folder / "history.csv").unlink(missing_ok=True)
    scores = np.array(scores)
    if scores.ndim == 2:
        scores = np.stack([scores] * 4)
    n = len(scores)
    without = (scores.sum(0) - scores) / (n - 1)
    np.savez(folder / "without.npz", scores=without)
    scores = scores.mean(0)
    assays = assays or ["TF"] * len(scores)
    factors = factors or [f"factor {k}" for k in range(len(scores))]
    row = read_table(folder / "metrics.csv")[0]
    rows = []
    for k, (auroc, auprc) in enumerate(scores):
        own = {"column": k, "assay": assays[k], "name": f"label {k}"}
        own |= {"factor": factors[k], "auroc": auroc, "auprc": auprc, "f1": auprc / 2}
        rows.append(row | own)
    danq.write_csv(folder / "metrics.csv", rows)
    means = {}
    for assay in ["all", *dict.fromkeys(assays)]:
        own = [row for row in rows if assay in ("all", row["assay"])]
        means[assay] = {"labels": len(own), "base_rate": 0.1, "recall_at_10fdr": 0.2}
        for key in ("auroc", "auprc", "f1"):
            means[assay][key] = float(np.mean([row[key] for row in own]))
    summary = read_json(folder / "summary.json")
    summary |= {"labels": len(rows), "labels_scored": len(rows), "means": means} | more
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def table_rows(path):
    """Cells of the rows of Markdown tables."""
    rows = []
    for line in Path(path).read_text().splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def captured_figures(monkeypatch):
    """A dict that gets each figure, by its path, in place of the disk."""
    figures = {}

    def capture(figure, path, simulated, to=None):
        figures[Path(path).name] = figure

    monkeypatch.setattr(danq, "save_figure", capture)
    return figures


def numbers_in(cell):
    return [float(number) for number in re.findall(r"[+-]\.?[\d.]+", cell)]


def test_all_of_a_difference_is_of_the_labels_whose_scores_last():
    """Of 20 labels 10 lack a class where a stretch is left out; the others decide."""
    whole = np.repeat([0.01, -0.1], 10) + np.linspace(0, 1e-4, 20)
    without = np.tile(whole, (50, 1))
    without[3, 10:] = np.nan
    factors = np.array([f"factor {k}" for k in range(20)])
    cells = superq.difference_cells(whole, without, factors)
    mean, other_dna, other_factors, labels, in_factors, verdict = cells
    assert mean.startswith("+0.0100")
    assert all(number > 0 for number in numbers_in(other_factors))
    assert (labels, in_factors, verdict) == ("10 of 10", "10 of 10", "higher")
    without[5] = np.nan
    assert superq.difference_cells(whole, without, factors) == ["-"] * 6
    assert np.isnan(superq.other_dna(whole, without)).all()


def test_differences_and_their_intervals_on_made_up_scores(runs):
    """AUROC .1 higher on average, AUPRC .04 lower; 50 stretches, 20 factors of 10.

    Stretches differ by .07 and .02, factors by .05 and .3: AUPRC would be lower on
    other DNA, and not for other factors.
    """
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, (50, 200, 2))
    of_stretches = rng.normal((0.1, -0.04), (0.07, 0.02), (50, 1, 2))
    of_factors = rng.normal(0, (0.05, 0.3), (20, 2))
    of_factors -= of_factors.mean(0)
    rise = of_stretches + np.repeat(of_factors, 10, axis=0)
    kmer = runs["kmer"][0]
    factors = [f"factor {k // 10}" for k in range(200)]
    made_up_run("a", kmer, base, factors=factors, model="DanQ")
    made_up_run("b", kmer, base + rise, factors=factors, model="SuperQ")
    superq.main("--compare a b --output c.md".split())
    rows = [row for row in table_rows("c.md") if row[:2] == ["SuperQ", "DanQ"]]
    assert [row[2] for row in rows] == ["AUROC", "AUPRC"]
    for k, row in enumerate(rows):
        # For these labels: 50 stretches that were drawn; Student's t of 49.
        stretches = rise[:, :, k].mean(1)
        mean = stretches.mean()
        half = 2.0096 * stretches.std(ddof=1) / np.sqrt(50)
        assert numbers_in(row[3]) == pytest.approx([mean], abs=1e-4)
        assert numbers_in(row[4]) == pytest.approx([mean - half, mean + half], abs=2e-4)
        # For other factors: 20 that were drawn, normally distributed.
        half = 1.96 * of_factors[:, k].std() / np.sqrt(20)
        expected = [mean - half, mean + half]
        assert numbers_in(row[5]) == pytest.approx(expected, abs=0.2 * half)
        leads = rise[..., k].mean(0) > 0
        assert row[6] == f"{leads.sum()} of 200"
        assert row[7] == f"{leads.sum() // 10} of 20"
    assert [row[8] for row in rows] == ["higher", "lower, these labels only"]


@pytest.mark.parametrize("ties", [False, True])
def test_scores_without_a_stretch_are_scikit_learns_of_the_other_windows(ties):
    """Seven stretches of 60 windows; label 2 has positives in the first one only."""
    rng = np.random.default_rng(0)
    P = rng.random((60, 3))
    if ties:
        P = P.round(1)
    Y = (rng.random((60, 3)) < 0.3).astype(np.uint8)
    Y[:, 2] = np.arange(60) < 4
    scores = danq.scores_without(P, Y, 7)
    assert scores.shape == (7, 3, 2)
    for i in range(7):
        others = np.arange(60) * 7 // 60 != i
        for k in range(3):
            if i == 0 and k == 2:
                assert np.isnan(scores[i, k]).all()
            else:
                y, p = Y[others, k], P[others, k]
                by_hand = roc_auc_score(y, p), average_precision_score(y, p)
                np.testing.assert_allclose(scores[i, k], by_hand, atol=1e-12)
    assert danq.scores_without(P[:5], Y[:5], 7).shape == (5, 3, 2)


def test_a_label_that_a_stretch_holds_alone_is_in_no_interval():
    """Its score without that stretch is unknown: the others decide."""
    whole = np.array([0.6, 0.7, 0.9])
    without = np.stack([whole + 0.01, whole - 0.01])
    without[0, 2] = np.nan
    mean, low, high = superq.other_dna(whole, without)
    assert mean == pytest.approx(0.65)
    # Half of .02 squared, its root .01; Student's t of 1 is 12.706.
    assert (high - low) / 2 == pytest.approx(12.706 * 0.01, rel=1e-3)


def test_differences_stand_assay_by_assay(runs):
    """Ahead in AUROC in TF labels, a tie in histone labels, behind in AUPRC in both."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, (50, 5, 2))
    # Windows of each stretch: so much better, give or take .02, of which .003 is left.
    rise = rng.normal(0, 0.02, (50, 5, 2))
    rise[..., 0] += [0.1, 0, 0.1, 0, 0.1]
    rise[..., 1] -= 0.1
    kmer = runs["kmer"][0]
    assays = ["TF", "Histone", "TF", "Histone", "TF"]
    made_up_run("a", kmer, base, assays, model="DanQ")
    made_up_run("b", kmer, base + rise, assays, model="SuperQ")
    superq.main("--compare a b --output c.md".split())
    (head,) = [row for row in table_rows("c.md") if row[0] == "AUROC / AUPRC"]
    assert head == ["AUROC / AUPRC", "against", "TF, 3 labels", "Histone, 2 labels"]
    tf, histone = table_rows("c.md")[-1][2:]
    mean = rise.mean(0)
    expected = mean[[0, 2, 4]].mean(0)
    assert numbers_in(tf) == pytest.approx(expected, abs=1e-4)
    assert "tie" not in tf
    assert numbers_in(histone) == pytest.approx(mean[[1, 3]].mean(0), abs=1e-4)
    assert re.fullmatch(r"\S+ \(tie\) / -\S+", histone)
    # A label that the test split cannot score has no difference.
    nothing = superq.Scores(np.full((5, 2), np.nan), np.full((50, 5, 2), np.nan))
    both = {"a": nothing, "b": nothing}
    text = superq.differences_by_assay(both, np.array(assays), ["a"])
    assert "| b | a | - | - |" in text
    # Of one assay the first table says it all.
    assert not superq.differences_by_assay(both, np.array(["TF"] * 5), ["a"])


@pytest.mark.parametrize(("features", "second"), [("kmer", "b"), ("autoencoder", "c")])
def test_label_by_label_superq_is_drawn_against_the_first_run(features, second):
    """And where no run is SuperQ's, the second one."""
    settings = {"a": {}, "b": {}, "c": {"features": features}}
    groups = {name: [{"settings": own}] for name, own in settings.items()}
    assert superq.pair_of(groups) == ("a", second)


def test_a_factor_of_many_labels_weighs_as_many():
    """Factor a has nine labels, b two, c one."""
    factors = np.array([*"aaaaaaaaabbc"])
    # Every label .1 higher: so is the mean, whichever factors are drawn.
    drawn = superq.other_factors(np.full(12, 0.1), factors)
    assert drawn == pytest.approx((0.1, 0.1))
    # Factor a 1 higher: 9 of 12 labels, not one factor of three.
    sums, sizes = superq.factor_sums(np.repeat([1.0, 0], [9, 3]), factors)
    assert superq.mean_of_factors(sums, sizes, axis=0) == 0.75


def test_each_answer_has_its_scores_in_the_table():
    """Of two seeds the means, AUROC first."""
    runs = []
    for auroc in (0.7, 0.8):
        runs.append({"answers": {"forest": {"auroc": auroc, "auprc": 0.1}}})
    (row,) = superq.answer_rows(runs)
    assert row[:3] == ["- forest", "0.7500 ± 0.0707", "0.1000 ± 0.0000"]
    # A run that has one answer alone.
    assert superq.answer_rows([*runs, {"answers": {}}]) == []


def test_training_is_drawn_as_history_csv_has_it(runs):
    out = runs["danq"][0]
    figure = superq.draw_training(superq.read_runs([out]))
    history = read_table(out / "history.csv")
    panels = {"loss": figure.axes[0], "acc": figure.axes[1]}
    for key, axis in panels.items():
        # After the paper's lines: the run's, on training and on validation.
        for line, column in zip(axis.lines[-2:], (key, f"val_{key}"), strict=True):
            x, y = line.get_data()
            assert list(x) == [1, 2]
            np.testing.assert_allclose(y, [float(row[column]) for row in history])


def test_factors_are_the_labels_of_any_cell():
    names = ("TF|CTCF|A549", "TF|CTCF|liver|ENCFF1", "TF|UniPk|x", "CTCF in A549")
    factors = [danq.factor_of(name) for name in names]
    assert factors == ["TF|CTCF", "TF|CTCF", "TF|UniPk|x", "CTCF in A549"]
    rows = "column\tassay\tname\tfactor\n0\tTF\tctcf\tCTCF\n1\tTF\tx|y|z\t\n"
    Path("labels.tsv").write_text(rows.replace("z\t\n", "z\tMAX\n"))
    assert [label.factor for label in danq.load_labels(".", 2)] == ["CTCF", "MAX"]
    Path("labels.tsv").write_text(rows.replace("\t\n", "\n"))
    says = "labels.tsv, line 3: must be"
    with pytest.raises(danq.BadInput, match=says):
        danq.load_labels(".", 2)


# Three stretches of windows, which differ in AUPRC alone: without one of them it is
# .005 higher, the same, .005 lower. Jackknife: the root of 2/3 (.005^2 + .005^2), times
# Student's t of 2, 4.303.
APART = np.array([-0.01, 0, 0.01])[:, None, None] * [0, 1]
MARGIN = 0.0248


def test_cells_of_the_comparison_table_are_what_its_head_says(runs, monkeypatch):
    figures = captured_figures(monkeypatch)
    assays = ["TF", "TF", "TF", "DNase"]
    low = np.array([[0.6, 0.1], [0.7, 0.2], [0.5, 0.3], [0.8, 0.6]])
    high = low + [[0.05, 0.01], [-0.02, 0.02], [0.06, 0.03], [0.07, -0.04]]
    kmer = runs["kmer"][0]
    seconds = {"autoencoder": 30, "encodings": 4, "forest": 16}
    more = {"training_seconds": 50, "seconds": seconds, "model": "SuperQ"}
    danq_has = {"model": "DanQ", "training_seconds": 200, "seconds": {}}
    made_up_run("a", kmer, low + APART, assays, **danq_has)
    rebuilt = {"base_accuracy": 0.75}
    made_up_run("b", kmer, high + APART, assays, **more, reconstruction=rebuilt)
    superq.main("--compare a b --output c.md".split())
    head, _, danq_row, superq_row, chance, *_ = table_rows("c.md")
    assert head[1:4] == ["AUROC (TF DNase)", "AUPRC (TF DNase)", "F1 (TF DNase)"]
    assert danq_row[:4] == [
        "DanQ",
        "0.6500 (0.6000 0.8000)",
        "0.3000 (0.2000 0.6000)",
        "0.1500 (0.1000 0.3000)",
    ]
    assert superq_row[1:3] == ["0.6900 (0.6300 0.8700)", "0.3050 (0.2200 0.5600)"]
    assert superq_row[4] == "50 s (autoencoder 30 encodings 4 forest 16)"
    assert danq_row[5] == "1.000"
    assert superq_row[5] == "0.250"  # of DanQ's 200 seconds
    assert [danq_row[7], superq_row[7], chance[7]] == ["-", "0.7500", "0.25"]
    assert chance[1:3] == ["0.5", "0.1000 (0.1000 0.1000)"]

    axes = figures["c.png"].axes
    rows = [text.get_text() for text in axes[0].get_yticklabels()]
    assert rows == ["DanQ", "SuperQ"], "the best on top"
    for column in (0, 1):  # AUROC, AUPRC
        dots = []
        for line in axes[column].lines:
            if line.get_marker() == "o":
                dots.extend(line.get_xydata().tolist())
        expected = [[low[:, column].mean(), 0], [high[:, column].mean(), 1]]
        np.testing.assert_allclose(dots, expected)
        bars = []
        for line in axes[column].lines:
            if line.get_color() == ".5":
                bars.append(line.get_xdata())
        margin = (0, MARGIN)[column]
        expected = [[x - margin, x + margin] for x, _ in expected]
        np.testing.assert_allclose(bars, expected, atol=1e-4)
    for axis, assay in zip(figures["c-labels.png"].axes, ("TF", "DNase"), strict=True):
        own = np.array(assays) == assay
        x, y = axis.lines[0].get_data()
        np.testing.assert_allclose(x, low[own, 0])
        np.testing.assert_allclose(y, high[own, 0])
    titles = [axis.get_title() for axis in figures["c-labels.png"].axes]
    assert titles == ["TF: higher in 2 of 3 labels", "DNase: higher in 1 of 1 labels"]


def test_a_learning_curve_has_its_points_at_the_training_windows(runs, monkeypatch):
    """Three runs of k-mers at 40, 40 and 80 windows, both strands of each."""
    figures = captured_figures(monkeypatch)
    kmer = runs["kmer"][0]
    for name, n, score, times in (
        ("a", 40, 0.6, 1),
        ("b", 40, 0.7, 3),
        ("c", 80, 0.8, 1),
    ):
        scores = np.array([[score, score / 4]] * 3)
        made_up_run(name, kmer, scores + times * APART, train_windows=n)
        copy_run(name, f"seed-{name}", seed=ord(name))
    superq.main("--curve seed-c seed-a seed-b --output curve.md".split())
    head, _, row = table_rows("curve.md")
    assert head == ["AUROC / AUPRC", "40 windows", "80 windows"]
    deviation = np.std([0.6, 0.7], ddof=1)
    assert row[1] == f"0.6500 ± {deviation:.4f} / 0.1625 ± {deviation / 4:.4f}"
    assert row[2] == "0.8000 / 0.2000"
    for axis, margin in zip(figures["curve.png"].axes, (0, MARGIN), strict=True):
        band = axis.collections[0].get_paths()[0].vertices
        # At 40 windows once and three times the margin: on average twice.
        for windows, times in ((40, 2), (80, 1)):
            width = np.ptp(band[band[:, 0] == windows, 1])
            assert width == pytest.approx(2 * times * margin, abs=2e-4)
    points = [axis.lines[0].get_xydata() for axis in figures["curve.png"].axes]
    np.testing.assert_allclose(points[0], [[40, 0.65], [80, 0.8]])
    np.testing.assert_allclose(points[1], [[40, 0.1625], [80, 0.2]])
    # The same once more, by a --limit above all windows: no second seed.
    copy_run("seed-c", "d", limit=9000)
    superq.main("--curve seed-c d seed-a seed-b --output curve.md".split())
    assert table_rows("curve.md")[2][2] == "0.8000 / 0.2000"


def test_runs_of_other_labels_or_training_data_are_not_compared(runs, capsys):
    kmer = runs["kmer"][0]
    made_up_run("a", kmer, [[0.6, 0.1], [0.7, 0.2]])
    made_up_run("b", kmer, [[0.6, 0.1], [0.7, 0.2]], factors=["factor 1", "factor 0"])
    says = "b does not match a: the factors of their labels differ"
    check_one_line(capsys, says, superq.main, ["--compare", "a", "b"])
    rows = read_table("a/metrics.csv")
    shutil.copytree("a", "c")
    names = [rows[1]["name"], rows[0]["name"]]
    swapped = [row | {"name": name} for row, name in zip(rows, names, strict=True)]
    danq.write_csv(Path("c/metrics.csv"), swapped)
    says = "c does not match a: the names of their labels differ"
    check_one_line(capsys, says, superq.main, ["--compare", "a", "c"])
    files = read_json("a/args.json")["settings"]["data_files"]
    shutil.rmtree("c")
    (one,) = superq.read_runs(["a"])
    for key in ("train_sequences", "test_windows", "strands", "base_rate", "simulated"):
        with pytest.raises(danq.BadInput, match=f"{key} is other, not"):
            superq.check_comparable(one | {key: "other"}, one)
    copy_run("a", "c", data_files=files | {"train.mat": "another"}, seed=2)
    says = "c does not match a: another train.mat"
    check_one_line(capsys, says, superq.main, ["--compare", "a", "c"])


def test_seeds_become_a_mean_and_other_settings_rows_of_their_own(
    runs, capsys, monkeypatch
):
    figures = captured_figures(monkeypatch)

    def scored_run(name, auroc=0.5, windows=40, tested=10, **settings):
        copy_run(runs["kmer"][0], name, **settings)
        summary = read_json(f"{name}/summary.json")
        summary["means"]["all"]["auroc"] = auroc
        summary |= {
            "limit": windows,
            "train_windows": windows,
            "train_sequences": 2 * windows,
            "test_windows": tested,
        }
        Path(name, "summary.json").write_text(json.dumps(summary))

    def printed(flags):
        superq.main(flags.split())
        return capsys.readouterr().out

    for seed, auroc in enumerate((0.6, 0.7, 0.9)):
        scored_run(str(seed), auroc, seed=seed)
    scored_run("other", forest_trees=9)
    scored_run("larger", windows=41, backend="another")
    scored_run("far", tested=11)
    assert "k-mers -> forest (3 seeds) | 0.7333 ± 0.1528" in printed(
        "--compare 0 1 2 --output seeds.v1"
    )
    shutil.copytree("0", "again")  # the same seed, with other code perhaps
    table = printed("--compare 0 other again --output all.md")
    assert re.findall(r"(?m)^\| k-mers -> forest (\S+) \| \d", table) == [
        "[0]",
        "[other]",
        "[again]",
    ]
    record = read_json("1/args.json")
    Path("1/args.json").write_text(json.dumps(record | {"code": "other"}))
    says = "the runs of k-mers -> forest were made by different code"
    assert says in printed("--compare 0 1 --output seeds.v2")
    equal = "+0.0000 | +0.0000 to +0.0000 | +0.0000 to +0.0000"
    assert f"| k-mers -> forest [other] | k-mers -> forest [0] | AUROC | {equal}" in (
        table
    )
    assert "| tie |" in table
    assert "| k-mers -> forest | 0.6500 ± 0.0707 / " in printed(
        "--curve 0 1 larger --output curve.md"
    )
    assert {"seeds.v1.png", "curve.png"} <= figures.keys()
    Path("2/metrics.csv").write_text("".join(open("2/metrics.csv").readlines()[:3]))
    for flags, says in (
        ("--compare 0 larger", "limit is 41, not 40"),
        ("--compare 0 --output runs/", "is a folder"),
        ("--compare 0 2", r"2/metrics.csv is damaged \(it has 2 rows"),
        ("--curve 0 far", "0 and far have different test sets"),
    ):
        check_one_line(capsys, says, superq.main, flags.split())


# ---- nothing is lost


def check_same_run(folder, expected):
    """Weights, history but for seconds, scores: equal to the bit; nothing half-made."""
    weights, theirs = (danq.load_model(out).get_weights() for out in (folder, expected))
    assert all(np.array_equal(a, b) for a, b in zip(weights, theirs, strict=True))
    assert read_table(folder / "metrics.csv") == read_table(expected / "metrics.csv")
    history, theirs = (read_table(out / "history.csv") for out in (folder, expected))
    assert [row | {"seconds": ""} for row in history] == [
        row | {"seconds": ""} for row in theirs
    ]
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in expected.iterdir() if not path.is_dir()
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(killed, name):
    """By kill -9, or between any two writes: kill_danq, kill_superq."""
    folder, expected, printed = killed[name]
    assert re.search(r"going on after step [1-3] of epoch 1\n", printed)
    check_same_run(folder, expected)


def test_the_time_ahead_and_the_bar_are_of_whole_epochs(monkeypatch, capsys):
    """A run goes on in epoch 1 after 40 of its 160 steps; a step takes a second."""
    clock = [0.0]
    monkeypatch.setattr(danq.time, "time", lambda: clock[0])
    monkeypatch.setattr(danq.TimeAhead, "wait_for_device", lambda self: None)
    checkpoint = danq.Checkpoint(Path("none.npz"))
    checkpoint.step = 40
    args = argparse.Namespace(epochs=3, checkpoint_minutes=60, max_seconds=None)
    callbacks = [danq.EachStep(args, checkpoint), danq.TimeAhead(3, checkpoint)]
    for callback in callbacks:
        callback.set_params({"steps": 120})
        callback.on_epoch_begin(0)
    for step in range(120):
        clock[0] += 1
        for callback in callbacks:
            callback.on_train_batch_begin(step)
    assert (checkpoint.step, callbacks[0].bar.target) == (159, 160)
    # 3 * 160 seconds
    assert "at this rate training takes 8.0 minutes" in capsys.readouterr().out


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
        np.testing.assert_array_equal(
            file["train/Z"], np.concatenate([0 * Z[:40], Z[40:]])
        )
    assert not Path("run/encodings.part").exists()


@pytest.mark.parametrize("made", [0, 3, 10])
def test_the_time_of_encodings_counts_what_was_made_before_a_kill(monkeypatch, made):
    """Ten blocks of 2 s each, of which some were made; the last may be all."""
    clock = [100.0]
    monkeypatch.setattr(superq.time, "time", lambda: clock[0])

    def encode(bits):
        clock[0] += 2
        return bits

    split = split_of(random_sequences(20), np.zeros((20, 9), np.uint8))
    blocks = [(split, slice(i, i + 2)) for i in range(0, 20, 2)]
    part = Path("encodings.part")
    part.write_bytes(split.X[: 2 * made].tobytes())
    assert superq.encode_to_part(part, encode, blocks, row_bytes=500) == 20
    assert part.read_bytes() == split.X.tobytes()


def test_a_full_disk_gives_one_line_and_keeps_what_was_made(runs, capsys):
    """Files may have so many kB: in packing, stage 2, annotating, stage 3."""
    write_data()
    Path("x.fa").write_text(">a\n" + "ACGT" * 6000)
    expected, _, flags = runs["kmer"]
    shutil.copytree(expected, "copy")
    # These are larger than the encodings: there already.
    shutil.copytree(expected.parent / "packed", "runs/packed")
    flags = [*flags, "--out-dir", "runs/full"]
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for kilobytes, script, arguments, says in (
            (12, danq, ["--data-dir", "."], "npy"),
            (20, superq, flags, "part"),
            (60, superq, flags, "h5"),
            (1, danq, f"--predict x.fa --out-dir {runs['danq'][0]}".split(), "tsv"),
            (
                20,
                superq,
                "--out-dir copy --reuse-encodings --forest-trees 999".split(),
                "npz",
            ),
        ):
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
    spoilt[rng.integers(len(spoilt), size=n)] ^= rng.integers(
        1, 256, size=n, dtype=np.uint8
    )
    return spoilt.tobytes()


def predict(name):
    SCRIPTS[name].main(f"--predict ok.fa --out-dir {name}".split())


SPOILS = {
    "cut": lambda content, rng: content[
        : rng.integers(1, max(2, len(content) * 9 // 10))
    ],
    "flipped": flip,
    "empty": lambda content, rng: b"",
    "text": lambda content, rng: b"<html>404 not found</html>\n" * 20,
}
READERS = {
    "train.mat": lambda: danq.load_split(".", "train", "packed"),
    "more.fa.gz": lambda: superq.load_unlabelled("more.fa.gz", Path("packed")),
    "checkpoint.npz": lambda: danq.Checkpoint(Path("checkpoint.npz")),
    "danq/args.json": lambda: predict("danq"),
    "danq/model.keras": lambda: predict("danq"),
    "superq/forest.npz": lambda: predict("superq"),
    "superq/encodings.h5": lambda: superq.main(
        "--out-dir superq --reuse-encodings --forest-trees 2".split()
    ),
}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", READERS)
def test_spoilt_files_give_one_clear_line_or_the_right_result(
    runs, capsys, name, spoil
):
    run = name.split("/")[0]
    if run in runs:
        shutil.copytree(runs[run][0], run)
    write_data()
    Path("ok.fa").write_text(">ok\n" + "GATTACA" * 200)
    Path("more.fa.gz").write_bytes(gzip.compress(b">a\n" + b"GATTACAGATTACA\n" * 300))
    np.savez(
        "checkpoint.npz",
        state=json.dumps({"step": 1, "seconds": 0.0, "history": []}),
        v0=np.arange(99.0),
    )
    path = Path(name)
    path.write_bytes(SPOILS[spoil](path.read_bytes(), np.random.default_rng(len(name))))
    try:
        danq.command_line(READERS[name])
    except SystemExit as stop:
        code = stop.code
    else:
        assert spoil == "flipped", "this cannot have been read"
        return
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1, error
    assert run in error
    assert not [*Path().rglob("*.tmp*"), *Path().glob("*.tsv")]


def test_a_damaged_chunk_of_encodings_is_noticed(runs, capsys):
    """One bit of a number: without a checksum it would be another number."""
    shutil.copytree(runs["kmer"][0], "run")
    with h5py.File("run/encodings.h5") as file:
        place = file["train/Z"].id.get_chunk_info(0).byte_offset
    content = bytearray(Path("run/encodings.h5").read_bytes())
    content[place] ^= 1
    Path("run/encodings.h5").write_bytes(content)
    flags = "--out-dir run --reuse-encodings --forest-trees 2".split()
    check_one_line(capsys, "encodings.h5 is damaged", superq.main, flags)


# ---- faults, each by its kind


def predict_flags(runs, *more):
    """danq.py --predict x.fa with the shared run."""
    return ["--predict", "x.fa", "--out-dir", str(runs["danq"][0]), *more]


def write_fasta(path="x.fa", name="chr", n=1400):
    Path(path).write_text(
        f">{name}\n{letters_of(random_sequences(2).reshape(-1, 4))[:n]}"
    )


def copy_run(run, name, **settings):
    """A copy of a run whose args.json says that it had other settings."""
    shutil.copytree(run, name)
    record = read_json(f"{name}/args.json")
    record["settings"] |= settings
    Path(name, "args.json").write_text(json.dumps(record))


def test_keras_settings_of_another_project_change_nothing(runs):
    """superq was run in a home with others, danq in ours."""
    for name in SCRIPTS:
        weights = danq.load_model(runs[name][0]).weights
        assert {weight.dtype for weight in weights} == {"float32"}


def test_a_backend_that_is_not_installed_gives_one_line():
    process = start_python(HERE / "danq.py", KERAS_BACKEND="nonsense")
    _, error = process.communicate()
    assert process.returncode == 2
    assert re.fullmatch("KERAS_BACKEND nonsense cannot be used here .*\n", error)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("width", [60, 1_300_000])
def test_fasta_has_any_line_end_and_lines_of_any_length(end, width):
    """A header of more than a megabyte, then a record of more than a megabyte."""
    letters = "GATTACA" * 180_000
    lines = [letters[i : i + width] for i in range(0, len(letters), width)]
    text = [f">one {'of many words ' * 90_000}", *lines, ">two > words", "ACGT", ""]
    with open("x.fa", "w", newline="") as file:
        file.write(end.join(text))
    records = list(danq.fasta_records("x.fa"))
    assert records == [("one", letters.encode()), ("two", b"ACGT")]


def test_unnamed_labels_match_only_where_there_are_as_many(runs, capsys):
    def labels(n):
        names = [f"label_{i}" for i in range(n)]
        return [danq.Label(i, "labels", name, name) for i, name in enumerate(names)]

    trained = [{"name": f"label_{i}"} for i in range(9)]
    assert danq.match_labels(labels(9), trained) == (labels(9), list(range(9)))
    with pytest.raises(danq.BadInput, match="none of its 7 labels"):
        danq.match_labels(labels(7), trained)
    Path("other").mkdir()
    X, Y = random_data()
    with contextlib.chdir("other"):
        write_v5("test", X, Y[:, :7])
    flags = ["--out-dir", str(runs["danq"][0]), "--test-data", "other"]
    check_one_line(capsys, "none of its 7 labels", danq.main, flags)


def test_rows_in_the_order_a_c_g_t_are_warned_of(capsys):
    """By CpG, which mutates away; in random letters it is as common as GpC."""
    codes = danq.random_bases(np.random.default_rng(0), np.zeros((30, 1)))
    X = np.eye(4, dtype=np.uint8)[codes]
    Y = np.ones((30, 1), np.uint8)
    for rows, warned in ((X, 0), (X[..., [0, 2, 1, 3]], 1), (random_sequences(30), 0)):
        danq.warn_of_base_order("data", split_of(rows, Y))
        printed = capsys.readouterr().out
        assert printed.count("A, C, G, T in place of A, G, C, T") == warned


def test_a_run_of_another_backend_is_not_gone_on_with(runs, capsys):
    copy_run(runs["kmer"][0], "run", backend="torch")
    flags = [*runs["kmer"][2], "--out-dir", "run"]
    check_one_line(capsys, "its backend was torch, now", superq.main, flags)


# ---- faults: nothing is harmed


def test_equal_zipped_tables_are_equal_files():
    for name in ("a.tsv.gz", "b.tsv.gz"):
        with danq.new_text(Path(name)) as file:
            file.write("record\n")
        # Bytes 4 to 7 of a gzip file are its time.
        assert Path(name).read_bytes()[4:8] == bytes(4)
    assert Path("a.tsv.gz").read_bytes() == Path("b.tsv.gz").read_bytes()
    assert gzip.decompress(Path("a.tsv.gz").read_bytes()) == b"record\n"


def test_output_goes_through_links_and_to_standard_output(runs, capfd):
    write_fasta()
    Path("target.tsv").write_text("old")
    Path("link.tsv").symlink_to("target.tsv")
    danq.main(predict_flags(runs, "--output", "link.tsv"))
    table = Path("target.tsv").read_text()
    assert Path("link.tsv").is_symlink()
    assert table.startswith("record\tstart\tend\t")
    Path("stdout").symlink_to("/dev/stdout")
    capfd.readouterr()
    for name in ("-", "stdout"):
        danq.main(predict_flags(runs, "--output", name))
        printed, error = capfd.readouterr()
        assert printed == table
        assert error.endswith(f"7 bins (4 padded with N), 9 labels -> {name}\n")
    assert Path("stdout").is_symlink()
    for command in ("--predict", "--mutate"):
        flags = [command, "x.fa", "--out-dir", str(runs["danq"][0]), "--output", "-"]
        flags += ["--span", "2"] if command == "--mutate" else []
        danq.main(flags)
        printed = capfd.readouterr().out
        danq.main([*flags, "--plot", "p.png"])
        drawn, error = capfd.readouterr()
        assert drawn == printed
        assert "-> p.png and .svg\n" in error


def test_a_star_in_a_name_is_a_letter(runs):
    write_fasta()
    for name in ("a**b.tsv", "a[1].tsv"):
        path = Path(name)
        left = Path(f".{path.stem}.tmp-{platform.node()}-99999999.tsv")
        left.touch()  # of a process that was killed
        danq.main(predict_flags(runs, "--output", name))
        assert path.is_file()
        assert not left.exists()


def test_what_is_no_file_is_not_replaced(runs, capsys):
    write_fasta()
    os.mkfifo("pipe")
    for name in ("pipe", "/dev/null", "."):
        flags = predict_flags(runs, "--output", name)
        check_one_line(capsys, "is a folder or a device", danq.main, flags)
    assert Path("pipe").is_fifo()


def test_an_output_that_would_overwrite_its_input_is_refused(runs, capsys):
    write_fasta()
    shutil.copytree(runs["danq"][0], "run")
    Path("same.fa").symlink_to("x.fa")
    before = Path("x.fa").read_text()
    for name in ("x.fa", "same.fa", "run/metrics.csv"):
        flags = ["--predict", "x.fa", "--out-dir", "run", "--output", name]
        check_one_line(capsys, f"{name} would overwrite", danq.main, flags)
    assert Path("x.fa").read_text() == before


def test_leftovers_are_removed_where_their_process_is_gone():
    gone = subprocess.Popen(["true"])
    gone.wait()
    node = os.uname().nodename
    names = {
        f".p.tmp-{node}-{gone.pid}.tsv": False,
        f".p.tmp-{node}-{os.getpid()}.tsv": True,  # in use
        f".p.tmp-elsewhere-{gone.pid}.tsv": True,  # nobody here can tell
    }
    for name in names:
        Path(name).touch()
    with danq.locked(Path()):
        pass
    assert {name: Path(name).exists() for name in names} == names


def test_a_loss_that_is_nan_without_validation_keeps_the_last_good_epoch(
    capsys, monkeypatch
):
    write_data()
    flags = [*SMALL, *FOREST, "--paper", "--lstm-units", "0", "--data-dir", "."]
    flags += ["--epochs", "3"]
    monkeypatch.setattr(superq, "PAPER_RATE", 1e38)
    says = "diverged in its first epoch"
    check_one_line(capsys, says, superq.main, flags)
    flags.append("--restart")
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([5], [1e-3, 1e38])
    monkeypatch.setattr(superq, "PAPER_RATE", rate)
    superq.main(flags)
    assert "it diverged, loss" in capsys.readouterr().out
    training = read_json("runs/superq-paper/summary.json")["training"]
    assert (training["best_epoch"], training["epochs"]) == (2, 3)


# ---- faults: what is said is true


def test_a_file_system_without_locks_is_warned_of(capsys, monkeypatch):
    def lockf(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(danq.fcntl, "lockf", lockf)
    with danq.locked(Path("folder"), wait=True):
        assert "folder cannot be locked (Function not" in capsys.readouterr().out


def test_a_mac_counts_bytes(monkeypatch):
    here = danq.peak_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert danq.peak_memory() == pytest.approx(here / 1024, abs=0.05)


def test_too_little_memory_is_no_damage(capsys, monkeypatch):
    def loadmat(*args, **options):
        raise MemoryError("Unable to allocate 9 GiB")

    write_data()
    monkeypatch.setattr(scipy.io, "loadmat", loadmat)
    says = "valid.mat: not enough memory to read it .Unable to allocate 9 GiB"
    check_one_line(capsys, says, danq.main, ["--data-dir", "."])


def test_a_fault_of_ours_is_not_taken_for_one_of_the_file(monkeypatch):
    def pack_array(*args):
        raise AttributeError("ours")

    write_data()
    monkeypatch.setattr(danq, "pack_array", pack_array)
    for name in ("train", "valid"):
        with pytest.raises(AttributeError, match="ours"):
            danq.load_split(".", name, "packed")


def test_sparse_labels_are_read(capsys):
    X, Y = random_data()
    arrays = {
        "validxdata": X.transpose(0, 2, 1),
        "validdata": scipy.sparse.csc_matrix(Y),
    }
    scipy.io.savemat("valid.mat", arrays)
    split = danq.load_split(".", "valid", "packed")
    np.testing.assert_array_equal(split.labels(), Y)
    arrays["validdata"] = scipy.sparse.csc_matrix(Y * 2.5)
    scipy.io.savemat("valid.mat", arrays)
    says = "must hold 0 and 1 only, not 2.5"
    check_one_line(capsys, says, danq.load_split, ".", "valid", "packed")


LABELS = "column\tassay\tname\n0\tTF\tCTCF\n1\tTF\tMYC\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\ufeff" + LABELS + "\n\n", None),
        (LABELS.replace("\n", "\r\n"), None),
        ("no header\n" + LABELS, 1),
        (LABELS.replace("MYC", "MYC\tmore"), 3),
        (LABELS.replace("0\tTF", "1\tTF"), 2),
        (LABELS[:23], 2),
        (LABELS.replace("TF\tC", "\tC"), 2),
        (LABELS + "3\tTF\tMAX\n", 4),
    ],
)
def test_the_first_wrong_line_of_labels_is_named(capsys, text, line):
    Path("labels.tsv").write_bytes(text.encode())
    if line is None:
        expected = [(0, "TF", "CTCF", "CTCF"), (1, "TF", "MYC", "MYC")]
        assert danq.load_labels(".", 2) == expected
    else:
        check_one_line(capsys, f"labels.tsv, line {line}:", danq.load_labels, ".", 2)


def test_label_names_are_unique_whatever_they_are():
    names = ["CTCF", "CTCF", "CTCF|0", "CTCF|1", "MYC"]
    labels = danq.unique_labels([(i, "TF", name) for i, name in enumerate(names)])
    unique = [label.name for label in labels]
    assert unique == ["CTCF|0|0", "CTCF|1|1", "CTCF|0", "CTCF|1", "MYC"]


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "SuperQ from random filters"),
        ("--motif-start x.meme", "SuperQ from known motifs"),
        (
            "--motif-start x.meme --label-weight 0",
            "SuperQ from known motifs, labels for the forest alone",
        ),
        ("--label-weight 1", "SuperQ from random filters, label weight 1"),
        (
            "--motif-start x.meme --head-epochs 0",
            "SuperQ from known motifs, no head start",
        ),
        ("--head-epochs 3", "SuperQ from random filters, head first"),
        ("--digits none", "SuperQ from random filters, digits none"),
        (
            "--lstm-units 0 --move 4",
            "SuperQ from random filters, no BLSTM, windows moved by 4",
        ),
        ("--unlabelled x.fa", "SuperQ from random filters, + all unlabelled"),
        ("--paper", "SuperQ (paper)"),
        ("--ablation 3", "SuperQ, ablation 3"),
        (
            "--features untrained --lstm-units 0",
            "untrained encoder -> forest, no BLSTM",
        ),
        ("--features kmer --lstm-units 0", "k-mers -> forest"),
        ("--features pca --forest-projections 0", "PCA -> forest, direct forest"),
    ],
)
def test_a_run_is_named_after_what_differs_from_the_usual(flags, name):
    assert superq.run_name(superq.parse_args(flags.split())) == name


def test_names_in_figures_are_text(runs):
    write_fasta(name="g$x^$y")
    danq.main(predict_flags(runs, "--plot", "p.png"))
    assert "base of g$x^$y;" in Path("p.svg").read_text()


def wait_for(path, process):
    while not Path(path).exists() and process.poll() is None:
        time.sleep(0.01)


def test_a_stopped_command_says_where_it_goes_on_and_leaves_no_temporary_file(runs):
    """SIGTERM in annotation; Ctrl-C in training, beside it."""
    flags = [*runs["danq"][2], "--out-dir", "danq", "--epochs", "500"]
    flags += ["--patience", "500", "--lstm-units", "0"]
    training = start_python(HERE / "danq.py", *flags)
    Path("x.fa").write_text(">chr\n" + "GATTACA" * 300_000)
    annotation = start_python(HERE / "danq.py", *predict_flags(runs))

    while not list(Path().glob(".*.tmp-*")) and annotation.poll() is None:
        time.sleep(0.01)
    annotation.send_signal(signal.SIGTERM)
    annotation.communicate()
    assert annotation.returncode == 143

    wait_for("danq/checkpoint.npz", training)
    training.send_signal(signal.SIGINT)
    _, error = training.communicate()
    assert training.returncode == 130
    says = r"danq.py: interrupted; the same command goes on after step \d of epoch \d+"
    # All that the script itself says; TensorFlow's threads may have a last word.
    own = [line for line in error.splitlines() if line.startswith("danq.py")]
    assert len(own) == 1, error
    assert re.fullmatch(says, own[0])
    assert "Traceback" not in error
    assert sorted(os.listdir()) == ["danq", "packed", "x.fa"]


def test_a_pipe_is_not_read_twice(capsys):
    write_data()
    os.mkfifo("x.fa")
    flags = [*SMALL, "--data-dir", ".", "--unlabelled", "x.fa"]
    check_one_line(capsys, "is read twice: give a file, not a pipe", superq.main, flags)


def test_motifs_look_for_moved_data_where_they_are_told(runs, data_dir, capsys):
    copy_run(runs["danq"][0], "run", data_dir="/nowhere")
    flags = ["--motifs", "m.meme", "--out-dir", "run"]
    check_one_line(capsys, "/nowhere/test.mat is missing", danq.main, flags)
    danq.main([*flags, "--data-dir", str(data_dir)])
    assert Path("m.meme").is_file()


def test_the_content_of_data_decides_not_their_date_or_folder(capsys):
    flags = [*SMALL, *FOREST, "--features", "kmer"]
    Path("data").mkdir()
    with contextlib.chdir("data"):
        write_data()
    superq.main(flags)
    os.utime("data/train.mat", (1, 1))
    superq.main(flags)
    shutil.copytree("data", "copy")
    superq.main([*flags, "--data-dir", "copy"])
    assert capsys.readouterr().out.count("finished already") == 2
    with contextlib.chdir("data"):
        Path("labels.tsv").write_text(
            "column\tassay\tname\n" + "".join(f"{i}\tTF\tf{i}\n" for i in range(9))
        )
    says = "runs/kmer: labels.tsv is not what it began with"
    check_one_line(capsys, says, superq.main, flags)
    os.remove("data/labels.tsv")
    with contextlib.chdir("data"):
        write_v5("valid", *random_data(seed=9))
    says = "runs/kmer: valid.mat is not what it began with"
    check_one_line(capsys, says, superq.main, flags)


def test_a_command_that_failed_before_it_began_binds_nothing(capsys):
    write_data()
    flags = [*SMALL, *FOREST, "--data-dir", ".", "--epochs", "1"]
    Path("m.meme").write_text(MEME)
    wrong = ["--motif-start", "m.meme"]  # with --filters 4: found as training begins
    check_one_line(capsys, "needs more than 32 filters", superq.main, [*flags, *wrong])
    assert not Path("runs/superq/args.json").exists(), "else it would refuse others"


def test_other_code_is_warned_of_and_nothing_more(runs, capsys):
    copy_run(runs["kmer"][0], "run")
    record = read_json("run/args.json")
    Path("run/args.json").write_text(json.dumps(record | {"code": "other"}))
    superq.main([*runs["kmer"][2], "--out-dir", "run"])
    printed = capsys.readouterr().out
    assert "run was begun by another version of the code" in printed
    assert "finished already" in printed
    # Nor does a run that goes on forget which code began it.
    Path("run/summary.json").unlink()
    superq.main([*runs["kmer"][2], "--out-dir", "run"])
    assert read_json("run/args.json")["code"] == "other"


def test_scores_on_other_data_have_a_place_of_their_own(runs, data_dir, capsys):
    shutil.copytree(runs["kmer"][0], "run")
    for folder in ("a/mouse", "b/mouse"):
        shutil.copytree(data_dir, folder)
    flags = ["--out-dir", "run", "--limit", "20", "--test-data"]
    superq.main([*flags, "a/mouse"])
    says = "test-mouse holds the scores of another run or other data"
    check_one_line(capsys, says, superq.main, [*flags, "b/mouse"])
    superq.main([*flags, "b/mouse", "--output", "second"])
    assert Path("second/metrics.csv").is_file()
    superq.main(["--compare", "run/test-mouse"])
    assert Path("comparison.md").is_file(), "beside the run, not in it"
    # A run that was killed: it can go on.
    Path("killed").mkdir()
    Path("killed/args.json").write_text("{}")
    for name in ("checkpoint.npz", "history.csv", "model.keras"):
        Path("killed", name).touch()
        says = "killed holds a run: name a new folder"
        check_one_line(
            capsys, says, superq.main, [*flags, "b/mouse", "--output=killed"]
        )
        Path("killed", name).unlink()
    assert Path("killed/args.json").read_text() == "{}"


def test_the_place_for_scores_is_tried_before_scoring(runs, data_dir, capsys):
    def score(rows):
        pytest.fail("it was scored first")

    Path("file").touch()
    flags = ["--test-data", str(data_dir), "--out-dir", str(runs["danq"][0])]
    args = danq.parse_args([*flags, "--output", "file/x"])
    check_one_line(capsys, "file/x: Not a directory", danq.score_elsewhere, args, score)


def test_runs_are_told_apart_by_settings_in_tables_and_curves(
    runs, capsys, monkeypatch
):
    captured_figures(monkeypatch)
    kmer = runs["kmer"][0]
    copy_run(kmer, "a", seed=1)
    copy_run(kmer, "b", seed=2)
    copy_run(kmer, "c", forest_trees=10)
    Path("nothing").mkdir()
    folders = [str(runs["danq"][0]), "a", "b", "c", "nothing"]
    superq.main(["--compare", *folders, "--output", "-"])
    table = capsys.readouterr().out
    for row in ("k-mers -> forest [a] (2 seeds) |", "k-mers -> forest [c] |"):
        assert f"| {row}" in table
    pairs = re.findall(r"(?m)^\| ([^|]*?) \| ([^|]*?) \| AUROC", table)
    one, other = "k-mers -> forest [a]", "k-mers -> forest [c]"
    assert pairs == [(one, "DanQ"), (other, "DanQ"), (other, one)], "each pair once"
    assert "Without a result: nothing" in table
    superq.main(["--curve", *folders[1:4], "--output", "curve"])
    curve = Path("curve.md").read_text()
    assert "| k-mers -> forest [a] | 0." in curve
    assert "| k-mers -> forest [c] | 0." in curve


def test_output_names_are_heeded(runs):
    write_fasta()
    danq.main(predict_flags(runs, "--output", "x.tsv.gz"))
    with gzip.open("x.tsv.gz", "rt") as file:
        assert next(file).startswith("record\tstart")


def executable(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    Path(path).chmod(0o755)


def fake_environment():
    """A python that writes down how it is called; --paper ends with a fault.

    It finishes runs, makes demo data and measures speed without doing anything.
    """
    shutil.copy(HERE / "run_all.sh", ".")
    Path("requirements.txt").write_text("tensorflow==2\n# jax==1\n")
    Path(".real").mkdir()
    track = "TF\tone\tgroup/peaks\tcommit\ta.bed\n"
    Path(".real/tracks.tsv").write_text(f"the head\n{track}")
    executable(".venv/bin/python", FAKE_PYTHON)
    # One with CUDA will do on a CPU, too.
    Path(".venv/installed.txt").write_text("tensorflow[and-cuda]==2\n# jax==1\n")


FAKE_PYTHON = f"""#!/bin/bash
[[ $1 == - ]] && exec {shlex.quote(sys.executable)} "$@"
printf "%s\\n" "$*" >> calls
case "$*" in
    *danq.devices*) echo "${{DEVICE:-cpu:0}}" ;;
    *--paper*) exit 2 ;;
    *--benchmark*)
        mkdir -p runs
        echo '{{"rows": {{"training, batches of 9": {{"rate": 1000}}}}}}' \\
            > runs/benchmark-$3.json
        exit ;;
esac
while (( $# )); do
    case $1 in
        --out-dir)
            mkdir -p "$2"
            echo '{{"model": "M", "seconds": {{"train": 1}}, "peak_memory_gb": 1}}' \\
                > "$2/summary.json" ;;
        --make-demo-data) mkdir -p "$2"; echo MOTIF > "$2/motifs.meme" ;;
        --make-data) mkdir -p "$2" ;;
    esac
    shift
done
"""

# What a Mac's tools refuse, as patterns of the shell.
REFUSED = {
    "stat": "*",
    "realpath": "*",
    "nproc": "*",
    "timeout": "*",
    "find": "*' -printf '*|*' -quit '*",
    "date": "*' -d '*|*%N*",
    "readlink": "*' -f '*",
    "sed": "*' -i '*|*' -z '*|*' --'*",
    "grep": "*' -P '*|*' -oP '*|*' --'*",
    "mktemp": "*' --'*",
    "head": "*' -n -'*",
    "tail": "*' --'*",
    "xargs": "*' -r '*",
}


def run_all(*flags, **settings):
    """run_all.sh with a Mac's tools, and before them those in bin/."""
    for name, pattern in REFUSED.items():
        executable(
            f"mac/{name}",
            f'#!/bin/sh\ncase " $* " in {pattern}) '
            f'echo "{name} $*" >> {shlex.quote(str(Path.cwd()))}/refused; exit 1;; '
            f'esac\nexec {shutil.which(name)} "$@"\n',
        )
    path = f"{Path.cwd()}/bin:{Path.cwd()}/mac:{os.environ['PATH']}"
    usual = {"CPU": "1", "KERAS_BACKEND": "tensorflow", "PATH": path}
    usual["BASH_COMPAT"] = "3.2"
    run = subprocess.run(
        ["bash", "run_all.sh", *flags],
        capture_output=True,
        text=True,
        env=os.environ | usual | settings,
    )
    assert not Path("refused").exists(), Path("refused").read_text()
    return run


def calls(*words):
    """The lines in which the python of fake_environment was called with these words."""
    if not Path("calls").exists():
        return []
    lines = Path("calls").read_text().splitlines()
    return [line for line in lines if all(word in line for word in words)]


def stages():
    """{run: its flags} of the calls with data, in their order."""
    found = {}
    for line in calls("--data-dir"):
        words = line.split()
        out_dir = words[words.index("--out-dir") + 1]
        found[Path(out_dir).name] = line
    return found


def check_refusal(run, says):
    """One line on stderr, exit code 2."""
    assert run.returncode == 2, run
    assert run.stderr.count("\n") == 1, run.stderr
    assert says in run.stderr


def gpu(name="GPU 0: one"):
    executable("bin/nvidia-smi", f"#!/bin/sh\necho {name}\n")
    return {"CPU": "", "DEVICE": "gpu:0"}


NOWHERE = {"DEEPSEA_URL": "file:///no", "TRACKS_URL": "file:///no"}
NOWHERE |= {"GENOME_URL": "file:///no", "JASPAR_URL": "file:///no"}


def test_run_all_goes_on_after_a_fault_and_prints_commands_that_work():
    fake_environment()
    Path("data").mkdir()
    settings = {
        "DATA": "data",
        "RUNS": "my runs",
        "CPU": "1",
        "SUPERQ_FLAGS": "--epochs 6 --forest-trees 500 --forest-leaf=30",
        "KERAS_BACKEND": "tensorflow",
    }
    run = run_all(**settings)
    assert run.returncode == 0, run.stderr
    for features in ("kmer", "gc", "untrained", "pca"):
        (call,) = calls(f"--features {features}")
        assert "--forest-trees 500 --forest-leaf=30" in call
        assert "--epochs" not in call
    assert "without a result (see above): my runs/superq-paper" in run.stdout
    (compared,) = calls("--compare")
    assert "my runs/superq-paper" in compared
    # --compare wants folders, of runs that failed at once, too.
    assert Path("my runs/superq-paper").is_dir()
    predict = next(line for line in run.stdout.splitlines() if "--predict" in line)
    words = shlex.split(predict.removeprefix("|"))
    assert words[words.index("--out-dir") + 1] == "my runs/superq"


def test_a_run_of_other_settings_is_not_in_the_table():
    """It lies where a stage that was refused would have written."""
    fake_environment()
    Path("data").mkdir()
    Path("runs/superq-paper").mkdir(parents=True)
    Path("runs/superq-paper/summary.json").write_text("{}")
    run = run_all(DATA="data", EPOCHS="2", MOTIFS="", RUNS="runs")
    assert run.returncode == 0, run.stderr
    assert "without a result (see above): runs/superq-paper-epochs2" in run.stdout
    (compared,) = calls("--compare")
    assert "runs/superq-paper-epochs2" in compared
    Path("runs/superq-paper-epochs2/summary.json").write_text("{}")
    Path("calls").unlink()
    run = run_all(DATA="data", EPOCHS="2", RUNS="runs")
    (compared,) = calls("--compare")
    assert "superq-paper" not in compared


def test_epochs_reach_the_yardstick_that_has_a_network():
    fake_environment()
    Path("data").mkdir()
    Path("known.meme").write_text("MOTIF")
    run = run_all(DATA="data", EPOCHS="2", MOTIFS="known.meme", SEEDS="5 7 5")
    assert run.returncode == 0, run.stderr
    (motifs,) = calls("--features motifs")
    assert "--epochs 2" in motifs
    (chosen,) = calls("--features chosen")
    assert "--epochs" not in chosen
    # A seed that stands twice is the same run twice, not another's folder.
    seeds = {}
    for call in calls("--seed", "superq.py"):
        words = call.split()
        folder = words[words.index("--out-dir") + 1]
        seeds.setdefault(folder, words[words.index("--seed") + 1])
        assert f"--seed {seeds[folder]}" in call


def test_run_all_says_what_it_takes():
    fake_environment()
    run = run_all("--help")
    assert run.returncode == 0
    assert run.stdout == run_all("-h").stdout
    head = Path("run_all.sh").read_text().split("set -euo")[0]
    for option in set(re.findall(r"--[a-z]+", head)):
        assert option in run.stdout
    assert "bash 3.2" not in run.stdout  # that is for who changes it
    assert not calls()
    check_refusal(run_all("--curvy"), "takes one word or none: --demo, ")
    check_refusal(run_all("--demo", "--real"), "takes one word or none: --demo, ")


def test_real_data_are_fetched_and_made():
    """From file:// in place of the network, with a python that makes no data."""
    fake_environment()
    shutil.copy(HERE / ".real/tracks.tsv", ".real")
    table = Path(".real/tracks.tsv").read_text().splitlines()[1:]
    assert len(table) == 177
    zipped = []
    for line in table:
        _, _, repository, commit, path = line.split("\t")
        assert re.fullmatch("[0-9a-f]{40}", commit)
        peaks = Path("peaks", repository, path)
        peaks.parent.mkdir(parents=True, exist_ok=True)
        peaks.write_text("20\t0\t500\n")
        if path.endswith(".gz"):
            peaks.write_bytes(gzip.compress(b"20\t0\t500\n"))
            zipped.append(peaks)
    Path("20.fa.gz").write_bytes(gzip.compress(b">20\nACGT\n"))
    here = Path.cwd().as_uri()
    settings = NOWHERE | {
        "TRACKS_URL": f"{here}/peaks/",
        "GENOME_URL": f"{here}/20.fa.gz",
    }

    whole = zipped[0].read_bytes()
    zipped[0].write_bytes(whole[:-4])
    says = f"{zipped[0].name} cannot be fetched: put it by hand at {Path.cwd()}/real/"
    check_refusal(run_all("--real", **settings), says)

    zipped[0].write_bytes(whole)
    # A disk that is full as the table is written: no table with fewer tracks.
    if os.path.exists("/dev/full"):  # Macs have none
        os.remove("real/tracks.part")
        Path("real/tracks.part").symlink_to("/dev/full")
        assert run_all("--real", **settings).returncode == 2
        assert not calls("--make-data")
        os.remove("real/tracks.part")

    run = run_all("--real", LIMIT="2000", **settings)
    assert run.returncode == 0, run.stderr
    made = Path("real/tracks.tsv").read_text().splitlines()
    assert made[0] == "assay\tname\tfile"
    for line, original in zip(made[1:], table, strict=True):
        assay, name, file = line.split("\t")
        assert original.startswith(f"{assay}\t{name}\t")
        assert Path("real", file).is_file()
    (made_data,) = calls("--make-data")
    assert "--valid chr20:50000000-54000000 --test chr20:54000000-" in made_data
    assert calls("--data-dir real/data", "/danq-real-limit2000")


FIRST_OF_CHAIN = ["danq", "danq-motifs", "superq", "superq-random", "superq-no-labels"]
OTHERS_OF_CHAIN = [
    "motifs",
    "chosen",
    "kmer",
    "gc",
    "cpg",
    "untrained",
    "pca",
    "superq-paper",
]


def test_run_all_without_data_or_gpu_is_the_demo():
    fake_environment()
    for flags, settings in (([], {}), (["--demo"], gpu())):
        run = run_all(*flags, **settings)
        assert run.returncode == 0, run.stderr
        first, rest = run.stdout.split("\n== ", 2)[1:]
        assert "SIMULATED" in first
        assert run.stdout.index("the next step up") < run.stdout.index("sh --real")
        assert [name.removesuffix("-demo") for name in stages()] == [
            *FIRST_OF_CHAIN,
            *OTHERS_OF_CHAIN,
        ]
        (compared,) = calls("--compare")
        assert "superq-paper" not in compared, "it sees fewer windows"
        (made,) = calls("--make-demo-data")
        assert made.endswith("--make-demo-data runs/demo-data")
        assert "--label-weight 0" in stages()["superq-no-labels-demo"]
        for script in ("danq", "superq"):
            run = f"runs/{script}-demo --motifs runs/motifs-{script}-demo.meme"
            assert calls(f"{script}.py --out-dir {run}")
        for name in ("danq-motifs-demo", "superq-demo"):
            call = stages()[name]
            assert "--motif-start runs/demo-data/motifs.meme" in call
            # The last of several is taken; there are 104 motifs.
            assert call.rindex("--filters 136") == call.rindex("--filters")
        assert "--lstm-units" not in stages()["superq-paper-demo"], (
            "a narrow one is tame"
        )
        Path("calls").unlink()
        shutil.rmtree("runs")


def test_run_all_starts_networks_from_motifs_where_there_are_some():
    """MOTIFS, else JASPAR's for real DNA; what began without goes on without."""
    fake_environment()
    Path("data").mkdir()
    Path("data/train.mat").touch()
    Path("known.txt").write_text("MOTIF one\n")
    Path("page.html").write_text("<html>not here</html>")
    settings = NOWHERE | {"JASPAR_URL": Path("page.html").absolute().as_uri()}
    run = run_all(RUNS="without", **settings)
    assert run.returncode == 0, run.stderr
    assert "All filters start at random" in run.stdout
    assert not Path("jaspar.meme").exists()
    assert not calls("--motif-")
    assert list(stages())[:3] == ["danq", "danq-ours", "superq"]
    assert "--recipe 2016" in stages()["danq"]
    assert "--recipe ours" in stages()["danq-ours"]

    Path("calls").unlink()
    Path("without/superq/args.json").write_text('{\n "motif_start": null\n}')
    settings["JASPAR_URL"] = Path("known.txt").absolute().as_uri()
    run_all(RUNS="without", **settings)
    assert not calls("--motif-")
    Path("calls").unlink()
    run_all(RUNS="with", **settings)
    assert Path("jaspar.meme").read_text() == "MOTIF one\n"
    assert list(stages()) == [*FIRST_OF_CHAIN, *OTHERS_OF_CHAIN]
    assert "--recipe ours" in stages()["danq-motifs"]
    assert "--motif-start jaspar.meme" in stages()["danq-motifs"]
    assert "--motif-start jaspar.meme" in stages()["superq"]
    assert "--motif-start jaspar.meme" in stages()["superq-no-labels"]
    assert "motif" not in stages()["superq-random"]
    assert "--motif-file jaspar.meme" in stages()["motifs"]

    Path("calls").unlink()
    run_all(DATA="data", **settings)
    assert not calls("--motif-"), "not everybody's data are a vertebrate's"
    run_all(DATA="data", MOTIFS="known.txt", **settings)
    assert "--motif-start known.txt" in stages()["superq"]
    check_refusal(run_all(MOTIFS="page.html"), "MOTIFS=page.html is no file of motifs")


def test_run_all_curve_has_every_method_at_every_size():
    fake_environment()
    Path("known.meme").write_text("MOTIF one\n")
    Path("real").mkdir()
    Path("mine").symlink_to("real")
    settings = {"SIZES": "500 all", "SEEDS": "1 2", "DANQ_SEEDS": "3"}
    run = run_all("--curve", DATA="mine", MOTIFS="known.meme", **settings)
    assert run.returncode == 0, run.stderr
    names = ["superq", "superq-random", "superq-no-labels"]
    names = [f"{name}-seed{seed}" for seed in (1, 2) for name in names]
    names += ["kmer", "motifs", "chosen", "danq-seed3", "danq-motifs-seed3"]
    expected = [f"{name}-windows{n}" for n in ("500", "all") for name in names]
    assert list(stages()) == expected
    for name, call in stages().items():
        assert ("--limit 500" in call) == ("windows500" in name)
        assert re.findall(r"-seed (\d)", call) == re.findall(r"-seed(\d)", name)
    assert len(calls("--test-data mine")) == len(expected)
    assert len(calls("danq.py", "--test-data mine")) == 4
    (curve,) = calls("--curve")
    for name in expected:
        assert f"runs/{name}/test-real" in curve


CHANGES_OF_STUDY = {
    **{f"ablation{n}": f"--ablation {n}" for n in range(5)},
    **{f"weight{n}": f"--label-weight {n}" for n in (0, 1, 10, 100)},
    "no-head": "--head-epochs 0",
    "not-moved": "--move 0",
    "no-lstm": "--lstm-units 0",
    "digits-random": "--digits random",
    "digits-none": "--digits none",
    # Once and three times 2 x 2,000 labelled sequences.
    "unlabelled1": "--unlabelled-limit 4000",
    "unlabelled3": "--unlabelled-limit 12000",
    "direct": "--forest-projections 0",
}


def test_run_all_study_full_and_speed():
    fake_environment()
    run = run_all("--study", EPOCHS="3")
    assert run.returncode == 0, run.stderr
    assert len(stages()) == 18
    # All are compared with SuperQ as it is.
    table, on_all = calls("--compare")
    first = "runs/study-weight10-demo-limit2000-epochs3"
    assert f"--compare {first} " in table
    # LIMIT takes test windows, too: a second table has all of them.
    assert len(calls("--test-data")) == 18
    assert f"--compare {first}/test-demo-data " in on_all
    assert on_all.count("/test-demo-data ") == 18
    # What a run is called is what it changes.
    for name, change in CHANGES_OF_STUDY.items():
        call = stages()[f"study-{name}-demo-limit2000-epochs3"]
        assert f" {change} " in f"{call} ", name
    # The steps from 2018 to ours, and one more, begin at random; the others do not.
    at_random = [name for name, call in stages().items() if "--motif-start" not in call]
    assert len(at_random) == 6
    assert "study-random-demo-limit2000-epochs3" in at_random
    for name, call in stages().items():
        assert name.endswith("-demo-limit2000-epochs3")
        assert "--limit 2000" in call
        # The last of several is taken.
        assert call.rindex("--epochs 3") == call.rindex("--epochs")

    Path("calls").unlink()
    run = run_all("--full", LIMIT="40")
    assert run.returncode == 0, run.stderr
    assert calls("--make-demo-data runs/full-40-data --limit 40")
    names = ["danq-epochs1", "superq-epochs1", "superq-no-labels-epochs1"]
    assert list(stages()) == [*names, "kmer-epochs1"]
    assert run.stdout.count("M: train 1 s; 1 GB at most") == 4

    run = run_all("--speed", LIMIT="7")
    assert run.returncode == 0, run.stderr
    assert len(calls("--benchmark both --limit 7")) == 3
    assert len(calls("--benchmark both", "--mixed-precision")) == 1


def test_run_all_with_a_gpu_reproduces_the_paper():
    """The bundle from file://; then what is done where it cannot be had."""
    fake_environment()
    settings = gpu() | NOWHERE
    run = run_all("--deepsea", **settings)
    assert run.returncode == 2
    assert "the DeepSEA bundle cannot be had" in run.stderr.splitlines()[-1]
    shutil.rmtree("runs")

    run = run_all(**settings)
    assert run.returncode == 0, run.stderr
    first = run.stdout.split("\n== ")[1]
    for said in ("the DeepSEA bundle, 4 GB", "70 GB of disk", "run_all.sh --demo"):
        assert said in first
    # 4.4 million sequences at 1,000 a second.
    for script in ("danq.py", "superq.py"):
        assert f"{script}: 1,000 sequences a second, 1.2 hours an epoch" in run.stdout
    assert "danq-demo" in stages(), "the last thing left"

    Path("peaks").mkdir()
    Path("peaks/group/peaks").mkdir(parents=True)
    Path("peaks/group/peaks/a.bed").write_text("chr20\t0\t9\n")
    Path("chr20.fa.gz").write_bytes(gzip.compress(b">chr20\nACGT\n"))
    settings["TRACKS_URL"] = Path("peaks").absolute().as_uri()
    settings["GENOME_URL"] = Path("chr20.fa.gz").absolute().as_uri()
    Path("calls").unlink()
    run = run_all(**settings)
    assert run.returncode == 0, run.stderr
    assert "danq-real" in stages()
    assert "danq-demo" not in stages()

    Path("bundle").mkdir()
    for split in danq.SPLITS:
        Path(f"bundle/{split}.mat").write_text(split)
    shutil.make_archive("bundle", "gztar", ".", "bundle")
    bundle = Path("bundle.tar.gz").absolute()
    settings["DEEPSEA_URL"] = f"file:///no {bundle.as_uri()}"
    run = run_all(**settings)
    assert run.returncode == 0, run.stderr
    assert sorted(os.listdir("data")) == ["test.mat", "train.mat", "valid.mat"]
    assert not Path("data.part").exists()
    assert "--data-dir data " in stages()["danq"]


def test_a_download_goes_on_where_it_stopped_or_begins_anew():
    """A part of the bundle; one of another file; a whole one that a kill left."""
    fake_environment()
    Path("bundle").mkdir()
    for split in danq.SPLITS:
        Path(f"bundle/{split}.mat").write_bytes(random_words(1, 500).tobytes())
    shutil.make_archive("bundle", "gztar", ".", "bundle")
    whole = Path("bundle.tar.gz").read_bytes()
    executable(
        "bin/curl",
        f"#!/bin/sh\ncat data.part/*.part 2>/dev/null | wc -c >> had\n"
        f'exec {shutil.which("curl")} "$@"\n',
    )
    Path("jaspar.meme").write_text("MOTIF one\n")
    settings = gpu() | {"DEEPSEA_URL": Path("bundle.tar.gz").absolute().as_uri()}
    for part, sizes in (
        (whole[:100], ["100"]),
        (b"x" * 100, ["100", "0"]),
        (b"x" * 100_000, ["100000", "0"]),
        (whole, []),
    ):
        Path("had").write_text("")
        Path("data.part").mkdir()
        Path("data.part/bundle.tar.gz.part").write_bytes(part)
        run = run_all("--deepsea", **settings)
        assert run.returncode == 0, run.stderr
        assert Path("had").read_text().split() == sizes
        shutil.rmtree("data")


def fake_python3(*works):
    """No python but a python3.12 whose `-m NAME` works for these names alone."""
    for name in ("python3", "python3.13", "python3.11", "python"):
        executable(f"bin/{name}", "#!/bin/sh\nexit 1\n")
    fake = '#!/bin/sh\necho "$*" >> calls\ncase "$*" in\n-c*) exit 0;;\n'
    for words in works:
        fake += f'*"{words}"*) mkdir -p .venv/bin; cp fake .venv/bin/python; exit 0;;\n'
    executable("bin/python3.12", f"{fake}*) exit 1;;\nesac\n")
    executable("fake", FAKE_PYTHON)


def test_run_all_makes_its_environment_without_ensurepip():
    for works, made_by in (
        (["-m venv"], "-m venv"),
        (["--without-pip", "-m pip --python"], "-m pip --python"),
        (["-m virtualenv"], "-m virtualenv"),
    ):
        fake_environment()
        shutil.rmtree(".venv")
        fake_python3(*works)
        run = run_all("--setup")
        assert run.returncode == 0, run.stderr
        assert Path(".venv/installed.txt").read_text() == "tensorflow==2\n# jax==1\n"
        assert calls("-m pip install", "wanted.txt")
        made = [call for call in calls() if made_by in call and ".venv" in call]
        assert made
        for path in (".venv", ".real"):
            shutil.rmtree(path)
    fake_environment()
    shutil.rmtree(".venv")
    fake_python3()
    check_refusal(run_all("--setup"), "apt install python3-venv")
    executable("bin/python3.12", "#!/bin/sh\nexit 1\n")
    check_refusal(run_all("--setup"), "needs Python 3.11, 3.12 or 3.13")
    assert not Path(".venv").exists()


def test_an_environment_for_a_gpu_is_made_where_none_is():
    fake_environment()
    fake_python3("-m venv")
    run = run_all("--setup", GPU="1", CPU="", KERAS_BACKEND="jax")
    assert run.returncode == 0, run.stderr
    stamp = Path(".venv/installed.txt").read_text()
    assert stamp == "tensorflow[and-cuda]==2\njax[cuda12]==1\n"
    Path("calls").unlink()
    run = run_all("--setup", KERAS_BACKEND="jax")
    assert run.returncode == 0, run.stderr
    assert not calls(), "one with CUDA will do on a CPU, too"


def test_a_gpu_that_keras_does_not_see_stops_the_run():
    fake_environment()
    assert danq.devices()[0].startswith("cpu"), "what run_all.sh asks for"
    reason = "echo W more >&2; echo 'no libcudart' >&2"
    fake = FAKE_PYTHON.replace(
        "case", f'case "$*" in *tensorflow*) {reason};; esac\ncase', 1
    )
    executable(".venv/bin/python", fake)
    says = "nvidia-smi sees a GPU and Keras none (tensorflow says: no libcudart)"
    check_refusal(run_all(**gpu() | {"DEVICE": "cpu:0"}), says)
    assert not stages()


def test_a_gpu_that_only_the_libraries_of_pip_show():
    fake_environment()
    libraries = Path(".venv/lib/python3.12/site-packages/nvidia/cudnn/lib").absolute()
    libraries.mkdir(parents=True)
    fake = FAKE_PYTHON.replace("${DEVICE:-cpu:0}", "$device")
    with_libraries = f"[[ ${{LD_LIBRARY_PATH:-}} == {libraries}:/mine ]] && device=gpu"
    fake = fake.replace("case", f"device=cpu\n{with_libraries}\ncase", 1)
    executable(".venv/bin/python", fake)
    run = run_all("--demo", **gpu() | {"LD_LIBRARY_PATH": "/mine"})
    assert run.returncode == 0, run.stderr
    assert "computes on: gpu" in run.stdout


@pytest.mark.parametrize(
    ("system", "says"),
    [
        ("MINGW64_NT-10.0 x86_64", "Windows: run this in WSL2"),
        ("Darwin x86_64", "an Intel Mac"),
        ("Darwin arm64", None),
    ],
)
def test_run_all_on_other_systems(system, says):
    """Apple's GPU is left alone."""
    fake_environment()
    name, processor = system.split()
    answer = f"[ $1 = -m ] && echo {processor} || echo {name}"
    executable("bin/uname", f"#!/bin/sh\n{answer}\n")
    fake = FAKE_PYTHON.replace("printf", "echo jax $JAX_PLATFORMS >> calls\nprintf", 1)
    executable(".venv/bin/python", fake)
    run = run_all("--demo", **gpu())
    if says:
        check_refusal(run, says)
    else:
        assert run.returncode == 0, run.stderr
        assert calls("jax cpu")
        assert not calls("danq.devices"), "there is no GPU to look for"


@pytest.mark.parametrize("script", SCRIPTS)
def test_windows_gets_one_line(script):
    code = f"import sys; sys.modules['fcntl'] = None; import {script}"
    process = start_python("-c", code)
    printed, error = process.communicate()
    assert process.returncode == 2
    assert printed == ""
    assert re.fullmatch(r"error: .*WSL2.*\n", error)


# ---- documents


def test_every_command_of_the_documents_parses():
    names = ("README.md", ".github/NOTES.md", "run_all.sh")
    files = [(HERE / name).read_text() for name in names]
    text = "\n".join([*files, danq.__doc__, superq.__doc__])
    # A command may go on in the next line, and a word may be quoted.
    text = re.sub(r"\s\\\n\s+", " ", text)
    word = r"(?:'[^']*'|[^\s`|)'])+"
    commands = re.findall(
        rf"python (danq|superq|test_superq)\.py((?: (?!#|  ){word})*)", text
    )
    parsers = {
        "danq": danq.parse_args,
        "superq": superq.parse_args,
        "test_superq": benchmark_args,
    }
    assert len(commands) > 8
    for script, flags in commands:
        parsers[script](shlex.split(flags))


def test_shell_script_is_sound_and_refuses_bad_settings():
    subprocess.run(["bash", "-n", HERE / "run_all.sh"], check=True)
    text = (HERE / "run_all.sh").read_text()
    # A Mac's bash is 3.2, where an empty array is an error under set -u.
    newer = r"\$\{\w+(,|\^|@)|(declare|local) -[nA]|mapfile|readarray|&>>|\|&|=\(\)"
    newer += r"|\[-1\]|\[\[ -v|EPOCHSECONDS"
    assert not re.search(newer, text)
    assert max(map(len, text.splitlines())) <= 100
    for bad in ("EPOCHS=0", "LIMIT=x", "DATA=/nowhere", "SEEDS=1,2", "--tset"):
        command = (
            ["env", bad, "bash", HERE / "run_all.sh"]
            if "=" in bad
            else ["bash", HERE / "run_all.sh", bad]
        )
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1
        assert bad.split("=")[0] in run.stderr


# ---- the benchmarks measure what they say


def test_floating_point_operations_by_hand():
    conv = 975 * 26 * 4 * 5
    blstm = 75 * 2 * 4 * (5 * 3 + 3 * 3)
    dense = 75 * 6 * 925 + 925 * 7
    assert flops(danq.build_danq(7, 5, 3)) == 2 * (conv + blstm + dense)
    scans = 2 * 405 * 16 * 4 * 5
    steps = 2 * 27 * 2 * 4 * (5 * 3 + 3 * 3)
    code = (200 + 4 * 5 + 2 * 6) * 250
    assert flops(superq.encoder_of(superq.build_autoencoder(5, 3, 7))) == 2 * (
        250 * 4 * 4 + scans + steps + code
    )


def test_benchmarks_measure_every_stage(benchmarks):
    """At the smallest size. The benchmark itself compares packed copies."""
    rows = {}
    for record, printed in benchmarks.values():
        assert all(
            f"| {what} |" in printed and row["rate"] > 0
            for what, row in record["rows"].items()
        )
        assert record["versions"]["keras"]
        assert record["matrix_product_flop_s"] > 0
        rows |= record["rows"]
    assert re.search(r"of 10: SuperQ trains \d+.\d times", benchmarks["both"][1])
    assert rows.keys() > {f"packing, chunks: {chunks}" for chunks in CHUNKINGS} | {
        "feeding batches of 10",
        "training, batches of 10",
        "prediction, batches of 10",
        "encoding",
        "forest, 4 trees x 919 labels, 120 rows",
        "danq: training, batches of 10",
        "superq: prediction, batches of 10",
    }


def test_the_answers_of_a_run_that_knows_its_sites(monkeypatch, capsys):
    """The mean knows where factors bind, the label output nothing, the forest less."""
    sites_of = {}
    simulate = danq.simulate

    def noted(rng, n, motifs, sites):
        drawn = simulate(rng, n, motifs, sites)
        sites_of.update(zip(map(bytes, drawn[0]), sites, strict=True))
        return drawn

    def trained_scores(out_dir, answer):
        assert out_dir == Path("runs/danq"), "a Path, as the scripts have it"

        def score(bits):
            X = danq.onehot(bits)
            bound = sites_of[bytes(X[0])]
            P = np.zeros((len(X), 919))
            for row, x in enumerate(X[1:], 1):
                place = np.flatnonzero((x != X[0]).any(1))[0]
                # A label's factor: 125 + 1 is a multiple of six.
                P[row] = bound[place, np.arange(919) % 6]
            knows = {"mean": 1, "forest": np.arange(919) % 16 < 8, "label output": 0}
            return 0.3 * P * knows[answer]

        return score, True

    monkeypatch.setattr(danq, "simulate", noted)
    monkeypatch.setattr(superq, "trained_scores", trained_scores)
    benchmark("--benchmark answers --limit 12".split())
    lines = capsys.readouterr().out.splitlines()
    found = [re.match(r"(.*): AUROC (\S+)", line).groups() for line in lines]
    assert found[2] == ("mean", "1.000")
    assert found[1] == ("label output", "0.500")
    assert 0.6 < float(found[0][1]) < 0.9


# ---- benchmarks

FULL = 4_400_000  # training sequences of the DeepSEA bundle
SECONDS = 20.0  # that a network is measured for
MATRIX = 2048  # rows of its yardstick's matrices
BATCHES = 100, 500, 2000  # of --benchmark both
CHUNKINGS = {  # HDF5 chunks of (1000, 4, n) bases and (K, n) labels
    "contiguous": lambda shape: None,
    "whole sequences": lambda shape: (*shape[:-1], min(64, shape[-1])),
    "whole rows": lambda shape: (1, *shape[1:]),
    "tiles": lambda shape: (min(100, shape[0]), *shape[1:-1], min(10_000, shape[-1])),
    "h5py's guess": lambda shape: True,
}


class Measured:
    """Time and peak memory of a block; row(n): a row of the table, for n sequences."""

    def __enter__(self):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self.started = time.time()
        return self

    def __exit__(self, *error):
        self.seconds = time.time() - self.started
        self.gb = danq.peak_memory()

    def row(self, n, **more):
        return {"n": n, "rate": n / self.seconds, "gb": self.gb, **more}


def flops(network):
    """Floating-point operations of a sample's forward pass.

    A multiplication and an addition for each weight and place.
    """
    total = 0
    pooled = any(isinstance(layer, superq.KmerCounts) for layer in network.layers)
    for layer in network.layers:
        for node in layer._inbound_nodes:
            places = math.prod(node.output_tensors[0].shape[1:-1])
            places *= (
                2 if pooled and layer.name.startswith("motif_") else 1
            )  # both strands, as rows of the batch
            total += (
                2
                * places
                * sum(
                    math.prod(weight.shape)
                    for weight in layer.weights
                    if len(weight.shape) > 1
                )
            )
    return total


def random_split(folder, n, K=919):
    """A packed split of n random sequences x K random labels: it teaches nothing."""
    rng = np.random.default_rng(0)
    pairs = np.add.outer([128, 64, 32, 16], [8, 4, 2, 1]).astype(np.uint8).ravel()
    np.save(
        folder / "X.npy",
        pairs[rng.integers(16, size=(n, danq.LENGTH // 2), dtype=np.uint8)],
    )
    Y = np.bitwise_and.reduce(
        rng.integers(256, size=(6, n, -(-K // 8)), dtype=np.uint8)
    )  # one label in 64
    Y[:, -1] &= 256 - (1 << -K % 8)
    np.save(folder / "Y.npy", Y)
    X, Y = (np.load(folder / f"{key}.npy", mmap_mode="r") for key in "XY")
    return danq.Split(X, Y, K, n, simulated=True)


def write_chunked(path, split, chunking):
    """Write a packed split as a train.mat in one of CHUNKINGS, gzipped if chunked."""
    with h5py.File(path, "w") as file:
        for key, array in (
            ("trainxdata", danq.onehot(split.X).transpose(1, 2, 0)),
            ("traindata", split.labels().T),
        ):
            chunks = CHUNKINGS[chunking](array.shape)
            options = (
                {"chunks": chunks, "compression": "gzip", "compression_opts": 1}
                if chunks
                else {}
            )
            file.create_dataset(key, data=array, **options)


def evict(path):
    """Drop a file from the system's page cache, so that it is read from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def release(split):
    """Let go of a packed split's mapped pages: they would count as this process'."""
    for array in (split.X, split.Y):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def benchmark_packing(path, folder):
    """Read train.mat without packing; then pack it: (Split, row), both from disk."""
    only_read = mock.patch.multiple(
        danq, as_bits=lambda tile, *_: tile, add_bits=lambda *_: None
    )
    evict(path)
    with (
        only_read,
        danq.open_mat(path, ("trainxdata", "traindata")) as (X, Y, _),
        Measured() as alone,
    ):
        for array in (X, Y):
            danq.pack_array(array, folder / "nothing.npy", "")
    evict(path)
    with Measured() as it:
        split = danq.load_split(path.parent, "train", folder)
    n = len(split)
    share = alone.seconds / it.seconds
    beside = (
        f"h5py alone reads {n / alone.seconds:,.0f} sequences/s, {share:.0%} of that"
    )
    return split, it.row(n, of_it=share, beside=beside)


def benchmark_feeding(batches):
    """Draw batches without a network: a row of the table."""
    with Measured() as it:
        n = sum(len(batches[step][0]) for step in range(min(len(batches), 5000)))
    return {f"feeding batches of {batches.batch_size}": it.row(n)}


def benchmark_network(model, batches):
    """Train and predict for about SECONDS each, after a first step: two rows."""
    order = batches.order
    size = batches.batch_size
    rows = {}

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
        rows[f"{name}, batches of {size}"] = it.row(
            steps * size, flop=passes * flops(model.layers[-1])
        )
    return rows


def benchmark_danq(args, folder, source):
    rows = {}
    for chunking in CHUNKINGS:
        write_chunked(folder / "train.mat", source, chunking)
        release(source)
        split, rows[f"packing, chunks: {chunking}"] = benchmark_packing(
            folder / "train.mat", folder
        )
        assert np.array_equal(split.X, source.X), chunking
        assert np.array_equal(split.Y, source.Y), chunking
    batches = danq.Batches(split, args.batch_size, args.seed, move=args.move)
    with danq.all_devices(args.batch_size):
        return (
            rows
            | benchmark_feeding(batches)
            | benchmark_network(compiled("danq", args, split), batches)
        )


def benchmark_superq(args, folder, split):
    batches = danq.Batches(split, args.batch_size, args.seed, move=args.move)
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
            model = compiled(name, own, split)
            batches = danq.Batches(split, size, own.seed, move=own.move)
            for what, row in benchmark_network(model, batches).items():
                epochs = epochs_of_deepsea(own)
                rows[f"{name}: {what}"] = row | {"epochs": epochs}
        speed, theirs = (
            rows[f"{name}: training, batches of {size}"]["rate"]
            for name in ("superq", "danq")
        )
        print(
            f"batches of {size}: SuperQ trains {speed / theirs:.1f} times as fast "
            "as DanQ",
            flush=True,
        )
    return rows


def epochs_of_deepsea(args):
    """How many a training on the whole bundle has; DanQ's do not depend on the data."""
    if args.epochs:
        return args.epochs
    return superq.settle_training(args, FULL // 2).epochs  # both strands of each window


def benchmark_encoding(args, folder, split):
    """Encode all rows: a row of the table."""
    autoencoder = danq.load_model(folder)
    encode = superq.encodings_of(autoencoder, superq.recipe_of(args), args.move)
    labels = [danq.Label(i, "", "", "") for i in range(split.n_labels)]
    encode(split.X[: args.batch_size])  # compiles
    with Measured() as it:
        superq.write_encodings(
            folder / "encodings.h5",
            encode,
            {"train": split},
            labels,
            {},
            args.batch_size,
            one_strand=False,
        )
    views = 3 if args.move else 1
    flop = views * flops(superq.encoder_of(autoencoder))
    return {"encoding": it.row(len(split), flop=flop)}


def benchmark_forest(args, path):
    """The forest on all rows, not projected: run_all.sh --full fits it at full size."""
    with h5py.File(path) as file, Measured() as it:
        Z = file["train/Z"]
        Y = file["train/Y"]
        forest = superq.fit_forest(
            Z,
            Y,
            args.forest_trees,
            args.forest_leaf,
            args.forest_samples,
            args.forest_projections,
            args.seed,
        )
        name = (
            f"forest, {args.forest_trees} trees x {Y.shape[1]} labels, {len(Z):,} rows"
        )
        n = len(Z)
    return {
        name: it.row(
            n,
            full_seconds=None,
            beside=f"{it.seconds:,.0f} s, {len(forest['means']):,} leaves",
        )
    }


def matrix_product_rate(times=10):
    """Floating-point operations a second of the backend's own matrix product."""
    ones = keras.ops.ones((MATRIX, MATRIX))
    for _ in range(2):  # the first time it compiles
        with Measured() as it:
            for _ in range(times):
                keras.ops.convert_to_numpy(keras.ops.matmul(ones, ones)[0, 0])
    return 2 * MATRIX**3 * times / it.seconds


def benchmark_answers(out_dir, n):
    """Print how well each answer of SuperQ finds the bases that a factor binds by.

    On n windows of the demo's rules that the run has not seen: every base of the middle
    200 is changed to each other one. AUROC of |change of probability|, a base's three
    changes averaged, for bases inside the factor's sites against those outside; mean
    over every eighth of the factor's labels, then over windows and factors.
    """
    # The motifs of --make-demo-data, other windows.
    motifs = danq.random_motifs(np.random.default_rng(1337))
    sites = np.zeros((n, 1000, danq.FACTORS), bool)
    X, _, _ = danq.simulate(np.random.default_rng([1337, 99]), n, motifs, sites)
    for answer in ("forest", "label output", "mean"):
        score, _ = superq.trained_scores(out_dir, answer)
        found = []
        for x, bound in zip(X, sites[:, 400:600], strict=True):
            P = score(danq.packed(every_change(x)))
            effects = np.abs(P[1:] - P[0]).reshape(200, 3, -1).mean(1)
            for factor in np.flatnonzero(bound.any(0)):
                # Labels 125..814 are TF; label k is of factor k % 6.
                labels = range(126 + factor, 815, 8 * danq.FACTORS)
                found.append(
                    np.mean(
                        [roc_auc_score(bound[:, factor], effects[:, k]) for k in labels]
                    )
                )
        error = 1.96 * np.std(found, ddof=1) / len(found) ** 0.5
        print(
            f"{answer}: AUROC {np.mean(found):.3f} +- {error:.3f} (95 %, over "
            f"{len(found)} windows with a site), chance .5",
            flush=True,
        )


def every_change(x):
    """x (1000, 4), and each base of its middle 200 changed to each other one.

    (601, 1000, 4); an N becomes three of the four bases.
    """
    changed = [x]
    for i in range(400, 600):
        others = np.flatnonzero(x[i] == 0)[:3]
        for base in others:
            other = x.copy()
            other[i] = np.eye(4)[base]
            changed.append(other)
    return np.array(changed)


def print_benchmark(rows, path, script, epochs):
    """Print {what: row} as a table and write it to `path` as JSON.

    With the time that the DeepSEA bundle would take.
    """
    product = matrix_product_rate()
    about = danq.surroundings(script)
    training = next(row["rate"] for name, row in rows.items() if "training" in name)
    print(
        f"\n{about['machine']}; {', '.join(about['device'])}; "
        f"Keras {keras.__version__} on {about['backend']}; "
        f"{time.strftime('%F')}; matrix product {product / 1e9:,.0f} GFLOP/s\n\n"
        f"| what | sequences/s | peak memory | {FULL / 1e6:.1f} million take | beside |"
        "\n|---|---|---|---|---|"
    )
    for name, row in rows.items():
        passes = row.get("epochs", epochs) if "training" in name else 1
        beside = row.get("beside", "")
        if name.startswith("feeding"):
            beside = f"{row['rate'] / training:,.0f} times the training's rate"
        if "flop" in row:
            row["flop_s"] = row["flop"] * row["rate"]
            beside = (
                f"{row['flop'] / 1e9:.3f} GFLOP each: "
                f"{row['flop_s'] / 1e9:,.0f} GFLOP/s, "
                f"{row['flop_s'] / product:.0%} of the matrix product's"
            )
        row["projected_seconds"] = seconds = row.get(
            "full_seconds", FULL * passes / row["rate"]
        )
        unit, each = ("h", 3600) if (seconds or 0) >= 3600 else ("min", 60)
        span = (
            f"{seconds / each:,.1f} {unit}" + f" ({passes} epochs)" * (passes > 1)
            if seconds
            else "-"
        )
        print(
            f"| {name} | {row['rate']:,.0f} | {row['gb']:.2f} GB | {span} | {beside} |"
        )
    danq.write_json(path, about | {"matrix_product_flop_s": product, "rows": rows})
    print(f"-> {path}")


def benchmark_args(argv):
    """The name of the script to measure, and its arguments."""
    parser = danq.Parser(
        description="Measure every stage of a script; all its flags are taken, too."
    )
    parser.add_argument(
        "--benchmark", choices=(*SCRIPTS, "both", "answers"), required=True
    )
    chosen, flags = parser.parse_known_args(argv)
    args = SCRIPTS.get(chosen.benchmark, danq).parse_args(flags)
    args.flags = flags
    return chosen.benchmark, args


def benchmark(argv=None):
    """Measure every stage; print a table, also benchmark-NAME.json beside --out-dir."""
    name, args = benchmark_args(argv)
    if name == "answers":
        benchmark_answers(Path(args.out_dir), args.limit or 60)
        return
    home = danq.packed_dir(args.out_dir).parent
    home.mkdir(parents=True, exist_ok=True)
    measure = {
        "danq": benchmark_danq,
        "superq": benchmark_superq,
        "both": benchmark_both,
    }[name]
    with tempfile.TemporaryDirectory(prefix="benchmark", dir=home) as folder:
        rows = measure(
            args, Path(folder), random_split(Path(folder), 2 * (args.limit or 10_000))
        )
    print_benchmark(
        rows,
        home / f"benchmark-{name}.json",
        "superq.py" if name == "both" else f"{name}.py",
        epochs_of_deepsea(args),
    )


if __name__ == "__main__":
    danq.command_line(benchmark)
