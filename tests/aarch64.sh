#!/usr/bin/env bash
# The core of the tests on AArch64, by user-mode emulation:  bash tests/aarch64.sh [folder]
#
# For an x86-64 Debian 12 with apt-get, dpkg-deb and pip. Downloads qemu, an arm64 Python and wheels
# into the folder (by default .aarch64, kept for the next time; 400 MB) and installs nothing: no
# root, no binfmt. PROCESSORS: those to emulate, one after the other, as qemu calls them: by default
# an old one, and one with all that qemu knows, SVE and scalar products among it (a64fx has the one,
# neoverse-n1 the other). TESTS: others than the core, and options. The core takes a quarter of an
# hour each.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-$checkout/.aarch64}"
root=$(cd "${1:-$checkout/.aarch64}" && pwd)

apt() { # of one architecture, in the folder
  apt-get -qq -o Dir::State="$root/apt" -o Dir::State::status="$root/apt/status" \
    -o Dir::Cache="$root/apt/cache" -o APT::Sandbox::User="$(id -un)" \
    -o APT::Architecture="$1" -o APT::Architectures="$1" "${@:2}"
}

fetch() {
  mkdir -p "$root"/{apt/{lists/partial,cache/archives/partial},debs,wheels,system,site,qemu}
  touch "$root/apt/status"
  cd "$root/debs"
  apt amd64 update
  apt amd64 download qemu-user-static
  apt arm64 update
  apt arm64 download libc6 libgcc-s1 libstdc++6 python3.11 python3.11-minimal \
    libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1 libssl3 libffi8 liblzma5 \
    libbz2-1.0 libsqlite3-0 libuuid1 libcrypt1 libreadline8 libncursesw6 libtinfo6
  for deb in ./*_arm64.deb; do dpkg-deb -x "$deb" "$root/system"; done
  dpkg-deb -x qemu-user-static_*.deb "$root/qemu"
  local platforms=()
  for version in 2014 _2_17 _2_27 _2_28; do
    platforms+=(--platform "manylinux${version}_aarch64")
  done
  "${PYTHON:-python3}" -m pip download -q --disable-pip-version-check -d "$root/wheels" --no-deps \
    --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi abi3 \
    --abi none "${platforms[@]}" --platform any numpy llvmlite scipy mpmath pytest pytest-xdist \
    execnet hypothesis iniconfig pluggy packaging pygments sortedcontainers tqdm
  for wheel in "$root"/wheels/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" "$root/site"; done
  touch "$root/complete"
}

# A file that is Python there, for tests that start another.
write_python() {
  cat > "$root/python" <<END
#!/bin/sh
unset LD_PRELOAD OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
PYTHONHOME="$root/system/usr" \\
PYTHONPATH="$checkout/src:$root/site\${PYTHONPATH:+:\$PYTHONPATH}" \\
exec "$root/qemu/usr/bin/qemu-aarch64-static" -L "$root/system" -cpu "\$PROCESSOR" \\
  -0 "$root/python" "$root/system/usr/bin/python3.11" "\$@"
END
  chmod +x "$root/python"
}

core=(-n 2 tests/test_machine.py tests/test_other_processors.py tests/test_explain.py
  tests/test_approximations.py tests/test_screening.py tests/test_functions.py
  tests/test_backends.py::test_every_target_equals_the_reference
  tests/test_backends.py::test_random_formulas_equal_reference_and_oracle)

[ -e "$root/complete" ] || (fetch)
write_python
cd "$checkout"
for processor in ${PROCESSORS:-cortex-a72 max}; do
  echo "--- $processor"
  export PROCESSOR=$processor
  "$root/python" -c "
import pairfold.doctor as doctor
doctor._PAIRS_SIDE = 500
lines, works = doctor.report()
print('\n'.join(lines[lines.index('processor'):lines.index('threads')]))
raise SystemExit(not works)"
  read -ra tests <<< "${TESTS:-${core[*]}}"
  "$root/python" -m pytest -q -p no:cacheprovider "${tests[@]}"
done
