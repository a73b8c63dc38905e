#!/usr/bin/env bash
# DanQ and SuperQ side by side, from nothing to one table and its pictures.
#
#   bash run_all.sh             data/*.mat where they are; else, with a GPU, --deepsea; else --demo
#   bash run_all.sh --demo      SIMULATED data, narrow networks: 25 minutes on two cores, 4 GB
#   bash run_all.sh --real      real human DNA: fetches 177 tracks of peaks and chr20 of hg19
#   bash run_all.sh --deepsea   the full reproduction: 4 GB to fetch, 70 GB of disk, a GPU
#
#   bash run_all.sh --curve     scores against the number of training windows, on one test set
#   bash run_all.sh --study     which change to SuperQ does what: 18 runs on 2,000 windows each
#   bash run_all.sh --full      every stage at DeepSEA's size, on 2.2 million SIMULATED windows
#   bash run_all.sh --speed     speed of training at three batch sizes and three precisions
#   bash run_all.sh --setup     make .venv and stop; with GPU=1 for a GPU that is elsewhere
#   bash run_all.sh --test      make .venv and run pytest test_superq.py
#
# Variables stand before the command:   DATA=mine LIMIT=8000 EPOCHS=4 bash run_all.sh
#
#   DATA          your own folder of train.mat, valid.mat, test.mat
#   LIMIT         windows of each split, at random (of --full: how many are simulated)
#   EPOCHS        at most so many, for every network
#   SEEDS         of SuperQ's runs ("1337"); "1337 1 2" gives mean and spread
#   MOTIFS        file of known motifs, in MEME's text format or JASPAR's, to start from
#   RUNS          where results go (runs)
#   CPU=1         compute on the CPU, though there is a GPU
#   DANQ_FLAGS, SUPERQ_FLAGS     more flags for one of the scripts
#   SIZES, DANQ_SEEDS            of --curve ("500 2000 8000 all", the first of SEEDS)
#   KERAS_BACKEND                tensorflow or jax
#   PYTHON                       a Python 3.11, 3.12 or 3.13 to make .venv with
#   DEEPSEA_URL, TRACKS_URL, GENOME_URL, JASPAR_URL      other places of what is fetched (file://)
#
# Relative names are taken from the folder you are in. A finished stage is skipped when the same
# command is given again. What LIMIT or EPOCHS shrank, and the demo, have folders of their own.
#
# Disk of the full run: download and .mat files 10 GB, packed 3, encodings 40, forests 8, room to
# write the largest twice 10; .venv takes 2 more, with CUDA 6.

# Nothing here needs more than bash 3.2 and POSIX tools, which is what a Mac has. There, and with
# set -u, an empty array is an error: every array below begins with something.
set -euo pipefail
set -f                          # a * in a flag is a *, not a list of files

DATA=${DATA:-}
LIMIT=${LIMIT:-}
EPOCHS=${EPOCHS:-}
SEEDS=${SEEDS:-1337}
MOTIFS=${MOTIFS:-}
RUNS=${RUNS:-runs}
CPU=${CPU:-}
GPU=${GPU:-}
DANQ_FLAGS=${DANQ_FLAGS:-}
SUPERQ_FLAGS=${SUPERQ_FLAGS:-}
SIZES=${SIZES:-500 2000 8000 all}
DANQ_SEEDS=${DANQ_SEEDS:-${SEEDS%% *}}
PYTHON=${PYTHON:-}
# Each run's args.json keeps it.
export KERAS_BACKEND=${KERAS_BACKEND:-tensorflow}

bundle=deepsea.princeton.edu/media/code/deepsea_train_bundle.v0.9.tar.gz
DEEPSEA_URL=${DEEPSEA_URL:-https://$bundle http://$bundle}
github=https://raw.githubusercontent.com
TRACKS_URL=${TRACKS_URL:-$github}
GENOME_URL=${GENOME_URL:-https://hgdownload.soe.ucsc.edu/goldenPath/hg19/chromosomes/chr20.fa.gz}
jaspar=https://jaspar.elixir.no/download/data/2026/CORE
jaspar=$jaspar/JASPAR2026_CORE_vertebrates_non-redundant_pfms_meme.txt
JASPAR_URL=${JASPAR_URL:-$jaspar}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$here/.venv/bin/python
what=${1:-}
plan=                           # demo, real, deepsea, full, or yours
motifs=                         # the file of known motifs, where there is one
tag=                            # what the names of this command's runs end with

main() {
    check_settings "$@"
    check_machine
    choose_data
    announce
    make_environment
    check_gpu
    case $what in
        --setup) end_of_setup ;;
        --test) run_tests ;;
        --speed) measure_speed ;;
        *)
            get_data
            set_flags
            case $what in
                --study) study ;;
                --curve) curve ;;
                --full) full ;;
                *) chain ;;
            esac
            ;;
    esac
}

