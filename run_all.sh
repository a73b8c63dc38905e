#!/usr/bin/env bash
# DanQ and SuperQ side by side, from nothing to one table and one figure.
#
#   machine  a GPU VM with 16 GB of RAM for the full DeepSEA bundle; any 2 cores and 4 GB for the demo
#   time     demo: about 10 minutes on 2 CPU cores after installation; full bundle: 12 hours an epoch of DanQ on two cores
#            (projected from 100 sequences a second), so a GPU is needed
#   disk     demo 1 GB; full bundle about 75 GB: download and .mat files 10, packed 3, encodings of seven models 42, forests 8,
#            room to write the largest twice 10; plus 2 GB for .venv, 6 GB with CUDA
#
#   bash run_all.sh                                   data/*.mat if there; else download (GPU and network); else the demo
#   DATA=dir LIMIT=8000 EPOCHS=4 bash run_all.sh      your own data, its first 8,000 windows, 4 epochs
#   bash run_all.sh --study                           which change to SuperQ does what: 13 small runs, 2,000 windows each
#   bash run_all.sh --test                            make the environment and run pytest test_superq.py
#
# DATA folder of train.mat, valid.mat, test.mat; EPOCHS at most, for every network; LIMIT windows of each split;
# SEEDS of SuperQ's runs ("1337"; several, in quotes, give mean and spread); DANQ_FLAGS, SUPERQ_FLAGS more flags for a network;
# RUNS where results go (runs); DEEPSEA_URL where the bundle is. Relative names are taken from the folder you are in. A finished
# stage is skipped when this is run again; a run that EPOCHS or LIMIT shrank, and the demo, live in folders of their own and never
# pass for a full one.
set -euo pipefail
DATA=${DATA:-} EPOCHS=${EPOCHS:-} LIMIT=${LIMIT:-} RUNS=${RUNS:-runs} SEEDS=${SEEDS:-1337} PYTHON=${PYTHON:-python3}
DEEPSEA_URL=${DEEPSEA_URL:-https://deepsea.princeton.edu/media/code/deepsea_train_bundle.v0.9.tar.gz}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf '\n== %s\n' "$*"; }
die() { printf 'run_all.sh: %s\n' "$*" >&2; exit 2; }
for name in EPOCHS LIMIT; do
    [[ ${!name} =~ ^([1-9][0-9]*)?$ ]] || die "$name must be a whole number of at least 1, is ${!name}"
done
[[ $SEEDS =~ ^[0-9]+(\ [0-9]+)*$ ]] || die "SEEDS must be whole numbers with a space between, is $SEEDS"
[[ $# -eq 0 || ( $# -eq 1 && $1 =~ ^--(test|study)$ ) ]] || die "takes nothing, --study or --test, not: $*"
[[ -z $DATA || -d $DATA ]] || die "DATA=$DATA is not a folder"
has_gpu() { [[ $(nvidia-smi -L 2>/dev/null) == *GPU* ]]; }

# Make .venv once; its stamp, a copy of the requirements, is written last.
environment() {
    local stamp="$here/.venv/installed.txt" want
    want=$(cat "$here/requirements.txt")
    if has_gpu; then want=${want/tensorflow==/tensorflow[and-cuda]==}; fi
    if [[ -f $stamp && $(cat "$stamp") == "$want" ]]; then return; fi
    say "environment: $here/.venv (a few minutes, once)"
    "$PYTHON" -m venv "$here/.venv" || die "$PYTHON -m venv failed: install Python 3.11 or later with venv, or name it in PYTHON"
    printf '%s\n' "$want" > "$here/.venv/wanted.txt"
    "$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/.venv/wanted.txt"
    mv "$here/.venv/wanted.txt" "$stamp"
}

# Download the bundle into ./data: resumed where it stopped, unpacked beside, moved into place. False where that fails.
download() {
    say "DeepSEA bundle: $DEEPSEA_URL -> data/"
    local part=data.part/bundle.part whole=data.part/bundle.tar.gz folder
    mkdir -p data.part || return 1
    if ! [[ -f $whole ]]; then
        curl --fail --location --retry 3 --connect-timeout 20 --speed-limit 1000 --speed-time 60 --continue-at - \
            --output "$part" "$DEEPSEA_URL" || return 1
        mv "$part" "$whole"
    fi
    gzip -t "$whole" || { rm -f "$whole"; return 1; }
    rm -rf data.part/unpacked && mkdir data.part/unpacked || return 1
    tar -xzf "$whole" -C data.part/unpacked || die "$whole cannot be unpacked: is the disk full? It is kept for the next run"
    folder=$(find data.part/unpacked -name train.mat -printf '%h' -quit)
    [[ $folder && -f $folder/valid.mat && -f $folder/test.mat ]] || return 1
    mkdir -p data && mv "$folder"/{valid,test,train}.mat data/ && rm -rf data.part
}

environment
python="$here/.venv/bin/python"
if [[ ${1:-} == --test ]]; then
    say "tests"
    cd "$here" && exec "$python" -m pytest -q test_superq.py
fi

demo=
if [[ -z $DATA ]]; then
    DATA=data
    if ! compgen -G 'data/*.mat' >/dev/null; then
        if ! has_gpu; then
            say "no data/*.mat and no GPU: the demo, on SIMULATED data"; demo=1
        elif ! download; then
            say "the download failed: going on with the demo, on SIMULATED data"; demo=1
        fi
    fi
fi

# Full runs are at the scripts' own (the paper's) settings. The demo's networks are narrow.
study=${1:-} tag= danq=() superq=() paper=()
if [[ $study ]]; then LIMIT=${LIMIT:-2000}; fi
if [[ $demo ]]; then
    DATA=$RUNS/demo-data tag=-demo
    danq=(--filters 64 --lstm-units 32 --epochs 10) superq=(--filters 32 --lstm-units 16 --epochs 5)
    paper=(--filters 64 --lstm-units 32 --epochs 3)
    [[ -d $DATA ]] || { say "simulated data"; mkdir -p "$RUNS"; "$python" "$here/danq.py" --make-demo-data "$DATA"; }
fi
for name in LIMIT EPOCHS; do
    [[ -z ${!name} ]] && continue
    tag+=-${name,,}${!name}
    for stage in danq superq paper; do declare -n flags=$stage; flags+=("--${name,,}" "${!name}"); done
done
read -ra more <<< "${DANQ_FLAGS:-}"; danq+=("${more[@]}")
read -ra more <<< "${SUPERQ_FLAGS:-}"; superq+=("${more[@]}")
forest=(); [[ -n $LIMIT ]] && forest=(--limit "$LIMIT")

# A run of danq.py or superq.py into $RUNS/NAME$tag, noted for the table at the end:  stage NAME SCRIPT FLAGS...
made=()
stage() {
    local name=$1$tag script=$2
    say "$name"
    "$python" "$here/$script" --data-dir "$DATA" --out-dir "$RUNS/$name" "${@:3}"
    made+=("$RUNS/$name")
}
side_by_side() {
    say "side by side"
    "$python" "$here/superq.py" --compare "${made[@]}" --output "$RUNS/comparison$1$tag.md"
}

if [[ $study ]]; then
    one=("${superq[@]}" --seed "${SEEDS%% *}") old=("${paper[@]}" --seed "${SEEDS%% *}") ours=(--forest-trees 200 --forest-leaf 60)
    for mend in 0 1 2; do stage study-mend$mend superq.py "${old[@]}" --mend $mend "${ours[@]}"; done
    for mend in 3 4; do stage study-mend$mend superq.py "${one[@]}" --mend $mend; done
    for weight in 0 1 10 100; do stage study-weight$weight superq.py "${one[@]}" --label-weight $weight; done
    stage study-2d superq.py "${one[@]}" --layout 2d
    for more in 1 3; do                                 # times the labelled sequences, both strands
        stage study-unlabelled$more superq.py "${one[@]}" --unlabelled "$DATA/train.mat" --unlabelled-limit $((more * 2 * LIMIT))
    done
    stage study-direct superq.py "${one[@]}" --forest-projections 0
    side_by_side -study
    exit
fi

stage danq danq.py "${danq[@]}"
for seed in $SEEDS; do
    [[ $seed == "${SEEDS%% *}" ]] && suffix='' || suffix=-seed$seed
    stage superq$suffix superq.py "${superq[@]}" --seed "$seed"
    stage superq-no-labels$suffix superq.py "${superq[@]}" --seed "$seed" --label-weight 0
done
seconds=$("$python" -c 'import json, math, sys; print(math.ceil(json.load(open(sys.argv[1]))["training_seconds"]))' \
    "$RUNS/superq$tag/summary.json")
say "the yardsticks: DanQ stopped after SuperQ's $seconds s; other features into the same forest"
stage danq-stopped danq.py "${danq[@]}" --max-seconds "$seconds"
stage danq-forest superq.py --features danq --danq "$RUNS/danq$tag" "${forest[@]}"
for features in kmer untrained pca; do stage $features superq.py --features $features "${forest[@]}"; done
say "SuperQ as the paper had it"
stage superq-paper superq.py --paper "${paper[@]}"
side_by_side ''
if [[ $demo ]]; then
    cat <<END

This was the demo: SIMULATED data, narrow networks, few epochs. For the real thing put DeepSEA's train.mat, valid.mat and
test.mat into data/ (the bundle: $DEEPSEA_URL)
on a machine with a GPU, and run the same command again; or name your own: DATA=dir bash run_all.sh
END
fi
