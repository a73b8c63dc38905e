"""DanQ: annotate the function of DNA from its sequence alone (Quang & Xie 2016).

    one-hot (1000, 4) -> conv motif scan -> max-pool -> BLSTM -> dense -> 919 probabilities

    python danq.py                                   train, test: data/{train,valid,test}.mat -> runs/danq/
    python danq.py --limit 8000 --epochs 4           the first 8,000 windows, both strands
    python danq.py --test-data mouse                 score runs/danq on another folder's test.mat -> runs/danq/test-mouse/
    python danq.py --predict seqs.fa --output out.tsv           annotate your own sequences with runs/danq
    python danq.py --benchmark                       speed and memory of every stage -> runs/benchmark-danq.json
    python danq.py --make-demo-data data-demo        write a small SIMULATED data set in DeepSEA's layouts

Writes args.json, history.csv (a row an epoch), model.keras (the best epoch), training.json, metrics.csv (a row a label)
and summary.json into --out-dir, and a bit-packed copy of the data into packed/ beside it. On the whole DeepSEA bundle
(4.4 million sequences, 919 labels) the paper reports a mean test AUROC of 0.938 after days on a 2015 GPU; on two cores of
a 2025 server the full network trains at about 100 sequences a second.

superq.py imports its data, training loop, scoring and bookkeeping from here.
"""
import argparse
import ast
import contextlib
import csv
import fcntl
import gzip
import hashlib
import itertools
import json
import math
import mmap
import os
import platform
import resource
import sys
import tempfile
import time
import zlib
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import scipy.io

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")      # a backend's start-up chatter would bury the one line of an error
stderr, silence = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(silence, 2)
try:
    import keras
    from keras import layers
finally:
    os.dup2(stderr, 2)
    os.close(stderr), os.close(silence)
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

LENGTH = 1000                                           # bases in a sequence
BASES = "AGCT"                                          # DeepSEA's order: reversing it complements a base
SPLITS = ("train", "valid", "test")
DEEPSEA_BLOCKS = {"DNase": (0, 125), "TF": (125, 815), "histone": (815, 919)}
CHUNK_LIMIT = 512 << 20                                 # bytes: HDF5 holds a chunk whole while it is read
MEASURES = ("auroc", "auprc", "f1", "recall_at_10fdr")
# Test means over 918 labels of the DeepSEA bundle: (all, DNase, TF, histone). Quang & Xie 2016.
PUBLISHED = {
    "DeepSEA (2015)": {"auroc": (.9326, .9155, .9478, .8522), "auprc": (.3425, .4443, .3203, .3676)},
    "DanQ (2016)": {"auroc": (.9384, .9208, .9535, .8596), "auprc": (.3709, .4636, .3520, .3850)},
    "DanQ-JASPAR (2016)": {"auroc": (.9417, .9246, .9569, .8622), "auprc": (.3794, .4752, .3606, .3883)},
}


class BadInput(Exception):
    """A fault of the input, told in one line: what is wrong, where, and what to do."""


# ---------------------------------------------------------------- data: .mat -> packed bits -> batches

Split = namedtuple("Split", "X Y n_labels windows strands simulated source")
Split.__doc__ = """One packed split.

X : memmap (n, 500) uint8, np.packbits of the one-hot (1000, 4);  Y : memmap (n, ceil(K / 8)) uint8, packed labels
n_labels : K;  windows : rows to score (n / 2 where both strands are there, else n)
strands : bool, rows windows..n are the reverse complements of rows 0..windows
simulated : bool;  source : size and time stamp of the file it was packed from
"""


@contextlib.contextmanager
def replacing(path):
    """Yield a path beside `path` to write to; rename it into place when all went well, remove it otherwise."""
    path = Path(path)
    if not path.name:
        raise BadInput(f"{path} is a folder: name a file")
    beside = path.with_name(f".{path.stem}.tmp{os.getpid()}{path.suffix}")
    try:
        with naming(path):
            yield beside
            with open(beside, "rb") as file:
                os.fsync(file.fileno())                 # whole on the disk before it takes the name
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path):
    """Name the file in an OSError that does not: one of a full disk knows none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def reading(path, advice="copy or download it again", errors=Exception):
    """Tell in one line whatever a damaged file makes a library raise: each has its own exceptions, and garbage finds more."""
    try:
        yield
    except MemoryError as error:
        raise BadInput(f"{path} does not fit into memory") from error
    except errors as error:
        if isinstance(error, BadInput) or isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadInput(f"{path} is damaged ({first_line(error)}): {advice}") from error


def read_json(path, *keys):
    """The record that a run wrote to `path`; BadInput where it is no JSON or lacks one of the keys."""
    with reading(path, "give --restart to start anew"):
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        for key in keys:
            record[key]
        return record


def sweep(folder):
    """Remove what `replacing` left half-written in a folder when its process was killed."""
    for path in Path(folder).glob(".*.tmp[0-9]*"):
        try:
            os.kill(int(path.name.split(".tmp")[1].split(".")[0]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, PermissionError):           # not ours, or alive
            pass


def lock(folder):
    """Hold the folder until this process ends. Raises BadInput where another process holds it, and names that."""
    if os.path.realpath(folder) in LOCKS:
        return
    file = open(folder / ".lock", "a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        raise BadInput(f"{folder} is in use by {file.read().strip() or 'another run'}: "
                       f"wait for it, or use another --out-dir") from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T')}")
    file.flush()
    LOCKS[os.path.realpath(folder)] = file


LOCKS = {}                                              # open files: closing one would let its folder go


def claim(path, size):
    """Take `size` bytes of disk for a file before they are written: on a full disk memory maps and HDF5 crash."""
    with open(path, "ab") as file:
        os.posix_fallocate(file.fileno(), 0, size)


@contextlib.contextmanager
def new_hdf5(path, size):
    """A new HDF5 file for which `size` bytes of disk are claimed; at the end it is cut to what it holds."""
    claim(path, size)
    with h5py.File(path, "w") as file:
        claim(path, size)
        yield file
        file.flush()
        end = file.id.get_filesize()
    os.truncate(path, end)


def write_json(path, record):
    with replacing(path) as beside:
        beside.write_text(json.dumps(record, indent=1) + "\n")


def progress(total, unit="sequence"):
    """A progress bar on a terminal, silence elsewhere."""
    return keras.utils.Progbar(total, verbose=int(sys.stdout.isatty()), unit_name=unit)


@contextlib.contextmanager
def open_mat(path, keys):
    """Yield ([array of each key, None where there is none], simulated) of a .mat file, in HDF5's order of axes.

    MATLAB v7.3 is HDF5 and stores axes reversed; MATLAB v5 is read whole (the format caps a variable at 2 GB).
    Raises BadInput for a broken file.
    """
    with contextlib.ExitStack() as stack:
        with reading(path, "it must be a whole MATLAB v5 or v7.3 file: copy or download it again"):
            if h5py.is_hdf5(path):
                mat = stack.enter_context(h5py.File(path))
                arrays = [mat.get(key) for key in keys]
            else:
                mat = scipy.io.loadmat(path, variable_names=[*keys, "simulated"])
                arrays = [mat[key].T if key in mat else None for key in keys]
        yield arrays, "simulated" in mat


def first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_layout(path, arrays):
    """Raise BadInput unless the arrays, {name: array}, are (1000, 4, N) and, where there are labels, (K, N) with N, K >= 1."""
    for key, array in arrays.items():
        if not hasattr(array, "shape"):
            raise BadInput(f"{path} has no variable {key}: it must hold {' and '.join(arrays)}")
        if array.dtype.kind not in "buif":
            raise BadInput(f"{path}: {key} holds {array.dtype}, not numbers")
    (xkey, X), *labels = arrays.items()
    if len(X.shape) != 3 or X.shape[:2] != (LENGTH, 4) or X.shape[2] < 1:
        raise BadInput(f"{path}: {xkey} has shape {X.shape} in HDF5 order, must be ({LENGTH}, 4, N) "
                       f"(in MATLAB N x 4 x {LENGTH})")
    for ykey, Y in labels:
        if len(Y.shape) != 2 or Y.shape[0] < 1 or Y.shape[1] != X.shape[2]:
            raise BadInput(f"{path}: {ykey} has shape {Y.shape} in HDF5 order, must be (K, {X.shape[2]}): "
                           f"a column for each of the {X.shape[2]} sequences of {xkey}")


def pack_bits(tile, offset=0, block=1 << 16):
    """Pack a 0/1 uint8 array (rows, n) eight rows to a byte, the first row at bit `offset` of its byte: (n, bytes).

    Without offset equal to np.packbits(tile.T, axis=1), a row at a time in pieces that stay in the cache: ten times faster.
    """
    out = np.zeros((-(-(offset + len(tile)) // 8), tile.shape[1]), np.uint8)
    for i in range(0, tile.shape[1], block):
        for row, bits in enumerate(tile[:, i:i + block], offset):
            out[row // 8, i:i + block] |= bits << (7 - row % 8)
    return out.T


def as_bits(tile, where, row, columns):
    """Check that a tile, from `row` on and of these columns of the array `where`, holds 0 and 1 only; return it as uint8."""
    if tile.dtype.kind not in "bu" or tile.max() > 1:
        good = (tile == 0) | (tile == 1)
        for at in np.argwhere(~good)[:1]:
            place = ", ".join(map(str, [row + at[0], *at[1:-1], columns[at[-1]]]))
            raise BadInput(f"{where} must hold 0 and 1 only, holds {tile[tuple(at)]} at [{place}]: "
                           f"the file is damaged or not DeepSEA's")
    return tile.astype(np.uint8, copy=False)


def spans(total, chunk, size):
    """Cut range(total) into (start, stop) of at most `size`, at chunk borders as far as `size` allows."""
    if size >= chunk:
        size = size // chunk * chunk
        return [(i, min(i + size, total)) for i in range(0, total, size)]
    return [(j, min(j + size, i + chunk, total))
            for i in range(0, total, chunk) for j in range(i, min(i + chunk, total), size)]


def plan_tiles(shape, chunks, itemsize, budget):
    """Row spans and sequence spans whose tiles stay within `budget` bytes and read HDF5 chunks once where that allows it.

    shape : (1000, 4, N) or (K, N);  chunks : the same for a chunk, None for a contiguous array.
    Whole sequences where chunks are narrow enough; else whole rows of chunks; a chunk larger than the budget in pieces.
    """
    rows, n = shape[0], shape[-1]
    cell = itemsize * (4 if len(shape) == 3 else 1)     # bytes of one row of one sequence
    chunk_rows, chunk_n = (chunks[0], min(chunks[-1], n)) if chunks else (1, 1)
    whole = budget // (rows * cell)
    if whole >= chunk_n:
        return [(0, rows)], spans(n, chunk_n, whole)
    if (fit := budget // (chunk_n * cell)) >= chunk_rows:
        return spans(rows, chunk_rows, fit), spans(n, chunk_n, chunk_n)
    return spans(rows, chunk_rows, chunk_rows), spans(n, chunk_n, max(1, budget // (chunk_rows * cell)))


TILE = 128 << 20                                        # bytes of a .mat in a tile: one is packed while the next is read


def pack_array(source, wanted, path, where, budget=TILE):
    """Stream the `wanted` sequences of source, (1000, 4, N) or (K, N), to a packed .npy of shape (len(wanted), bytes).

    Memory: two tiles of `budget` bytes, as much of packed bits, and HDF5's own copy of one chunk.
    """
    chunks = getattr(source, "chunks", None)
    if chunks and math.prod(chunks) * source.dtype.itemsize > CHUNK_LIMIT:
        raise BadInput(f"{where} has HDF5 chunks of {math.prod(chunks) / 1e9:.1f} GB, too large to read in bounded "
                       f"memory: rechunk it (h5repack -l CHUNK={'x'.join(map(str, source.shape[:-1]))}x256 IN OUT)")
    rows, columns = plan_tiles(source.shape, chunks, source.dtype.itemsize, budget)
    cells = 4 if len(source.shape) == 3 else 1
    shape = (len(wanted), -(-source.shape[0] * cells // 8))
    np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    claim(path, os.path.getsize(path))
    bar, held, done = progress(len(rows) * len(columns), "tile"), [], 0
    for row, pick, (r0, r1), tile in ahead(read_tiles(source, wanted, rows, columns)):
        tile = as_bits(tile, where, r0, pick)
        part = pack_bits(tile.reshape(-1, tile.shape[-1]), r0 * cells % 8)
        if r0 * cells % 8:                              # the first byte was begun by the tile before
            held[-1][:, -1] |= part[:, 0]
            part = part[:, 1:]
        if part.shape[1]:                               # else all its rows belonged to that byte
            held.append(part)
        if r1 == source.shape[0] or (r1 * cells % 8 == 0 and sum(part.size for part in held) > budget):
            done += write_columns(path, row, done, held)
            held = []
        if r1 == source.shape[0]:
            done = 0
        bar.add(1)


def read_tiles(source, wanted, rows, columns):
    """Yield (row of the packed array, columns of source, row span, tile) for the wanted sequences of each tile."""
    for start, stop in columns:
        lo, hi = np.searchsorted(wanted, (start, stop))
        pick = wanted[lo:hi]
        for r0, r1 in rows if hi > lo else ():
            tile = source[r0:r1, ..., pick[0]:pick[-1] + 1]
            yield lo, pick, (r0, r1), tile[..., pick - pick[0]] if len(pick) < tile.shape[-1] else tile


def ahead(items):
    """Iterate over a generator, which makes the next item in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def write_columns(path, row, column, parts, block=100_000):
    """Write packed parts side by side at (row, column) of a packed .npy, in blocks that keep few pages mapped."""
    width = sum(part.shape[1] for part in parts)
    for i in range(0, len(parts[0]), block):
        piece = np.hstack([part[i:i + block] for part in parts])
        out = np.load(path, mmap_mode="r+")
        out[row + i:row + i + len(piece), column:column + width] = piece
    return width