say() {
    printf '\n== %s\n' "$*"
}

complain() {
    printf 'run_all.sh: %s\n' "$*" >&2
}

die() {
    complain "$@"
    exit 2
}

# ---- what was asked for, and where

check_settings() {
    local name
    local number='^[1-9][0-9]*$'
    local numbers='^[0-9]+( [0-9]+)*$'
    local sizes='^([1-9][0-9]* )*([1-9][0-9]*|all)$'
    local modes="--demo, --real, --deepsea, --curve, --study, --full, --speed, --setup or --test"
    local refusal="takes one word or none: $modes, not: $*"
    case $what in
        --help | -h)
            # What stands above, up to the first line that is no comment.
            awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
            exit 0
            ;;
        '' | --demo | --real | --deepsea | --curve | --study | --full | --speed) ;;
        --setup | --test) ;;
        *) die "$refusal" ;;
    esac
    if (( $# > 1 )); then
        die "$refusal"
    fi
    for name in LIMIT EPOCHS; do
        if [[ ${!name} && ! ${!name} =~ $number ]]; then
            die "$name must be a whole number of at least 1, is ${!name}"
        fi
    done
    for name in SEEDS DANQ_SEEDS; do
        if [[ ! ${!name} =~ $numbers ]]; then
            die "$name must be whole numbers with a space between, is ${!name}"
        fi
    done
    if [[ ! $SIZES =~ $sizes ]]; then
        die "SIZES must be numbers, then perhaps all, is $SIZES"
    fi
    if [[ $DATA && ! -d $DATA ]]; then
        die "DATA=$DATA is not a folder"
    fi
    if [[ $MOTIFS ]] && ! has_motifs "$MOTIFS"; then
        die "MOTIFS=$MOTIFS is no file of motifs in MEME's text format or JASPAR's"
    fi
    case $what in
        --demo | --real | --deepsea | --full)
            if [[ $DATA ]]; then
                die "$what has data of its own: not with DATA=$DATA"
            fi
            ;;
    esac
}

check_machine() {
    case $(uname -s) in
        MINGW* | MSYS* | CYGWIN*)
            die "Windows: run this in WSL2 (wsl --install in PowerShell, then Ubuntu)"
            ;;
        Darwin)
            # Apple's GPU has given wrong LSTMs.
            CPU=1
            export JAX_PLATFORMS=cpu
            if [[ $(uname -m) == x86_64 ]]; then
                die "an Intel Mac: TensorFlow has no wheel for it since 2.16"
            fi
            ;;
    esac
    if [[ $CPU ]]; then
        export CUDA_VISIBLE_DEVICES=
    fi
}

has_gpu() {
    [[ ! $CPU && $(nvidia-smi -L 2>/dev/null) == *GPU* ]]
}

has_data() {
    compgen -G 'data/*.mat' >/dev/null
}

# MEME's text format, or JASPAR's.
has_motifs() {
    grep -q -e '^MOTIF' -e '^>' "$1" 2>/dev/null
}

choose_data() {
    case $what in
        --demo | --real | --deepsea | --full)
            plan=${what#--}
            return
            ;;
    esac
    if [[ $DATA ]]; then
        plan=yours
    elif has_data || has_gpu; then
        plan=deepsea
    else
        plan=demo
    fi
}

announce() {
    case $what in
        --setup)
            say "--setup: makes $here/.venv, a few minutes, and stops"
            return
            ;;
        --test)
            say "--test: makes $here/.venv, then runs pytest test_superq.py, some minutes"
            return
            ;;
        --speed)
            say "--speed: trains both networks at 3 batch sizes and 3 precisions -> $RUNS/speed-*/"
            return
            ;;
        --study)
            say "--study: 18 runs of SuperQ, one change each, and two tables -> $RUNS/:" \
                "on ${LIMIT:-2000} test windows, and on all of them"
            ;;
        --curve) say "--curve: every method on $SIZES windows, and one table -> $RUNS/" ;;
        --full) say "--full: every stage at DeepSEA's size, on SIMULATED windows -> $RUNS/" ;;
        *) say "the whole chain: DanQ, SuperQ, yardsticks, and one table -> $RUNS/" ;;
    esac
    case $plan in
        demo)
            echo "data: the demo's, which are SIMULATED; 1 GB of disk. Narrow networks."
            echo "About 25 minutes on two CPU cores, after installation."
            ;;
        real)
            echo "data: real human DNA, 177 tracks of peaks and chr20 of hg19 -> real/"
            echo "A day on two CPU cores; LIMIT=2000 before the command takes a part."
            ;;
        deepsea)
            if has_data; then
                echo "data: $PWD/data"
                return
            fi
            echo "data: the DeepSEA bundle, 4 GB to fetch -> $PWD/data; 70 GB of disk in all"
            echo "Hours to days: how many on this machine, is measured first."
            echo "A demo of some minutes instead: bash run_all.sh --demo"
            ;;
        yours)
            echo "data: $DATA"
            ;;
    esac
}

