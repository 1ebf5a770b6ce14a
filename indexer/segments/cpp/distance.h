// How two float32 vectors are compared. One function serves graphs, scans and builds, so that equal vectors get equal
// ranks wherever they lie.
#pragma once

#include <algorithm>
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

// A query over rows: `key` orders them (lower is nearer), `rank` is what the answer shows (higher is nearer).
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
        if (metric == kEuclidean) return squared_distance(query, vector(row), dimension);
        const float product = dot(query, vector(row), dimension);
        if (metric == kDotproduct) return finite(-product);
        const float norm = norms[row];
        return norm > 0 ? -product / std::sqrt(norm) : 0;
    }

    double rank(size_t row) const {
        if (metric == kEuclidean) return -double(squared_distance(query, vector(row), dimension));
        const double product = dot(query, vector(row), dimension);
        if (metric == kDotproduct) return product == product ? product : -INFINITY;
        const double length = std::sqrt(double(norms[row]) * query_norm);
        if (!(length > 0)) return 0;
        const double cosine = product / length;
        return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
    }

    void prefetch(size_t row) const {
        const char* begin = reinterpret_cast<const char*>(vector(row));
        const size_t bytes = dimension * sizeof(float);
        for (size_t at = 0; at < bytes && at < 1024; at += 64) __builtin_prefetch(begin + at);
    }

 private:
    // An order needs numbers: inf - inf is none.
    static float finite(float key) { return key == key ? key : INFINITY; }
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
    }

    double product_with(size_t row) const {
        return dot(codes.bytes + row * exact.dimension, query.data(), exact.dimension) * query_scale *
               codes.scales[row];
    }

    // About what the exact ruler's key is.
    float key(size_t row) const {
        const float product = float(product_with(row));
        if (exact.metric == kDotproduct) return -product;
        const float norm = exact.norms[row];
        if (exact.metric == kEuclidean) return norm - 2 * product + float(exact.query_norm);
        return norm > 0 ? -product / std::sqrt(norm) : 0;
    }

    // Return the rank of a row, wrong by at most `bound`.
    double rank(size_t row, double* bound) const {
        const double product = product_with(row);
        const double norm = exact.norms[row], length = std::sqrt(norm), error = codes.errors[row];
        // Both differences of the product, and the rounding of the exact one.
        *bound = query_length * error + query_error * (length + error) + 1e-5 * query_length * length;
        if (exact.metric == kDotproduct) return product;
        if (exact.metric == kEuclidean) {
            *bound = 2 * *bound + 1e-5 * (norm + exact.query_norm);
            return 2 * product - norm - exact.query_norm;
        }
        const double lengths = length * query_length;
        if (!(lengths > 0)) {
            *bound = 0;
            return 0;
        }
        *bound /= lengths;
        return product / lengths;
    }

    void prefetch(size_t row) const {
        const char* begin = reinterpret_cast<const char*>(codes.bytes + row * exact.dimension);
        for (size_t at = 0; at < exact.dimension && at < 1024; at += 64) __builtin_prefetch(begin + at);
        __builtin_prefetch(codes.scales + row);
        __builtin_prefetch(exact.norms + row);
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
