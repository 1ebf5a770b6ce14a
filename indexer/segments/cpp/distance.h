// How two float32 vectors are compared. One function serves graphs, scans and builds, so that equal vectors get equal
// ranks wherever they lie.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace freshet {

enum Metric : uint32_t { kCosine = 0, kDotproduct = 1, kEuclidean = 2 };

// Eight floats: one AVX register, two of NEON or SSE.
typedef float Lanes __attribute__((vector_size(32)));

inline Lanes load(const float* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof(lanes));
    return lanes;
}

inline float sum(Lanes lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Four sums side by side hide the latency of the additions; one alone is what makes the library's own loop slower.
inline float dot(const float* a, const float* b, size_t dimension) {
    Lanes sums[4] = {};
    size_t at = 0;
    for (; at + 32 <= dimension; at += 32)
        for (size_t lane = 0; lane < 4; ++lane) sums[lane] += load(a + at + 8 * lane) * load(b + at + 8 * lane);
    for (; at + 8 <= dimension; at += 8) sums[0] += load(a + at) * load(b + at);
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; at < dimension; ++at) total += a[at] * b[at];
    return total;
}

inline float squared_distance(const float* a, const float* b, size_t dimension) {
    Lanes sums[4] = {};
    size_t at = 0;
    for (; at + 32 <= dimension; at += 32)
        for (size_t lane = 0; lane < 4; ++lane) {
            const Lanes difference = load(a + at + 8 * lane) - load(b + at + 8 * lane);
            sums[lane] += difference * difference;
        }
    for (; at + 8 <= dimension; at += 8) {
        const Lanes difference = load(a + at) - load(b + at);
        sums[0] += difference * difference;
    }
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; at < dimension; ++at) total += (a[at] - b[at]) * (a[at] - b[at]);
    return total;
}

template <typename Number>
Number number_or(Number number, Number other) {
    return number == number ? number : other;
}

// A query over rows: `key` orders them (lower is nearer), `rank` is what the answer shows (higher is nearer). Neither is
// ever NaN, whatever the vectors hold: heaps and sorts need an order. A product or a distance that is no number is the
// worst there is; a cosine is 0 where a squared norm is 0 or more than a float32 holds.
struct Ruler {
    const float* query;
    const float* vectors;
    const float* norms;  // squared
    size_t dimension;
    uint32_t metric;
    double query_norm;  // squared

    Ruler(const float* query, const float* vectors, const float* norms, size_t dimension, uint32_t metric)
        : query(query), vectors(vectors), norms(norms), dimension(dimension), metric(metric), query_norm(0) {
        for (size_t at = 0; at < dimension; ++at) query_norm += double(query[at]) * double(query[at]);
    }

    const float* vector(size_t row) const { return vectors + row * dimension; }

    float key(size_t row) const {
        if (metric == kEuclidean) return number_or<float>(squared_distance(query, vector(row), dimension), INFINITY);
        const float product = dot(query, vector(row), dimension);
        if (metric == kDotproduct) return number_or<float>(-product, INFINITY);
        const float norm = norms[row];
        return has_length(norm) ? number_or<float>(-product / std::sqrt(norm), 0) : 0;
    }

    double rank(size_t row) const {
        if (metric == kEuclidean)
            return number_or<double>(-squared_distance(query, vector(row), dimension), -INFINITY);
        const double product = dot(query, vector(row), dimension);
        if (metric == kDotproduct) return number_or<double>(product, -INFINITY);
        if (!has_length(norms[row]) || !(query_norm > 0)) return 0;
        const double cosine = number_or<double>(product / std::sqrt(double(norms[row]) * query_norm), 0);
        return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
    }

    static bool has_length(float norm) { return norm > 0 && norm <= FLT_MAX; }

    void prefetch(size_t row) const {
        const char* begin = reinterpret_cast<const char*>(vector(row));
        const size_t bytes = dimension * sizeof(float);
        for (size_t at = 0; at < bytes && at < 1024; at += 64) __builtin_prefetch(begin + at);
    }
};

// Vectors as one signed byte per number, a quarter of the memory to fetch, with a bound of what that costs: a scan over
// them leaves few rows to look at exactly, and is exact all the same.
struct Codes {
    const int8_t* bytes;   // [elements, dimension]; the vector is about bytes * scale
    const float* scales;   // [elements]
    const float* errors;   // [elements] length of the difference
    uint32_t leads;        // whether they tell neighbours apart, so that a walk can go by them
};