# ---- .venv

make_environment() {
    local stamp=$here/.venv/installed.txt
    local wanted=$here/.venv/wanted.txt
    if [[ -f $stamp ]] && has_what_it_takes "$(cat "$stamp")"; then
        return
    fi
    find_python
    say "$here/.venv: a few minutes, once"
    make_venv
    requirements_here > "$wanted"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$wanted" ||
        die "pip could not install $wanted, see above: is there a network, and room on the disk?"
    # The stamp is written last: an installation that was cut off is done again.
    mv "$wanted" "$stamp"
}

needs_cuda() {
    # GPU=1: .venv is made where no GPU is, as on a cluster's login node.
    [[ ! $CPU && $GPU ]] || has_gpu
}

requirements_here() {
    if needs_cuda; then
        requirements cuda
    else
        requirements
    fi
}

# The requirements for this backend, as text; with `cuda`, for a GPU.
requirements() {
    local edits=
    if [[ $KERAS_BACKEND == jax ]]; then
        edits='s/^# jax==/jax==/;'
    fi
    if [[ ${1:-} == cuda ]]; then
        edits+='s/^tensorflow==/tensorflow[and-cuda]==/;s/^jax==/jax[cuda12]==/'
    fi
    sed "$edits" "$here/requirements.txt"
}

# Is a .venv of these requirements enough? One with CUDA computes on a CPU, too.
has_what_it_takes() {
    local installed=$1
    [[ $installed == "$(requirements cuda)" || $installed == "$(requirements_here)" ]]
}

# NumPy here has wheels from Python 3.11 on, TensorFlow up to 3.13.
fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local candidate
    if [[ $PYTHON ]]; then
        fits "$PYTHON" || die "PYTHON=$PYTHON is no Python 3.11, 3.12 or 3.13"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if fits "$candidate"; then
            PYTHON=$candidate
            return
        fi
    done
    die "needs Python 3.11, 3.12 or 3.13, for which TensorFlow has wheels, and found" \
        "$(python3 --version 2>/dev/null || echo none): install one, or name it in PYTHON"
}

# Debian, Ubuntu and Colab have Python without ensurepip, and then venv ends with an error.
make_venv() {
    local venv=$here/.venv
    if "$PYTHON" -m venv "$venv" >/dev/null 2>&1; then
        return
    fi
    if "$PYTHON" -m venv --without-pip "$venv" >/dev/null 2>&1; then
        if "$PYTHON" -m pip --python "$python" install --quiet pip 2>/dev/null; then
            return
        fi
    fi
    if "$PYTHON" -m virtualenv --quiet "$venv" 2>/dev/null; then
        return
    fi
    die "$PYTHON cannot make $venv: apt install python3-venv (on Debian, Ubuntu), or name" \
        "another Python in PYTHON, and run this again"
}

# A GPU that Keras does not see would train for weeks on the CPU without a word.
check_gpu() {
    if ! has_gpu || computes_on_gpu; then
        return
    fi
    say "Keras does not see the GPU: once more, with the CUDA libraries of .venv"
    LD_LIBRARY_PATH=$(cuda_libraries)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
    if computes_on_gpu; then
        return
    fi
    die "nvidia-smi sees a GPU and Keras none ($KERAS_BACKEND says: $(reason_for_no_gpu)):" \
        "check the driver, that $here/.venv has tensorflow[and-cuda] (remove .venv to make it" \
        "anew) and that LD_LIBRARY_PATH hides no CUDA libraries; or CPU=1"
}

computes_on_gpu() {
    local seen
    seen=$(cd "$here" && "$python" -c 'import danq; print(*danq.devices())') || exit
    say "Keras on $KERAS_BACKEND computes on: $seen"
    [[ $seen == *gpu* || $seen == *cuda* ]]
}

# The folders that pip has put CUDA into, with colons between.
cuda_libraries() {
    find "$here/.venv" -type d -path '*/site-packages/nvidia/*/lib' | paste -s -d : -
}