def load_split(data_dir, split, packed_dir, limit=None):
    """Open the packed copy of a split, making it first where there is none or its source changed.

    data_dir : folder of train.mat, valid.mat, test.mat;  packed_dir : where packed copies live
    limit : first windows to take, each with both strands; None for all
    Returns a Split. Raises BadInput (missing, broken, misshapen, not 0/1) or OSError (disk full, unwritable).
    """
    path = Path(data_dir) / f"{split}.mat"
    folder = Path(packed_dir) / "-".join(filter(None, [
        Path(os.path.realpath(data_dir)).name, hashlib.sha256(os.path.realpath(data_dir).encode()).hexdigest()[:8],
        limit and f"limit{limit}"]))
    note, files = folder / f"{split}.json", [folder / f"{split}_{key}.npy" for key in "XY"]
    source = {"format": 2, "file": os.path.realpath(path), "state": state_of(path) if path.is_file() else ""}
    packed = open_packed(note, files, source)
    if not packed:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        pack_split(path, split, note, files, source, limit)
        packed = open_packed(note, files, source)
    facts, X, Y = packed
    return Split(X, Y, facts["n_labels"], facts["windows"], facts["strands"], facts["simulated"], source["state"])


def open_packed(note, files, source):
    """(facts, X, Y) of a whole packed copy of `source`; None where there is none."""
    try:
        facts, X, Y = json.loads(note.read_text()), *(np.load(file, mmap_mode="r") for file in files)
        return (facts, X, Y) if facts["source"] == source and len(X) == len(Y) else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def state_of(path):
    """What tells one state of a file from another: its size and time stamp. Raises OSError where there is none."""
    stat = Path(path).stat()
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


def pack_split(path, split, note, files, source, limit):
    """Pack one .mat into two .npy files; its note, written last, marks them whole."""
    started = time.time()
    note.unlink(missing_ok=True)
    keys = f"{split}xdata", f"{split}data"
    if not path.is_file():
        raise BadInput(f"{path} is missing: a data folder must hold train.mat, valid.mat and test.mat "
                       f"(or make simulated ones: python danq.py --make-demo-data DIR)")
    with open_mat(path, keys) as ((X, Y), simulated), contextlib.ExitStack() as stack:
        check_layout(path, {keys[0]: X, keys[1]: Y})
        n, half = X.shape[-1], X.shape[-1] // 2
        wanted = np.arange(n)
        if limit and limit < half:
            wanted = np.r_[0:limit, half:half + limit]
        with reading(path):                             # h5py finds a chunk that will not decompress only here
            for source_array, file, key in zip((X, Y), files, keys):
                pack_array(source_array, wanted, stack.enter_context(replacing(file)), f"{path}: {key}")
    strands = have_strands(*(np.load(file, mmap_mode="r") for file in files))
    facts = {"source": source, "n_labels": int(Y.shape[0]), "windows": len(wanted) // (2 if strands else 1),
             "strands": strands, "simulated": simulated}
    write_json(note, facts)
    size = sum(file.stat().st_size for file in files)
    print(f"packed {path}: {len(wanted):,} of {n:,} sequences x {facts['n_labels']} labels -> {note.parent} "
          f"({size / 1e6:.1f} MB, {time.time() - started:.1f} s)", flush=True)