// Exact: a sum of products of 8 and 16 bits that fits 32.
inline int32_t dot(const int8_t* bytes, const int16_t* numbers, size_t dimension) {
    int32_t total = 0;
    for (size_t at = 0; at < dimension; ++at) total += int32_t(bytes[at]) * int32_t(numbers[at]);
    return total;
}

struct CodedRuler {
    const Ruler& exact;
    const Codes& codes;
    std::vector<int16_t> query;
    double query_scale = 1, query_length, query_error = 0;
    double rounding, norm_most;

    CodedRuler(const Ruler& exact, const Codes& codes)
        : exact(exact), codes(codes), query(exact.dimension), query_length(std::sqrt(exact.query_norm)) {
        double largest = 0;
        for (size_t at = 0; at < exact.dimension; ++at) largest = std::max(largest, std::fabs(double(exact.query[at])));
        // The sum of all products has to fit 32 bits.
        const double most = std::min(32767.0, std::floor(2147483647.0 / (128.0 * double(exact.dimension))));
        if (largest > 0) query_scale = largest / most;
        for (size_t at = 0; at < exact.dimension; ++at) {
            query[at] = int16_t(std::lrint(exact.query[at] / query_scale));
            const double difference = exact.query[at] - query[at] * query_scale;
            query_error += difference * difference;
        }
        query_error = std::sqrt(query_error);
        // What the additions of a float32 sum can lose, at worst all in one direction.
        rounding = std::max(1e-5, (double(exact.dimension) / 3 + 32) * FLT_EPSILON / 2);
        // Longer rows overflow a float32 on the way to the exact rank, shorter ones have lost digits.
        const double length = exact.metric == kEuclidean ? std::sqrt(kMost) - query_length : kMost / query_length;
        const bool is_usual = query_length == 0 || exact.query_norm > kLeastNorm;
        norm_most = is_usual && length > 0 ? std::min(kMost, length * length) : 0;
    }

    // About what the exact ruler's key is.
    float key(size_t row) const {
        const float norm = exact.norms[row];
        if (exact.metric == kCosine && !Ruler::has_length(norm)) return 0;
        const float estimate = float(product(row));
        if (exact.metric == kDotproduct) return number_or<float>(-estimate, INFINITY);
        if (exact.metric == kEuclidean) return number_or<float>(norm - 2 * estimate + float(exact.query_norm), INFINITY);
        return number_or<float>(-estimate / std::sqrt(norm), 0);
    }

    // Return the rank of a row, wrong by at most `bound`, which is infinite where nothing is known.
    double rank(size_t row, double* bound) const {
        const double norm = exact.norms[row], error = codes.errors[row];
        if (exact.metric == kCosine && (!Ruler::has_length(exact.norms[row]) || !(query_length > 0))) {
            *bound = 0;
            return 0;
        }
        const double estimate = product(row);
        if (!(norm >= kLeastNorm && norm <= norm_most && error >= 0 && error <= FLT_MAX &&
              std::fabs(estimate) <= DBL_MAX)) {
            *bound = INFINITY;
            return 0;
        }
        const double length = std::sqrt(norm);
        // Both differences of the product, and the rounding of the exact one.
        *bound = query_length * error + query_error * (length + error) + rounding * query_length * length + kLeast;
        if (exact.metric == kDotproduct) return estimate;
        if (exact.metric == kEuclidean) {
            *bound = 2 * *bound + rounding * (norm + exact.query_norm);
            return 2 * estimate - norm - exact.query_norm;
        }
        *bound /= length * query_length;
        return estimate / (length * query_length);
    }

    void prefetch(size_t row) const {
        const char* begin = reinterpret_cast<const char*>(codes.bytes + row * exact.dimension);
        for (size_t at = 0; at < exact.dimension && at < 1024; at += 64) __builtin_prefetch(begin + at);
        __builtin_prefetch(codes.scales + row);
        __builtin_prefetch(exact.norms + row);
    }

 private:
    // What products too small for a float32 add up to, at most.
    static constexpr double kLeast = 1e-40;
    static constexpr double kLeastNorm = 1e-30, kMost = 1e38;

    double product(size_t row) const {
        return dot(codes.bytes + row * exact.dimension, query.data(), exact.dimension) * query_scale *
               codes.scales[row];
    }
};

// The same for a walk over all elements; those that died before the graph was written have no codes.
struct CodedGuide {
    const CodedRuler& coded;
    uint32_t rows;

    float key(size_t element) const { return element < rows ? coded.key(element) : coded.exact.key(element); }

    void prefetch(size_t element) const {
        if (element < rows)
            coded.prefetch(element);
        else
            coded.exact.prefetch(element);
    }
};

}  // namespace freshet
