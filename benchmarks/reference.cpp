// Hand-written C++ for the benchmark cases: what a careful programmer gets from a good compiler.
//
// Blocks of rows are SIMD lanes (`omp simd`), the reduced index runs outside them, OpenMP threads
// share the blocks. Sums run in the data's type inside a block of columns and in double across
// blocks. Compile with -O3 -march=native -ffast-math -fopenmp.
//
// Every entry has the same signature: arrays in, arrays out, number of rows and columns.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace {

constexpr long kColumns = 512;  // columns between two additions to the double sums

template <class T>
constexpr int kRows = 256 / sizeof(T);  // rows of a block: four 512-bit vectors

// exp(x) = 2^n 2^f: n whole, |f| <= 1/2, 2^f as its Chebyshev interpolant of degree 6.
inline float exponential(float x) {
  const float log2e = 1.44269504088896341f;
  x = std::max(x, -87.0f);
  const float n = std::rint(x * log2e);
  const float f = x * log2e - n;
  float p = 0.0001546144470f;
  p = p * f + 0.001340042818f;
  p = p * f + 0.009618056679f;
  p = p * f + 0.05550327227f;
  p = p * f + 0.2402265092f;
  p = p * f + 0.6931472067f;
  p = p * f + 1.000000000f;
  const std::int32_t bits = (static_cast<std::int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

// The same with degree 11.
inline double exponential(double x) {
  const double log2e = 1.44269504088896340736;
  x = std::max(x, -708.0);
  const double n = std::rint(x * log2e);
  const double f = x * log2e - n;
  double p = 4.45581790833606449e-10;
  p = p * f + 7.07419429728852101e-9;
  p = p * f + 1.01780570877339411e-7;
  p = p * f + 1.32154325359123762e-6;
  p = p * f + 0.0000152527338415567726;
  p = p * f + 0.000154035304637243542;
  p = p * f + 0.00133335581464064707;
  p = p * f + 0.00961812910758725667;
  p = p * f + 0.055504108664821627;
  p = p * f + 0.240226506959101596;
  p = p * f + 0.693147180559945309;
  p = p * f + 0.999999999999999997;
  const std::int64_t bits = (static_cast<std::int64_t>(n) + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

struct Gaussian {
  template <class T>
  static T of(T d2) { return exponential(-d2); }
};

struct Laplacian {
  template <class T>
  static T of(T d2) { return exponential(-std::sqrt(d2)); }
};

struct Cauchy {
  template <class T>
  static T of(T d2) { return T(1) / (T(1) + d2); }
};

struct Coulomb {
  template <class T>
  static T of(T d2) {  // zero where d2 is, without a branch: gcc vectorises this form only
    const T zero = d2 == T(0);
    return (T(1) - zero) / std::sqrt(d2 + zero);
  }
};

struct Matern {
  template <class T>
  static T of(T d2) {
    const T r = std::sqrt(d2);
    return (T(1) + r + d2 * T(1.0 / 3.0)) * exponential(-r);
  }
};

// One block of rows, component by component; the last block repeats the last row.
template <class T, int D>
inline void load(T (&lanes)[D][kRows<T>], const T* rows, long first, long count) {
  for (int l = 0; l < kRows<T>; ++l)
    for (int k = 0; k < D; ++k) lanes[k][l] = rows[std::min(first + l, count - 1) * D + k];
}

// Sums E quantities per row over all columns; `add(lanes, column, sums)` handles one column.
template <class T, int D, int E, class Add, class Store>
void blocks(const T* rows, long m, long n, Add add, Store store) {
  constexpr int B = kRows<T>;
#pragma omp parallel for schedule(dynamic)
  for (long first = 0; first < m; first += B) {
    alignas(64) T lanes[D][B];
    alignas(64) double total[E][B] = {};
    load<T, D>(lanes, rows, first, m);
    for (long start = 0; start < n; start += kColumns) {
      alignas(64) T sums[E][B] = {};
      const long stop = std::min(n, start + kColumns);
      for (long j = start; j < stop; ++j) add(lanes, j, sums);
      for (int k = 0; k < E; ++k)
        for (int l = 0; l < B; ++l) total[k][l] += sums[k][l];
    }
    for (int l = 0; l < std::min<long>(B, m - first); ++l)
      for (int k = 0; k < E; ++k) store(first + l, k, total[k][l]);
  }
}

// out_i = sum_j K(|x_i - y_j|^2) b_j
template <class T, int D, class K>
void radial(const T* const* in, T* const* out, long m, long n) {
  const T *y = in[1], *b = in[2];
  auto add = [=](const T(&x)[D][kRows<T>], long j, T(&sums)[1][kRows<T>]) {
#pragma omp simd
    for (int l = 0; l < kRows<T>; ++l) {
      T d2 = 0;
#pragma GCC unroll 16
      for (int k = 0; k < D; ++k) d2 += (x[k][l] - y[j * D + k]) * (x[k][l] - y[j * D + k]);
      sums[0][l] += K::of(d2) * b[j];
    }
  };
  T* result = out[0];
  blocks<T, D, 1>(in[0], m, n, add, [=](long i, int, double sum) { result[i] = T(sum); });
}

// out_i = sum_j (p - a_j)^2 exp(x_i + y_j)
template <class T>
void seed(const T* const* in, T* const* out, long m, long n) {
  const T *y = in[1], *a = in[2], p = in[3][0];
  auto add = [=](const T(&x)[3][kRows<T>], long j, T(&sums)[3][kRows<T>]) {
    const T weight = (p - a[j]) * (p - a[j]);
    const T y0 = y[3 * j], y1 = y[3 * j + 1], y2 = y[3 * j + 2];
#pragma omp simd
    for (int l = 0; l < kRows<T>; ++l) {
      sums[0][l] += weight * exponential(x[0][l] + y0);
      sums[1][l] += weight * exponential(x[1][l] + y1);
      sums[2][l] += weight * exponential(x[2][l] + y2);
    }
  };
  T* result = out[0];
  blocks<T, 3, 3>(in[0], m, n, add,
                  [=](long i, int k, double sum) { result[3 * i + k] = T(sum); });
}

// out_j = (p - a_j)^2 sum_i e_i exp(x_i + y_j): the gradient with respect to y.
template <class T>
void seed_gradient(const T* const* in, T* const* out, long m, long n) {
  const T *x = in[0], *a = in[2], p = in[3][0], *e = in[4];
  auto add = [=](const T(&y)[3][kRows<T>], long i, T(&sums)[3][kRows<T>]) {
    const T x0 = x[3 * i], x1 = x[3 * i + 1], x2 = x[3 * i + 2];
    const T e0 = e[3 * i], e1 = e[3 * i + 1], e2 = e[3 * i + 2];
#pragma omp simd
    for (int l = 0; l < kRows<T>; ++l) {
      sums[0][l] += e0 * exponential(x0 + y[0][l]);
      sums[1][l] += e1 * exponential(x1 + y[1][l]);
      sums[2][l] += e2 * exponential(x2 + y[2][l]);
    }
  };
  T* result = out[0];
  blocks<T, 3, 3>(in[1], n, m, add, [=](long j, int k, double sum) {
    result[3 * j + k] = T(sum * (p - a[j]) * (p - a[j]));
  });
}

// Lanes z, others o with weights w: sums[k] = sum_o w_o K (z_k - o_k), sums[3] = sum_o w_o K.
template <class T, class Store>
void pull(const T* z, long m, const T* o, const T* w, long n, Store store) {
  auto add = [=](const T(&x)[3][kRows<T>], long j, T(&sums)[4][kRows<T>]) {
    const T o0 = o[3 * j], o1 = o[3 * j + 1], o2 = o[3 * j + 2], weight = w[j];
#pragma omp simd
    for (int l = 0; l < kRows<T>; ++l) {
      const T d0 = x[0][l] - o0, d1 = x[1][l] - o1, d2 = x[2][l] - o2;
      const T kernel = weight * exponential(-(d0 * d0 + d1 * d1 + d2 * d2));
      sums[0][l] += kernel * d0;
      sums[1][l] += kernel * d1;
      sums[2][l] += kernel * d2;
      sums[3][l] += kernel;
    }
  };
  blocks<T, 3, 4>(z, m, n, add, store);
}

// Gradients of the Gaussian sum with respect to x, y and b, for the adjoint e: two passes.
template <class T>
void gaussian_gradient(const T* const* in, T* const* out, long m, long n) {
  const T *x = in[0], *y = in[1], *b = in[2], *e = in[3];
  T *by_x = out[0], *by_y = out[1], *by_b = out[2];
  pull<T>(x, m, y, b, n, [=](long i, int k, double sum) {
    if (k < 3) by_x[3 * i + k] = T(-2 * e[i] * sum);
  });
  pull<T>(y, n, x, e, m, [=](long j, int k, double sum) {
    if (k < 3) by_y[3 * j + k] = T(-2 * b[j] * sum);
    else by_b[j] = T(sum);
  });
}

// Blocks of rows as lanes: `fold(lanes, first)` handles the rows from `first` on.
template <class T, int D, class Fold>
void row_blocks(const T* rows, long m, Fold fold) {
#pragma omp parallel for schedule(dynamic)
  for (long first = 0; first < m; first += kRows<T>) {
    alignas(64) T lanes[D][kRows<T>];
    load<T, D>(lanes, rows, first, m);
    fold(lanes, first);
  }
}

// The squared distances of a block of rows to one column.
template <class T, int D>
inline T squared(const T (&x)[D][kRows<T>], int l, const T* y) {
  T d2 = 0;
#pragma GCC unroll 16
  for (int k = 0; k < D; ++k) d2 += (x[k][l] - y[k]) * (x[k][l] - y[k]);
  return d2;
}

// out_i = argmin_j |x_i - y_j|^2, the first of several, as 64-bit integers.
template <class T, int D>
void squared_argmin(const T* const* in, T* const* out, long m, long n) {
  using Index = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr int B = kRows<T>;
  const T* y = in[1];
  std::int64_t* result = reinterpret_cast<std::int64_t*>(out[0]);
  row_blocks<T, D>(in[0], m, [=](const T(&x)[D][B], long first) {
    alignas(64) T least[B];
    alignas(64) Index place[B] = {};
    std::fill_n(least, B, std::numeric_limits<T>::max());
    for (long j = 0; j < n; ++j) {
#pragma omp simd
      for (int l = 0; l < B; ++l) {
        const T d2 = squared<T, D>(x, l, y + j * D);
        const bool closer = d2 < least[l];
        least[l] = closer ? d2 : least[l];
        place[l] = closer ? static_cast<Index>(j) : place[l];
      }
    }
    std::copy_n(place, std::min<long>(B, m - first), result + first);
  });
}

// out_i = log sum_j exp(scale (b_j - |x_i - y_j|^2)), where b may be missing. The largest term
// moves once per block of columns.
template <class T, int D, int Scale, bool Biased>
void logsumexp(const T* const* in, T* const* out, long m, long n) {
  constexpr int B = kRows<T>;
  constexpr long kBlock = 64;
  const T *y = in[1], *b = Biased ? in[2] : nullptr;
  T* result = out[0];
  row_blocks<T, D>(in[0], m, [=](const T(&x)[D][B], long first) {
    alignas(64) T terms[kBlock][B], top[B];
    alignas(64) double total[B] = {};
    std::fill_n(top, B, std::numeric_limits<T>::lowest());
    for (long start = 0; start < n; start += kBlock) {
      const long count = std::min(n - start, kBlock);
      alignas(64) T sums[B] = {}, higher[B];
      std::copy_n(top, B, higher);
      for (long j = 0; j < count; ++j) {
        const T bias = Biased ? b[start + j] : T(0);
#pragma omp simd
        for (int l = 0; l < B; ++l) {
          terms[j][l] = T(Scale) * (bias - squared<T, D>(x, l, y + (start + j) * D));
          higher[l] = std::max(higher[l], terms[j][l]);
        }
      }
      for (long j = 0; j < count; ++j) {
#pragma omp simd
        for (int l = 0; l < B; ++l) sums[l] += exponential(terms[j][l] - higher[l]);
      }
      for (int l = 0; l < B; ++l) {
        total[l] = total[l] * std::exp(double(top[l]) - double(higher[l])) + double(sums[l]);
        top[l] = higher[l];
      }
    }
    for (int l = 0; l < std::min<long>(B, m - first); ++l)
      result[first + l] = T(top[l] + std::log(total[l]));
  });
}

// One row: lanes are columns, threads share them.
template <class T, class K>
void radial_row(const T* const* in, T* const* out, long, long n) {
  const T *x = in[0], *y = in[1], *b = in[2];
  const T x0 = x[0], x1 = x[1], x2 = x[2];
  constexpr long kPart = 1 << 14;
  double total = 0;
#pragma omp parallel for reduction(+ : total)
  for (long start = 0; start < n; start += kPart) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long j = start; j < std::min(n, start + kPart); ++j) {
      const T d0 = x0 - y[3 * j], d1 = x1 - y[3 * j + 1], d2 = x2 - y[3 * j + 2];
      sum += K::of(d0 * d0 + d1 * d1 + d2 * d2) * b[j];
    }
    total += sum;
  }
  out[0][0] = T(total);
}

// Many dimensions: the squared distances of a tile of rows (lanes of some vectors) and columns stay
// in registers while the components pass.
#ifdef __AVX512F__
constexpr int kVectorBytes = 64, kTileVectors = 4, kTileColumns = 6;
#else
constexpr int kVectorBytes = 32, kTileVectors = 2, kTileColumns = 4;
#endif

template <class T>
struct Tile {
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr int kWidth = kVectorBytes / sizeof(T), kRows = kWidth * kTileVectors;
  Vector sums[kTileColumns][kTileVectors];

  template <int D>
  void distances(const Vector (*x)[kTileVectors], const T* y, long j, long n) {
    const T* columns[kTileColumns];
    for (int c = 0; c < kTileColumns; ++c) columns[c] = y + std::min(j + c, n - 1) * D;
    Vector total[kTileColumns][kTileVectors] = {};
    for (int k = 0; k < D; ++k)
#pragma GCC unroll 8
      for (int c = 0; c < kTileColumns; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) {
          const Vector d = x[k][v] - columns[c][k];
          total[c][v] += d * d;
        }
    std::memcpy(sums, total, sizeof sums);
  }
};

// Tiles of rows, component by component; `fold(tile rows, first)` handles the rows from `first` on.
template <class T, int D, class Fold>
void row_tiles(const T* rows, long m, Fold fold) {
  using Vector = typename Tile<T>::Vector;
#pragma omp parallel
  {
    T* memory = new T[(D * kTileVectors + 1) * Tile<T>::kWidth];
    const auto address = reinterpret_cast<std::uintptr_t>(memory) + kVectorBytes - 1;
    auto* x = reinterpret_cast<Vector(*)[kTileVectors]>(address & -std::uintptr_t(kVectorBytes));
#pragma omp for schedule(dynamic)
    for (long first = 0; first < m; first += Tile<T>::kRows) {
      T* lanes = reinterpret_cast<T*>(x);
      for (int l = 0; l < Tile<T>::kRows; ++l)
        for (int k = 0; k < D; ++k)
          lanes[k * Tile<T>::kRows + l] = rows[std::min(first + l, m - 1) * D + k];
      fold(x, first);
    }
    delete[] memory;
  }
}

// out_i = sum_j K(|x_i - y_j|^2) b_j
template <class T, int D, class K>
void radial_tiled(const T* const* in, T* const* out, long m, long n) {
  constexpr int B = Tile<T>::kRows;
  const T *y = in[1], *b = in[2];
  T* result = out[0];
  row_tiles<T, D>(in[0], m, [=](const typename Tile<T>::Vector(*x)[kTileVectors], long first) {
    alignas(64) double total[B] = {};
    for (long start = 0; start < n; start += kColumns) {
      alignas(64) T sums[B] = {};
      const long stop = std::min(n, start + kColumns);
      for (long j = start; j < stop; j += kTileColumns) {
        Tile<T> tile;
        tile.template distances<D>(x, y, j, n);
        for (int c = 0; c < std::min<long>(kTileColumns, stop - j); ++c) {
          const T* d2 = reinterpret_cast<const T*>(tile.sums[c]);
#pragma omp simd
          for (int l = 0; l < B; ++l) sums[l] += K::of(d2[l]) * b[j + c];
        }
      }
      for (int l = 0; l < B; ++l) total[l] += sums[l];
    }
    for (int l = 0; l < std::min<long>(B, m - first); ++l) result[first + l] = T(total[l]);
  });
}

// out_i = argmin_j |x_i - y_j|^2, the first of several, as 64-bit integers.
template <class T, int D>
void argmin_tiled(const T* const* in, T* const* out, long m, long n) {
  using Index = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr int B = Tile<T>::kRows;
  const T* y = in[1];
  std::int64_t* result = reinterpret_cast<std::int64_t*>(out[0]);
  row_tiles<T, D>(in[0], m, [=](const typename Tile<T>::Vector(*x)[kTileVectors], long first) {
    alignas(64) T least[B];
    alignas(64) Index place[B] = {};
    std::fill_n(least, B, std::numeric_limits<T>::max());
    for (long j = 0; j < n; j += kTileColumns) {
      Tile<T> tile;
      tile.template distances<D>(x, y, j, n);
      for (int c = 0; c < std::min<long>(kTileColumns, n - j); ++c) {
        const T* d2 = reinterpret_cast<const T*>(tile.sums[c]);
#pragma omp simd
        for (int l = 0; l < B; ++l) {
          const bool closer = d2[l] < least[l];
          least[l] = closer ? d2[l] : least[l];
          place[l] = closer ? static_cast<Index>(j + c) : place[l];
        }
      }
    }
    std::copy_n(place, std::min<long>(B, m - first), result + first);
  });
}

}  // namespace

#define ENTRY(NAME, TYPE, ...)                                                       \
  extern "C" void NAME(const TYPE* const* in, TYPE* const* out, long m, long n) {    \
    __VA_ARGS__(in, out, m, n);                                                      \
  }
#define ENTRIES(TYPE)                                                                \
  ENTRY(gaussian_3_##TYPE, TYPE, radial<TYPE, 3, Gaussian>)                          \
  ENTRY(gaussian_10_##TYPE, TYPE, radial<TYPE, 10, Gaussian>)                        \
  ENTRY(gaussian_64_##TYPE, TYPE, radial_tiled<TYPE, 64, Gaussian>)                  \
  ENTRY(gaussian_100_##TYPE, TYPE, radial_tiled<TYPE, 100, Gaussian>)                \
  ENTRY(gaussian_784_##TYPE, TYPE, radial_tiled<TYPE, 784, Gaussian>)                \
  ENTRY(gaussian_row_3_##TYPE, TYPE, radial_row<TYPE, Gaussian>)                     \
  ENTRY(laplacian_3_##TYPE, TYPE, radial<TYPE, 3, Laplacian>)                        \
  ENTRY(cauchy_3_##TYPE, TYPE, radial<TYPE, 3, Cauchy>)                              \
  ENTRY(coulomb_3_##TYPE, TYPE, radial<TYPE, 3, Coulomb>)                            \
  ENTRY(matern_3_##TYPE, TYPE, radial<TYPE, 3, Matern>)                              \
  ENTRY(squared_argmin_3_##TYPE, TYPE, squared_argmin<TYPE, 3>)                      \
  ENTRY(squared_argmin_2_##TYPE, TYPE, squared_argmin<TYPE, 2>)                      \
  ENTRY(squared_argmin_16_##TYPE, TYPE, argmin_tiled<TYPE, 16>)                      \
  ENTRY(squared_argmin_64_##TYPE, TYPE, argmin_tiled<TYPE, 64>)                      \
  ENTRY(squared_argmin_100_##TYPE, TYPE, argmin_tiled<TYPE, 100>)                    \
  ENTRY(squared_argmin_128_##TYPE, TYPE, argmin_tiled<TYPE, 128>)                    \
  ENTRY(squared_logsumexp_3_##TYPE, TYPE, logsumexp<TYPE, 3, 1, false>)              \
  ENTRY(sinkhorn_3_##TYPE, TYPE, logsumexp<TYPE, 3, 100, true>)                      \
  ENTRY(seed_3_##TYPE, TYPE, seed<TYPE>)                                             \
  ENTRY(seed_gradient_3_##TYPE, TYPE, seed_gradient<TYPE>)                           \
  ENTRY(gaussian_gradient_3_##TYPE, TYPE, gaussian_gradient<TYPE>)

ENTRIES(float)
ENTRIES(double)