reason_for_no_gpu() {
    local ask="import tensorflow; tensorflow.config.list_physical_devices('GPU')"
    local said
    if [[ $KERAS_BACKEND == jax ]]; then
        ask="import jax; jax.devices('gpu')"
    fi
    said=$("$python" -c "$ask" 2>&1 | grep -v '^ ' | tail -n 1) || true
    echo "${said:-nothing}"
}

end_of_setup() {
    say "$here/.venv is ready. Next: bash run_all.sh"
}

run_tests() {
    cd "$here"
    exec "$python" -m pytest -q test_superq.py
}

# ---- data

get_data() {
    case $plan in
        demo) demo_data ;;
        full) full_data ;;
        real) real_data || exit 2 ;;
        deepsea) deepsea_data ;;
    esac
}

demo_data() {
    DATA=$RUNS/demo-data
    simulate "$DATA"
}

full_data() {
    local name=full
    if [[ $LIMIT ]]; then
        name=full-$LIMIT
    fi
    DATA=$RUNS/$name-data
    simulate "$DATA" --limit "${LIMIT:-2200000}"
    RUNS=$RUNS/$name
    EPOCHS=${EPOCHS:-1}
    # There are no more windows than that.
    LIMIT=
}

# simulate FOLDER FLAGS...
simulate() {
    if [[ -d $1 ]]; then
        return
    fi
    say "SIMULATED data -> $1"
    mkdir -p "$(dirname "$1")"
    "$python" "$here/danq.py" --make-demo-data "$@"
}

# The DeepSEA bundle. Where nobody asked for it by name: else --real's data, else the demo's.
deepsea_data() {
    DATA=data
    if has_data; then
        return
    fi
    measure_hours
    if download_bundle; then
        return
    fi
    complain "the DeepSEA bundle cannot be had: put train.mat, valid.mat and test.mat by hand" \
        "into $PWD/data and run this again"
    if [[ $what == --deepsea ]]; then
        exit 2
    fi
    say "going on with the data of --real"
    plan=real
    if real_data; then
        return
    fi
    say "going on with the demo, on SIMULATED data"
    plan=demo
    demo_data
}

# How long would DeepSEA's data take here?
measure_hours() {
    local name record log
    mkdir -p "$RUNS"
    say "how long would it take here? Each network trains for 20 seconds on random DNA"
    for name in danq superq; do
        record=$RUNS/benchmark-$name.json
        log=$RUNS/benchmark-$name.log
        if [[ ! -f $record ]]; then
            "$python" "$here/test_superq.py" --benchmark $name --limit 250 \
                --out-dir "$RUNS/$name" >"$log" 2>&1 || true
        fi
        if [[ -f $record ]]; then
            print_hours $name "$record"
        else
            echo "$name.py: not measured, see $log"
        fi
    done
    echo "DanQ trains for 60 epochs at most, and with our recipe for 5;"
    echo "SuperQ for 6, or 3, in each of its runs."
}

# print_hours NAME RECORD: of an epoch of the bundle's 4.4 million sequences
print_hours() {
    "$python" - "$1" "$2" <<'END'
import json, sys

name, path = sys.argv[1:]
for what, row in json.load(open(path))["rows"].items():
    if what.startswith("training"):
        hours = 4.4e6 / row["rate"] / 3600
        print(f"{name}.py: {row['rate']:,.0f} sequences a second, {hours:.1f} hours an epoch")
END
}

# False where the bundle cannot be had. Unpacked beside data/, and moved there at the end.
download_bundle() {
    local whole=data.part/bundle.tar.gz
    local folder url
    for url in $DEEPSEA_URL; do
        say "the DeepSEA bundle: $url -> data/"
        if fetch "$url" "$whole" --progress-bar; then
            break
        fi
    done
    if [[ ! -f $whole ]]; then
        return 1
    fi
    rm -rf data.part/unpacked
    mkdir data.part/unpacked
    tar -xzf "$whole" -C data.part/unpacked ||
        die "$whole cannot be unpacked: is the disk full? It is kept for the next run"
    folder=$(find data.part/unpacked -name train.mat | sed -n 1p)
    folder=$(dirname "$folder")
    if [[ ! -f $folder/valid.mat || ! -f $folder/test.mat ]]; then
        rm -rf data.part
        return 1
    fi
    mkdir -p data
    # The largest last: data/ counts as there once it holds something, and this is one step.
    mv "$folder/valid.mat" "$folder/test.mat" "$folder/train.mat" data/ ||
        die "the files cannot be moved to $PWD/data: they are in $folder"
    rm -rf data.part
}