def load_unlabelled(path, packed_dir):
    """Packed sequences (n, 500) uint8 of a file without labels: a memory map, of a copy made where there is none yet.

    path : FASTA, plain or gzip, cut into windows of 1,000 bases side by side, those that are half N left out; or a .mat
    with trainxdata, validxdata, testxdata or xdata, (1000, 4, N) in HDF5's order.
    Raises BadInput (missing, broken, empty) or OSError.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} is missing: --unlabelled takes a FASTA or .mat file")
    mark = hashlib.sha256(f"{os.path.realpath(path)} {state_of(path)}".encode()).hexdigest()[:8]
    packed = Path(packed_dir) / f"{path.name}-{mark}.npy"
    if not packed.is_file():
        packed.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as file:
            is_mat = h5py.is_hdf5(path) or file.read(6) == b"MATLAB"
        with replacing(packed) as beside:
            (pack_unlabelled_mat if is_mat else pack_fasta)(path, beside)
    with reading(packed, "remove it: it is made again"):
        return np.load(packed, mmap_mode="r")


def pack_unlabelled_mat(path, packed):
    keys = [*(f"{split}xdata" for split in SPLITS), "xdata"]
    with open_mat(path, keys) as (arrays, _):
        key, X = next(((key, X) for key, X in zip(keys, arrays) if X is not None), (" or ".join(keys), None))
        check_layout(path, {key: X})
        with reading(path):
            pack_array(X, np.arange(X.shape[-1]), packed, f"{path}: {key}")


def pack_fasta(path, packed, block=1000):
    whole = lambda: (window for window in fasta_windows(path, LENGTH) if len(window[-1].translate(None, b"ACGT")) <= LENGTH // 2)
    n, windows = sum(1 for _ in whole()), whole()
    if not n:
        raise BadInput(f"{path} holds no window of {LENGTH} bases with half of them known")
    out = np.lib.format.open_memmap(packed, "w+", np.uint8, (n, LENGTH // 2))
    claim(packed, os.path.getsize(packed))
    for i in range(0, n, block):
        X = letters_to_onehot(list(itertools.islice(windows, block)), path)
        out[i:i + len(X)] = np.packbits(X.reshape(len(X), -1), axis=1)


class Joined:
    """Rows of the packed array X (n, 500), then `limit` rows (None: all) evenly spread over the packed array `more`."""

    def __init__(self, X, more, limit=None):
        self.X, self.more, self.extra = X, more, min(limit or len(more), len(more))

    def __len__(self):
        return len(self.X) + self.extra

    def __getitem__(self, rows):
        out, own = np.empty((len(rows), self.X.shape[1]), np.uint8), rows < len(self.X)
        out[own] = self.X[rows[own]]
        out[~own] = self.more[(rows[~own] - len(self.X)) * len(self.more) // self.extra]
        return out


def have_strands(X, Y, sample=1000):
    """True where the second half of the rows is the reverse complement of the first, on an even sample of rows."""
    half = len(X) // 2
    if len(X) % 2 or not half:
        return False
    rows = even_sample(half, sample)
    forward, backward = onehot(X[rows]), onehot(X[rows + half])
    return bool((reverse_complement(forward) == backward).all() and (Y[rows] == Y[rows + half]).all())


def even_sample(n, sample):
    """At most `sample` of the rows 0..n, evenly spread, as sorted indices."""
    return np.unique(np.linspace(0, n - 1, min(sample, n)).astype(int))


def onehot(X):
    """Unpack rows of Split.X to one-hot (n, 1000, 4) uint8, columns A, G, C, T; an N is all zeros."""
    return np.unpackbits(X, axis=1).reshape(-1, LENGTH, 4)


def unpack_labels(split, rows=slice(None)):
    """Labels (n, K) uint8 of some rows of a split."""
    return np.unpackbits(split.Y[rows], axis=1, count=split.n_labels)


def reverse_complement(X):
    """Reverse complement of one-hot (n, length, 4): in the order A, G, C, T it reverses both axes."""
    return X[:, ::-1, ::-1]


class Batches(keras.utils.PyDataset):
    """Batches of a Split, in an order that is a pure function of (seed, epoch); seed None keeps the file's order.

    A batch is (X, *target(X, rows)), by default (one-hot (B, 1000, 4), labels (B, K)), uint8: the model casts it.
    """

    def __init__(self, split, batch_size, target=None, seed=None, epoch=0):
        super().__init__(workers=2)                     # with one, TensorFlow may idle for up to a minute as an epoch ends
        self.split, self.batch_size = split, batch_size
        self.target = target or (lambda X, rows: (unpack_labels(split, rows),))
        self.first, n = 0, len(split.X)                 # first: the step to begin with
        self.order = np.arange(n) if seed is None else np.random.default_rng([seed, epoch]).permutation(n)
        if shared := keras.distribution.distribution(): # every device gets as many: a few rows of the last batch stay out
            self.order = self.order[:n // shared.num_model_replicas * shared.num_model_replicas]

    def __len__(self):
        return -(-len(self.order) // self.batch_size) - self.first

    def __getitem__(self, step):
        start = (self.first + step) * self.batch_size
        rows = self.order[start:start + self.batch_size]
        X = onehot(self.split.X[rows])
        return X, *self.target(X, rows)


def packed_beside(out_dir):
    """Where packed data live: packed/ beside a run's folder. (resolve() would raise at a loop of links.)"""
    return Path(os.path.realpath(out_dir)).parent / "packed"


def load_data(args):
    """Load the splits {"train", "valid", "test"} and the label table of --data-dir, and say what is there."""
    packed_dir = packed_beside(args.out_dir)
    splits = {name: load_split(args.data_dir, name, packed_dir, args.limit) for name in SPLITS}
    counts = {name: split.n_labels for name, split in splits.items()}
    if len(set(counts.values())) > 1:
        raise BadInput(f"{args.data_dir}: the splits differ in their number of labels ({counts}): "
                       f"they must come from one data set")
    labels = load_labels(args.data_dir, counts["train"])
    if any(split.simulated for split in splits.values()):
        splits = {name: split._replace(simulated=True) for name, split in splits.items()}
        print("SIMULATED data: planted motifs, not genomes. Numbers from it say nothing about real DNA.")
    for name, split in splits.items():
        print(f"  {name}: {len(split.X):,} sequences x {split.n_labels} labels, "
              + (f"{split.windows:,} windows, both strands" if split.strands else
                 "the second half is NOT the reverse complement of the first: evaluation goes without strand averaging"))
    return splits, labels


def load_labels(data_dir, n_labels):
    """Label table [(column, assay, name)] from labels.tsv; else DeepSEA's blocks at K = 919; else one block."""
    path = Path(data_dir) / "labels.tsv"
    if not path.is_file():
        assay = {i: name for name, (lo, hi) in DEEPSEA_BLOCKS.items() for i in range(lo, hi)} if n_labels == 919 else {}
        return [(i, assay.get(i, "labels"), f"label_{i}") for i in range(n_labels)]
    with reading(path, "mend it or move it away"), open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if [row.get("column") for row in rows] != [str(i) for i in range(n_labels)] or not all(
            row.get("assay") and row.get("name") for row in rows):
        raise BadInput(f"{path} must have the columns column, assay, name and a row for each of the "
                       f"{n_labels} labels in order: mend it or move it away")
    return [(int(row["column"]), row["assay"], row["name"]) for row in rows]


# ---------------------------------------------------------------- simulated data

DEMO_MOTIFS = {                                     # consensus strings of real factors; the first 12 open a cell
    "GATA1": "AGATAAGA", "CEBPB": "TTGCGCAAT", "HNF4A": "CAAAGGTCA", "POU5F1": "ATGCAAAT", "SPI1": "AAAGAGGAAGTG",
    "FOXA1": "TGTTTACTTA", "RUNX1": "TGTGGTTT", "TEAD4": "ACATTCCA", "MEF2A": "CTATTTATAG", "TCF7L2": "AGATCAAAGG",
    "NFKB1": "GGGACTTTCC", "STAT1": "TTCCAGGAA", "CTCF": "CCACCAGGGGGCGC", "JUN": "TGACTCA", "CREB1": "TGACGTCA",
    "NRF1": "GCGCATGCGC", "SP1": "GGGGCGGGG", "GABPA": "ACCGGAAGT", "YY1": "CAAGATGGCGGC", "USF1": "GTCACGTGAC",
    "E2F4": "TTTCCCGCC", "IRF1": "GAAAGTGAAAGT", "NFYA": "AGCCAATCAG", "REST": "TTCAGCACCACGGACAGC"}
# Probability of the next base (columns A, C, G, T) after A, C, G, T: human dinucleotide frequencies, CpG depleted.
DINUCLEOTIDES = np.array([[.098, .050, .070, .077], [.073, .052, .010, .070], [.059, .043, .052, .050], [.066, .059, .073, .098]])


