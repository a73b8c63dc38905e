#!/usr/bin/env bash
# DanQ and SuperQ side by side, from nothing to one table and its pictures.
#
#   machine  a GPU VM with 16 GB of RAM for the full DeepSEA bundle; any 2 cores and 4 GB for the demo
#   time     demo: about 8 minutes on 2 CPU cores after installation; full bundle: 12 hours an epoch of DanQ on two cores
#            (projected from 100 sequences a second), so a GPU is needed
#   disk     demo 1 GB; full bundle about 70 GB: download and .mat files 10, packed 3, encodings of six models 36, forests 8,
#            room to write the largest twice 10; plus 2 GB for .venv, 6 GB with CUDA
#
#   bash run_all.sh                                   data/*.mat if there; else download (GPU and network); else the demo
#   DATA=dir LIMIT=8000 EPOCHS=4 bash run_all.sh      your own data, 8,000 of its windows at random, 4 epochs
#   CPU=1 bash run_all.sh                             on the CPU, though the machine has a GPU
#   bash run_all.sh --real                            the same on real human DNA: fetches 177 tracks of peaks and chr20 of hg19
#   bash run_all.sh --study                           which change to SuperQ does what: 13 small runs, 2,000 windows each
#   bash run_all.sh --curve                           scores against the number of training windows, on one test set
#   bash run_all.sh --full                            every stage at DeepSEA's size, on 2.2 million SIMULATED windows
#   bash run_all.sh --speed                           training's speed at three batch sizes and precisions, both networks
#   bash run_all.sh --test                            make the environment and run pytest test_superq.py
#
# DATA folder of train.mat, valid.mat, test.mat; EPOCHS at most, for every network; LIMIT windows of each split;
# SEEDS of SuperQ's runs ("1337"; several, in quotes, give mean and spread); DANQ_FLAGS, SUPERQ_FLAGS more flags for a
# network; RUNS where results go (runs); TRACKS_URL, GENOME_URL other places of what --real fetches (file:// too); DEEPSEA_URL where the bundle is, one or several; KERAS_BACKEND tensorflow or jax.
# SIZES of the curve ("500 2000 8000 all"), DANQ_SEEDS of its runs of DanQ (the first of SEEDS); LIMIT of --full is its number of
# windows, of --speed half its sequences.
# Relative names are taken from the folder you are in. A finished stage is skipped when this is run again; a run that EPOCHS
# or LIMIT shrank, and the demo, live in folders of their own and never pass for a full one.
set -euo pipefail
DATA=${DATA:-} EPOCHS=${EPOCHS:-} LIMIT=${LIMIT:-} RUNS=${RUNS:-runs} SEEDS=${SEEDS:-1337} PYTHON=${PYTHON:-python3}
export KERAS_BACKEND=${KERAS_BACKEND:-tensorflow}       # the one place that decides it; each run's args.json keeps it
bundle=deepsea.princeton.edu/media/code/deepsea_train_bundle.v0.9.tar.gz
DEEPSEA_URL=${DEEPSEA_URL:-https://$bundle http://$bundle}
TRACKS_URL=${TRACKS_URL:-https://raw.githubusercontent.com}
GENOME_URL=${GENOME_URL:-https://hgdownload.soe.ucsc.edu/goldenPath/hg19/chromosomes/chr20.fa.gz}
BUNDLE_BYTES=${BUNDLE_BYTES:-3000000000}                # at least: less than this is an error page or a part
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf '\n== %s\n' "$*"; }
die() { printf 'run_all.sh: %s\n' "$*" >&2; exit 2; }
for name in EPOCHS LIMIT; do
    [[ ${!name} =~ ^([1-9][0-9]*)?$ ]] || die "$name must be a whole number of at least 1, is ${!name}"
done
[[ $SEEDS =~ ^[0-9]+(\ [0-9]+)*$ ]] || die "SEEDS must be whole numbers with a space between, is $SEEDS"
[[ $# -eq 0 || ( $# -eq 1 && $1 =~ ^--(test|real|study|curve|full|speed)$ ) ]] ||
    die "takes nothing, --real, --study, --curve, --full, --speed or --test, not: $*"
[[ ${SIZES:=500 2000 8000 all} =~ ^([1-9][0-9]*\ )*([1-9][0-9]*|all)$ ]] || die "SIZES must be numbers, then perhaps all, is $SIZES"
[[ -z $DATA || -d $DATA ]] || die "DATA=$DATA is not a folder"
has_gpu() { [[ -z ${CPU:-} && $(nvidia-smi -L 2>/dev/null) == *GPU* ]]; }
if [[ -n ${CPU:-} ]]; then export CUDA_VISIBLE_DEVICES=; fi

# Make .venv once; its stamp, a copy of the requirements, is written last.
environment() {
    local stamp="$here/.venv/installed.txt" want
    want=$(cat "$here/requirements.txt")
    if [[ $KERAS_BACKEND == jax ]]; then want=${want/\# jax==/jax==}; fi
    if has_gpu; then want=${want/tensorflow==/tensorflow[and-cuda]==} want=${want/$'\n'jax==/$'\n'jax[cuda12]==}; fi
    if [[ -f $stamp && $(cat "$stamp") == "$want" ]]; then return; fi
    say "environment: $here/.venv (a few minutes, once)"
    "$PYTHON" -m venv "$here/.venv" || die "$PYTHON -m venv failed: install Python 3.11 or later with venv, or name it in PYTHON"
    printf '%s\n' "$want" > "$here/.venv/wanted.txt"
    "$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/.venv/wanted.txt"
    mv "$here/.venv/wanted.txt" "$stamp"
}

# A GPU that Keras does not see would train for weeks on the CPU without a word.
check_gpu() {
    has_gpu || return 0
    local seen why
    seen=$(cd "$here" && "$python" -c 'import danq; print(*danq.devices())')
    say "Keras on $KERAS_BACKEND computes on: $seen"
    [[ $seen == *gpu* || $seen == *cuda* ]] && return
    local ask="import tensorflow; tensorflow.config.list_physical_devices('GPU')"
    if [[ $KERAS_BACKEND == jax ]]; then ask="import jax; jax.devices('gpu')"; fi
    why=$("$python" -c "$ask" 2>&1 | grep -v '^ ' | tail -n 1)
    die "nvidia-smi sees a GPU and Keras none ($KERAS_BACKEND says: ${why:-nothing}): check the driver, that $here/.venv has" \
        "tensorflow[and-cuda] (remove .venv to make it anew) and that LD_LIBRARY_PATH hides no CUDA libraries; or CPU=1"
}

# Download the bundle into ./data: resumed where it stopped, unpacked beside, moved into place. False where that fails.
download() {
    local part=data.part/bundle.part whole=data.part/bundle.tar.gz folder url
    mkdir -p data.part || return 1
    for url in $DEEPSEA_URL; do
        [[ -f $whole ]] && break
        say "DeepSEA bundle: $url -> data/"
        curl --fail --location --retry 3 --connect-timeout 20 --speed-limit 1000 --speed-time 60 --continue-at - \
            --output "$part" "$url" || continue
        if (( $(stat -c %s "$part") < BUNDLE_BYTES )); then
            say "what came is too small to be the bundle: $(stat -c %s "$part") bytes"; rm -f "$part"; continue
        fi
        mv "$part" "$whole"
    done
    [[ -f $whole ]] || return 1
    gzip -t "$whole" || { rm -f "$whole"; return 1; }
    rm -rf data.part/unpacked && mkdir data.part/unpacked || return 1
    tar -xzf "$whole" -C data.part/unpacked || die "$whole cannot be unpacked: is the disk full? It is kept for the next run"
    folder=$(find data.part/unpacked -name train.mat -printf '%h' -quit)
    [[ $folder && -f $folder/valid.mat && -f $folder/test.mat ]] || return 1
    mkdir -p data && mv "$folder"/{valid,test,train}.mat data/ && rm -rf data.part
}

# Fetch one file: resumed where it stopped, checked, renamed into place; from its start where that fails.  fetch URL FILE
fetch() {
    local url=$1 file=$2 resume
    [[ -f $file ]] && return
    mkdir -p "$(dirname "$file")"
    for resume in --continue-at\ - ''; do
        # shellcheck disable=SC2086                     # two words, or none
        curl --fail --silent --location --retry 3 --connect-timeout 20 $resume --output "$file.part" "$url" &&
            [[ -s $file.part ]] && { [[ $file != *.gz ]] || gzip -t "$file.part" 2>/dev/null; } &&
            mv "$file.part" "$file" && return
        rm -f "$file.part"
    done
    return 1
}

# Make real/data from the peak files of .real/tracks.tsv and chromosome 20 of hg19.
real_data() {
    local assay name repository commit path url n=0
    [[ -d real/data ]] && return
    say "177 tracks of peaks and chr20 of hg19 -> real/"
    fetch "$GENOME_URL" real/chr20.fa.gz ||
        die "$GENOME_URL cannot be fetched: put it by hand at $PWD/real/chr20.fa.gz and run this again"
    printf 'assay\tname\tfile\n' > real/tracks.part
    while IFS=$'\t' read -r assay name repository commit path; do
        url=${TRACKS_URL%/}/$repository/$path
        if [[ $TRACKS_URL == https://raw.githubusercontent.com ]]; then url=$TRACKS_URL/$repository/$commit/$path; fi
        fetch "$url" "real/$repository/$path" ||
            die "$url cannot be fetched: put it by hand at $PWD/real/$repository/$path and run this again;" \
                "$here/.real/tracks.tsv lists all 177"
        printf '%s\t%s\t%s\n' "$assay" "$name" "$repository/$path" >> real/tracks.part
        n=$((n + 1))
    done < <(tail -n +2 "$here/.real/tracks.tsv")
    mv real/tracks.part real/tracks.tsv
    say "$n tracks are there: data in DeepSEA's layouts -> real/data"
    "$python" "$here/danq.py" --make-data real/data --genome real/chr20.fa.gz --tracks real/tracks.tsv \
        --valid chr20:50000000-54000000 --test chr20:54000000-
}

environment
python="$here/.venv/bin/python"
check_gpu
if [[ ${1:-} == --test ]]; then
    say "tests"
    cd "$here" && exec "$python" -m pytest -q test_superq.py
fi

if [[ ${1:-} == --speed ]]; then                        # on a CPU the first two precisions are the same
    for precision in float32 default mixed; do
        say "speed: precision $precision"
        export -n JAX_DEFAULT_MATMUL_PRECISION NVIDIA_TF32_OVERRIDE
        more=() JAX_DEFAULT_MATMUL_PRECISION=float32 NVIDIA_TF32_OVERRIDE=0
        if [[ $precision == float32 ]]; then export JAX_DEFAULT_MATMUL_PRECISION NVIDIA_TF32_OVERRIDE; fi
        if [[ $precision == mixed ]]; then more=(--mixed-precision); fi
        "$python" "$here/test_superq.py" --benchmark both --limit "${LIMIT:-50000}" --out-dir "$RUNS/speed-$precision/x" \
            ${DANQ_FLAGS:-} "${more[@]}"
    done
    exit
fi

demo=
if [[ ${1:-} == --full ]]; then
    DATA=$RUNS/full${LIMIT:+-$LIMIT}-data EPOCHS=${EPOCHS:-1}
    if [[ ! -d $DATA ]]; then
        say "simulated data at DeepSEA's size"
        mkdir -p "$RUNS"; "$python" "$here/danq.py" --make-demo-data "$DATA" --limit "${LIMIT:-2200000}"
    fi
    RUNS=$RUNS/full${LIMIT:+-$LIMIT} LIMIT=
elif [[ ${1:-} == --real ]]; then
    real_data
    DATA=real/data
elif [[ -z $DATA ]]; then
    DATA=data
    if ! compgen -G 'data/*.mat' >/dev/null; then
        if ! has_gpu; then
            say "no data/*.mat and no GPU: the demo, on SIMULATED data"; demo=1
        elif ! download; then
            say "the download failed: put train.mat, valid.mat and test.mat by hand into $PWD/data and run this again;" \
                "going on with the demo, on SIMULATED data"; demo=1
        fi
    fi
fi

# Full runs are at the scripts' own settings. The demo's networks are narrow.
what=${1:-} tag= danq=() superq=() paper=()
if [[ $what == --real ]]; then tag=-real; fi
if [[ $what == --study ]]; then LIMIT=${LIMIT:-2000}; fi
if [[ $demo ]]; then
    DATA=$RUNS/demo-data tag=-demo
    danq=(--filters 48 --lstm-units 24 --epochs 4) superq=(--filters 32 --lstm-units 8)
    paper=(--filters 32 --lstm-units 16 --epochs 2)
    [[ -d $DATA ]] || { say "simulated data"; mkdir -p "$RUNS"; "$python" "$here/danq.py" --make-demo-data "$DATA"; }
fi
for name in LIMIT EPOCHS; do
    [[ -z ${!name} ]] && continue
    tag+=-${name,,}${!name}
    for stage in danq superq paper; do declare -n flags=$stage; flags+=("--${name,,}" "${!name}"); done
done
read -ra more <<< "${DANQ_FLAGS:-}"; danq+=("${more[@]}")
read -ra more <<< "${SUPERQ_FLAGS:-}"; superq+=("${more[@]}")
# The yardsticks' forest is SuperQ's: its flags are theirs, too.
forest=(); [[ -n $LIMIT ]] && forest=(--limit "$LIMIT")
while (( ${#more[@]} )); do
    case ${more[0]} in
        --forest-*=*) forest+=("${more[0]}") ;;
        --forest-*) forest+=("${more[@]:0:2}") ;;
    esac
    more=("${more[@]:1}")
done

# A run of danq.py or superq.py into $RUNS/NAME$tag, noted for the table at the end:  stage NAME SCRIPT FLAGS...
# One that ends with a fault (exit code 2) does not stop the others: the table names it.
made=() failed=()
stage() {
    local name=$1$tag script=$2 code=0
    say "$name"
    "$python" "$here/$script" --data-dir "$DATA" --out-dir "$RUNS/$name" "${@:3}" || code=$?
    (( code == 0 || code == 2 )) || exit $code
    (( code == 0 )) || failed+=("$RUNS/$name")
    made+=("$RUNS/$name")
}
side_by_side() {
    say "side by side"
    (( ${#made[@]} > ${#failed[@]} )) || die "no run has a result: see above"
    "$python" "$here/superq.py" --compare "${made[@]}" --output "$RUNS/comparison$1$tag.md"
}

if [[ $what == --study ]]; then
    one=("${superq[@]}" --seed "${SEEDS%% *}") old=("${paper[@]}" --seed "${SEEDS%% *}") ours=(--forest-trees 200 --forest-leaf 60)
    for n in 0 1 2; do stage study-ablation$n superq.py "${old[@]}" --ablation $n "${ours[@]}"; done
    for n in 3 4; do stage study-ablation$n superq.py "${one[@]}" --ablation $n; done
    for weight in 0 1 10 100; do stage study-weight$weight superq.py "${one[@]}" --label-weight $weight; done
    stage study-no-lstm superq.py "${one[@]}" --no-lstm
    for more in 1 3; do                                 # times the labelled sequences, both strands
        stage study-unlabelled$more superq.py "${one[@]}" --unlabelled "$DATA/train.mat" --unlabelled-limit $((more * 2 * LIMIT))
    done
    stage study-direct superq.py "${one[@]}" --forest-projections 0
    side_by_side -study
    exit
fi

if [[ $what == --curve ]]; then
    scored=() base=$tag
    for n in $SIZES; do
        tag=$base-windows$n size=()
        [[ $n == all ]] || size=(--limit "$n")
        made=()
        for seed in $SEEDS; do
            stage superq-seed$seed superq.py "${superq[@]}" "${size[@]}" --seed "$seed"
            stage superq-no-labels-seed$seed superq.py "${superq[@]}" "${size[@]}" --seed "$seed" --label-weight 0
        done
        stage kmer superq.py --features kmer "${forest[@]}" "${size[@]}"
        for seed in ${DANQ_SEEDS:-${SEEDS%% *}}; do stage danq-seed$seed danq.py "${danq[@]}" "${size[@]}" --seed "$seed"; done
        for run in "${made[@]}"; do                     # all on the whole test split
            script=superq.py test="$run/test-$(basename "$(realpath "$DATA")")"
            [[ $run == "$RUNS"/danq-* ]] && script=danq.py
            [[ -f $run/summary.json ]] || continue      # it failed
            [[ -f $test/summary.json ]] || "$python" "$here/$script" --out-dir "$run" --test-data "$DATA"
            scored+=("$test")
        done
    done
    say "learning curve"
    "$python" "$here/superq.py" --curve "${scored[@]}" --output "$RUNS/curve$base.md"
    exit
fi

stage danq danq.py "${danq[@]}"
for seed in $SEEDS; do
    [[ $seed == "${SEEDS%% *}" ]] && suffix='' || suffix=-seed$seed
    stage superq$suffix superq.py "${superq[@]}" --seed "$seed"
    stage superq-no-labels$suffix superq.py "${superq[@]}" --seed "$seed" --label-weight 0
done
if [[ $what == --full ]]; then
    stage kmer superq.py --features kmer "${forest[@]}"
    side_by_side ''
    say "seconds and peak memory of every stage"
    "$python" - "${made[@]}" <<'END'
import json, sys
for path in sys.argv[1:]:
    run = json.load(open(f"{path}/summary.json"))
    stages = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in run["seconds"].items())
    memory = f"{run['peak_memory_gb']} GB at most, {run.get('peak_memory_stage1_gb', '-')} GB in stage 1"
    print(f"{run['model']}: {stages}; {memory}")
END
    exit
fi
say "the yardsticks: other features into the same forest"
for features in kmer untrained pca; do stage $features superq.py --features $features "${forest[@]}"; done
say "SuperQ as the paper had it"
stage superq-paper superq.py --paper "${paper[@]}"
side_by_side ''
say "motifs of the first convolutions"
for name in danq superq; do
    [[ -f $RUNS/$name$tag/summary.json ]] || continue   # it failed
    "$python" "$here/$name.py" --out-dir "$RUNS/$name$tag" --motifs "$RUNS/motifs-$name$tag.meme"
done
activate=$(printf '%q' "$here/.venv/bin/activate")
predict=$(printf '%q ' python "$here/superq.py" --out-dir "$RUNS/superq$tag" --predict seqs.fa --plot tracks.png)
cat <<END

+-- made, in $RUNS/ (each .png as .svg, too)
|   comparison$tag.md             the table, with intervals of the differences
|   comparison$tag.png            the same as a picture; ...-training.png: every run's epochs beside the paper's;
|                                 ...-labels.png: SuperQ against DanQ, label by label
|   motifs-danq$tag.meme, motifs-superq$tag.meme      for Tomtom and others; the best as logos: .png
|   danq$tag/, superq$tag/ and so on                  a folder for each run
+-- next
|   source $activate
|   $predict
+--
END
if (( ${#failed[@]} )); then say "without a result (see above): ${failed[*]}"; fi
if [[ $demo ]]; then
    cat <<END
This was the demo: SIMULATED data, narrow networks, few epochs. For the real thing put DeepSEA's train.mat, valid.mat and
test.mat into data/ (the bundle: https://$bundle)
on a machine with a GPU, and run the same command again; or name your own: DATA=dir bash run_all.sh
Real DNA without a GPU, in about half an hour: LIMIT=2000 EPOCHS=6 bash run_all.sh --real
END
fi