# Fetch one file, beside its name and renamed when it is whole.   fetch URL FILE [METER OF CURL]
fetch() {
    local url=$1
    local file=$2
    local meter=${3:---silent}
    local part=$file.part
    local code
    if [[ -f $file ]]; then
        return
    fi
    command -v curl >/dev/null || die "curl is missing: install it (apt install curl)"
    mkdir -p "$(dirname "$file")" || return
    if [[ -f $part ]]; then
        # A run that was killed has left it. Only a gzip file says whether it is whole.
        case $file in
            *.gz) if gzip -t < "$part" 2>/dev/null; then mv "$part" "$file"; return; fi ;;
            *) rm -f "$part" ;;
        esac
    fi
    for _ in resumed fresh; do
        code=0
        curl --fail --location "$meter" --retry 3 --connect-timeout 20 --speed-limit 1000 \
            --speed-time 60 --continue-at - --output "$part" "$url" || code=$?
        case $code in
            0) if is_whole "$part" "$file"; then mv "$part" "$file"; return; fi ;;
            33 | 36) ;;         # the server cannot resume
            *) return 1 ;;      # the part is kept for the next run
        esac
        # It was no such file, or the end of another one: once more from the start.
        rm -f "$part"
    done
    return 1
}

# is_whole PART FILE: by the kind of file that its name promises
is_whole() {
    case $2 in
        *.gz) gzip -t < "$1" 2>/dev/null ;;
        *.meme) has_motifs "$1" ;;
        *) [[ -s $1 ]] ;;
    esac
}

# real/data, from the peak files of .real/tracks.tsv and chromosome 20 of hg19. False, after one
# line, where that fails.
real_data() {
    DATA=real/data
    if [[ -d real/data ]]; then
        return
    fi
    say "177 tracks of peaks and chr20 of hg19 -> real/"
    if ! fetch "$GENOME_URL" real/chr20.fa.gz; then
        complain "$GENOME_URL cannot be fetched: put it by hand at $PWD/real/chr20.fa.gz and" \
            "run this again"
        return 1
    fi
    fetch_tracks || return
    say "data in DeepSEA's layouts -> real/data"
    "$python" "$here/danq.py" --make-data real/data --genome real/chr20.fa.gz \
        --tracks real/tracks.tsv --valid chr20:50000000-54000000 --test chr20:54000000-
}

# Every file of .real/tracks.tsv, and real/tracks.tsv, the table that --make-data reads.
fetch_tracks() {
    local assay name repository commit path url
    # || return: on a full disk a line would be missing, and its label with it.
    printf 'assay\tname\tfile\n' > real/tracks.part || return
    while IFS=$'\t' read -r assay name repository commit path; do
        url=${TRACKS_URL%/}/$repository/$path
        if [[ $TRACKS_URL == "$github" ]]; then
            url=$github/$repository/$commit/$path
        fi
        if ! fetch "$url" "real/$repository/$path"; then
            complain "$url cannot be fetched: put it by hand at $PWD/real/$repository/$path" \
                "and run this again; $here/.real/tracks.tsv lists all 177"
            return 1
        fi
        printf '%s\t%s\t%s\n' "$assay" "$name" "$repository/$path" >> real/tracks.part || return
    done < <(tail -n +2 "$here/.real/tracks.tsv")
    mv real/tracks.part real/tracks.tsv
}

# Known motifs: MOTIFS, or those beside the data, or, for real DNA, JASPAR's.   find_motifs RUN
find_motifs() {
    motifs=$MOTIFS
    if [[ ! $motifs && -f $DATA/motifs.meme ]]; then
        motifs=$DATA/motifs.meme
    fi
    if [[ ! $motifs && ( $plan == real || $plan == deepsea ) ]]; then
        find_jaspar "$1"
    fi
    known=(--motif-start "$motifs")
    if [[ $plan == demo ]]; then
        # Room for the demo's 104 motifs, beside 32 filters that start at random.
        known+=(--filters 136)
    fi
}

# Where the first RUN of SuperQ began without motifs, all goes on without them.
find_jaspar() {
    if grep -qs '"motif_start": null' "$RUNS/$1/args.json"; then
        say "$RUNS/$1 began without known motifs: so do the others"
    elif fetch "$JASPAR_URL" jaspar.meme; then
        motifs=jaspar.meme
        say "known motifs: JASPAR's CORE collection, vertebrates, in jaspar.meme"
    else
        say "no known motifs: $JASPAR_URL cannot be fetched. All filters start at random;" \
            "put the file by hand at $PWD/jaspar.meme, or name another in MOTIFS"
    fi
}

# ---- runs