def make_demo_data(folder, windows=4000, seed=1337):
    """Write a SIMULATED data set in DeepSEA's layouts: `windows` for training, an eighth and a quarter for valid and test.

    Background DNA is a first-order chain with human-like composition. 12 motifs that open a cell type are planted in 25 %
    of the windows, 12 factors' in 6 %, three to six copies on either strand, each base mismatched with probability .05.
    A TF label needs its factor and its cell's motif; a DNase label its cell's and any of three factors'; a histone label a
    factor's and either of two cells'. One window in 100 starts with N. Raises BadInput where the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise BadInput(f"{folder} exists already: name a new folder for --make-demo-data")
    beside = folder.with_name(f".{folder.name}.tmp")
    beside.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names, rules = demo_labels(rng)
    for split, n in zip(SPLITS, (windows, max(windows // 8, 8), max(windows // 4, 8))):
        codes, planted = simulate_windows(rng, n)
        forward = np.zeros((n, LENGTH, 4), np.uint8)
        np.put_along_axis(forward, np.maximum(codes, 0)[..., None], (codes >= 0)[..., None], axis=2)
        X = np.concatenate([forward, reverse_complement(forward)]).transpose(1, 2, 0)       # (1000, 4, 2n)
        Y = np.stack([planted[:, rule[0]] & planted[:, rule[1:]].any(1) for rule in rules])
        Y = np.tile(Y & (rng.random(Y.shape) > .05), 2).astype(np.uint8)                    # (919, 2n)
        write_mat(beside / f"{split}.mat", split, X, Y)
    with open(beside / "labels.tsv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([("column", "assay", "name"), *names])
    os.replace(beside, folder)
    print(f"SIMULATED data set: {windows:,} training windows, both strands, {len(names)} labels -> {folder}")


def demo_labels(rng):
    """The 919 simulated labels: [(column, assay, name)] and the motifs [(needed, any of ...)] that set each."""
    motifs, names, rules = list(DEMO_MOTIFS), [], []
    for column in range(919):
        assay = next(a for a, (lo, hi) in DEEPSEA_BLOCKS.items() if lo <= column < hi)
        cell, factor = column // 12 % 12, 12 + column % 12
        if assay == "DNase":
            rule, name = [cell, *rng.choice(range(12, 24), 3, replace=False)], "open"
        elif assay == "TF":
            rule, name = [factor, cell], motifs[factor]
        else:
            rule, name = [factor, cell, (cell + 1) % 12], f"mark{factor}"
        rules.append(rule)
        names.append((column, assay, f"SIMULATED|{assay}|{name}|cell{cell}|{column}"))
    return names, rules


def simulate_windows(rng, n):
    """Base codes (n, 1000), index into AGCT or -1 for N, and which of the 24 motifs each holds (n, 24) bool."""
    chain = (DINUCLEOTIDES / DINUCLEOTIDES.sum(1, keepdims=True)).cumsum(1)
    acgt = np.empty((n, LENGTH), np.int8)
    acgt[:, 0] = rng.integers(4, size=n)
    for i in range(1, LENGTH):
        acgt[:, i] = (rng.random((n, 1)) > chain[acgt[:, i - 1], :3]).sum(1)
    codes = np.array([BASES.index(base) for base in "ACGT"], np.int8)[acgt]
    planted = rng.random((n, 24)) < np.repeat((.25, .06), 12)
    for row, motif in np.argwhere(planted):
        site = np.array([BASES.index(base) for base in list(DEMO_MOTIFS.values())[motif]], np.int8)
        for at in rng.integers(0, LENGTH - len(site), size=rng.integers(3, 7)):
            copy = site if rng.random() < .5 else 3 - site[::-1]
            codes[row, at:at + len(site)] = np.where(rng.random(len(site)) < .05, rng.integers(4, size=len(site)), copy)
    for row in np.flatnonzero(rng.random(n) < .01):
        codes[row, :rng.integers(1, 300)] = -1
    return codes, planted


def write_mat(path, split, X, Y):
    """Write one split as DeepSEA ships it: train as MATLAB v7.3 (HDF5), valid and test as v5, marked `simulated`."""
    if split != "train":
        scipy.io.savemat(path, {f"{split}xdata": X.T, f"{split}data": Y.T, "simulated": 1}, do_compression=True)
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, array in ((f"{split}xdata", X), (f"{split}data", Y), ("simulated", np.ones((1, 1), np.uint8))):
            chunks = (*array.shape[:-1], min(array.shape[-1], 64)) if array.size > 1 else None
            file.create_dataset(key, data=array, chunks=chunks, compression="gzip" if chunks else None)
            file[key].attrs["MATLAB_class"] = np.bytes_("uint8")
    with open(path, "r+b") as file:                     # the header by which MATLAB knows its own v7.3 files
        file.write(b"MATLAB 7.3 MAT-file, simulated".ljust(124) + b"\x00\x02IM")


# ---------------------------------------------------------------- the network and its training

@contextlib.contextmanager
def precision(mixed):
    """Layers made inside, but for a BLSTM, compute in bfloat16 where `mixed`; their weights stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def all_devices(batch_size):
    """What is built and trained inside is data-parallel over all GPUs of the machine, where Keras' backend can do that.

    Raises BadInput where the batch does not divide among them.
    """
    names = devices()
    if len(names) == 1 or keras.backend.backend() != "jax":
        if len(names) > 1:
            print(f"one of {len(names)} devices is used: Keras shares the work out on JAX only (KERAS_BACKEND=jax)", flush=True)
        yield
        return
    if batch_size % len(names):
        raise BadInput(f"--batch-size {batch_size} does not divide among {len(names)} devices: make it a multiple of that")
    print(f"training on {len(names)} devices, {batch_size // len(names)} sequences of a batch on each", flush=True)
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)


def blstm(units):
    """The BLSTM, (B, steps, features) -> (B, steps, 2 * units), in float32 always: cuDNN's kernel takes no other under JAX."""
    return layers.Bidirectional(layers.LSTM(units, return_sequences=True, dtype="float32"), dtype="float32", name="motif_grammar")


def trunk(x, filters=320, lstm_units=320, conv_activation="relu", lstm=True):
    """DanQ's trunk, shared with SuperQ: (B, 1000, 4) -> (B, 75 * 2 * lstm_units); without BLSTM (B, 75 * filters)."""
    x = layers.Conv1D(filters, 26, activation=conv_activation, name="motif_scan")(x)        # (B, 975, filters)
    x = layers.MaxPooling1D(13, name="motif_pool")(x)                                       # (B, 75, filters)
    x = layers.Dropout(.2)(x)
    if lstm:
        x = blstm(lstm_units)(x)
        x = layers.Dropout(.5)(x)                                                           # (B, 75, 2 * lstm_units)
    return layers.Flatten()(x)


def build_danq(n_labels=919, filters=320, lstm_units=320, conv_activation="relu", mixed=False):
    """DanQ: one-hot (B, 1000, 4) -> probabilities (B, n_labels). 46,926,479 parameters at 919 labels."""
    inputs = keras.Input((LENGTH, 4))
    with precision(mixed):
        x = trunk(inputs, filters, lstm_units, conv_activation)                             # (B, 48000)
        x = layers.Dense(925, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(n_labels, activation="sigmoid", name="labels")(x), name="danq")


