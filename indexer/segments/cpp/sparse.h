// Sparse products of all rows of a slice with a query, by postings, or by the rows' own values where there are none.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace freshet {

// Sparse values of the rows of a segment, twice: by row, and by index. Checked when the segment was opened: every number
// lies inside, and every value is finite.
struct SparseColumns {
    const uint64_t* ends;      // [rows + 1] where the values of each row begin
    const uint32_t* indices;   // [entries]
    const float* values;       // [entries]
    const uint32_t* terms;     // [term_count] distinct indices, ascending; null where there are no postings
    const uint64_t* starts;    // [term_count + 1] where the posting of each begins
    const uint32_t* rows;      // [entries] ascending within a posting
    const float* weights;      // [entries]
    uint64_t term_count;
};

// Indices are distinct and ascend.
struct SparseQuery {
    const uint32_t* indices;
    const float* values;
    uint32_t count;
};

// A product of two float32 is exact in float64, and each row adds them up in the order of their indices: a score is the
// same to the bit wherever the row lies.
class SparseScorer {
 public:
    // Rows that are scored at a time: their sums stay in the nearest cache.
    static constexpr uint32_t kBlock = 4096;

    // Row numbers of the slice count from `first` of the segment.
    SparseScorer(const SparseQuery& query, const SparseColumns& columns, uint64_t first, uint32_t rows)
        : query_(query), columns_(columns), first_(first), rows_(rows), scores_(kBlock), shares_(kBlock) {
        if (columns.terms)
            find_runs();
        else
            note_indices();
    }

    // Calls see(begin, end, scores, shares) for all rows, a block at a time: the sum of row begin + i is scores[i], and
    // shares[i] says whether it has an index in common with the query at all.
    template <typename See>
    void each_block(See see) {
        for (uint32_t begin = 0; begin < rows_; begin += kBlock) {
            const uint32_t end = std::min(rows_, begin + kBlock);
            std::fill(scores_.begin(), scores_.end(), 0.0);
            std::fill(shares_.begin(), shares_.end(), uint8_t(0));
            if (columns_.terms)
                add_runs(begin, end);
            else
                add_rows(begin, end);
            see(begin, end, scores_.data(), shares_.data());
        }
    }

 private:
    // What is left of a posting.
    struct Run {
        const uint32_t* row;
        const uint32_t* end;
        const float* weight;
        double value;
    };

    void find_runs() {
        const uint32_t* const last = columns_.terms + columns_.term_count;
        for (uint32_t at = 0; at < query_.count; ++at) {
            const uint32_t* const term = std::lower_bound(columns_.terms, last, query_.indices[at]);
            if (term == last || *term != query_.indices[at]) continue;
            const uint64_t start = columns_.starts[term - columns_.terms];
            const uint32_t* const stop = columns_.rows + columns_.starts[term - columns_.terms + 1];
            const uint32_t* const row = std::lower_bound(columns_.rows + start, stop, first_);
            const uint32_t* const end = std::lower_bound(row, stop, first_ + rows_);
            if (row < end) runs_.push_back(Run{row, end, columns_.weights + (row - columns_.rows), query_.values[at]});
        }
    }

    void add_runs(uint32_t begin, uint32_t end) {
        const uint64_t origin = first_ + begin, limit = first_ + end;
        double* const scores = scores_.data();
        uint8_t* const shares = shares_.data();
        for (Run& run : runs_) {
            // Copies, which no write can change.
            const uint32_t* row = run.row;
            const float* weight = run.weight;
            const uint32_t* const last = run.end;
            const double value = run.value;
            for (; row < last && *row < limit; ++row, ++weight) {
                const uint64_t at = *row - origin;
                scores[at] += value * double(*weight);
                shares[at] = 1;
            }
            run.row = row;
            run.weight = weight;
        }
    }

    // Most indices of a row are not the query's: a bit tells so before they are looked for.
    void note_indices() {
        noted_.resize(kBits / 64);
        for (uint32_t at = 0; at < query_.count; ++at) {
            const uint32_t bit = bit_of(query_.indices[at]);
            noted_[bit / 64] |= uint64_t(1) << (bit % 64);
        }
    }

    void add_rows(uint32_t begin, uint32_t end) {
        const uint32_t* const last = query_.indices + query_.count;
        for (uint32_t row = begin; row < end; ++row) {
            for (uint64_t at = columns_.ends[first_ + row]; at < columns_.ends[first_ + row + 1]; ++at) {
                const uint32_t index = columns_.indices[at], bit = bit_of(index);
                if (!(noted_[bit / 64] >> (bit % 64) & 1)) continue;
                const uint32_t* const found = std::lower_bound(query_.indices, last, index);
                if (found == last || *found != index) continue;
                scores_[row - begin] += double(query_.values[found - query_.indices]) * double(columns_.values[at]);
                shares_[row - begin] = 1;
            }
        }
    }

    static constexpr uint32_t kBits = 1 << 16;
    static uint32_t bit_of(uint32_t index) { return index * 0x9E3779B1u >> 16; }

    const SparseQuery query_;
    const SparseColumns columns_;
    const uint64_t first_;
    const uint32_t rows_;
    std::vector<double> scores_;
    std::vector<uint8_t> shares_;
    std::vector<Run> runs_;
    std::vector<uint64_t> noted_;
};

}  // namespace freshet