# What each kind of run is called with: a script, then its flags.
set_flags() {
    danq=(danq.py)
    superq=(superq.py)
    paper=(superq.py)
    forest=(superq.py)
    if [[ $plan == real ]]; then
        tag=-real
    fi
    if [[ $plan == demo ]]; then
        tag=-demo
        demo_flags
    fi
    if [[ $what == --study ]]; then
        LIMIT=${LIMIT:-2000}
    fi
    if [[ $LIMIT ]]; then
        tag+=-limit$LIMIT
        danq+=(--limit "$LIMIT")
        superq+=(--limit "$LIMIT")
        paper+=(--limit "$LIMIT")
        forest+=(--limit "$LIMIT")
    fi
    if [[ $EPOCHS ]]; then
        tag+=-epochs$EPOCHS
        danq+=(--epochs "$EPOCHS")
        superq+=(--epochs "$EPOCHS")
        paper+=(--epochs "$EPOCHS")
    fi
    # shellcheck disable=SC2206                 # words with spaces between
    danq+=($DANQ_FLAGS)
    # shellcheck disable=SC2206
    superq+=($SUPERQ_FLAGS)
    add_forest_flags
}

# Narrow, so that two CPU cores are done in minutes.
demo_flags() {
    danq+=(--filters 48 --lstm-units 24 --epochs 4)
    superq+=(--filters 32 --lstm-units 8)
    # Its BLSTM is as wide as the paper's; eight steps show how the loss explodes.
    paper+=(--filters 64 --limit 1000 --batch-size 250 --epochs 1)
}

# The yardsticks' forest is SuperQ's: of SUPERQ_FLAGS they take --forest-trees 500 and the like.
add_forest_flags() {
    local word
    local of_forest=
    for word in $SUPERQ_FLAGS; do
        case $word in
            --forest-*) of_forest=yes ;;
            --*) of_forest= ;;
        esac
        if [[ $of_forest ]]; then
            forest+=("$word")
        fi
    done
}

# One run, into $RUNS/NAME and the tag; it is noted for the table.   stage NAME SCRIPT FLAGS...
compared=(--compare)
results=0
failed=
stage() {
    local name=$1$tag
    local script=$2
    local code=0
    shift 2
    say "$name"
    "$python" "$here/$script" --data-dir "$DATA" --out-dir "$RUNS/$name" "$@" || code=$?
    case $code in
        0)
            results=$((results + 1))
            compared+=("$RUNS/$name")
            ;;
        # A fault of one run does not stop the others: the table names it. But what lies there
        # may be a run of other settings, which was not to be discarded: it is none of these.
        2)
            failed+=" $RUNS/$name"
            mkdir -p "$RUNS/$name"
            if [[ ! -f $RUNS/$name/summary.json ]]; then
                compared+=("$RUNS/$name")
            fi
            ;;
        *) exit "$code" ;;
    esac
}

# side_by_side TABLE
side_by_side() {
    local table=$RUNS/$1.md
    if (( results == 0 )); then
        die "no run has a result: see above"
    fi
    say "side by side"
    "$python" "$here/superq.py" "${compared[@]}" --output "$table"
}

# The runs of both networks, for the chain and for the curve. SUFFIX tells runs of several seeds
# apart; FLAGS, such as --limit 500, go to each.

# danq_runs SEED SUFFIX FLAGS...
danq_runs() {
    local seed=$1
    local suffix=$2
    shift 2
    stage "danq$suffix" "${danq[@]}" --recipe 2016 --seed "$seed" "$@"
    if [[ $motifs ]]; then
        stage "danq-motifs$suffix" "${danq[@]}" --recipe ours --seed "$seed" "${known[@]}" "$@"
    else
        stage "danq-ours$suffix" "${danq[@]}" --recipe ours --seed "$seed" "$@"
    fi
}

# `random`, SuperQ's flags, and `ours`, the same from known motifs where there are some.
#   flags_of_superq SEED
flags_of_superq() {
    random=("${superq[@]}" --seed "$1")
    ours=("${random[@]}")
    if [[ $motifs ]]; then
        ours+=("${known[@]}")
    fi
}

# superq_runs SEED SUFFIX FLAGS...
superq_runs() {
    local seed=$1
    local suffix=$2
    local ours random
    shift 2
    flags_of_superq "$seed"
    stage "superq$suffix" "${ours[@]}" "$@"
    if [[ $motifs ]]; then
        stage "superq-random$suffix" "${random[@]}" "$@"
    fi
    stage "superq-no-labels$suffix" "${ours[@]}" --label-weight 0 "$@"
}

# The first of SEEDS has no suffix.
all_seeds_of_superq() {
    local seed suffix
    for seed in $SEEDS; do
        suffix=-seed$seed
        if [[ $seed == "${SEEDS%% *}" ]]; then
            suffix=
        fi
        superq_runs "$seed" "$suffix"
    done
}