def compile_model(model, optimizer, loss, accuracy, weights=None):
    """Compile; loss, accuracy (metrics) and weights are dicts where outputs have names. Without XLA on TensorFlow: slower there."""
    model.compile(optimizer=optimizer, loss=loss, weighted_metrics=accuracy, loss_weights=weights,
                  jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")


class Checkpoint(keras.callbacks.Callback):
    """The whole state of a training run in one file, written every `minutes` and after each epoch.

    Weights, optimiser, dropout seeds, running means of loss and accuracy, and `at`: epoch, step, seconds so far, history,
    best loss and epoch. A run that finds the file goes on from there, on a CPU to the bit as if it had never stopped.
    """
    FORMAT = 1

    def __init__(self, path, minutes, max_seconds=None):
        super().__init__()
        self.path, self.minutes, self.max_seconds, self.kept = Path(path), minutes, max_seconds, None
        self.at = {"epoch": 0, "step": 0, "seconds": 0., "epoch_began": 0., "history": [], "best": math.inf, "best_epoch": 0}
        if self.path.is_file():
            with reading(path, "remove it to train from the start"), np.load(path, allow_pickle=False) as file:
                if int(file["format"]) != self.FORMAT:
                    raise ValueError(f"format {file['format']}")
                self.kept, self.at = [file[f"v{i}"] for i in range(len(file.files) - 2)], json.loads(str(file["at"]))
            print(f"going on after step {self.at['step']} of epoch {self.at['epoch'] + 1}: {self.path}", flush=True)
        self.before, self.begun, self.saved = self.at["seconds"], time.time(), time.time()

    def variables(self):
        return self.model.variables + self.model.optimizer.variables + self.model.metrics_variables

    def on_epoch_begin(self, epoch, logs=None):
        for variable, value in zip(self.variables(), self.kept or (), strict=bool(self.kept)):
            variable.assign(value)
        if not self.at["step"]:                         # what was kept is validation's, of the epoch before
            self.model.reset_metrics()
        self.kept = None

    def on_train_batch_begin(self, step, logs=None):    # after ..._end JAX would wait for each step's loss, and a GPU idle
        if step and time.time() - self.saved > 60 * self.minutes:
            self.save()
        if self.over():
            self.model.stop_training = True             # after this batch
        self.at["step"] += 1

    def over(self):
        return bool(self.max_seconds and self.elapsed() > self.max_seconds)

    def elapsed(self):
        return self.before + time.time() - self.begun

    def save(self):
        state = {f"v{i}": keras.ops.convert_to_numpy(variable) for i, variable in enumerate(self.variables())}
        self.at["seconds"] = self.elapsed()
        with replacing(self.path) as beside:
            np.savez(beside, format=self.FORMAT, at=json.dumps(self.at), **state)
        self.saved = time.time()


def fit(model, batches, valid, out_dir, epochs, patience, simulated=False, yardstick="", max_seconds=None, minutes=10):
    """Train, log an epoch a line and a row of history.csv, keep the best model in model.keras and load it at the end.

    batches : function of the epoch -> Batches;  valid : Batches, or None to train to the end and keep the last
    patience : epochs without a better validation loss before training stops
    max_seconds : the first batch that begins later is the last; None for no such limit
    minutes : between checkpoints, from which a run that was killed goes on
    Returns a dict: epochs, best_epoch, seconds, seconds_to_best, samples_per_s. Raises BadInput where the first epoch diverges.
    """
    out_dir, keeper = Path(out_dir), Checkpoint(Path(out_dir) / "checkpoint.npz", minutes, max_seconds)
    at, rate = keeper.at, 0.
    model.name += "_SIMULATED" * simulated
    while at["epoch"] < epochs and not finished(at, patience):
        logs, rate = train_epoch(model, batches(at["epoch"]), valid, keeper)
        row = {"epoch": at["epoch"] + 1, "seconds": round(keeper.elapsed() - at["epoch_began"], 2)}
        row |= {key: logs.get(key, "") for key in ("loss", "acc", "val_loss", "val_acc")}
        at["history"].append(row | ({"data": "SIMULATED"} if simulated else {}))
        improved = not valid or row["val_loss"] < at["best"]
        if improved:
            at |= {"best": row["val_loss"] if valid else math.inf, "best_epoch": row["epoch"]}
            with replacing(out_dir / "model.keras") as beside:
                model.save(beside)
        write_csv(out_dir / "history.csv", at["history"])
        scores = " - ".join(f"{key}: {row[key]:.4g}" for key in ("loss", "acc", "val_loss", "val_acc") if row[key] != "")
        print(f"Epoch {row['epoch']}/{epochs} - {row['seconds']:.0f}s - {scores} - {rate:,.0f} samples/s"
              f"{' - best so far' if improved and valid else ''}{yardstick}", flush=True)
        if valid and not at["best_epoch"]:
            raise BadInput(f"training diverged in its first epoch: loss {row['loss']:.4g}, validation {row['val_loss']:.4g}"
                           f"{yardstick}: lower the learning rate in the script and give --restart")
        at |= {"epoch": at["epoch"] + 1, "step": 0, "epoch_began": keeper.elapsed(), "stopped": keeper.over(),
               "diverged": bool(valid) and not math.isfinite(row["loss"])}
        keeper.save()
    if why := finished(at, patience):
        print(f"stopped: {why}; the model of epoch {at['best_epoch']} is kept", flush=True)
    model.load_weights(out_dir / "model.keras")
    seconds = [row["seconds"] for row in at["history"]]
    return {"epochs": len(seconds), "best_epoch": at["best_epoch"], "seconds": round(sum(seconds), 2),
            "seconds_to_best": round(sum(seconds[:at["best_epoch"]]), 2), "samples_per_s": round(rate, 1)}


def train_epoch(model, data, valid, keeper):
    """One epoch, or what a kill left of it: losses and accuracies {name: number}, and training sequences a second."""
    at, marks = keeper.at, [time.time()]
    data.first = at["step"]                             # the batches before are in the weights already
    if not model.optimizer.built:                       # build all that has a state: fit() would, and on JAX lose the first batch
        model.test_on_batch(*data[0])
        model.optimizer.build(model.trainable_variables)

    def mark(logs=None):
        keras.ops.convert_to_numpy(model.trainable_variables[-1])       # wait for steps that a GPU has still to do
        marks.append(time.time())

    logs = model.fit(data, validation_data=valid, initial_epoch=at["epoch"], epochs=at["epoch"] + 1, shuffle=False,
                     verbose=int(sys.stdout.isatty()), callbacks=[keeper, keras.callbacks.LambdaCallback(on_test_begin=mark)]).history
    marks.append(time.time())
    rate = (at["step"] - data.first) * data.batch_size / (marks[1] - marks[0])
    return {key.replace("bases_acc", "acc"): values[0] for key, values in logs.items()}, rate       # SuperQ's outputs have names


def finished(at, patience):
    """Why training at this state is over, or None."""
    if at.get("diverged"):
        return f"it diverged, loss {at['history'][-1]['loss']}"
    if at.get("stopped"):
        return "its seconds are over"
    if at["epoch"] - at["best_epoch"] >= patience:
        return f"no better validation loss in {patience} epochs"
    return None


def score_elsewhere(args, out_dir, score, more=lambda test: {}):
    """Score the finished run in out_dir on the test split of --test-data; writes out_dir/test-NAME/, a run for --compare.

    score : function, one-hot (n, 1000, 4) -> (n, K);  more : function of the split -> entries of summary.json
    Labels are matched by name; the thresholds are the run's own. Where no name is shared, labels are not scored.
    """
    folder, name = Path(args.test_data), Path(os.path.realpath(args.test_data)).name
    test = load_split(folder, "test", packed_beside(out_dir), args.limit)
    trained = trained_labels(out_dir)
    theirs, names = load_labels(folder, test.n_labels), [row["name"] for row in trained]
    if names == [label[2] for label in theirs]:
        pairs = [(i, i) for i in range(len(names))]
    else:
        pairs = [(names.index(label[2]), i) for i, label in enumerate(theirs)
                 if names.count(label[2]) == [other[2] for other in theirs].count(label[2]) == 1]
    print(f"test: {folder}, {test.windows:,} windows{', both strands averaged' * test.strands}; "
          f"{len(pairs)} of {len(names)} labels are there by name", flush=True)
    ours, there = (list(column) for column in zip(*pairs)) if pairs else ([], [])
    P = strand_mean(lambda rows: score(onehot(test.X[rows])), test, args.batch_size, len(names))[:, ours] if pairs else \
        np.empty((test.windows, 0))
    rows, means = evaluate(P, unpack_labels(test, slice(test.windows))[:, there], [theirs[i] for i in there],
                           [float(trained[i]["threshold"]) for i in ours])
    summary = read_json(out_dir / "summary.json", "peak_memory_gb")
    memory = max(summary["peak_memory_gb"], summary.get("peak_memory_stage1_gb") or 0)
    target = out_dir / f"test-{name}"
    target.mkdir(exist_ok=True)
    (target / "summary.json").unlink(missing_ok=True)
    write_json(target / "args.json", read_json(out_dir / "args.json"))
    finish_run(target, rows, means, {key: value for key, value in summary.items() if not key.startswith("subset_")} | {
        "data": str(folder), "peak_memory_stage1_gb": memory, "limit": args.limit, "test_windows": test.windows, "strands": test.strands,
        "simulated": summary["simulated"] or test.simulated, **more(test)})


def strand_mean(score, split, batch_size, width):
    """Scores (windows, width) float32 of score(rows) over a split, averaged over both strands where it has them."""
    P, bar = np.empty((split.windows, width), np.float32), progress(split.windows, "window")
    for i in range(0, split.windows, batch_size):
        rows = slice(i, min(i + batch_size, split.windows))
        P[rows] = score(rows)
        if split.strands:
            P[rows] += score(slice(split.windows + rows.start, split.windows + rows.stop))
            P[rows] /= 2
        bar.update(rows.stop)
    return P


# ---------------------------------------------------------------- scoring

def best_threshold(y, p):
    """The score threshold with the highest F1; .5 where y has no positive."""
    if not y.any():
        return .5
    precision, recall, thresholds = precision_recall_curve(y, p)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[f1[:-1].argmax()])


def best_thresholds(P, Y):
    """best_threshold of each label (K,): scores P and labels Y (windows, K) of the validation split."""
    return [best_threshold(y, p) for y, p in zip(Y.T, P.T)]


def score_label(y, p, threshold):
    """AUROC, AUPRC (average precision), F1 at `threshold` and recall at 10 % FDR of one label with both classes."""
    precision, recall, _ = precision_recall_curve(y, p)
    called = p >= threshold
    return {"auroc": roc_auc_score(y, p), "auprc": average_precision_score(y, p),
            "f1": float(2 * (called & (y > 0)).sum() / (called.sum() + y.sum())),
            "recall_at_10fdr": float(recall[precision >= .9].max())}


def evaluate(P, Y, labels, thresholds):
    """Score test predictions label by label. One function for both models.

    P : scores (windows, K), strands averaged;  Y : labels (windows, K);  labels : [(column, assay, name)], a column each
    thresholds : (K,), above which a score counts as a yes in F1: best_thresholds of the validation split
    Returns rows (dicts of metrics.csv; scores None where the test labels have one class only) and
    means {"all" or assay: {labels, base_rate, auroc, auprc, f1, recall_at_10fdr}} over the labels scored.
    """
    rows = []
    for (column, assay, name), y, p, threshold in zip(labels, Y.T, P.T, thresholds):
        scores = score_label(y, p, threshold) if 0 < y.sum() < len(y) else dict.fromkeys(MEASURES)
        rows.append({"column": column, "assay": assay, "name": name, "positives": int(y.sum()),
                     "base_rate": float(y.mean()), "threshold": threshold, **scores})
    blocks = {"all": rows} | {assay: [row for row in rows if row["assay"] == assay]
                              for assay in dict.fromkeys(row["assay"] for row in rows)}
    scored = {name: [row for row in block if row["auroc"] is not None] for name, block in blocks.items()}
    means = {name: {"labels": len(block)} | {key: float(np.mean([row[key] for row in block])) if block else None
                                             for key in ("base_rate", *MEASURES)} for name, block in scored.items()}
    return rows, means


def finish_run(out_dir, rows, means, summary):
    """Write metrics.csv and, last, summary.json, which marks the run finished; print the means beside their yardsticks."""
    columns = ("column", "assay", "name", "positives", "base_rate", "auroc", "auprc", "f1", "threshold", "recall_at_10fdr")
    write_csv(out_dir / "metrics.csv", [{key: row[key] for key in columns} for row in rows], columns)
    summary |= {"labels": len(rows), "labels_scored": means["all"]["labels"], "means": means, "peak_memory_gb": peak_memory()}
    write_json(out_dir / "summary.json", summary)
    print(f"{means['all']['labels']} of {len(rows)} labels have both classes in the test split"
          + (" (SIMULATED data)" if summary["simulated"] else ""))
    print(f"  {'':20}{'labels':>7}{'AUROC':>8}{'AUPRC':>8}{'F1':>8}{'recall at 10 % FDR':>20}   chance: AUROC .5, AUPRC")
    for name, mean in means.items():
        if mean["labels"]:
            print(f"  {name:20}{mean['labels']:7}{mean['auroc']:8.4f}{mean['auprc']:8.4f}{mean['f1']:8.4f}"
                  f"{mean['recall_at_10fdr']:20.4f}   {mean['base_rate']:.4f}")
    if is_deepsea(summary):
        for name, published in PUBLISHED.items():
            print(f"  {'published ' + name:27}{published['auroc'][0]:8.4f}{published['auprc'][0]:8.4f}")
    print(f"summary -> {out_dir / 'summary.json'} (peak memory {summary['peak_memory_gb']} GB)", flush=True)


def peak_memory():
    """Peak resident memory of this process in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6), 2)


def is_deepsea(summary):
    """True where published figures are comparable: DeepSEA's 919 labels, and not simulated."""
    return summary["labels"] == 919 and not summary["simulated"]


# ---------------------------------------------------------------- annotating new sequences