# The yardsticks that read known motifs, where there are some.   motif_yardsticks FLAGS...
motif_yardsticks() {
    if [[ $motifs ]]; then
        # The first has a network, too, which learns in epochs.
        stage motifs "${forest[@]}" ${EPOCHS:+--epochs "$EPOCHS"} \
            --features motifs --motif-file "$motifs" "$@"
        stage chosen "${forest[@]}" --features chosen --motif-file "$motifs" "$@"
    fi
}

# The main command: every method once, on all windows.
chain() {
    local features
    find_motifs "superq$tag"
    danq_runs "${SEEDS%% *}" ''
    all_seeds_of_superq
    say "the yardsticks: other features into the same forest"
    motif_yardsticks
    for features in kmer gc cpg untrained pca; do
        stage $features "${forest[@]}" --features $features
    done
    if [[ $plan == demo ]]; then
        side_by_side "comparison$tag"
        demo_of_divergence
    else
        stage superq-paper "${paper[@]}" --paper
        side_by_side "comparison$tag"
    fi
    say "motifs of the first convolutions"
    write_motifs danq
    write_motifs superq
    end_of_chain
}

# SuperQ as the paper had it. Narrow it does not diverge, and at its width all windows would take
# minutes: it sees 1,000, which is no match for the others, and has a table of its own.
demo_of_divergence() {
    compared=(--compare)
    results=0
    stage superq-paper "${paper[@]}" --paper
    if (( results )); then
        side_by_side "comparison-paper$tag"
    fi
}

# write_motifs NAME
write_motifs() {
    local run=$1$tag
    # Without it the run has failed.
    if [[ -f $RUNS/$run/summary.json ]]; then
        "$python" "$here/$1.py" --out-dir "$RUNS/$run" --motifs "$RUNS/motifs-$run.meme"
    fi
}

end_of_chain() {
    local activate predict
    activate=$(printf '%q' "$here/.venv/bin/activate")
    predict=$(printf '%q ' python "$here/superq.py" --out-dir "$RUNS/superq$tag" \
        --predict seqs.fa --plot tracks.png)
    cat <<END

+-- made, in $RUNS/ (each .png as .svg, too)
|   comparison$tag.md             the table, with intervals of the differences
|   comparison$tag.png            the same as a picture; ...-training.png: every run's epochs
|                                 beside the paper's; ...-labels.png: SuperQ against DanQ,
|                                 label by label
|   motifs-danq$tag.meme, motifs-superq$tag.meme
|                                 for Tomtom and others; the best as logos: .png
|   danq$tag/, superq$tag/ and so on
|                                 a folder for each run
+-- your own DNA
|   source $activate
|   $predict
+--
END
    next_step
}

# The last lines of a command: what failed, and the next step up.
next_step() {
    if [[ $failed ]]; then
        say "without a result (see above):$failed"
    fi
    say "the next step up"
    if [[ $plan == demo ]]; then
        echo "These were SIMULATED data and narrow networks. Real human DNA:"
        echo "    LIMIT=2000 bash run_all.sh --real"
    elif [[ $plan == full ]]; then
        echo "These were SIMULATED data. DeepSEA's own: bash run_all.sh --deepsea"
    elif [[ $what == --study ]]; then
        echo "On four times as many windows: LIMIT=$((LIMIT * 4)) before the same command."
    elif [[ $LIMIT || $EPOCHS ]]; then
        echo "The same command without LIMIT and EPOCHS: all windows, all epochs."
    elif [[ $plan == real ]]; then
        echo "DeepSEA's own data, on a machine with a GPU: bash run_all.sh --deepsea"
    elif [[ $SEEDS != *' '* ]]; then
        echo "Three seeds, for mean and spread: SEEDS=\"1337 1 2\" before the same command."
    else
        echo "Scores against the number of training windows: bash run_all.sh --curve"
    fi
}

# ---- other commands

full() {
    stage danq "${danq[@]}"
    all_seeds_of_superq
    stage kmer "${forest[@]}" --features kmer
    side_by_side "comparison$tag"
    say "seconds and peak memory of every stage"
    "$python" - "${compared[@]:1}" <<'END'
import json, sys

for path in sys.argv[1:]:
    run = json.load(open(f"{path}/summary.json"))
    seconds = ", ".join(f"{name} {s:,.0f} s" for name, s in run["seconds"].items())
    memory = f"{run['peak_memory_gb']} GB at most"
    if "peak_memory_stage1_gb" in run:
        memory += f", {run['peak_memory_stage1_gb']} GB in stage 1"
    print(f"{run['model']}: {seconds}; {memory}")
END
    next_step
}