IUPAC = {"A": "A", "C": "C", "G": "G", "T": "T", "U": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
         "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "", "-": "", ".": ""}
STEP = 200                                              # bases between windows of a long record: DeepSEA's bin


def fasta_pieces(path):
    """Yield (record number, name, letters) over a FASTA file, plain or gzip, 1 MB at most at a time; upper case."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    number, name, fresh = 0, None, True
    with (gzip.open if zipped else open)(path, "rb") as file:
        try:
            for part in iter(lambda: file.readline(1 << 20), b""):
                if fresh and part.startswith(b">"):
                    number, name = number + 1, (part[1:].split() or [b"unnamed"])[0].decode(errors="replace").replace("\0", "?")
                elif name is not None:
                    yield number, name, part.translate(None, b" \t\r\n").upper()
                elif part.strip():
                    raise BadInput(f"{path} is not FASTA: a record must start with a line that begins with >")
                fresh = part.endswith(b"\n")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadInput(f"{path} is a damaged gzip file ({first_line(error)}): copy it again") from error


def fasta_windows(path, step=STEP):
    """Yield (record, start, end, padded, 1,000 letters) over a FASTA file, in bounded memory.

    Long records are tiled in steps of `step` bases, a last window flush with the record's end; short ones are centred in N and
    flagged as padded. start and end are 0-based, half-open, within the record.
    """
    for (_, name), pieces in itertools.groupby(fasta_pieces(path), lambda piece: piece[:2]):
        held, start = b"", 0
        for _, _, letters in pieces:
            held, at = held + letters, 0
            while len(held) - at >= LENGTH + step:
                yield name, start + at, start + at + LENGTH, False, held[at:at + LENGTH]
                at += step
            held, start = held[at:], start + at
        if 0 < len(held) < LENGTH:
            left = (LENGTH - len(held)) // 2
            yield name, 0, len(held), True, (b"N" * left + held).ljust(LENGTH, b"N")
        elif held:
            yield name, start, start + LENGTH, False, held[:LENGTH]
        if len(held) > LENGTH:
            yield name, start + len(held) - LENGTH, start + len(held), False, held[-LENGTH:]


def letters_to_onehot(windows, path):
    """One-hot (n, 1000, 4) uint8 of fasta_windows: IUPAC codes set several bases, N none. Raises BadInput for other letters."""
    table = np.full((256, 4), 2, np.uint8)
    for letter, bases in IUPAC.items():
        table[ord(letter)] = [base in bases for base in BASES]
    X = table[np.frombuffer(b"".join(window[-1] for window in windows), np.uint8)].reshape(-1, LENGTH, 4)
    for row, column in np.argwhere(X[..., 0] > 1)[:1]:
        name, start, end, _, letters = windows[row]
        base = start + column - (LENGTH - (end - start)) // 2 + 1
        raise BadInput(f"{path}: record {name} holds {chr(letters[column])!r} at base {base}, which is no IUPAC nucleotide "
                       f"code: is this DNA?")
    return X


def trained_labels(out_dir):
    """The rows of a finished run's metrics.csv: a dict of strings for each label that it predicts."""
    path = out_dir / "metrics.csv"
    with reading(path, "train again with --restart"), open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
        if [int(row["column"]) for row in rows] != list(range(read_json(out_dir / "summary.json", "labels")["labels"])):
            raise ValueError("its rows are not the labels in order")
        for row in rows:
            row["name"], float(row["threshold"])
        return rows


def annotate(score, fasta, output, run_dir, batch_size):
    """Predict the labels of every window of a FASTA file, both strands averaged: a row a window, a column a label.

    score : function, one-hot (n, 1000, 4) -> (n, K);  output : .tsv, or .h5 / .hdf5 for HDF5 (scores (n, K) float32,
    record, start, end, padded, labels);  run_dir : the trained run, whose metrics.csv names the labels
    """
    names = [row["name"] for row in trained_labels(run_dir)]
    names = [f"{name}|{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    if not Path(fasta).is_file():
        raise BadInput(f"{fasta} is missing: --predict takes a FASTA file")
    windows, done, bar = fasta_windows(fasta), 0, progress(None, "window")
    writer = write_hdf5_rows if Path(output).suffix in (".h5", ".hdf5") else write_tsv_rows
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as beside, writer(beside, names) as write:
        while batch := list(itertools.islice(windows, batch_size)):
            X = letters_to_onehot(batch, fasta)
            write(batch, (score(X) + score(reverse_complement(X))) / 2)
            done += len(batch)
            bar.add(len(batch))
        if not done:
            raise BadInput(f"{fasta} holds no sequence")
    print(f"{done:,} windows of {LENGTH} bp x {len(names)} labels, both strands averaged -> {output}")


@contextlib.contextmanager
def write_tsv_rows(path, names):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["record", "start", "end", "padded", *names])
        yield lambda windows, P: writer.writerows(
            [*window[:3], int(window[3]), *(f"{p:.6g}" for p in row)] for window, row in zip(windows, P))


@contextlib.contextmanager
def write_hdf5_rows(path, names):
    kinds, margin = {"record": h5py.string_dtype(), "start": "i8", "end": "i8", "padded": "?"}, 2 << 20
    with new_hdf5(path, margin + sum(map(len, names))) as file:
        file["labels"] = np.array(names, h5py.string_dtype())
        for key, kind in kinds.items():
            file.create_dataset(key, (0,), kind, maxshape=(None,), chunks=(4096,))
        file.create_dataset("scores", (0, len(names)), "f4", maxshape=(None, len(names)), chunks=(256, len(names)))

        def write(windows, P):
            file.flush()
            claim(path, file.id.get_filesize() + margin + 2 * P.nbytes + sum(len(window[0]) for window in windows))
            for key, column in [*zip(kinds, zip(*windows)), ("scores", P)]:
                file[key].resize(len(file[key]) + len(P), axis=0)
                file[key][-len(P):] = column
        yield write


# ---------------------------------------------------------------- how fast, and in how much memory?

FULL = 4_400_000                                        # training sequences of the DeepSEA bundle
CHUNKINGS = {                                           # HDF5 chunks of (1000, 4, n) bases and (K, n) labels
    "contiguous": lambda shape: None,
    "whole sequences": lambda shape: (*shape[:-1], min(64, shape[-1])),
    "whole rows": lambda shape: (1, *shape[1:]),
    "tiles": lambda shape: (min(100, shape[0]), *shape[1:-1], min(10_000, shape[-1])),
    "h5py's guess": lambda shape: True}


def flops(model):
    """Floating-point operations of one sample's forward pass: a multiplication and an addition a weight and place.

    Training takes three times as many.
    """
    total = 0
    for layer in model.layers:
        for node in layer._inbound_nodes:               # a layer may be called on both strands
            places = math.prod(node.output_tensors[0].shape[1:-1])
            total += flops(layer) if isinstance(layer, keras.Sequential) else 2 * places * sum(
                math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    return total


def random_split(folder, n, K, rate=.02, block=50_000):
    """A packed split of n random sequences x K random labels, for measuring: it teaches nothing."""
    rng, pair = np.random.default_rng(0), np.array([16 * a + b for a in (8, 4, 2, 1) for b in (8, 4, 2, 1)], np.uint8)
    X, Y = (np.lib.format.open_memmap(folder / f"random_{key}.npy", "w+", np.uint8, (n, width))
            for key, width in (("X", LENGTH // 2), ("Y", -(-K // 8))))
    for array in (X, Y):
        claim(array.filename, os.path.getsize(array.filename))
    for i in range(0, n, block):
        m = min(block, n - i)
        X[i:i + m] = pair[rng.integers(16, size=(m, LENGTH // 2), dtype=np.uint8)]
        Y[i:i + m] = np.packbits(rng.random((m, K), np.float32) < rate, axis=1)
    return Split(X, Y, K, n, False, True, "random")


def write_chunked(path, split, chunking):
    """Write a packed split as a train.mat with HDF5 chunks of one of CHUNKINGS, gzipped where there are chunks."""
    n = len(split.X)
    with h5py.File(path, "w") as file:
        for key, packed, shape in (("trainxdata", split.X, (LENGTH, 4, n)), ("traindata", split.Y, (split.n_labels, n))):
            chunks, cells = CHUNKINGS[chunking](shape), 4 if len(shape) == 3 else 1
            array = file.create_dataset(key, shape, "u1", chunks=chunks, **({"compression": "gzip", "compression_opts": 1} if chunks else {}))
            rows, columns = plan_tiles(shape, array.chunks, 1, TILE)
            for (c0, c1), (r0, r1) in itertools.product(columns, rows):
                first, last = r0 * cells // 8, -(-r1 * cells // 8)
                bits = np.unpackbits(packed[c0:c1, first:last], axis=1)[:, r0 * cells - 8 * first:r1 * cells - 8 * first]
                array[r0:r1, ..., c0:c1] = bits.T.reshape(r1 - r0, *shape[1:-1], c1 - c0)


class Measured:
    """with Measured() as it: ...; then it.seconds, and it.gb, the process's peak memory meanwhile (Linux)."""

    def __enter__(self):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")                   # forget the peak so far
        self.started = time.time()
        return self

    def __exit__(self, *error):
        self.seconds, self.gb = time.time() - self.started, peak_memory()


def evict(path):
    """Ask the system to drop a file from its page cache, so that it is read from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def release(split):
    """Let go of the pages of a packed split that this process has mapped: they would count as its memory."""
    for array in (split.X, split.Y):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def benchmark_packing(path, folder):
    """Read train.mat tile by tile without packing, then pack it, both from the disk: (Split, a row of the table)."""
    keys = "trainxdata", "traindata"
    evict(path)
    with Measured() as alone, open_mat(path, keys) as (arrays, _):
        check_layout(path, dict(zip(keys, arrays)))
        for array in arrays:
            plan = plan_tiles(array.shape, getattr(array, "chunks", None), array.dtype.itemsize, TILE)
            for _ in read_tiles(array, np.arange(array.shape[-1]), *plan):
                pass
    evict(path)
    with Measured() as packing:
        split = load_split(path.parent, "train", folder)
    n, size = len(split.X), LENGTH * 4 + split.n_labels
    return split, {"n": n, "rate": n / packing.seconds, "gb": packing.gb, "mb_s": n * size / packing.seconds / 1e6,
                   "beside": f"h5py alone reads {n / alone.seconds:,.0f} sequences/s", "of_it": alone.seconds / packing.seconds}


def benchmark_feeding(batches, seconds=10.):
    """Draw batches without a model, the files out of the page cache at first, then in it: two rows of the table."""
    rows = {}
    release(batches.split)                              # a page that is mapped stays in the cache
    for array in (batches.split.X, batches.split.Y):
        evict(array.filename)
    steps = range(len(batches))
    for cache in ("cold", "warm"):
        done = 0
        with Measured() as it:
            for step in steps:
                done += len(batches[step][0])
                if time.time() - it.started > seconds:
                    break
        steps = steps[:step + 1]                        # the warm pass reads what the cold one did
        rows[f"feeding batches of {batches.batch_size}, {cache} cache"] = {"n": done, "rate": done / it.seconds, "gb": it.gb}
    return rows


def benchmark_network(model, batches, seconds=20.):
    """Train and predict for about `seconds` each: two rows of the table, after a first step that compiles."""
    order, size, rows, work = batches.order, batches.batch_size, {}, flops(model)

    def train(steps):
        batches.order = np.resize(order, steps * size)
        model.fit(batches, shuffle=False, verbose=0)

    def predict(steps):
        for step in range(steps):
            model.predict_on_batch(onehot(batches.split.X[np.resize(np.roll(order, -step * size), size)]))

    for name, run, passes in (("training", train, 3), ("prediction", predict, 1)):
        run(1)
        with Measured() as trial:
            run(3)
        steps = max(3, round(seconds / trial.seconds * 3))
        with Measured() as it:
            run(steps)
        n = steps * size
        rows[f"{name}, batches of {size}"] = {"n": n, "rate": n / it.seconds, "gb": it.gb, "flop": passes * work}
    return rows


def matrix_product_rate(size=2048, times=10):
    """Floating-point operations a second of the backend's own matrix product: the yardstick of a network's."""
    a = keras.ops.ones((size, size))
    run = lambda times: np.asarray([keras.ops.convert_to_numpy(keras.ops.matmul(a, a)[0, 0]) for _ in range(times)])
    run(2)
    with Measured() as it:
        run(times)
    return 2 * size ** 3 * times / it.seconds


def tell_benchmark(rows, path, script, epochs):
    """Print {what: row} as one table, with the time for the DeepSEA bundle projected, and write it to `path` as JSON."""
    product, training = matrix_product_rate(), [row["rate"] for name, row in rows.items() if name.startswith("training")]
    print(f"\n{processor()}, {os.cpu_count()} cores; {', '.join(devices())}; Keras {version('keras')} on {keras.backend.backend()}; "
          f"{time.strftime('%F')}; matrix product {product / 1e9:,.0f} GFLOP/s\n\n"
          f"| what | sequences/s | peak memory | {FULL / 1e6:.1f} million take | beside |\n|---|---|---|---|---|")
    for name, row in rows.items():
        passes, notes = epochs if name.startswith("training") else 1, [row.get("beside")]
        if "of_it" in row:
            notes.append(f"{row['of_it']:.0%} of that, {row['mb_s']:,.0f} MB/s")
        if name.startswith("feeding") and training:
            notes.append(f"{row['rate'] / training[0]:,.0f} times the training's rate")
        if "flop" in row:
            row["flop_s"] = row["flop"] * row["rate"]
            notes.append(f"{row['flop'] / 1e9:.3f} GFLOP each: {row['flop_s'] / 1e9:,.0f} GFLOP/s, "
                         f"{row['flop_s'] / product:.0%} of the matrix product's")
        row["projected_seconds"] = seconds = row.get("full_seconds", FULL * passes / row["rate"])
        span = "-" if seconds is None else next(f"{seconds / unit:,.1f} {name}" for unit, name in ((3600, "h"), (60, "min"), (1, "s"))
                                                if seconds >= unit or unit == 1)
        print(f"| {name} | {row['rate']:,.0f} | {row['gb']:.2f} GB | {span}{f' ({passes} epochs)' if passes > 1 else ''} | "
              f"{', '.join(filter(None, notes))} |")
    write_json(path, {**surroundings(script), "matrix_product_flop_s": product, "rows": rows})
    print(f"-> {path}")


def benchmark(args):
    """Measure packing, feeding, training and prediction; the table -> benchmark-danq.json beside --out-dir."""
    home, mat = packed_beside(args.out_dir).parent, Path(args.data_dir) / "train.mat"
    home.mkdir(parents=True, exist_ok=True)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="benchmark", dir=home) as folder:
        folder = Path(folder)
        if mat.is_file():
            split, rows["packing"] = benchmark_packing(mat, folder)
        else:
            source = random_split(folder, 2 * (args.limit or 10_000), 919)
            for i, name in enumerate(CHUNKINGS):
                split = None
                (folder / str(i)).mkdir()
                write_chunked(folder / str(i) / "train.mat", source, name)
                release(source)
                split, rows[f"packing, chunks: {name}"] = benchmark_packing(folder / str(i) / "train.mat", folder)
                if not (np.array_equal(split.X, source.X) and np.array_equal(split.Y, source.Y)):
                    raise AssertionError(f"packing is wrong for chunks: {name}")
                (folder / str(i) / "train.mat").unlink()
        batches = Batches(split, args.batch_size, seed=args.seed)
        rows |= benchmark_feeding(batches)
        with all_devices(args.batch_size):
            rows |= benchmark_network(compiled_danq(args, split.n_labels), batches)
    tell_benchmark(rows, home / "benchmark-danq.json", "danq.py", args.epochs)


# ---------------------------------------------------------------- run bookkeeping and command line

class Parser(argparse.ArgumentParser):
    """argparse with errors told in one line."""

    def error(self, message):
        raise BadInput(f"{message} (see --help)")


def positive(text):
    """argparse type: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, is {text}")
    return number


def amount(text):
    """argparse type: a finite number of at least 0."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, is {text}")
    return number


def seed(text):
    """argparse type: what numpy and Keras take as a seed."""
    number = int(text)
    if not 0 <= number < 2 ** 32:
        raise argparse.ArgumentTypeError(f"must be from 0 to 4294967295, is {text}")
    return number


def shared_arguments(parser, out_dir, epochs):
    """Arguments that both scripts take."""
    add = parser.add_argument
    add("--data-dir", default="data", help="folder of train.mat, valid.mat, test.mat (default: %(default)s)")
    add("--out-dir", default=out_dir, help="folder for this run's files; packed data go into packed/ beside it "
                                           f"(default: {out_dir or 'runs/ and the name of the model'})")
    add("--epochs", type=positive, default=epochs, help="passes over the training data at most (default: %(default)s)")
    add("--batch-size", type=positive, default=100, help="sequences a training step (default: %(default)s)")
    add("--limit", type=positive, metavar="N", help="take the first N windows of each split, with both strands")
    add("--seed", type=seed, default=1337, help="seed of weights, dropout, shuffling and forest (default: %(default)s)")
    add("--predict", metavar="FASTA", help="annotate a FASTA file (plain or gzip) with the trained run in --out-dir, and exit")
    add("--test-data", metavar="DIR", help="score the trained run in --out-dir on the test.mat of another folder, and exit")
    add("--output", metavar="FILE",
        help="where --predict writes, .tsv or .h5 (default: predictions.tsv); where superq.py's --compare writes")
    add("--mixed-precision", action="store_true", help="compute in bfloat16 but for the BLSTM, weights in float32: faster where the machine has bfloat16")
    add("--benchmark", action="store_true",
        help="measure speed and memory on the whole train.mat of --data-dir, or without one on --limit random windows (10,000), and exit")
    add("--checkpoint-minutes", type=amount, default=10., metavar="M",
        help="keep the state of training every M minutes: what a kill costs at most (default: %(default)g)")
    add("--restart", action="store_true", help="discard what a run with other arguments left in --out-dir")


def finished_settings(out_dir, script=None):
    """Settings of the finished run in out_dir. Raises BadInput where there is none, or it is another script's."""
    if not (Path(out_dir) / "summary.json").is_file():
        raise BadInput(f"{out_dir} holds no finished run (no summary.json): train first, or name one that is finished")
    settings = read_json(Path(out_dir) / "args.json", "settings")["settings"]
    if script and settings["script"] != script:
        raise BadInput(f"{out_dir} holds a run of {settings['script']}: give it to that script")
    return settings


def load_model(out_dir):
    """The trained model in out_dir, loaded in Keras' safe mode: its file cannot run code."""
    path = Path(out_dir) / "model.keras"
    with reading(path, "train again with --restart"):
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def write_csv(path, rows, columns=None):
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or rows[0])
        writer.writeheader()
        writer.writerows(rows)


def start_run(args, script, outputs, simulated, source, changeable=()):
    """Record the run in args.json; True where the same run is finished already.

    outputs : files that --restart removes;  source : what tells one state of the data from another
    changeable : settings that may differ from the run before
    Raises BadInput where --out-dir holds a run with other arguments, data or code: nothing made is overwritten.
    """
    out_dir = Path(args.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    lock(out_dir)
    sweep(out_dir)
    if args.restart:
        for name in ("summary.json", "args.json", *outputs):
            (out_dir / name).unlink(missing_ok=True)
    here = Path(__file__).resolve().parent
    code = "".join(ast.dump(ast.parse((here / name).read_bytes())) for name in dict.fromkeys(("danq.py", script))).encode()
    settings = {"script": script, **{key: value for key, value in vars(args).items() if key not in (
        "restart", "reuse_encodings", "make_demo_data", "compare", "benchmark", "predict", "test_data", "output", "out_dir",
        "checkpoint_minutes")}}
    settings |= {"data_dir": os.path.realpath(args.data_dir), "data_files": source,
                 "code": hashlib.sha256(code).hexdigest()[:16]}
    record = out_dir / "args.json"
    if record.is_file():
        before = read_json(record, "settings")["settings"]
        for key in sorted(settings.keys() | before.keys()):
            if key not in changeable and before.get(key) != settings.get(key):
                raise BadInput(f"{out_dir} holds a run in which {key.replace('_', '-')} was {before.get(key)}, "
                               f"now {settings.get(key)}: use another --out-dir, or --restart to discard it")
    if record.is_file() and (out_dir / "summary.json").is_file() and before == settings:
        print(f"{out_dir} is finished already: nothing to do (--restart trains again)")
        return True
    (out_dir / "summary.json").unlink(missing_ok=True)   # it marks a run finished, and this one is not yet
    write_json(record, {"settings": settings, "data": "SIMULATED" if simulated else args.data_dir, **surroundings(script)})
    return False


def surroundings(script):
    """What a record of a run says of the command, the machine and the versions."""
    names = "keras", keras.backend.backend(), "numpy", "h5py", "scipy", "scikit-learn"
    return {"command": [script, *sys.argv[1:]], "started": time.strftime("%F %T %z"), "device": devices(),
            "machine": f"{processor()}, {os.cpu_count()} cores",
            "versions": {"python": platform.python_version(), **{name: version(name) for name in names}}}


def devices():
    """Devices that Keras computes on; the torch backend has no such list."""
    try:
        return keras.distribution.list_devices()
    except AttributeError:
        return [keras.backend.backend()]


def processor():
    """The processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def command_line(main):
    """Run main(); tell bad input and failed files in one line on stderr and exit 2, without a traceback."""
    try:
        main()
    except BadInput as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'a file'}: {error.strerror or first_line(error)} (what was finished before is kept)"
    else:
        return
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(2)


def parse_args(argv=None):
    parser = Parser(description=__doc__.splitlines()[0])
    shared_arguments(parser, "runs/danq", 60)
    add = parser.add_argument
    add("--filters", type=positive, default=320, help="motif detectors of the convolution (default: %(default)s)")
    add("--lstm-units", type=positive, default=320, help="units of the BLSTM in each direction (default: %(default)s)")
    add("--conv-activation", default="relu", choices=("relu", "linear"),
        help="linear is what the 2018 Keras port did (default: %(default)s)")
    add("--patience", type=positive, default=5,
        help="epochs without a better validation loss before stopping (default: %(default)s)")
    add("--max-seconds", type=positive, metavar="S", help="stop training with the first batch that begins after S seconds")
    add("--make-demo-data", metavar="DIR", help="write a SIMULATED data set of --limit training windows (4,000) and exit")
    return parser.parse_args(argv)


def compiled_danq(args, n_labels):
    keras.utils.set_random_seed(args.seed)
    model = build_danq(n_labels, args.filters, args.lstm_units, args.conv_activation, args.mixed_precision)
    compile_model(model, "rmsprop", "binary_crossentropy", [keras.metrics.BinaryAccuracy(name="acc")])
    return model


def train_danq(args, train, valid, out_dir):
    """Build and train DanQ; leaves the best model in model.keras and returns what fit() does."""
    model, rate = compiled_danq(args, train.n_labels), base_rates(train)
    print(f"[2/3] DanQ: {model.count_params():,} parameters, {len(train.X):,} sequences, at most {args.epochs} epochs; "
          f"answering each label's base rate scores loss {entropy(rate):.4f}, answering 0 scores acc {1 - rate.mean():.4f}",
          flush=True)
    return fit(model, lambda epoch: Batches(train, args.batch_size, seed=args.seed, epoch=epoch),
               Batches(valid, args.batch_size), out_dir, args.epochs, args.patience, train.simulated,
               max_seconds=args.max_seconds, minutes=args.checkpoint_minutes)


def main(argv=None):
    args = parse_args(argv)
    if args.make_demo_data:
        return make_demo_data(args.make_demo_data, args.limit or 4000, args.seed)
    if args.benchmark:
        return benchmark(args)
    out_dir = Path(args.out_dir)
    if args.predict or args.test_data:
        finished_settings(out_dir, "danq.py")
        score = load_model(out_dir).predict_on_batch
        if args.predict:
            return annotate(score, args.predict, args.output or "predictions.tsv", out_dir, args.batch_size)
        return score_elsewhere(args, out_dir, score)
    started = time.time()
    print(f"[1/3] data: {args.data_dir}", flush=True)
    splits, labels = load_data(args)
    sources = [split.source for split in splits.values()]
    outputs = ("history.csv", "model.keras", "checkpoint.npz", "training.json", "metrics.csv")
    if start_run(args, "danq.py", outputs, splits["train"].simulated, sources):
        return
    stages = {"data": round(time.time() - started, 2)}
    train, valid, test = (splits[name] for name in SPLITS)
    if not (out_dir / "training.json").is_file():
        with all_devices(args.batch_size):
            write_json(out_dir / "training.json", train_danq(args, train, valid, out_dir))
    (out_dir / "checkpoint.npz").unlink(missing_ok=True)
    model, training = load_model(out_dir), read_json(out_dir / "training.json", "seconds", "best_epoch")
    stages["training"] = training["seconds"]

    print(f"[3/3] test: {test.windows:,} windows{', both strands averaged' if test.strands else ''}", flush=True)
    started = time.time()
    P_valid, P_test = (strand_mean(lambda rows: model.predict_on_batch(onehot(split.X[rows])), split, args.batch_size,
                                   split.n_labels) for split in (valid, test))
    stages["prediction"] = round(time.time() - started, 2)
    stages["all"] = round(sum(stages.values()), 2)
    Y_valid, Y_test = (unpack_labels(split, slice(split.windows)) for split in (valid, test))
    finish_run(out_dir, *evaluate(P_test, Y_test, labels, best_thresholds(P_valid, Y_valid)), {
        "model": "DanQ" + (f" stopped after {args.max_seconds} s" if args.max_seconds else ""), "seed": args.seed,
        "data": args.data_dir, "simulated": train.simulated, "limit": args.limit,
        "train_sequences": len(train.X), "test_windows": test.windows, "strands": test.strands, "training": training,
        "training_seconds": training["seconds_to_best"], "seconds": stages, "parameters": model.count_params()})


def base_rates(split, sample=100_000):
    """Rate of positives of each label (K,), over the first `sample` rows."""
    return unpack_labels(split, slice(sample)).mean(0)


def entropy(p):
    """Mean binary cross-entropy, in nats, of always answering the base rates p (K,)."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())


if __name__ == "__main__":
    command_line(main)