study() {
    local n weight times
    local seed=${SEEDS%% *}
    local ours random
    local old=(superq.py --limit "$LIMIT" --seed "$seed")
    if [[ $plan == demo ]]; then
        old+=(--filters 32 --lstm-units 16 --epochs 2)
    fi
    if [[ $EPOCHS ]]; then
        old+=(--epochs "$EPOCHS")
    fi
    # First SuperQ as it is, from known motifs where there are some: the table compares all
    # others with it.
    find_motifs "study-weight10$tag"
    flags_of_superq "$seed"
    stage study-weight10 "${ours[@]}" --label-weight 10
    # From the 2018 autoencoder to ours, one step at a time.
    for n in 0 1 2; do
        stage study-ablation$n "${old[@]}" --ablation $n
    done
    for n in 3 4; do
        stage study-ablation$n "${random[@]}" --ablation $n
    done
    # Then one change a run of what SuperQ is.
    if [[ $motifs ]]; then
        stage study-random "${random[@]}"
        # At the rate of few windows with a head start: without one it would be .004.
        stage study-no-head "${ours[@]}" --head-epochs 0 --top-rate 0.002
    fi
    for weight in 0 1 100; do
        stage study-weight$weight "${ours[@]}" --label-weight $weight
    done
    stage study-not-moved "${ours[@]}" --move 0
    stage study-no-lstm "${ours[@]}" --lstm-units 0
    # What the digits and their decoder do for the annotation.
    stage study-digits-random "${ours[@]}" --digits random
    stage study-digits-none "${ours[@]}" --digits none
    # Unlabelled DNA: once and three times the labelled sequences, which are both strands.
    for times in 1 3; do
        stage study-unlabelled$times "${ours[@]}" --unlabelled "$DATA/train.mat" \
            --unlabelled-limit $((times * 2 * LIMIT))
    done
    stage study-direct "${ours[@]}" --forest-projections 0
    side_by_side "comparison-study$tag"
    # LIMIT takes test windows, too: the same scores once more, on all there are.
    scored=(--compare)
    score_compared
    compared=("${scored[@]}")
    side_by_side "comparison-study$tag-all"
    next_step
}

curve() {
    local n
    local whole=$tag
    scored=(--curve)
    find_motifs "superq-seed${SEEDS%% *}$tag-windows${SIZES%% *}"
    for n in $SIZES; do
        tag=$whole-windows$n
        compared=(--compare)
        if [[ $n == all ]]; then
            point_of_curve
        else
            point_of_curve --limit "$n"
        fi
    done
    say "learning curve"
    "$python" "$here/superq.py" "${scored[@]}" --output "$RUNS/curve$whole.md"
    next_step
}

# Every method on one number of training windows, each scored on the whole test split.
point_of_curve() {
    local seed
    for seed in $SEEDS; do
        superq_runs "$seed" "-seed$seed" "$@"
    done
    stage kmer "${forest[@]}" --features kmer "$@"
    motif_yardsticks "$@"
    for seed in $DANQ_SEEDS; do
        danq_runs "$seed" "-seed$seed" "$@"
    done
    score_compared
}

# Scores every run of `compared` on the whole test split; `scored` gets their folders.
score_compared() {
    local run
    for run in "${compared[@]:1}"; do
        score_all_windows "$run"
    done
}

score_all_windows() {
    local run=$1
    local script=superq.py
    local name
    if [[ ! -f $run/summary.json ]]; then
        return                  # it failed
    fi
    case $run in
        "$RUNS"/danq*) script=danq.py ;;
    esac
    # The scripts name the scores by the folder that a link leads to.
    name=$(basename "$(cd "$DATA" && pwd -P)")
    if [[ ! -f $run/test-$name/summary.json ]]; then
        "$python" "$here/$script" --out-dir "$run" --test-data "$DATA"
    fi
    scored+=("$run/test-$name")
}

# On a CPU the first two precisions are the same.
measure_speed() {
    local precision flags
    for precision in float32 default mixed; do
        say "speed: precision $precision"
        flags=(--benchmark both --limit "${LIMIT:-50000}" --out-dir "$RUNS/speed-$precision/x")
        unset JAX_DEFAULT_MATMUL_PRECISION NVIDIA_TF32_OVERRIDE
        case $precision in
            float32)
                export JAX_DEFAULT_MATMUL_PRECISION=float32
                export NVIDIA_TF32_OVERRIDE=0
                ;;
            mixed)
                flags+=(--mixed-precision)
                ;;
        esac
        # shellcheck disable=SC2086             # words with spaces between
        "$python" "$here/test_superq.py" "${flags[@]}" $DANQ_FLAGS
    done
    say "the next step up: bash run_all.sh"
}

main "$@"
